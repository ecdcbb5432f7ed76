// What the communicators of one process share: MPI itself, the node's memory,
// and the abort flag. Lives as long as any of them.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_MPI_MPI_SESSION_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_MPI_MPI_SESSION_H_

#include <mpi.h>

#include <array>
#include <atomic>
#include <cstddef>
#include <list>
#include <memory>
#include <mutex>
#include <string_view>
#include <vector>

#include "collectives/backend/mpi/mpi_world.h"
#include "collectives/backend/node/abort_flag.h"
#include "collectives/backend/node/board.h"
#include "collectives/backend/node/shared_heap.h"
#include "collectives/backend/node/wait.h"
#include "reference/status.h"

namespace shardproof {

class MpiSession {
 public:
  static StatusOr<std::shared_ptr<MpiSession>> Create(
      const MpiWorldOptions& options);
  ~MpiSession();
  MpiSession(const MpiSession&) = delete;
  MpiSession& operator=(const MpiSession&) = delete;

  int rank() const { return rank_; }
  int size() const { return size_; }
  int nodes() const { return nodes_; }
  // By world rank; nodes are numbered by first appearance.
  int node_of(int rank) const { return node_of_[rank]; }
  bool OnMyNode(int rank) const { return node_of_[rank] == node_of_[rank_]; }
  // Where the heap of world rank `rank`, on this node, lies in this process.
  const AddressWindow& window(int rank) const { return windows_[rank]; }

  SharedHeap& heap() { return *heap_; }
  // How ranks of this node wait: with the node's abort flag, and spinning if
  // the cores that the launcher gave them suffice.
  const Waiting& waiting() const { return waiting_; }

  // Raises the abort flag of every node. From any thread.
  void Abort(std::string_view reason);
  // Ok until Abort was called on any rank; then kAborted. Looks for news from
  // other nodes. From any thread.
  Status Health();

  // Keeps `block`, which other ranks of the node may still read, until the
  // counter in it has fallen to 0 or the session ends.
  void Bury(Buffer block, const std::atomic<uint32_t>* users);

 private:
  MpiSession() = default;
  Status FindNodes(const MpiWorldOptions& options);
  Status OpenHeaps();
  Status OpenHeapsBackedBy(SharedHeapOptions::Backing backing);
  Status MakeAbortFlag();

  struct Grave {
    Buffer block;
    const std::atomic<uint32_t>* users;
  };

  int rank_ = 0;
  int size_ = 1;
  int nodes_ = 1;
  std::vector<int> node_of_;
  std::vector<int> node_ranks_;  // World ranks of this node, in order.
  MPI_Comm node_ = MPI_COMM_NULL;
  MPI_Comm abort_comm_ = MPI_COMM_NULL;

  size_t budget_ = 0;  // Of this rank's heap, in bytes.
  std::shared_ptr<SharedHeap> heap_;
  std::list<PeerHeap> peers_;
  std::vector<AddressWindow> windows_;
  Buffer abort_block_;  // At the node's first rank.
  AbortFlag* abort_ = nullptr;
  Waiting waiting_;

  std::mutex mutex_;
  std::vector<Grave> graves_;           // Guarded by mutex_.
  bool told_others_ = false;            // Guarded by mutex_.
  std::array<char, 512> last_words_{};  // On its way to other nodes.
};

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_MPI_MPI_SESSION_H_
