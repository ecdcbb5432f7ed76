// Attention forward by warpgroups, for sm_90a: what ../forward.h computes, by wgmma on tiles that TMA copies.
//
// One thread of the producer copies, kStages tiles ahead, and each consumer multiplies 64 queries (tiling.h). They meet at
// barriers in shared memory (mbarrier). Round i of a stage: "came" completes its phase i when the bytes that the producer
// expects are there, "left" when every warp of every consumer has done with them.
//
//     producer    Q | K 0 | K 1 | V 0 | K 2 | V 1 | ...             each when the stage has been left kStages before
//     consumer    S = Q K_0 | softmax |  for i = 1, 2, ...:  S = Q K_i  and  O += P V_(i-1)  are under way together
//                                             | S done: K_i left, softmax of S | O done: V_(i-1) left, O = a O, P = S |
//                 O += P V_last
//
// So softmax of a tile runs beside the product with V of the one before, and the warps of the other consumer multiply or
// exponentiate as it happens. Rejected: forcing consumers to take turns by named barriers, before that can be measured.
//
// P is rounded to T before the product with V, and summed as it is before that; everything else is f32.
//
// What a context has beside that of ../tile.h (ShuffleXor, Exp2, Log2, Pack, Store, Sync). Offsets are bytes of shared memory:
//
//     SharedAddress(offset)                        as descriptors and barriers have it
//     InitializeBarrier(offset, arrivals), PublishBarriers()
//     ExpectBytes(offset, bytes)                   arrives, and adds bytes that the phase waits for
//     Arrive(offset), Await(offset, parity)        until the phase of this parity is complete
//     CopyBox(map, to, barrier, column, head, token, sequence)      by one thread
//     FenceProducts, CommitProducts, AwaitProducts<kPending>        wgmma.fence, commit_group, wait_group
//     MultiplyShared<T, kAccumulates>(c, a, b)     of descriptors, both K-major
//     MultiplyWords<T>(c, words, b)                A of registers, B MN-major
//     Settle(registers)                            what has been waited for: no earlier use of it
//     GiveRegisters<n>, TakeRegisters<n>           setmaxnreg
//
// Sources: Shah et al., FlashAttention-3, arXiv:2407.08608; PTX ISA, "Asynchronous Warpgroup Level Matrix Instructions",
// "mbarrier", "cp.async.bulk.tensor".
#ifndef SHARDPROOF_ATTENTION_KERNELS_CUDA_WARPGROUP_FORWARD_H_
#define SHARDPROOF_ATTENTION_KERNELS_CUDA_WARPGROUP_FORWARD_H_

#include <cstdint>

#include "attention/kernels/cuda/arguments.h"
#include "attention/kernels/cuda/mask.h"
#include "attention/kernels/cuda/products.h"
#include "attention/kernels/cuda/softmax.h"
#include "attention/kernels/cuda/warpgroup/protocol.h"
#include "attention/kernels/cuda/warpgroup/tiling.h"
#include "attention/kernels/cuda/warpgroup/wgmma.h"

