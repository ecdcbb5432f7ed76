// A thread that exchanges messages while its rank computes.
//
// A non-blocking message need not make progress unless somebody waits for it: on
// this machine's ranks as threads, and in MPI above the eager limit, the copy is
// done inside of Wait. So a rank that wants to compute meanwhile needs somebody
// else to wait, and a core for them.
//
//     SP_ASSIGN_OR_RETURN(const int64_t number,
//         thread->Start({.out = x, .out_bytes = n, .to = 1, ...}));
//     ... compute ...
//     SP_RETURN_IF_ERROR(thread->Wait(number));
//
// (A Stream does the same and allocates for what it queues.)
#ifndef SHARDPROOF_LAYERS_OVERLAP_MESSAGE_THREAD_H_
#define SHARDPROOF_LAYERS_OVERLAP_MESSAGE_THREAD_H_

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <thread>
#include <utility>
#include <vector>

#include "collectives/communicator.h"
#include "reference/status.h"

namespace shardproof {

// One SendRecv.
struct PairedMessage {
  const void* out = nullptr;
  size_t out_bytes = 0;
  int to = 0;
  void* in = nullptr;
  size_t in_bytes = 0;
  int from = 0;
  int tag = 0;
};

class MessageThread {
 public:
  // Collective: the thread has a duplicate of `comm`. At most `capacity`
  // messages are started and not yet waited for.
  static StatusOr<std::unique_ptr<MessageThread>> Create(
      const Communicator& comm, size_t capacity);
  // For Create, which also starts the thread.
  MessageThread(Communicator comm, size_t capacity)
      : comm_(std::move(comm)), queue_(capacity) {}
  ~MessageThread();
  MessageThread(const MessageThread&) = delete;
  MessageThread& operator=(const MessageThread&) = delete;

  // Returns at once. Messages are exchanged one after another, and numbered
  // from 0 over the life of this. kInvalidArgument where `capacity` messages are
  // waited for by nobody yet, and then this one is not started.
  StatusOr<int64_t> Start(const PairedMessage& message);
  // Returns once message `number` and those before it are exchanged; the first
  // error of all so far, after which nothing is exchanged any more.
  Status Wait(int64_t number);

 private:
  void Serve();

  Communicator comm_;
  std::mutex mutex_;
  std::condition_variable started_, exchanged_;
  // Guarded by mutex_.
  std::vector<PairedMessage> queue_;  // Message n is at n mod its size.
  int64_t next_ = 0;                  // To be started.
  int64_t awaited_ = 0;               // Those before it were waited for.
  int64_t done_ = 0;                  // Exchanged, or given up.
  bool closed_ = false;
  Status error_;
  std::thread thread_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_OVERLAP_MESSAGE_THREAD_H_
