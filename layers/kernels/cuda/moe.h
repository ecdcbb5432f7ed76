// Moving the rows of tokens to experts and back, on a GPU: the contract of ../moe.h, for f32, bf16 and f16.
//
//     void(GatherRowsArgs)       a block for each row of the result
//     void(CombineRowsArgs)      a block for each token
//     void(RowDotsArgs)          a block for each token
//
// Bytes, for tokens x k rows of `width` elements of e bytes, n in all: GatherRows n e read and written; CombineRows n e
// read and n e / k written, and the addends read; RowDots n e read, and y, which stays in registers where a row of it
// fits (4 packets for each thread).
#ifndef SHARDPROOF_LAYERS_KERNELS_CUDA_MOE_H_
#define SHARDPROOF_LAYERS_KERNELS_CUDA_MOE_H_

#include <cmath>
#include <cstdint>

#include "layers/kernels/cuda/packet.h"
#include "layers/kernels/cuda/team.h"
#include "layers/kernels/moe.h"

namespace shardproof::cuda {

template <class T, class Context>
SHARDPROOF_DEVICE void GatherRows(Context& context, const GatherRowsArgs& a) {
  constexpr int kN = kPerVector<T>;
  const auto* const scales = static_cast<const float*>(a.scale);
  for (int64_t row = context.block(); row < a.rows; row += context.blocks()) {
    const T* const from =
        static_cast<const T*>(a.source) + context.Load(a.index + row) * a.width;
    T* const to = static_cast<T*>(a.out) + row * a.width;
    const float scale = scales == nullptr ? 1.0F : context.Load(scales + row);
    const PacketMap<kN> map(static_cast<int>(a.width), context.thread(),
                            context.threads(), AllAligned(from, to));
    for (int k = 0; map.Has(k); ++k) {
      auto packet = LoadPacket(context, map, k, from);
      if (scales != nullptr) {
        Unrolled<kN>([&](int j) {
          packet.values[j] = context.template Narrow<T>(
              scale * context.Widen(packet.values[j]));
        });
      }
      StorePacket(context, map, k, to, packet);
    }
  }
}

template <class T, class Context>
SHARDPROOF_DEVICE void CombineRows(Context& context, const CombineRowsArgs& a) {
  constexpr int kN = kPerVector<T>;
  const auto* const source = static_cast<const T*>(a.source);
  const auto* const weights = static_cast<const float*>(a.weights);
  const auto* const wide = static_cast<const float*>(a.wide);
  const auto* const narrow = static_cast<const T*>(a.narrow);
  auto* const out = static_cast<T*>(a.out);
  // Of all rows alike: those of the source lie anywhere.
  const PacketMap<kN> map(
      static_cast<int>(a.width), context.thread(), context.threads(),
      a.width % kN == 0 && AllAligned(source, out, narrow) && AllAligned(wide));
  for (int64_t token = context.block(); token < a.tokens;
       token += context.blocks()) {
    const int64_t at = token * a.width;
    for (int k = 0; map.Has(k); ++k) {
      Packet<float, kN> sum{};
      for (int64_t s = token * a.k; s < (token + 1) * a.k; ++s) {
        const int64_t place = context.Load(a.place + s);
        if (place < 0) continue;
        const float weight =
            weights == nullptr ? 1.0F : context.Load(weights + s);
        const auto x = LoadPacket(context, map, k, source + place * a.width);
        // Times 1 is exact, and so a sum without weights.
        Unrolled<kN>([&](int j) {
          sum.values[j] =
              fmaf(weight, context.Widen(x.values[j]), sum.values[j]);
        });
      }
      if (wide != nullptr) {
        const auto more = LoadPacket(context, map, k, wide + at);
        Unrolled<kN>([&](int j) { sum.values[j] += more.values[j]; });
      }
      Packet<T, kN> packet{};
      if (narrow != nullptr) {
        packet = LoadPacket(context, map, k, narrow + at);
        Unrolled<kN>(
            [&](int j) { sum.values[j] += context.Widen(packet.values[j]); });
      }
      Unrolled<kN>([&](int j) {
        packet.values[j] = context.template Narrow<T>(sum.values[j]);
      });
      StorePacket(context, map, k, out + at, packet);
    }
  }
}

template <class T, class Team>
SHARDPROOF_DEVICE void RowDotsOfToken(Team& team, const RowDotsArgs& a,
                                      int64_t token) {
  constexpr int kN = kPerVector<T>, kPackets = 4;
  auto& context = team.context();
  const auto* const source = static_cast<const T*>(a.source);
  const T* const y = static_cast<const T*>(a.y) + token * a.width;
  const RowPass<kN, kPackets> pass(team, a.width,
                                   a.width % kN == 0 && AllAligned(source, y));
  Packet<T, kN> held[kPackets];
  bool loaded = false;
  for (int64_t s = token * a.k; s < (token + 1) * a.k; ++s) {
    const int64_t place = context.Load(a.place + s);
    float dot = 0;
    if (place >= 0) {
      const T* const x = source + place * a.width;
      pass.Run(
          loaded,
          [&](int slot, int k) {
            held[slot] = LoadPacket(context, pass.map(), k, y);
          },
          [&](int slot, int k) {
            const auto other = LoadPacket(context, pass.map(), k, x);
            Unrolled<kN>([&](int j) {
              // 0 where there is no element.
              dot = fmaf(context.Widen(held[slot].values[j]),
                         context.Widen(other.values[j]), dot);
            });
          });
      loaded = true;
      dot = team.Sum(dot);
    }
    if (team.thread() == 0) context.Store(static_cast<float*>(a.dots) + s, dot);
  }
}

template <class T, class Team>
SHARDPROOF_DEVICE void RowDots(Team& team, const RowDotsArgs& a) {
  for (int64_t token = team.first_row(); token < a.tokens;
       token += team.row_step()) {
    RowDotsOfToken<T>(team, a, token);
  }
}

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_LAYERS_KERNELS_CUDA_MOE_H_
