#include "tools/harness/faults.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <map>
#include <mutex>
#include <string>
#include <thread>
#include <tuple>
#include <utility>
#include <vector>

#include "tools/harness/fault_damage.h"

namespace shardproof {
namespace {

struct FaultInfo {
  Fault fault;
  std::string_view name, what;
};

constexpr std::array kFaults = {
    FaultInfo{Fault::kDropContribution, "drop_contribution",
              "what a rank gave reads as zeros"},
    FaultInfo{Fault::kCountTwice, "count_twice",
              "what a rank gave counts double"},
    FaultInfo{Fault::kSwapChunks, "swap_chunks",
              "the halves of a payload change places"},
    FaultInfo{Fault::kStaleBuffer, "stale_buffer",
              "what came the last time comes again"},
    FaultInfo{Fault::kLoseTail, "lose_tail", "the last elements are lost"},
    FaultInfo{Fault::kTearCacheLine, "tear_cache_line",
              "half of a cache line is from the last time"},
    FaultInfo{Fault::kWrongRoot, "wrong_root",
              "the root takes its neighbour for the root"},
    FaultInfo{Fault::kWrongGroup, "wrong_group",
              "another rank's payload in place of the right one"},
    FaultInfo{Fault::kWrongScale, "wrong_scale",
              "divided by the ranks once more (integers: multiplied)"},
    FaultInfo{Fault::kCorruptRow, "corrupt_row",
              "a row is wrong in every third operation"},
    FaultInfo{Fault::kDelayRank, "delay_rank",
              "one rank is late; a correct variant does not mind"},
    FaultInfo{Fault::kNeverArrive, "never_arrive",
              "one rank does not enter an operation"}};

const FaultInfo& InfoOf(Fault fault) {
  return kFaults[static_cast<size_t>(fault)];
}

// What all faults have in common. An operation on a stream is served by another
// thread than one beside it: hence the lock.
class FaultBase : public Interceptor {
 public:
  FaultBase(int ranks, std::atomic<int>* struck)
      : ranks_(ranks), struck_(struck) {}

 protected:
  void Strike() {
    if (struck_ != nullptr) struck_->fetch_add(1, std::memory_order_relaxed);
  }
  std::mutex mutex_;
  const int ranks_;

 private:
  std::atomic<int>* const struck_;
};

// Changes what crosses between ranks.
class PayloadFault final : public FaultBase {
 public:
  PayloadFault(Fault fault, int ranks, uint64_t seed, std::atomic<int>* struck)
      : FaultBase(ranks, struck), fault_(fault), seed_(seed) {}

  Status OnBegin(Op&) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (depth_++ == 0) {
      ++operations_;
      done_ = fault_ == Fault::kCorruptRow && operations_ % 3 != 2;
      seen_.clear();
      stores_.clear();
      copies_.clear();
      place_ = 0;
    }
    return Status();
  }
  void OnEnd(const Op&) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    --depth_;
  }
  const std::byte* OnLoad(const Op& op, int, int peer, const std::byte* data,
                          size_t bytes) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (!HasPayload(op, bytes)) return data;
    std::byte* const copy = Copy(data, bytes);
    return Change(op, peer, {copy, bytes}) ? copy : data;
  }
  void OnReceive(const Op& op, int, int source,
                 std::span<std::byte> payload) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (HasPayload(op, payload.size())) Change(op, source, payload);
  }
  void OnSend(const Op& op, int rank, int,
              std::span<const std::byte> payload) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (HasPayload(op, payload.size())) See(rank, payload);
  }
  // What is stored is there only later.
  std::byte* OnStore(const Op& op, int, int peer, std::byte* data,
                     size_t bytes) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (HasPayload(op, bytes)) stores_.push_back({peer, {data, bytes}});
    return data;
  }
  void OnDepart(const Op& op, int) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    // For kWrongGroup: what went to one rank is what another should have got.
    for (const Store& store : stores_) See(store.peer, store.bytes);
    for (const Store& store : stores_) Change(op, store.peer, store.bytes);
    stores_.clear();
  }

 private:
  struct Store {
    int peer;
    std::span<std::byte> bytes;
  };
  struct Seen {
    int rank;
    std::vector<std::byte> bytes;
  };
  // What a payload is remembered by: its operation, which is one of the same
  // label and size, the peer, and its number among the operation's payloads.
  using Place = std::tuple<std::string, int, int>;

  static bool HasPayload(const Op& op, size_t bytes) {
    return op.sequence != 0 && op.count != 0 && bytes != 0;
  }

  // Lives until the next operation begins.
  std::byte* Copy(const std::byte* data, size_t bytes) {
    constexpr size_t kAlignment = 64;
    auto& memory = copies_.emplace_back(bytes + kAlignment);
    void* at = memory.data();
    size_t space = memory.size();
    std::align(kAlignment, bytes, at, space);
    std::copy_n(data, bytes, static_cast<std::byte*>(at));
    return static_cast<std::byte*>(at);
  }

  void See(int rank, std::span<const std::byte> payload) {
    if (fault_ != Fault::kWrongGroup || done_) return;
    seen_.push_back({rank, {payload.begin(), payload.end()}});
  }
  // The latest that is not from `peer`.
  std::span<const std::byte> FromAnother(int peer) const {
    for (size_t i = seen_.size(); i-- > 0;) {
      if (seen_[i].rank != peer) return seen_[i].bytes;
    }
    return {};
  }

  // `payload` came from (or went to) `peer`. True if it is another now.
  bool Change(const Op& op, int peer, std::span<std::byte> payload) {
    std::vector<std::byte> last;
    if (fault_ == Fault::kStaleBuffer || fault_ == Fault::kTearCacheLine) {
      std::vector<std::byte>& here = history_[{
          fmt::format("{} {}", op.label.view(), op.count), peer, place_++}];
      last = std::exchange(here, {payload.begin(), payload.end()});
    }
    std::vector<std::byte> original;
    if (fault_ == Fault::kWrongGroup) {
      original.assign(payload.begin(), payload.end());
    }
    const bool changed =
        !done_ && internal::Damage(fault_, payload,
                                   {.dtype = op.dtype,
                                    .ranks = ranks_,
                                    .seed = seed_,
                                    .last = last,
                                    .other = FromAnother(peer)});
    See(peer, original);
    if (changed) {
      done_ = true;
      Strike();
    }
    return changed;
  }

  const Fault fault_;
  const uint64_t seed_;
  int depth_ = 0, operations_ = 0, place_ = 0;
  bool done_ = false;  // Has struck in this operation, or is not to.
  std::vector<Seen> seen_;
  std::vector<Store> stores_;
  std::vector<std::vector<std::byte>> copies_;
  std::map<Place, std::vector<std::byte>> history_;
};

