// Flags and slots through which the ranks of one node meet.
//
// Every rank has two lines, used in turn, that it alone writes and all others
// read. A round is: write your line, wait until everyone's line of this round
// is there. A line carries the number of the round (its epoch) and up to 48
// bytes beside it, so that whoever sees the flag has the data: one cache miss
// per peer. That serves
//
//     Sync        the flag alone
//     Meet        the addresses and sizes of what a rank offers
//     MeetEager   the payload, or beyond 48 bytes its size; it is in a slot then
//
// Why two lines are enough. In round e a rank writes the line of parity e % 2.
// It begins round e + 2, and writes that line again, only after it saw everyone
// begin round e + 1; and a rank begins round e + 1 only after it is done with
// what it read in round e. So nobody reads what is being overwritten. Nor can a
// flag run ahead of a reader: while I wait for e, no rank can have seen me
// begin e + 1, so a flag of this parity holds e, or e - 2 as long as its rank
// is late. Equality is the whole comparison, and the epoch may wrap around.
//
// Rejected: a tree or dissemination for many ranks. It takes lg p rounds of
// misses one after another where this takes p - 1 that overlap, and with more
// ranks than cores each round costs a turn of the scheduler.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_NODE_BOARD_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_NODE_BOARD_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <vector>

#include "collectives/backend/node/wait.h"
#include "collectives/interceptor.h"
#include "reference/status.h"

namespace shardproof {

// Where the memory of a rank that its peers can address lies in the address
// space of this process. For threads that is all of memory: base 0 and the
// largest size.
struct AddressWindow {
  uintptr_t base = 0;
  size_t bytes = 0;

  bool Holds(const void* data, size_t length) const {
    const auto at = reinterpret_cast<uintptr_t>(data);
    return at >= base && at - base <= bytes && length <= bytes - (at - base);
  }
};

// What a rank offers in a meeting; either part may be null.
struct BoardOffer {
  const void* send = nullptr;
  size_t send_bytes = 0;
  void* recv = nullptr;
  size_t recv_bytes = 0;
};

// One rank's view. Calls must be the same sequence on all ranks. Every call is
// one round, and returns kAborted when the abort flag ends its wait, kInternal
// when it finds that ranks are in rounds of different kinds.
class NodeBoard {
 public:
  // What fits beside the flag, and the most that MeetEager takes. Beyond it,
  // meeting and parting with no copy is faster.
  static constexpr size_t kInlineBytes = 48;
  static constexpr size_t kEagerBytes = size_t{16} << 10;

  // Of control memory for `ranks` ranks.
  static size_t BytesNeeded(int ranks);

  // `control` holds BytesNeeded(size) zero bytes at a multiple of 128, the same
  // memory for all ranks. `windows[r]` is rank r's memory as seen from here.
  NodeBoard(std::byte* control, int rank, int size,
            std::vector<AddressWindow> windows, const Waiting& waiting);

  int rank() const { return rank_; }
  int size() const { return size_; }

  // Fills peers[r] with rank r's offer as addressed from here. *all_shared tells
  // whether every rank's offer can be addressed by all; where it cannot, the
  // pointers are null.
  Status Meet(const BoardOffer& offer, std::span<PeerBuffers> peers,
              bool* all_shared) {
    BeginMeet(offer);
    return EndMeet(peers, all_shared);
  }
  // Fills peers[r].send with rank r's payload, valid until the next call and
  // aligned for any type.
  Status MeetEager(const void* data, size_t bytes,
                   std::span<PeerBuffers> peers);
  Status Sync() {
    BeginSync();
    return EndSync();
  }

  // Meet and Sync in two halves, writing the own line and waiting for those of
  // the others. Between them a rank may do what needs no peer, but call nothing
  // of this class: the round goes on.
  void BeginMeet(const BoardOffer& offer);
  Status EndMeet(std::span<PeerBuffers> peers, bool* all_shared);
  void BeginSync();
  Status EndSync();

  // Lets a test start just before the epoch wraps around. All ranks alike.
  void StartAt(uint32_t epoch) { epoch_ = epoch; }

 private:
  enum Kind : uint32_t { kSync = 0, kMeet = 1, kEager = 2 };

  struct Card {  // What Meet writes into a line: offsets into the own window.
    uint64_t send_at, send_bytes, recv_at, recv_bytes;
  };
  static constexpr uint64_t kNull = ~uint64_t{0};
  static constexpr uint64_t kNotShared = kNull - 1;

  // Two lines of the cache: the adjacent-line prefetcher moves pairs. Whoever
  // publishes looks whether anybody sleeps, and on the line that its peers have
  // just read that look would fetch the line first to read it, and the store
  // once more to own it: 30 ns of the 180 of a round (two cores with AVX-512).
  struct alignas(128) Line {
    std::atomic<uint32_t> epoch;
    uint32_t kind;
    uint32_t bytes;
    alignas(16) std::byte payload[kInlineBytes];  // For any type.
    alignas(64) std::atomic<uint32_t> sleepers;

    SignalRef signal() { return {epoch, sleepers}; }
  };
  static_assert(sizeof(Line) == 128);