namespace shardproof::cuda {

// What a block works on.
struct WarpgroupPart {
  FlashPart part;
  int row = 0;        // The first query.
  SeenByTile seen;    // By its queries.
  int first_key = 0;  // Of the first tile.
  int tiles = 0;      // Of keys.
};

template <class Tiling>
SHARDPROOF_DEVICE WarpgroupPart WarpgroupPartOf(int block,
                                                const FlashWork& work) {
  constexpr int kRows = Tiling::kRows, kKeys = Tiling::kKeys;
  const int queries = work.sight.queries.count;
  WarpgroupPart mine;
  mine.part = FlashPartOf(block, TilesOf(queries, kRows), work.heads,
                          TileOrder::kLastTileFirst);
  mine.row = mine.part.tile * kRows;
  const int rows = queries - mine.row < kRows ? queries - mine.row : kRows;
  mine.seen = TileSees(KeysSeen(work.sight, mine.row),
                       KeysSeen(work.sight, mine.row + rows - 1));
  mine.first_key = mine.seen.some.first / kKeys * kKeys;
  const int keys = mine.seen.some.last - mine.first_key;
  mine.tiles = keys > 0 ? TilesOf(keys, kKeys) : 0;
  return mine;
}

// The stage of tile i, and the parity of its round.
template <class Tiling>
SHARDPROOF_DEVICE int StageOf(int i) {
  return i % Tiling::kStages;
}
template <class Tiling>
SHARDPROOF_DEVICE uint32_t ParityOf(int i) {
  return static_cast<uint32_t>(i / Tiling::kStages) & 1;
}

template <class Tiling, class Protocol, class Context>
SHARDPROOF_DEVICE void CopyPanels(Context& context, const TileMap& map,
                                  uint32_t to, uint32_t barrier, int rows,
                                  int head, int token, int sequence) {
  const uint32_t panel = Tiling::PanelBytes(rows);
  context.ExpectBytes(barrier,
                      Tiling::kPanels * panel - Protocol::kMissingBytes);
  SHARDPROOF_UNROLLED
  for (int i = 0; i < Tiling::kPanels; ++i) {
    context.CopyBox(map, to + static_cast<uint32_t>(i) * panel, barrier,
                    i * kPanelColumns, head, token, sequence);
  }
}

// By one thread.
template <class Tiling, class Protocol, class Context>
SHARDPROOF_DEVICE void ProduceTiles(Context& context,
                                    const WarpgroupForwardArgs& args,
                                    const WarpgroupPart& mine) {
  const FlashPart& part = mine.part;
  const int kv_head = args.flash.work.KvHeadOf(part.head);
  const auto copy = [&](const TileMap& map, uint32_t to, uint32_t came,
                        uint32_t left, int i) {
    // A stage that nobody has had yet is as if left in the round before.
    if constexpr (Protocol::kAwaitsRoom) {
      context.Await(left, ParityOf<Tiling>(i) ^ 1);
    }
    CopyPanels<Tiling, Protocol>(context, map, to, came, Tiling::kKeys, kv_head,
                                 mine.first_key + i * Tiling::kKeys,
                                 part.sequence);
  };
  const auto copy_keys = [&](int i) {
    const int stage = StageOf<Tiling>(i);
    copy(args.k, Tiling::KeysAt(stage), Tiling::KeysCame(stage),
         Tiling::KeysLeft(stage), i);
  };
  if (mine.tiles == 0) return;
  CopyPanels<Tiling, Protocol>(context, args.q, Tiling::kQ, Tiling::kQCame,
                               Tiling::kRows, part.head, mine.row,
                               part.sequence);
  copy_keys(0);
  for (int i = 0; i < mine.tiles; ++i) {
    if (i + 1 < mine.tiles) copy_keys(i + 1);
    const int stage = StageOf<Tiling>(i);
    copy(args.v, Tiling::ValuesAt(stage), Tiling::ValuesCame(stage),
         Tiling::ValuesLeft(stage), i);
  }
}

// The products of a consumer: the 64 rows from `row` on.
template <class T, class TilingT, class Protocol, class Context>
class WarpgroupProducts {
 public:
  using Tiling = TilingT;
  static constexpr int kScores = Tiling::kKeys / kMmaColumns;
  static constexpr int kOperands = Tiling::kHeadDim / kMmaColumns;
  static constexpr int kSteps = Tiling::kKeys / kWgmmaDepth;

  SHARDPROOF_DEVICE WarpgroupProducts(Context& context, int row)
      : context_(context), row_(row) {}

  // S = Q K^T, as one group.
  SHARDPROOF_DEVICE void StartScores(float (&s)[1][kScores][4], int i) {
    const int stage = StageOf<Tiling>(i);
    if constexpr (Protocol::kAwaitsKeys) Came(Tiling::KeysCame(stage), i);
    const uint32_t q =
        context_.SharedAddress(Tiling::kQ) + Tiling::PanelBytes(row_);
    const uint32_t k = context_.SharedAddress(Tiling::KeysAt(stage));
    Fence();
    SHARDPROOF_UNROLLED
    for (int e = 0; e < Tiling::kHeadDim; e += kWgmmaDepth) {
      const int panel = e / kPanelColumns;
      const auto within = static_cast<uint32_t>(e % kPanelColumns) * 2;
      const uint64_t a =
          DescriptorOf(q + panel * Tiling::PanelBytes(Tiling::kRows) + within);
      const uint64_t b =
          DescriptorOf(k + panel * Tiling::PanelBytes(Tiling::kKeys) + within);
      if (e == 0) {
        context_.template MultiplyShared<T, false>(s[0], a, b);
      } else {
        context_.template MultiplyShared<T, true>(s[0], a, b);
      }
    }
    context_.CommitProducts();
    if constexpr (Protocol::kReleasesEarly) Leave(Tiling::KeysLeft(stage));
  }

