// Messages between the threads of one process: one channel per ordered pair of
// ranks.
//
// Whichever side comes first leaves a Message in the channel; the other side
// finds it by its tag, in order, and fills in its half. A small message is then
// copied on the spot, or was copied into the Message when it was sent, so that a
// sender of small messages never waits.
//
// A larger one is copied, once, by whoever waits for it: sender and receiver
// both take pieces until none is left. Either finishes alone if the other never
// comes, so no message depends on its peer making progress; and two ranks that
// exchange messages share the work evenly, however late one of them was.
//
// Rejected: the receiver copies (a sender in Wait idles, and a posted receive
// makes no progress while its rank waits elsewhere); the second comer copies
// (the later rank of an exchange does both copies).
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_THREAD_MAILBOX_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_THREAD_MAILBOX_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <memory>

#include "collectives/backend/node/wait.h"
#include "reference/status.h"

namespace shardproof {

struct Message {
  enum Phase : uint32_t {
    kPosted,    // One side is here.
    kMatched,   // Both are, and pieces are being copied.
    kDone,      // Copied.
    kMismatch,  // The lengths differ; nothing was copied.
  };

  Signal phase;
  int tag = 0;
  bool sent = false;   // The sender came first.
  bool small = false;  // Whole in `held`, and its sender is gone.
  const std::byte* source = nullptr;
  std::byte* target = nullptr;
  size_t source_bytes = 0;
  size_t target_bytes = 0;
  // Pieces are claimed in order. A side that gives up claims all that is left
  // and waits for the pieces under way, of which there are `limit` bytes.
  std::atomic<size_t> claimed{0};
  std::atomic<size_t> copied{0};
  bool cancelled = false;
  size_t limit = 0;
  int holders = 0;  // Sides that still look at this Message.
  Message* next = nullptr;
  std::unique_ptr<std::byte[]> held;
};

// The messages of a communicator from one rank to another. Each side calls from
// one thread at a time. A null Message means: complete.
class Channel {
 public:
  static constexpr size_t kSmallBytes = 4096;
  static constexpr size_t kPieceBytes = size_t{256} << 10;

  Channel(int from, int to) : from_(from), to_(to) {}
  Channel(const Channel&) = delete;
  Channel& operator=(const Channel&) = delete;

  StatusOr<Message*> StartSend(const void* data, size_t bytes, int tag,
                               const Waiting& how);
  StatusOr<Message*> StartReceive(void* data, size_t bytes, int tag,
                                  const Waiting& how);
  // Both end the caller's interest in `message` once they return true, ok or an
  // error.
  StatusOr<bool> Test(Message* message, const Waiting& how);
  Status Wait(Message* message, const Waiting& how);

 private:
  Message* Take(bool sent, int tag);
  Message* New(int tag, bool sent);
  void Append(Message* message);
  void Unlink(Message* message);
  void ReleaseLocked(Message* message);
  void Release(Message* message);
  // Copies pieces until none is left to claim.
  static void Help(Message* message, const Waiting& how);
  // Makes sure that nobody touches this side's buffer any more.
  Status GiveUp(Message* message, const Waiting& how);
  Status Finish(Message* message);
  Status LengthsDiffer(int tag, size_t sent, size_t expected) const;

  const int from_, to_;
  BriefLock lock_;
  // Guarded by lock_: those with one side only, in order; spare ones; all.
  Message* first_ = nullptr;
  Message* last_ = nullptr;
  Message* spare_ = nullptr;
  std::deque<Message> storage_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_THREAD_MAILBOX_H_
