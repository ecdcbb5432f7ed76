#include "collectives/backend/thread/mailbox.h"

#include <sched.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <mutex>

namespace shardproof {
namespace {

// Beyond the size of any message, and far from overflow.
constexpr size_t kNothingLeft = std::numeric_limits<size_t>::max() / 2;

bool Settled(uint32_t phase) { return phase >= Message::kDone; }

void CopyBytes(std::byte* to, const std::byte* from, size_t bytes) {
  if (bytes != 0) std::memcpy(to, from, bytes);
}

}  // namespace

StatusOr<Message*> Channel::StartSend(const void* data, size_t bytes, int tag,
                                      const Waiting& how) {
  if (how.abort->raised()) [[unlikely]]
    return how.abort->status();
  const std::lock_guard<BriefLock> lock(lock_);
  const auto* source = static_cast<const std::byte*>(data);
  const bool small = bytes <= kSmallBytes;
  Message* message = Take(/*sent=*/false, tag);
  if (message == nullptr) {
    message = New(tag, /*sent=*/true);
    message->source_bytes = bytes;
    message->small = small;
    if (small) {
      if (message->held == nullptr) {
        message->held = std::make_unique<std::byte[]>(kSmallBytes);
      }
      CopyBytes(message->held.get(), source, bytes);
    } else {
      message->source = source;
    }
    Append(message);
    return small ? nullptr : message;
  }
  message->source = source;
  message->source_bytes = bytes;
  if (bytes != message->target_bytes) [[unlikely]] {
    const size_t expected = message->target_bytes;
    message->phase.Publish(Message::kMismatch, how.spin);
    return LengthsDiffer(tag, bytes, expected);
  }
  if (small) {
    CopyBytes(message->target, source, bytes);
    message->phase.Publish(Message::kDone, how.spin);
    return nullptr;
  }
  message->holders = 2;
  message->phase.Publish(Message::kMatched, how.spin);
  return message;
}

StatusOr<Message*> Channel::StartReceive(void* data, size_t bytes, int tag,
                                         const Waiting& how) {
  if (how.abort->raised()) [[unlikely]]
    return how.abort->status();
  const std::lock_guard<BriefLock> lock(lock_);
  auto* target = static_cast<std::byte*>(data);
  Message* message = Take(/*sent=*/true, tag);
  if (message == nullptr) {
    message = New(tag, /*sent=*/false);
    message->target = target;
    message->target_bytes = bytes;
    Append(message);
    return message;
  }
  message->target = target;
  message->target_bytes = bytes;
  if (bytes != message->source_bytes) [[unlikely]] {
    const size_t sent = message->source_bytes;
    message->phase.Publish(Message::kMismatch, how.spin);
    if (message->small) ReleaseLocked(message);
    return LengthsDiffer(tag, sent, bytes);
  }
  if (message->small) {
    CopyBytes(target, message->held.get(), bytes);
    ReleaseLocked(message);
    return nullptr;
  }
  message->holders = 2;
  message->phase.Publish(Message::kMatched, how.spin);
  return message;
}

StatusOr<bool> Channel::Test(Message* message, const Waiting& how) {
  uint32_t phase = message->phase.value.load(std::memory_order_acquire);
  if (phase == Message::kMatched) {
    Help(message, how);
    phase = message->phase.value.load(std::memory_order_acquire);
  }
  if (Settled(phase)) {
    SP_RETURN_IF_ERROR(Finish(message));
    return true;
  }
  if (how.abort->raised()) return GiveUp(message, how);
  return false;
}

Status Channel::Wait(Message* message, const Waiting& how) {
  if (!WaitUntil(message->phase, how,
                 [](uint32_t phase) { return phase != Message::kPosted; })) {
    return GiveUp(message, how);
  }
  if (message->phase.value.load(std::memory_order_acquire) ==
      Message::kMatched) {
    Help(message, how);
    if (!WaitUntil(message->phase, how, Settled)) return GiveUp(message, how);
  }
  return Finish(message);
}

void Channel::Help(Message* message, const Waiting& how) {
  const size_t bytes = message->source_bytes;
  while (true) {
    const size_t at =
        message->claimed.fetch_add(kPieceBytes, std::memory_order_relaxed);
    if (at >= bytes) return;
    const size_t piece = std::min(kPieceBytes, bytes - at);
    CopyBytes(message->target + at, message->source + at, piece);
    // Acquires the pieces of the other side: who completes the message answers
    // for all of it.
    const size_t before =
        message->copied.fetch_add(piece, std::memory_order_acq_rel);
    if (before + piece == bytes) {
      message->phase.Publish(Message::kDone, how.spin);
    }
  }
}

Status Channel::GiveUp(Message* message, const Waiting& how) {
  size_t limit = 0;
  {
    const std::lock_guard<BriefLock> lock(lock_);
    const uint32_t phase = message->phase.value.load(std::memory_order_acquire);
    if (phase == Message::kPosted) {
      Unlink(message);
    } else if (phase == Message::kMatched) {
      if (!message->cancelled) {
        message->cancelled = true;
        message->limit = std::min(message->claimed.exchange(kNothingLeft),
                                  message->source_bytes);
      }
      limit = message->limit;
    }
  }
  // Pieces under way end soon: nothing in a copy waits.
  while (message->copied.load(std::memory_order_acquire) < limit) sched_yield();
  Release(message);
  return how.abort->status();
}

Status Channel::Finish(Message* message) {
  const bool mismatch = message->phase.value.load(std::memory_order_acquire) ==
                        Message::kMismatch;
  Status status;
  if (mismatch) {
    status = LengthsDiffer(message->tag, message->source_bytes,
                           message->target_bytes);
  }
  Release(message);
  return status;
}

Status Channel::LengthsDiffer(int tag, size_t sent, size_t expected) const {
  return DataLoss(
      "rank {} sent {} bytes with tag {} to rank {}, which expected {}", from_,
      sent, tag, to_, expected);
}

Message* Channel::Take(bool sent, int tag) {
  for (Message* m = first_; m != nullptr; m = m->next) {
    if (m->sent == sent && m->tag == tag) {
      Unlink(m);
      return m;
    }
  }
  return nullptr;
}

Message* Channel::New(int tag, bool sent) {
  Message* message = spare_;
  if (message != nullptr) {
    spare_ = message->next;
  } else {
    message = &storage_.emplace_back();
  }
  // A late waker may still look at the phase of the message that this was: that
  // is a spurious wake-up.
  message->phase.value.store(Message::kPosted, std::memory_order_relaxed);
  message->tag = tag;
  message->sent = sent;
  message->small = false;
  message->claimed.store(0, std::memory_order_relaxed);
  message->copied.store(0, std::memory_order_relaxed);
  message->cancelled = false;
  message->holders = 1;
  message->next = nullptr;
  return message;
}

void Channel::Append(Message* message) {
  (first_ == nullptr ? first_ : last_->next) = message;
  last_ = message;
}

void Channel::Unlink(Message* message) {
  Message* before = nullptr;
  for (Message* m = first_; m != message; m = m->next) before = m;
  (before == nullptr ? first_ : before->next) = message->next;
  if (last_ == message) last_ = before;
  message->next = nullptr;
}

void Channel::ReleaseLocked(Message* message) {
  if (--message->holders > 0) return;
  message->next = spare_;
  spare_ = message;
}

void Channel::Release(Message* message) {
  const std::lock_guard<BriefLock> lock(lock_);
  ReleaseLocked(message);
}

}  // namespace shardproof