  // O += P V, as one group.
  SHARDPROOF_DEVICE void StartResults(float (&o)[1][kOperands][4],
                                      const uint32_t (&p)[kSteps][4], int i) {
    const int stage = StageOf<Tiling>(i);
    if constexpr (Protocol::kAwaitsValues) Came(Tiling::ValuesCame(stage), i);
    const uint32_t v = context_.SharedAddress(Tiling::ValuesAt(stage));
    Fence();
    SHARDPROOF_UNROLLED
    for (int step = 0; step < kSteps; ++step) {
      const OperandLayout layout = {
          .start = v + Tiling::PanelBytes(step * kWgmmaDepth),
          .leading = Tiling::PanelBytes(Tiling::kKeys),
          .stride = Protocol::kValuesStride,
          .swizzle = Protocol::kRead};
      context_.template MultiplyWords<T>(o[0], p[step], Encode(layout));
    }
    context_.CommitProducts();
    if constexpr (Protocol::kReleasesEarly) Leave(Tiling::ValuesLeft(stage));
  }

  // Once S of tile i is done.
  SHARDPROOF_DEVICE void LeaveKeys(int i) {
    if constexpr (!Protocol::kReleasesEarly) {
      Leave(Tiling::KeysLeft(StageOf<Tiling>(i)));
    }
  }
  SHARDPROOF_DEVICE void LeaveValues(int i) {
    if constexpr (!Protocol::kReleasesEarly) {
      Leave(Tiling::ValuesLeft(StageOf<Tiling>(i)));
    }
  }

 private:
  SHARDPROOF_DEVICE static uint64_t DescriptorOf(uint32_t start) {
    return Encode({.start = start, .swizzle = Protocol::kRead});
  }
  SHARDPROOF_DEVICE void Came(uint32_t barrier, int i) {
    context_.Await(barrier, ParityOf<Tiling>(i) ^ Protocol::kParityShift);
  }
  SHARDPROOF_DEVICE void Fence() {
    if constexpr (Protocol::kFences) context_.FenceProducts();
  }
  // For a warp, all of whose lanes have waited for the product.
  SHARDPROOF_DEVICE void Leave(uint32_t barrier) {
    if constexpr (Protocol::kReleases) {
      if (context_.thread() % kWarpLanes == 0) context_.Arrive(barrier);
    }
  }

