// One rank's end of a communicator of threads.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_THREAD_THREAD_BACKEND_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_THREAD_THREAD_BACKEND_H_

#include <memory>
#include <optional>
#include <string_view>

#include "collectives/backend.h"
#include "collectives/backend/node/board.h"
#include "collectives/backend/thread/thread_group.h"

namespace shardproof {

class ThreadBackend final : public Backend {
 public:
  ThreadBackend(std::shared_ptr<ThreadGroup> group, int rank);

  std::string_view name() const override { return "thread"; }
  int rank() const override { return rank_; }
  int size() const override { return group_->size(); }
  const Topology& topology() const override { return group_->topology(); }
  StatusOr<std::shared_ptr<Backend>> Split(int color, int key) override;
  StatusOr<Buffer> Allocate(size_t bytes) override;
  bool SharesAddressSpace() const override { return true; }
  NodeBoard* board() override { return board_ ? &*board_ : nullptr; }

  StatusOr<Transfer> StartSend(const void* data, size_t bytes, int destination,
                               int tag) override;
  StatusOr<Transfer> StartReceive(void* data, size_t bytes, int source,
                                  int tag) override;
  StatusOr<bool> Test(Transfer& transfer) override;
  Status Wait(Transfer& transfer) override;

  Status Native(const NativeRequest& request) override;
  void Abort(std::string_view reason) override;
  Status health() const override;
  const OpRecord* Progress(int r) const override;
  OpRecord* MyProgress() override { return &group_->record(rank_); }

 private:
  Channel& ChannelOf(const Transfer& transfer) const;

  std::shared_ptr<ThreadGroup> group_;
  const int rank_;
  const Waiting waiting_;
  std::optional<NodeBoard> board_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_THREAD_THREAD_BACKEND_H_
