#include "layers/overlap/message_thread.h"

#include <algorithm>
#include <system_error>

#include "collectives/current_rank.h"
#include "reference/affinity.h"

namespace shardproof {

StatusOr<std::unique_ptr<MessageThread>> MessageThread::Create(
    const Communicator& comm, size_t capacity) {
  SP_ASSIGN_OR_RETURN(Communicator own, comm.Duplicate());
  auto made = std::make_unique<MessageThread>(std::move(own), capacity);
  // The only way in which std::thread reports that the system refused.
  try {
    made->thread_ = std::thread([thread = made.get(), rank = CurrentRank()] {
      SetCurrentRank(rank);
      UseEveryCore();  // Not only the one that its rank computes on.
      thread->Serve();
    });
  } catch (const std::system_error& error) {
    return Unavailable("cannot start a thread for messages: {}", error.what());
  }
  return made;
}

MessageThread::~MessageThread() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    closed_ = true;
  }
  started_.notify_all();
  if (thread_.joinable()) thread_.join();
}

StatusOr<int64_t> MessageThread::Start(const PairedMessage& message) {
  int64_t number = 0;
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (next_ - awaited_ >= std::ssize(queue_)) {
      return InvalidArgument(
          "there is room for {} messages, and none of them was waited for",
          queue_.size());
    }
    number = next_++;
    queue_[static_cast<size_t>(number) % queue_.size()] = message;
  }
  started_.notify_one();
  return number;
}

Status MessageThread::Wait(int64_t number) {
  std::unique_lock<std::mutex> lock(mutex_);
  exchanged_.wait(lock, [&] { return done_ > number; });
  awaited_ = std::max(awaited_, number + 1);
  return error_;
}

void MessageThread::Serve() {
  std::unique_lock<std::mutex> lock(mutex_);
  while (true) {
    started_.wait(lock, [&] { return closed_ || done_ < next_; });
    if (done_ == next_) return;
    const PairedMessage m = queue_[static_cast<size_t>(done_) % queue_.size()];
    if (error_.ok()) {
      lock.unlock();
      const OpScope op(comm_, {.label = "overlap/messages",
                               .count = static_cast<int64_t>(m.out_bytes)});
      Status status = op.status();
      if (status.ok()) {
        status = comm_.SendRecv(m.out, m.out_bytes, m.to, m.in, m.in_bytes,
                                m.from, m.tag);
      }
      lock.lock();
      if (!status.ok()) error_ = std::move(status);
    }
    ++done_;
    exchanged_.notify_all();
  }
}

}  // namespace shardproof
