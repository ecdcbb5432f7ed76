#include "collectives/backend/thread/thread_backend.h"

#include <limits>
#include <mutex>
#include <utility>
#include <vector>

#include "collectives/host_memory.h"

namespace shardproof {

ThreadBackend::ThreadBackend(std::shared_ptr<ThreadGroup> group, int rank)
    : group_(std::move(group)),
      rank_(rank),
      waiting_(group_->shared().waiting) {
  if (group_->control() != nullptr) {
    // Threads address all of each other's memory at the addresses it has.
    std::vector<AddressWindow> windows(
        size(), {.base = 0, .bytes = std::numeric_limits<size_t>::max()});
    board_.emplace(group_->control(), rank_, size(), std::move(windows),
                   waiting_);
  }
}

StatusOr<std::shared_ptr<Backend>> ThreadBackend::Split(int color, int key) {
  SP_ASSIGN_OR_RETURN(ThreadGroup::Part part, group_->Split(rank_, color, key));
  if (part.group == nullptr) return std::shared_ptr<Backend>();
  return std::shared_ptr<Backend>(
      std::make_shared<ThreadBackend>(std::move(part.group), part.rank));
}

StatusOr<Buffer> ThreadBackend::Allocate(size_t bytes) {
  SP_ASSIGN_OR_RETURN(Buffer plain, AllocateHostMemory(bytes, Pages::kHuge));
  std::byte* const data = plain.data();
  auto held = std::make_shared<Buffer>(std::move(plain));
  std::shared_ptr<void> owner(
      data, [held, shared = group_->shared_owner()](void*) {
        if (!shared->abort.raised()) return;
        const std::lock_guard<std::mutex> lock(shared->mutex);
        shared->kept.push_back(std::move(*held));
      });
  return Buffer(std::move(owner), data, bytes);
}

StatusOr<Transfer> ThreadBackend::StartSend(const void* data, size_t bytes,
                                            int destination, int tag) {
  SP_ASSIGN_OR_RETURN(Message * message,
                      group_->channel(rank_, destination)
                          .StartSend(data, bytes, tag, waiting_));
  return Transfer{.state = message,
                  .receive = false,
                  .peer = destination,
                  .data = nullptr,
                  .bytes = bytes};
}

StatusOr<Transfer> ThreadBackend::StartReceive(void* data, size_t bytes,
                                               int source, int tag) {
  SP_ASSIGN_OR_RETURN(
      Message * message,
      group_->channel(source, rank_).StartReceive(data, bytes, tag, waiting_));
  return Transfer{.state = message,
                  .receive = true,
                  .peer = source,
                  .data = static_cast<std::byte*>(data),
                  .bytes = bytes};
}

Channel& ThreadBackend::ChannelOf(const Transfer& transfer) const {
  return transfer.receive ? group_->channel(transfer.peer, rank_)
                          : group_->channel(rank_, transfer.peer);
}

StatusOr<bool> ThreadBackend::Test(Transfer& transfer) {
  if (transfer.state == nullptr) return true;
  StatusOr<bool> done =
      ChannelOf(transfer).Test(static_cast<Message*>(transfer.state), waiting_);
  if (!done.ok() || *done) transfer.state = nullptr;
  return done;
}

Status ThreadBackend::Wait(Transfer& transfer) {
  if (transfer.state == nullptr) return OkStatus();
  auto* message = static_cast<Message*>(std::exchange(transfer.state, nullptr));
  return ChannelOf(transfer).Wait(message, waiting_);
}

Status ThreadBackend::Native(const NativeRequest& /*request*/) {
  return Unsupported(
      "threads have no library to compare with; the mpi backend has one");
}

void ThreadBackend::Abort(std::string_view reason) {
  group_->shared().abort.Raise(reason);
}

Status ThreadBackend::health() const { return group_->shared().abort.status(); }

const OpRecord* ThreadBackend::Progress(int r) const {
  const std::vector<int>& node_of = topology().node_of;
  return node_of[r] == node_of[rank_] ? &group_->record(r) : nullptr;
}

}  // namespace shardproof
