// The scheduler is the fiber that called Run. It alone chooses, counts and wakes; another fiber writes down what it
// stopped for and switches to it. What both touch is relaxed atomics, which ThreadSanitizer takes for neither a race
// nor an order.
#include "collectives/backend/cuda/fiber/fiber_scheduler.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <iterator>
#include <map>
#include <string>
#include <vector>

#include "collectives/backend/cuda/fiber/fiber.h"

namespace shardproof::cuda {
namespace {

constexpr auto kRelaxed = std::memory_order_relaxed;
// In 64ths of a turn.
constexpr int kFullWeight = 64;

// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
uint64_t NextRandom(std::atomic<uint64_t>& state) {
  const uint64_t seen = state.load(kRelaxed) + 0x9e3779b97f4a7c15u;
  state.store(seen, kRelaxed);
  uint64_t z = seen;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

enum class Stop : uint8_t {
  kTurn,         // Another may go on.
  kWoke,         // A flag was written.
  kSpin,         // Waits for a flag.
  kSync,         // At a barrier of the block.
  kEndOfKernel,  // At the barrier of the rank.
  kDone,
};

// Where the threads of a block, or of a rank, wait for each other. Consecutive rounds have sync addresses of their own:
// a thread that is early in the next round must not lend its order to one that is late in this.
struct Barrier {
  std::array<char, 2> sync{};
  int waiting = 0;
  int site = 0;
  bool vote = false;
};

struct Slot {
  Fiber fiber;
  FiberThread thread;
  // What the fiber writes and the scheduler reads.
  std::atomic<Stop> stop{Stop::kTurn};
  std::atomic<const uint32_t*> flag{nullptr};
  std::atomic<int> site{0};
  std::atomic<bool> vote{false};
  std::atomic<const char*> what{nullptr};
  std::atomic<int> peer{-1};
  std::atomic<uint32_t> wanted{0};
  std::atomic<uint64_t> deadline{0};
  // What the scheduler writes and the fiber reads.
  std::atomic<bool> answer{false};
  // The fiber's own.
  std::array<uint32_t, 2> rounds{};
  // The scheduler's own.
  int weight = kFullWeight;
};

}  // namespace

class FiberScheduler::Impl {
 public:
  Status Run(const Grid& grid, const FiberSchedule& schedule,
             const std::function<void(FiberThread&)>& body,
             FiberScheduler* owner);

  // --- Called by the fibers ----------------------------------------------------------------------------------------
  void Park(int index, Stop stop);
  bool Meet(int index, Stop stop, bool vote, int site);
  bool Await(int index, const uint32_t* flag, const SpinNote& note);
  void Wake(int index, const uint32_t* flag) {
    slots_[index]->flag.store(flag, kRelaxed);
    Park(index, Stop::kWoke);
  }
  void Preempt(int index) {
    if (preempt_one_in_ != 0 && NextRandom(random_) % preempt_one_in_ == 0) {
      Park(index, Stop::kTurn);
    }
  }
  uint64_t Now() const { return turns_.load(kRelaxed); }

  uint64_t trace() const { return trace_; }
  const Grid& grid() const { return grid_; }

 private:
  static void Loop(void* slot);

  Status Prepare(FiberScheduler* owner);
  void DrawWeights(const FiberSchedule& schedule);
  void SwitchAll(bool synchronizes);
  Status Turns(int64_t most);
  int Choose();
  Status After(int index);
  Status Arrive(int index, Stop stop);
  Status Leave(int index);
  void Ready(int index) { ready_.push_back(index); }
  void WakeSpinners(const uint32_t* flag);
  bool JumpToDeadline();
  Status Deadlock() const;

  int BlockOf(int index) const { return index / grid_.threads; }
  int RankOf(int index) const { return index / (grid_.threads * grid_.blocks); }
  std::string Threads(int block, Stop stop) const;
  Barrier& BarrierOf(int index, Stop stop) {
    return stop == Stop::kSync ? block_barriers_[BlockOf(index)]
                               : rank_barriers_[RankOf(index)];
  }

