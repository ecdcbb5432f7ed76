// One rank's end of a communicator of processes.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_MPI_MPI_BACKEND_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_MPI_MPI_BACKEND_H_

#include <mpi.h>

#include <atomic>
#include <cstddef>
#include <memory>
#include <optional>
#include <string_view>
#include <vector>

#include "collectives/backend.h"
#include "collectives/backend/mpi/mpi_session.h"
#include "collectives/backend/node/board.h"
#include "reference/status.h"

namespace shardproof {

class MpiBackend final : public Backend {
 public:
  // Collective over `comm`, of which the result becomes the owner.
  static StatusOr<std::shared_ptr<MpiBackend>> Create(
      std::shared_ptr<MpiSession> session, MPI_Comm comm);
  ~MpiBackend() override;

  std::string_view name() const override { return "mpi"; }
  int rank() const override { return rank_; }
  int size() const override { return size_; }
  const Topology& topology() const override { return topology_; }
  StatusOr<std::shared_ptr<Backend>> Split(int color, int key) override;
  StatusOr<Buffer> Allocate(size_t bytes) override;
  bool SharesAddressSpace() const override { return false; }
  NodeBoard* board() override { return board_ ? &*board_ : nullptr; }

  StatusOr<Transfer> StartSend(const void* data, size_t bytes, int destination,
                               int tag) override;
  StatusOr<Transfer> StartReceive(void* data, size_t bytes, int source,
                                  int tag) override;
  StatusOr<bool> Test(Transfer& transfer) override;
  Status Wait(Transfer& transfer) override;

  Status Native(const NativeRequest& request) override;
  void Abort(std::string_view reason) override { session_->Abort(reason); }
  Status health() const override { return session_->Health(); }
  const OpRecord* Progress(int r) const override;
  OpRecord* MyProgress() override { return &records_[local_of_[rank_]]; }

 private:
  // What the ranks of this communicator on one node share: this, an OpRecord
  // for each of them, and the memory of the board where there is one.
  struct alignas(128) Control {
    std::atomic<uint32_t> users;  // Ranks that may still look.
  };

  MpiBackend(std::shared_ptr<MpiSession> session, MPI_Comm comm);
  Status FindPlaces();
  Status ShareControl();
  Status CheckMessage(int peer, int tag) const;

  std::shared_ptr<MpiSession> session_;
  MPI_Comm comm_;
  int rank_ = 0;
  int size_ = 1;
  int largest_tag_ = 0;
  Topology topology_;
  std::vector<int> local_;     // The ranks on this node, in order.
  std::vector<int> local_of_;  // Place in `local_`, or -1.
  std::vector<int> world_of_;  // World rank.

  Buffer control_block_;  // At the first rank of the node.
  Control* control_ = nullptr;
  OpRecord* records_ = nullptr;
  std::optional<NodeBoard> board_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_MPI_MPI_BACKEND_H_
