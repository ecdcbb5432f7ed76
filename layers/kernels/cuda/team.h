// The threads of a block as a team that works on rows, one at a time.
//
//     Team team(context);
//     for (int64_t row = team.first_row(); row < rows; row += team.row_step()) {
//       RowPass<8, 4> pass(team, columns, AllAligned(x + row * columns));
//       Packet<BFloat16, 8> held[4];
//       float sum = 0;
//       pass.Run(false,                                                  // Nothing is held yet.
//           [&](int slot, int k) { held[slot] = LoadPacket(context, pass.map(), k, x + row * columns); },
//           [&](int slot, int k) { for (int j = 0; j < 8; ++j) sum += context.Widen(held[slot].values[j]); });
//       sum = team.Sum(sum);                                             // The same bits in every thread.
//       pass.Run(true, ...);                                             // Loads again only where a row is too long.
//     }
//
// A block has 32 threads, and then needs no barrier, or a multiple of that: a row that one warp holds belongs to a warp.
//
// Reductions: within warps by shuffles, whose order is the same in all lanes since each pair is combined by an
// operation that commutes bitwise; then over warps, ascending, through shared memory. So the bits of a sum depend on the
// number of threads and on nothing else. There are two slots of shared memory, used in turn, so that one barrier
// suffices: a thread writes to a slot again after the barrier of the reduction between, before which all have read it.
//
// Protocol is there for the tests, which break one of its lines and must then fail.
#ifndef SHARDPROOF_LAYERS_KERNELS_CUDA_TEAM_H_
#define SHARDPROOF_LAYERS_KERNELS_CUDA_TEAM_H_

#include <cmath>
#include <cstddef>
#include <cstdint>

#include "collectives/backend/cuda/kernels/world.h"
#include "layers/kernels/cuda/packet.h"

namespace shardproof::cuda {

struct StandardProtocolOfTeams {
  static constexpr bool kSyncs = true;
  static constexpr int kSlots = 2;
};

inline constexpr int kLanes = 32;
// What a kernel is compiled for at most, so that 128 registers are left for each thread.
inline constexpr int kMaxTeam = 512;

template <class ContextT, class ProtocolT = StandardProtocolOfTeams>
class Team {
 public:
  using Context = ContextT;
  using Protocol = ProtocolT;
  static constexpr int kMostBytes = 16;  // Of what is reduced.
  static constexpr int kWarps = kMaxTeam / kLanes;
  static constexpr int kSharedBytes = 2 * kWarps * kMostBytes;

  SHARDPROOF_DEVICE explicit Team(Context& context)
      : context_(context), shared_(context.template Shared<kSharedBytes>()) {}

  SHARDPROOF_DEVICE Context& context() const { return context_; }
  SHARDPROOF_DEVICE int thread() const { return context_.thread(); }
  SHARDPROOF_DEVICE int threads() const { return context_.threads(); }
  SHARDPROOF_DEVICE int64_t first_row() const { return context_.block(); }
  SHARDPROOF_DEVICE int64_t row_step() const { return context_.blocks(); }

  // `combine` commutes bitwise.
  template <class V, class Combine>
  SHARDPROOF_DEVICE V Reduce(V value, const Combine& combine) {
    static_assert(sizeof(V) <= kMostBytes);
    for (int mask = kLanes / 2; mask > 0; mask /= 2) {
      value = combine(value, context_.ShuffleXor(value, mask));
    }
    const int warps = threads() / kLanes;
    if (warps == 1) return value;
    auto* const slot =
        reinterpret_cast<V*>(shared_ + slot_ * kWarps * kMostBytes);
    slot_ = (slot_ + 1) % Protocol::kSlots;
    if (thread() % kLanes == 0) context_.Store(slot + thread() / kLanes, value);
    if constexpr (Protocol::kSyncs) context_.Sync();
    value = context_.Load(slot);
    for (int warp = 1; warp < warps; ++warp) {
      value = combine(value, context_.Load(slot + warp));
    }
    return value;
  }
  SHARDPROOF_DEVICE float Sum(float value) {
    return Reduce(value, [](float a, float b) { return a + b; });
  }
  // Of what is not NaN.
  SHARDPROOF_DEVICE float Max(float value) {
    return Reduce(value, [](float a, float b) { return fmaxf(a, b); });
  }

 private:
  Context& context_;
  std::byte* shared_;
  int slot_ = 0;
};

// Two sums at a time.
struct SumPair {
  float a, b;
};
template <class Team>
SHARDPROOF_DEVICE SumPair SumBoth(Team& team, const SumPair& value) {
  return team.Reduce(value, [](const SumPair& x, const SumPair& y) {
    return SumPair{x.a + y.a, x.b + y.b};
  });
}

// Passes over a row, kPackets packets of each thread at a time: what is loaded in the first pass is still in registers
// in the next ones if these are all.
template <int kN, int kPackets>
class RowPass {
 public:
  using Map = PacketMap<kN>;

  template <class Team>
  SHARDPROOF_DEVICE RowPass(const Team& team, int64_t columns, bool contiguous)
      : map_(static_cast<int>(columns), team.thread(), team.threads(),
             contiguous),
        pieces_(static_cast<int>((columns + Capacity(team.threads()) - 1) /
                                 Capacity(team.threads()))) {}

  // The longest row that registers hold.
  SHARDPROOF_DEVICE static int64_t Capacity(int threads) {
    return static_cast<int64_t>(threads) * kN * kPackets;
  }
  SHARDPROOF_DEVICE bool Fits() const { return pieces_ <= 1; }
  SHARDPROOF_DEVICE const Map& map() const { return map_; }

  // load(slot, k) and then use(slot, k) for the packets k of this thread, slot in [0, kPackets); all loads of a piece
  // first, so that they are under way together. `held`: what a row that fits has loaded is still there.
  template <class LoadPackets, class Use>
  SHARDPROOF_DEVICE void Run(bool held, const LoadPackets& load,
                             const Use& use) const {
    for (int piece = 0; piece < pieces_; ++piece) {
      if (!held || !Fits()) {
        Unrolled<kPackets>([&](int slot) {
          const int k = piece * kPackets + slot;
          if (map_.Has(k)) load(slot, k);
        });
      }
      Unrolled<kPackets>([&](int slot) {
        const int k = piece * kPackets + slot;
        if (map_.Has(k)) use(slot, k);
      });
    }
  }

 private:
  Map map_;
  int pieces_;
};

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_LAYERS_KERNELS_CUDA_TEAM_H_