class WrongRoot final : public FaultBase {
 public:
  WrongRoot(int rank, int ranks, std::atomic<int>* struck)
      : FaultBase(ranks, struck), rank_(rank) {}

  Status OnBegin(Op& op) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    // An inner operation has the root that the outer one was given. A rank that
    // is not the root may have no use for knowing who is (in a gather by loads
    // only the root works), so the root it is that errs.
    if (depth_++ == 0 && op.root == rank_) {
      // In range in a smaller group too, unless that is of one rank.
      op.root = op.root > 0 ? op.root - 1 : 1;
      Strike();
    }
    return Status();
  }
  void OnEnd(const Op&) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    --depth_;
  }

 private:
  const int rank_;
  int depth_ = 0;
};

class DelayRank final : public FaultBase {
 public:
  using FaultBase::FaultBase;

  // Sometimes at the door, sometimes inside.
  Status OnBegin(Op&) override {
    const int turn = operations_.fetch_add(1, std::memory_order_relaxed);
    if (turn % 2 == 0) Wait();
    return Status();
  }
  void OnDepart(const Op&, int) override { Inside(); }
  const std::byte* OnLoad(const Op&, int, int, const std::byte* data,
                          size_t) override {
    Inside();
    return data;
  }
  std::byte* OnStore(const Op&, int, int, std::byte* data, size_t) override {
    Inside();
    return data;
  }
  void OnSend(const Op&, int, int, std::span<const std::byte>) override {
    Inside();
  }

 private:
  static constexpr std::chrono::microseconds kLate{500};
  void Inside() {
    if (operations_.load(std::memory_order_relaxed) % 2 == 0) Wait();
  }
  void Wait() {
    std::this_thread::sleep_for(kLate);
    Strike();
  }
  std::atomic<int> operations_{0};
};

class NeverArrive final : public FaultBase {
 public:
  NeverArrive(int rank, int ranks, std::atomic<int>* struck,
              std::function<bool()> ended)
      : FaultBase(ranks, struck), rank_(rank), ended_(std::move(ended)) {}

  Status OnBegin(Op& op) override {
    Strike();
    while (ended_ != nullptr && !ended_()) {
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return Aborted("never_arrive: rank {} does not enter {}", rank_,
                   op.label.view());
  }

 private:
  const int rank_;
  const std::function<bool()> ended_;
};

}  // namespace

std::span<const Fault> AllFaults() {
  static constexpr auto kAll = [] {
    std::array<Fault, kFaults.size()> all{};
    for (size_t i = 0; i < all.size(); ++i) all[i] = kFaults[i].fault;
    return all;
  }();
  return kAll;
}

std::string_view Name(Fault fault) { return InfoOf(fault).name; }
std::string_view Describe(Fault fault) { return InfoOf(fault).what; }

StatusOr<Fault> ParseFault(std::string_view name) {
  std::vector<std::string_view> names;
  for (const FaultInfo& info : kFaults) {
    if (info.name == name) return info.fault;
    names.push_back(info.name);
  }
  return InvalidArgument("there is no fault \"{}\": the faults are {}", name,
                         fmt::join(names, ", "));
}

bool MustBeNoticed(Fault fault) { return fault != Fault::kDelayRank; }

std::unique_ptr<Interceptor> MakeFault(Fault fault, int rank, int ranks,
                                       uint64_t seed, std::atomic<int>* struck,
                                       std::function<bool()> ended) {
  if (ranks < 2) return nullptr;
  // Who the root is comes to light only when an operation begins.
  if (fault == Fault::kWrongRoot) {
    return std::make_unique<WrongRoot>(rank, ranks, struck);
  }
  if (static_cast<uint64_t>(rank) != seed % static_cast<uint64_t>(ranks)) {
    return nullptr;
  }
  switch (fault) {
    case Fault::kDelayRank:
      return std::make_unique<DelayRank>(ranks, struck);
    case Fault::kNeverArrive:
      return std::make_unique<NeverArrive>(rank, ranks, struck,
                                           std::move(ended));
    default:
      return std::make_unique<PayloadFault>(fault, ranks, seed, struck);
  }
}

}  // namespace shardproof
