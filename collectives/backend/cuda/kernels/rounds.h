// Flag rounds: how the blocks of a kernel on all ranks meet.
//
//     Rounds rounds(context, world);
//     if (!rounds.Begin()) return;
//     if (!rounds.Enter()) return;   // every rank is here: its buffers may be read and written
//     ... loads from and stores to any rank ...
//     if (!rounds.Depart()) return;  // every rank's loads and stores are done
//     rounds.End();
//
// A round is between the blocks of equal number b of all ranks, and of no other blocks. In its round n, block b of rank
// s
//
//     synchronizes itself; stores n with release to arrived[n & 1][b][s] of every peer;
//     waits until its own arrived[n & 1][b][r] is n for every peer r, with acquire; synchronizes itself.
//
// So all that the blocks b of all ranks did before the round happens before all that they do after it.
//
// Why two slots of flags, and why a wait may ask for equality. Let A wait for B in round n. B writes n + 2, the next
// value of the same slot, after it has passed round n + 1, for which it needed A's n + 1, which A sends after it has
// passed round n. So while A waits the slot holds n - 2 or n: nothing is overtaken, no order of numbers is needed, and
// counting modulo 2^32 is exact. A third value shows that the ranks disagree, and is reported at once. With one slot B
// could be at n + 1 before A has looked, and A would wait for ever.
//
// Why two slots of payload, and no round after the last. What A writes to Slot in round n, B reads after round n. A
// writes to the same slot again before round n + 2, so after round n + 1, for which it needed B's n + 1. B's block b
// sends that after it has synchronized, so after its reads of round n. Between kernels the blocks may have had
// different parts of the slot: then B's n + 1 comes from a later kernel than the reads, which the order of kernels in a
// stream puts behind all blocks of the first, or A's writes do, whose kernel before ended only after all blocks of B
// sent n + 1. Both need n to be the same for all blocks: the grid is the same on all ranks and in all calls.
//
// A wait that outlasts the patience of the world writes the failure word of its own rank and ends the block; kernels
// that find the word set do nothing. The group is of no use after that.
//
// The context is what differs between a GPU and fibers (cuda_context.cuh, ../fiber/fiber_context.h):
//
//     rank() block() blocks() thread() threads()     who this is
//     Sync(); bool SyncOr(bool)                      __syncthreads, __syncthreads_or
//     StoreRelease(flag, value); Wait(flag, wanted, before, peer, patience) -> SpinEnd
//     Load(pointer), Store(pointer, value)           data, of this or another rank: never through a cache that is not coherent
//     FailureWord(word); Fail(word, value)           atomic; the first failure stays
//
// and, for kernels on one GPU (layers/kernels/cuda/README.md),
//
//     ShuffleXor(value, mask)                        __shfl_xor_sync of a whole warp: no order between accesses to memory
//     Shared<bytes>()                                memory of the block, which begins as anything
//     AtomicAdd(pointer, value)                      64-bit integers, relaxed
//     Widen(x), Narrow<T>(f32)                       conversions, rounded to nearest
//
// Protocol is there for the tests, which break one of its lines and must then fail.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_CUDA_KERNELS_ROUNDS_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_CUDA_KERNELS_ROUNDS_H_

#include <cstddef>
#include <cstdint>

#include "collectives/backend/cuda/kernels/world.h"

namespace shardproof::cuda {

enum class SpinEnd : uint8_t { kCame, kDeadline, kBadSignal };

struct StandardProtocol {
  static constexpr uint32_t FlagSlot(uint32_t round) { return round & 1; }
  static constexpr uint32_t PayloadSlot(uint32_t round) { return round & 1; }
  // As whom a rank signals, and which block of it.
  static constexpr int Signature(int rank, int /*ranks*/) { return rank; }
  static constexpr bool kEnters = true;
  static constexpr bool kDeparts = true;
  static constexpr bool kSyncsBeforeSignal = true;
  static constexpr bool kSyncsAfterWait = true;
  static constexpr bool kKeepsRound = true;
  // How far the second stage of a staged kernel is from the map of the first, in vectors.
  static constexpr int kStageShift = 0;
};

template <class ContextT, class ProtocolT = StandardProtocol>
class Rounds {
 public:
  using Context = ContextT;
  using Protocol = ProtocolT;

