#include "collectives/backend/cuda/fiber/fiber_scheduler.h"

#include <algorithm>
#include <iterator>
#include <vector>

#include "collectives/backend/cuda/fiber/fiber.h"
#include "collectives/backend/cuda/fiber/fiber_scheduler_impl.h"

namespace shardproof::cuda {

// SplitMix64 (Steele, Lea and Flood, OOPSLA 2014).
uint64_t FiberScheduler::Impl::NextRandom(std::atomic<uint64_t>& state) {
  const uint64_t seen = state.load(kRelaxed) + 0x9e3779b97f4a7c15u;
  state.store(seen, kRelaxed);
  uint64_t z = seen;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

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
  warp_barriers_.assign(size_, {});
  SharedUnit nan{};
  nan.bytes.fill(std::byte{0xff});
  shared_.assign(block_barriers_.size(),
                 std::vector<SharedUnit>(
                     static_cast<size_t>(grid_.shared_bytes) / 16 + 1, nan));
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
    if (schedule.slow_rank >= 0 || schedule.slow_warp >= 0) {
      const int warp = slots_[i]->thread.thread_ / kWarp;
      if (RankOf(i) == schedule.slow_rank || warp == schedule.slow_warp) {
        weight = 1;
      }
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
    case Stop::kShuffle:
    case Stop::kEndOfKernel:
      return Arrive(index, stop);
    case Stop::kDone:
      return Leave(index);
  }
  return Internal("a fiber stopped for no reason");
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
  return scheduler_->impl_->Meet(index_, FiberScheduler::Impl::Stop::kSync,
                                 vote, site);
}
uint64_t FiberThread::Shuffle(uint64_t value, int source, int site) {
  return scheduler_->impl_->Shuffle(index_, value, source, site);
}
std::byte* FiberThread::Shared() { return scheduler_->impl_->Shared(index_); }
void FiberThread::EndOfKernel(int site) {
  scheduler_->impl_->Meet(index_, FiberScheduler::Impl::Stop::kEndOfKernel,
                          false, site);
}
void FiberThread::Preempt() { scheduler_->impl_->Preempt(index_); }
void FiberThread::Yield() {
  scheduler_->impl_->Park(index_, FiberScheduler::Impl::Stop::kTurn);
}
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