  Context& context_;
  const int row_;
};

// Of results to operands: their registers are those of ../fragment.h.
template <class T, class Context, int kScores>
SHARDPROOF_DEVICE void PackOperands(Context& context,
                                    const float (&s)[1][kScores][4],
                                    uint32_t (&p)[kScores / 2][4]) {
  SHARDPROOF_UNROLLED
  for (int k = 0; k < kScores / 2; ++k) {
    SHARDPROOF_UNROLLED
    for (int word = 0; word < 4; ++word) {
      const WordOfC from = WordOfAFromC(word);
      const float* const two = &s[0][2 * k + from.tile][from.first];
      p[k][word] = context.template Pack<T>(two[0], two[1]);
    }
  }
}

// Of a warp, whose first query is `row`: scores of tile i become exponentials.
template <class Tiling, class Protocol, class Context, int kScores>
SHARDPROOF_DEVICE void SoftmaxOfTile(Context& context, const FlashWork& work,
                                     const WarpgroupPart& mine, int row, int i,
                                     float (&s)[1][kScores][4],
                                     RowSums<2>& sums, float (&factors)[2]) {
  const int lane = context.thread() % kWarpLanes;
  const int key = mine.first_key + i * Tiling::kKeys;
  if (!mine.seen.IsWhole(key, key + Tiling::kKeys)) {
    HideUnseen<Protocol>(lane, key, s, [&](int number) {
      return KeysSeen(work.sight, row + RowOfLane(lane, number));
    });
  }
  SHARDPROOF_UNROLLED
  for (int n = 0; n < 2; ++n) {
    factors[n] = OnlineSoftmaxOfRow(context, work.exponent_scale, n, s, sums);
  }
}

template <class T, class Tiling, class Protocol, class Context>
SHARDPROOF_DEVICE void ConsumeTiles(Context& context,
                                    const WarpgroupForwardArgs& args,
                                    const WarpgroupPart& mine) {
  using Products = WarpgroupProducts<T, Tiling, Protocol, Context>;
  const FlashWork& work = args.flash.work;
  const int thread = context.thread() - kWarpgroupThreads;
  const int group_row = thread / kWarpgroupThreads * kWgmmaRows;
  const int row = mine.row + thread / kWarpLanes * kMmaRows;
  Products products(context, group_row);

  float s[1][Products::kScores][4], o[1][Products::kOperands][4];
  uint32_t p[Products::kSteps][4];
  SetZero(o);
  RowSums<2> sums;
  sums.Clear();
  float factors[2];  // Of O.
  if (mine.tiles > 0) {
    context.Await(Tiling::kQCame, 0);
    products.StartScores(s, 0);
    if constexpr (Protocol::kAwaitsScores) {
      context.template AwaitProducts<0>();
      context.Settle(s[0]);
    }
    products.LeaveKeys(0);
    SoftmaxOfTile<Tiling, Protocol>(context, work, mine, row, 0, s, sums,
                                    factors);
    PackOperands<T>(context, s, p);
    for (int i = 1; i < mine.tiles; ++i) {
      products.StartScores(s, i);
      products.StartResults(o, p, i - 1);
      if constexpr (Protocol::kAwaitsScores) {
        context.template AwaitProducts<1>();
        context.Settle(s[0]);
      }
      products.LeaveKeys(i);
      SoftmaxOfTile<Tiling, Protocol>(context, work, mine, row, i, s, sums,
                                      factors);
      if constexpr (Protocol::kAwaitsResults) {
        context.template AwaitProducts<0>();
        context.Settle(o[0]);
      }
      products.LeaveValues(i - 1);
      SHARDPROOF_UNROLLED
      for (int n = 0; n < 2; ++n) RescaleRow<Protocol>(factors[n], n, o);
      PackOperands<T>(context, s, p);
    }
    // The stage of the last values is left to nobody.
    products.StartResults(o, p, mine.tiles - 1);
    context.template AwaitProducts<0>();
    context.Settle(o[0]);
  }
  StoreResults<T, Tiling::kHeadDim, Protocol>(context, args.flash, mine.part,
                                              row, sums, o);
}

template <class T, class Tiling, class Protocol = StandardWarpgroupProtocol,
          class Context>
SHARDPROOF_DEVICE void WarpgroupForward(Context& context,
                                        const WarpgroupForwardArgs& args) {
  const auto mine = WarpgroupPartOf<Tiling>(context.block(), args.flash.work);
  if (context.thread() == 0) {
    constexpr int kWarps = Tiling::kConsumers * kWarpgroupWarps;
    context.InitializeBarrier(Tiling::kQCame, 1);
    for (int stage = 0; stage < Tiling::kStages; ++stage) {
      context.InitializeBarrier(Tiling::KeysCame(stage), 1);
      context.InitializeBarrier(Tiling::ValuesCame(stage), 1);
      context.InitializeBarrier(Tiling::KeysLeft(stage), kWarps);
      context.InitializeBarrier(Tiling::ValuesLeft(stage), kWarps);
    }
    context.PublishBarriers();
  }
  context.Sync();
  if (context.thread() < kWarpgroupThreads) {
    context.template GiveRegisters<Tiling::kProducerRegisters>();
    if (context.thread() == 0) {
      ProduceTiles<Tiling, Protocol>(context, args, mine);
    }
  } else {
    context.template TakeRegisters<Tiling::kConsumerRegisters>();
    ConsumeTiles<T, Tiling, Protocol>(context, args, mine);
  }
}

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_ATTENTION_KERNELS_CUDA_WARPGROUP_FORWARD_H_