  Grid grid_;
  Fiber main_;
  const std::function<void(FiberThread&)>* body_ = nullptr;
  std::vector<std::unique_ptr<Slot>> slots_;
  int size_ = 0;
  uint64_t preempt_one_in_ = 0;
  std::atomic<uint64_t> random_{0}, turns_{0};
  std::atomic<bool> abandoned_{false};
  uint64_t trace_ = 0;
  int last_ = -1, unfinished_ = 0;
  bool sticky_ = false;
  std::vector<int> ready_, spinning_;
  std::vector<Barrier> block_barriers_, rank_barriers_;
  std::vector<int> done_in_block_;
};

// Every fiber stays in here for as long as the scheduler lives. Between two runs it waits at (*); the switches that
// begin and end a run are the only ones that order anything, so that they must not fall between two fibers' turns: all
// begin before the first turn, and end after the last.
void FiberScheduler::Impl::Loop(void* slot) {
  auto& self = *static_cast<Slot*>(slot);
  Impl& impl = *self.thread.scheduler_->impl_;
  for (;;) {
    impl.Park(self.thread.index_, Stop::kTurn);
    (*impl.body_)(self.thread);
    impl.Park(self.thread.index_, Stop::kDone);
    Fiber::Switch(self.fiber, impl.main_, true);  // (*)
  }
}

void FiberScheduler::Impl::Park(int index, Stop stop) {
  slots_[index]->stop.store(stop, kRelaxed);
  Fiber::Switch(slots_[index]->fiber, main_, false);
  // After an error nobody goes on, but for telling ThreadSanitizer that it is over.
  while (abandoned_.load(kRelaxed)) {
    Fiber::Switch(slots_[index]->fiber, main_, true);
  }
}

Status FiberScheduler::Impl::Prepare(FiberScheduler* owner) {
  main_.Adopt();
  size_ = grid_.ranks * grid_.blocks * grid_.threads;
  while (static_cast<int>(slots_.size()) < size_) {
    slots_.push_back(std::make_unique<Slot>());
    slots_.back()->thread.scheduler_ = owner;
    slots_.back()->thread.index_ = static_cast<int>(slots_.size()) - 1;
    SP_RETURN_IF_ERROR(
        slots_.back()->fiber.Start(&Impl::Loop, slots_.back().get()));
  }
  block_barriers_.assign(static_cast<size_t>(grid_.ranks) * grid_.blocks, {});
  rank_barriers_.assign(grid_.ranks, {});
  done_in_block_.assign(block_barriers_.size(), 0);
  ready_.clear();
  spinning_.clear();
  unfinished_ = size_;
  for (int i = 0; i < size_; ++i) {
    FiberThread& thread = slots_[i]->thread;
    thread.rank_ = RankOf(i);
    thread.block_ = BlockOf(i) % grid_.blocks;
    thread.thread_ = i % grid_.threads;
    slots_[i]->rounds = {};
    Ready(i);
  }
  return OkStatus();
}

// Turns that are drawn evenly keep all ranks in step, and what goes wrong only when one is far ahead is never seen. So
// most seeds favour somebody: a rank, a block, or whoever ran last.
void FiberScheduler::Impl::DrawWeights(const FiberSchedule& schedule) {
  const uint64_t style = NextRandom(random_) % 4;
  sticky_ = style == 3;
  std::vector<int> weights;
  const auto draw = [&] { return kFullWeight >> (NextRandom(random_) % 7); };
  std::generate_n(std::back_inserter(weights), block_barriers_.size(), draw);
  for (int i = 0; i < size_; ++i) {
    int& weight = slots_[i]->weight;
    weight = kFullWeight;
    if (schedule.slow_rank >= 0) {
      if (RankOf(i) == schedule.slow_rank) weight = 1;
      continue;
    }
    if (style == 1) weight = weights[RankOf(i)];
    if (style == 2) weight = weights[BlockOf(i)];
  }
}

void FiberScheduler::Impl::SwitchAll(bool synchronizes) {
  for (int i = 0; i < size_; ++i) {
    Fiber::Switch(main_, slots_[i]->fiber, synchronizes);
  }
}

Status FiberScheduler::Impl::Run(const Grid& grid,
                                 const FiberSchedule& schedule,
                                 const std::function<void(FiberThread&)>& body,
                                 FiberScheduler* owner) {
  if (grid.ranks < 1 || grid.blocks < 1 || grid.threads < 1 ||
      schedule.preempt_one_in < 0) {
    return {StatusCode::kInvalidArgument, "an empty grid of fibers"};
  }
  grid_ = grid;
  body_ = &body;
  preempt_one_in_ = schedule.preempt_one_in;
  random_.store(schedule.seed, kRelaxed);
  turns_.store(0, kRelaxed);
  trace_ = 0;
  last_ = -1;
  SP_RETURN_IF_ERROR(Prepare(owner));
  DrawWeights(schedule);
  SwitchAll(true);
  Status status = Turns(schedule.most_turns);
  abandoned_.store(!status.ok(), kRelaxed);
  SwitchAll(false);
  if (!status.ok()) slots_.clear();  // Nobody knows how to end these.
  abandoned_.store(false, kRelaxed);
  return status;
}

Status FiberScheduler::Impl::Turns(int64_t most) {
  while (unfinished_ > 0) {
    if (ready_.empty() && !JumpToDeadline()) return Deadlock();
    if (static_cast<int64_t>(Now()) >= most) {
      return Internal("no end after {} turns: {} threads have not returned",
                      most, unfinished_);
    }
    const int index = Choose();
    turns_.store(Now() + 1, kRelaxed);
    trace_ = (trace_ ^ static_cast<uint64_t>(index)) * 0x100000001b3u;
    last_ = index;
    Fiber::Switch(main_, slots_[index]->fiber, false);
    SP_RETURN_IF_ERROR(After(index));
  }
  return OkStatus();
}

// Takes one out of those that can go on.
int FiberScheduler::Impl::Choose() {
  size_t at = 0;
  const auto last = std::find(ready_.begin(), ready_.end(), last_);
  if (sticky_ && last != ready_.end() && NextRandom(random_) % 16 != 0 &&
      slots_[last_]->weight == kFullWeight) {
    at = static_cast<size_t>(last - ready_.begin());
  } else {
    for (int tries = 0; tries < 4 * kFullWeight; ++tries) {
      at = NextRandom(random_) % ready_.size();
      const auto draw = static_cast<int>(NextRandom(random_) % kFullWeight);
      if (draw < slots_[ready_[at]]->weight) break;
    }
  }
  std::swap(ready_[at], ready_.back());
  const int chosen = ready_.back();
  ready_.pop_back();
  return chosen;
}

// What the fiber stopped for.
Status FiberScheduler::Impl::After(int index) {
  const Slot& slot = *slots_[index];
  const Stop stop = slot.stop.load(kRelaxed);
  switch (stop) {
    case Stop::kWoke:
      WakeSpinners(slot.flag.load(kRelaxed));
      Ready(index);
      return OkStatus();
    case Stop::kTurn:
      Ready(index);
      return OkStatus();
    case Stop::kSpin:
      spinning_.push_back(index);
      return OkStatus();
    case Stop::kSync:
    case Stop::kEndOfKernel:
      return Arrive(index, stop);
    case Stop::kDone:
      return Leave(index);
  }
  return Internal("a fiber stopped for no reason");
}

Status FiberScheduler::Impl::Arrive(int index, Stop stop) {
  Barrier& barrier = BarrierOf(index, stop);
  const Slot& slot = *slots_[index];
  const int block = BlockOf(index);
  const int site = slot.site.load(kRelaxed);
  if (barrier.waiting > 0 && barrier.site != site) {
    return Internal(
        "divergence: thread {} of rank {}, block {} waits at the barrier of "
        "line "
        "{}, and others of its block at that of line {}",
        slot.thread.thread_, slot.thread.rank_, slot.thread.block_, site,
        barrier.site);
  }
  if (done_in_block_[block] > 0) {
    return Internal(
        "divergence: thread {} of rank {}, block {} waits at the barrier of "
        "line "
        "{}, and {} of its block have returned",
        slot.thread.thread_, slot.thread.rank_, slot.thread.block_, site,
        done_in_block_[block]);
  }
  barrier.site = site;
  barrier.vote = barrier.vote || slot.vote.load(kRelaxed);
  const int members = grid_.threads * (stop == Stop::kSync ? 1 : grid_.blocks);
  if (++barrier.waiting < members) return OkStatus();
  const int first = index / members * members;
  for (int i = first; i < first + members; ++i) {
    slots_[i]->answer.store(barrier.vote, kRelaxed);
    Ready(i);
  }
  barrier.waiting = 0;
  barrier.vote = false;
  return OkStatus();
}

Status FiberScheduler::Impl::Leave(int index) {
  const int block = BlockOf(index);
  --unfinished_;
  ++done_in_block_[block];
  for (const Stop stop : {Stop::kSync, Stop::kEndOfKernel}) {
    if (BarrierOf(index, stop).waiting == 0) continue;
    return Internal(
        "divergence: thread {} of rank {}, block {} has returned, and others "
        "wait "
        "for it at the barrier of line {}",
        slots_[index]->thread.thread_, slots_[index]->thread.rank_,
        slots_[index]->thread.block_, BarrierOf(index, stop).site);
  }
  return OkStatus();
}

void FiberScheduler::Impl::WakeSpinners(const uint32_t* flag) {
  std::erase_if(spinning_, [&](int index) {
    if (slots_[index]->flag.load(kRelaxed) != flag) return false;
    slots_[index]->answer.store(true, kRelaxed);
    Ready(index);
    return true;
  });
}

bool FiberScheduler::Impl::JumpToDeadline() {
  uint64_t first = 0;
  for (const int index : spinning_) {
    const uint64_t deadline = slots_[index]->deadline.load(kRelaxed);
    if (deadline != 0 && (first == 0 || deadline < first)) first = deadline;
  }
  if (first == 0) return false;
  turns_.store(std::max(first, Now()), kRelaxed);
  std::erase_if(spinning_, [&](int index) {
    const uint64_t deadline = slots_[index]->deadline.load(kRelaxed);
    if (deadline == 0 || deadline > Now()) return false;
    slots_[index]->answer.store(false, kRelaxed);
    Ready(index);
    return true;
  });
  return true;
}

// "0 1 3", the threads of the block that stopped for this.
std::string FiberScheduler::Impl::Threads(int block, Stop stop) const {
  std::string out;
  for (int t = 0; t < grid_.threads; ++t) {
    const Slot& slot = *slots_[block * grid_.threads + t];
    if (slot.stop.load(kRelaxed) == stop) out += fmt::format(" {}", t);
  }
  return out;
}

Status FiberScheduler::Impl::Deadlock() const {
  std::string out = "deadlock: nobody can go on.";
  for (int block = 0; block < grid_.ranks * grid_.blocks; ++block) {
    const auto where = fmt::format(
        "\n  rank {}, block {}:", block / grid_.blocks, block % grid_.blocks);
    for (const Stop stop : {Stop::kSync, Stop::kEndOfKernel}) {
      const std::string threads = Threads(block, stop);
      if (threads.empty()) continue;
      out += fmt::format("{} threads{} at the {} of line {}", where, threads,
                         stop == Stop::kSync ? "barrier" : "end of the kernel",
                         stop == Stop::kSync
                             ? block_barriers_[block].site
                             : rank_barriers_[block / grid_.blocks].site);
    }
    for (int t = 0; t < grid_.threads; ++t) {
      const Slot& slot = *slots_[block * grid_.threads + t];
      if (slot.stop.load(kRelaxed) != Stop::kSpin) continue;
      out += fmt::format(
          "{} thread {} waits for {} of rank {} to be {}; it is {}", where, t,
          slot.what.load(kRelaxed), slot.peer.load(kRelaxed),
          slot.wanted.load(kRelaxed),
          __atomic_load_n(slot.flag.load(kRelaxed), __ATOMIC_RELAXED));
    }
  }
  return {StatusCode::kInternal, out};
}

bool FiberScheduler::Impl::Meet(int index, Stop stop, bool vote, int site) {
  Slot& slot = *slots_[index];
  void* const sync =
      &BarrierOf(index, stop).sync[slot.rounds[stop == Stop::kSync]++ & 1];
  slot.vote.store(vote, kRelaxed);
  slot.site.store(site, kRelaxed);
  Fiber::Release(sync);
  Park(index, stop);
  Fiber::Acquire(sync);
  return slot.answer.load(kRelaxed);
}

bool FiberScheduler::Impl::Await(int index, const uint32_t* flag,
                                 const SpinNote& note) {
  if (note.deadline != 0 && Now() >= note.deadline) return false;
  Slot& slot = *slots_[index];
  slot.flag.store(flag, kRelaxed);
  slot.what.store(note.what, kRelaxed);
  slot.peer.store(note.peer, kRelaxed);
  slot.wanted.store(note.wanted, kRelaxed);
  slot.deadline.store(note.deadline, kRelaxed);
  Park(index, Stop::kSpin);
  return slot.answer.load(kRelaxed);
}

const Grid& FiberThread::grid() const { return scheduler_->impl_->grid(); }
bool FiberThread::Sync(bool vote, int site) {
  return scheduler_->impl_->Meet(index_, Stop::kSync, vote, site);
}
void FiberThread::EndOfKernel(int site) {
  scheduler_->impl_->Meet(index_, Stop::kEndOfKernel, false, site);
}
void FiberThread::Preempt() { scheduler_->impl_->Preempt(index_); }
uint64_t FiberThread::Now() const { return scheduler_->impl_->Now(); }
bool FiberThread::Await(const uint32_t* flag, const SpinNote& note) {
  return scheduler_->impl_->Await(index_, flag, note);
}
void FiberThread::Wake(const uint32_t* flag) {
  scheduler_->impl_->Wake(index_, flag);
}

FiberScheduler::FiberScheduler() : impl_(std::make_unique<Impl>()) {}
FiberScheduler::~FiberScheduler() = default;

Status FiberScheduler::Run(const Grid& grid, const FiberSchedule& schedule,
                           const std::function<void(FiberThread&)>& body) {
  return impl_->Run(grid, schedule, body, this);
}
uint64_t FiberScheduler::turns() const { return impl_->Now(); }
uint64_t FiberScheduler::trace() const { return impl_->trace(); }

}  // namespace shardproof::cuda
