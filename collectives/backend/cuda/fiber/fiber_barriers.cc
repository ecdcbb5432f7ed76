// Where fibers wait for each other, and what is said when they wait in vain.
#include <algorithm>
#include <string>
#include <string_view>

#include "collectives/backend/cuda/fiber/fiber_scheduler_impl.h"

namespace shardproof::cuda {

FiberScheduler::Impl::Members FiberScheduler::Impl::MembersOf(int index,
                                                              Stop stop) const {
  const int block = BlockOf(index) * grid_.threads;
  if (stop == Stop::kSync) return {block, grid_.threads};
  if (stop == Stop::kShuffle) {
    const int first = index - (index - block) % kWarp;
    return {first, std::min(kWarp, block + grid_.threads - first)};
  }
  const int of_rank = grid_.threads * grid_.blocks;
  return {index / of_rank * of_rank, of_rank};
}

Status FiberScheduler::Impl::Diverged(int index, std::string_view what) const {
  const FiberThread& thread = slots_[index]->thread;
  return Internal("divergence: thread {} of rank {}, block {} {}",
                  thread.thread_, thread.rank_, thread.block_, what);
}

Status FiberScheduler::Impl::Arrive(int index, Stop stop) {
  Barrier& barrier = BarrierOf(index, stop);
  const Slot& slot = *slots_[index];
  const int block = BlockOf(index);
  const int site = slot.site.load(kRelaxed);
  if (barrier.waiting > 0 && barrier.site != site) {
    return Diverged(index,
                    fmt::format("waits at the barrier of line {}, and others "
                                "of its block at that of line {}",
                                site, barrier.site));
  }
  // Of another warp they may have, where this is a shuffle.
  if (done_in_block_[block] > 0 && stop != Stop::kShuffle) {
    return Diverged(index, fmt::format("waits at the barrier of line {}, and "
                                       "{} of its block have returned",
                                       site, done_in_block_[block]));
  }
  barrier.site = site;
  barrier.vote = barrier.vote || slot.vote.load(kRelaxed);
  const auto [first, count] = MembersOf(index, stop);
  if (stop == Stop::kShuffle && slot.source.load(kRelaxed) >= count) {
    return Diverged(index, "shuffles with a lane that is not there");
  }
  if (++barrier.waiting < count) return OkStatus();
  for (int i = first; i < first + count; ++i) {
    Slot& member = *slots_[i];
    member.answer.store(barrier.vote, kRelaxed);
    if (stop == Stop::kShuffle) {
      const int source = first + member.source.load(kRelaxed);
      member.gotten.store(slots_[source]->given.load(kRelaxed), kRelaxed);
    }
    Ready(i);
  }
  barrier.waiting = 0;
  barrier.vote = false;
  return OkStatus();
}

Status FiberScheduler::Impl::Leave(int index) {
  --unfinished_;
  ++done_in_block_[BlockOf(index)];
  for (const Stop stop : {Stop::kSync, Stop::kEndOfKernel, Stop::kShuffle}) {
    if (BarrierOf(index, stop).waiting == 0) continue;
    return Diverged(index,
                    fmt::format("has returned, and others wait for it at the "
                                "barrier of line {}",
                                BarrierOf(index, stop).site));
  }
  return OkStatus();
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
    const std::string shuffling = Threads(block, Stop::kShuffle);
    if (!shuffling.empty()) {
      out += fmt::format("{} threads{} at a shuffle", where, shuffling);
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

uint64_t FiberScheduler::Impl::Shuffle(int index, uint64_t value, int source,
                                       int site) {
  Slot& slot = *slots_[index];
  slot.given.store(value, kRelaxed);
  slot.source.store(source, kRelaxed);
  slot.vote.store(false, kRelaxed);
  slot.site.store(site, kRelaxed);
  Park(index, Stop::kShuffle);
  return slot.gotten.load(kRelaxed);
}

}  // namespace shardproof::cuda