  SHARDPROOF_DEVICE Rounds(Context& context, const World& world)
      : context_(context),
        world_(world),
        page_(*world.pages[context.rank()]),
        round_(context.Load(&page_.round[context.block()])) {}

  SHARDPROOF_DEVICE Context& context() const { return context_; }
  SHARDPROOF_DEVICE const World& world() const { return world_; }
  SHARDPROOF_DEVICE int rank() const { return context_.rank(); }
  SHARDPROOF_DEVICE int ranks() const { return world_.ranks; }

  // False where this rank has failed before. One thread looks: a failure of another block may come between two looks.
  // The barrier is also what keeps End behind the loads of `round` by all threads.
  SHARDPROOF_DEVICE bool Begin() {
    const bool failed =
        context_.thread() == 0 && context_.FailureWord(&page_.failure) != 0;
    return !context_.SyncOr(failed);
  }

  // One round. False after a failure, in all threads of the block.
  SHARDPROOF_DEVICE bool Meet() {
    ++round_;
    if constexpr (Protocol::kSyncsBeforeSignal) context_.Sync();
    const int block = context_.block();
    const uint32_t slot = Protocol::FlagSlot(round_);
    for (int peer = context_.thread(); peer < ranks();
         peer += context_.threads()) {
      if (peer == rank()) continue;
      context_.StoreRelease(
          &world_.pages[peer]
               ->arrived[slot][block][Protocol::Signature(rank(), ranks())],
          round_);
    }
    bool failed = false;
    for (int peer = context_.thread(); peer < ranks();
         peer += context_.threads()) {
      if (peer == rank()) continue;
      const SpinEnd end =
          context_.Wait(&page_.arrived[slot][block][peer], round_, round_ - 2,
                        peer, world_.patience);
      if (end == SpinEnd::kCame) continue;
      failed = true;
      const Failure failure = {.code = end == SpinEnd::kDeadline
                                           ? FailureCode::kDeadline
                                           : FailureCode::kBadSignal,
                               .block = block,
                               .peer = peer,
                               .round = round_};
      context_.Fail(&page_.failure, failure.Pack());
      if (world_.reports != nullptr) {
        context_.Fail(&world_.reports[rank()], failure.Pack());
      }
    }
    if constexpr (Protocol::kSyncsAfterWait) return !context_.SyncOr(failed);
    return !failed;
  }

  SHARDPROOF_DEVICE bool Enter() {
    if constexpr (Protocol::kEnters) return Meet();
    return true;
  }
  SHARDPROOF_DEVICE bool Depart() {
    if constexpr (Protocol::kDeparts) return Meet();
    return true;
  }

  // Where `source` puts for `target` what target reads after the next round.
  SHARDPROOF_DEVICE std::byte* NextSlot(int target, int source) const {
    return Slot(round_ + 1, target, source);
  }
  // Where `source` has put for this rank what may be read after the last round.
  SHARDPROOF_DEVICE const std::byte* LastSlot(int source) const {
    return Slot(round_, rank(), source);
  }

  SHARDPROOF_DEVICE void End() {
    if constexpr (!Protocol::kKeepsRound) return;
    if (context_.thread() == 0) {
      context_.Store(&page_.round[context_.block()], round_);
    }
  }

 private:
  SHARDPROOF_DEVICE std::byte* Slot(uint32_t round, int target,
                                    int source) const {
    const int64_t number =
        static_cast<int64_t>(Protocol::PayloadSlot(round)) * ranks() + source;
    return world_.staging[target] + number * world_.slot_bytes;
  }

  Context& context_;
  const World& world_;
  SignalPage& page_;
  uint32_t round_;
};

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_CUDA_KERNELS_ROUNDS_H_