  Line& LineOf(int rank, uint32_t epoch) const {
    return lines_[2 * rank + (epoch & 1)];
  }
  std::byte* SlotOf(int rank, uint32_t epoch) const {
    return slots_ + (2 * rank + (epoch & 1)) * kEagerBytes;
  }
  bool WaitFor(Line& line, uint32_t epoch) const {
    return WaitUntil(line.signal(), waiting_,
                     [epoch](uint32_t value) { return value == epoch; });
  }
  uint64_t Publishable(const void* data, size_t bytes) const;
  static std::byte* Addressable(const AddressWindow& window, uint64_t at,
                                bool* all_shared);
  Status Disagreement(int peer, Kind mine) const;

  Line* lines_;
  std::byte* slots_;
  int rank_;
  int size_;
  uint32_t epoch_ = 0;
  Card card_{};  // Of the last meeting: the own line may be in another's cache.
  Waiting waiting_;
  std::vector<AddressWindow> windows_;
};

inline uint64_t NodeBoard::Publishable(const void* data, size_t bytes) const {
  if (data == nullptr) return kNull;
  const AddressWindow& window = windows_[rank_];
  if (!window.Holds(data, bytes)) return kNotShared;
  return reinterpret_cast<uintptr_t>(data) - window.base;
}

inline std::byte* NodeBoard::Addressable(const AddressWindow& window,
                                         uint64_t at, bool* all_shared) {
  if (at >= kNotShared) [[unlikely]] {
    if (at == kNotShared) *all_shared = false;
    return nullptr;
  }
  return reinterpret_cast<std::byte*>(window.base + at);
}

inline void NodeBoard::BeginMeet(const BoardOffer& offer) {
  const uint32_t epoch = ++epoch_;
  Line& mine = LineOf(rank_, epoch);
  card_ = {Publishable(offer.send, offer.send_bytes), offer.send_bytes,
           Publishable(offer.recv, offer.recv_bytes), offer.recv_bytes};
  std::memcpy(mine.payload, &card_, sizeof(card_));
  mine.kind = kMeet;
  mine.signal().Publish(epoch, waiting_.spin);
}

inline Status NodeBoard::EndMeet(std::span<PeerBuffers> peers,
                                 bool* all_shared) {
  const uint32_t epoch = epoch_;
  *all_shared = true;
  for (int r = 0; r < size_; ++r) {
    Card theirs = card_;
    if (r != rank_) {
      Line& line = LineOf(r, epoch);
      if (!WaitFor(line, epoch)) [[unlikely]]
        return waiting_.abort->status();
      if (line.kind != kMeet) [[unlikely]]
        return Disagreement(r, kMeet);
      std::memcpy(&theirs, line.payload, sizeof(theirs));
    }
    peers[r] = {.send = Addressable(windows_[r], theirs.send_at, all_shared),
                .recv = Addressable(windows_[r], theirs.recv_at, all_shared),
                .send_bytes = theirs.send_bytes,
                .recv_bytes = theirs.recv_bytes};
  }
  return OkStatus();
}

inline Status NodeBoard::MeetEager(const void* data, size_t bytes,
                                   std::span<PeerBuffers> peers) {
  const uint32_t epoch = ++epoch_;
  Line& mine = LineOf(rank_, epoch);
  if (bytes == 4) {  // Spares the commonest small sizes a call.
    std::memcpy(mine.payload, data, 4);
  } else if (bytes == 8) {
    std::memcpy(mine.payload, data, 8);
  } else if (bytes != 0) {
    std::memcpy(bytes <= kInlineBytes ? mine.payload : SlotOf(rank_, epoch),
                data, bytes);
  }
  mine.kind = kEager;
  mine.bytes = static_cast<uint32_t>(bytes);
  mine.signal().Publish(epoch, waiting_.spin);
  for (int r = 0; r < size_; ++r) {
    Line& line = LineOf(r, epoch);
    if (r == rank_) {
      peers[r] = {
          .send = bytes <= kInlineBytes ? line.payload : SlotOf(r, epoch),
          .recv = nullptr,
          .send_bytes = bytes,
          .recv_bytes = 0};
      continue;
    }
    if (!WaitFor(line, epoch)) [[unlikely]]
      return waiting_.abort->status();
    if (line.kind != kEager) [[unlikely]]
      return Disagreement(r, kEager);
    peers[r] = {
        .send = line.bytes <= kInlineBytes ? line.payload : SlotOf(r, epoch),
        .recv = nullptr,
        .send_bytes = line.bytes,
        .recv_bytes = 0};
  }
  return OkStatus();
}

inline void NodeBoard::BeginSync() {
  const uint32_t epoch = ++epoch_;
  Line& mine = LineOf(rank_, epoch);
  mine.kind = kSync;
  mine.signal().Publish(epoch, waiting_.spin);
}

inline Status NodeBoard::EndSync() {
  const uint32_t epoch = epoch_;
  for (int r = 0; r < size_; ++r) {
    if (r != rank_ && !WaitFor(LineOf(r, epoch), epoch)) [[unlikely]] {
      return waiting_.abort->status();
    }
  }
  return OkStatus();
}

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_NODE_BOARD_H_
