// Rotary position embedding on a GPU: the contract and the layout of ../rope.h, for f32, bf16 and f16, in place.
//
//     void(RopeRows, RopeArgs)        a block for each token
//
// Bytes, for n elements of e bytes: n e read and written; cosines and sines, of f32 as in RopeTable, come from a cache for
// all heads but the first.
#ifndef SHARDPROOF_LAYERS_KERNELS_CUDA_ROPE_H_
#define SHARDPROOF_LAYERS_KERNELS_CUDA_ROPE_H_

#include <cmath>
#include <cstdint>

#include "layers/kernels/cuda/packet.h"
#include "layers/kernels/rope.h"

namespace shardproof::cuda {

// A RopeTable in the memory of the GPU.
struct RopeRows {
  int64_t rows = 0;
  int64_t head_dim = 0;
  const float* cosines = nullptr;  // [rows, head_dim / 2]
  const float* sines = nullptr;
  RopeDirection direction = RopeDirection::kForward;
};

template <class T, int kN, class Context>
SHARDPROOF_DEVICE void TurnPairs(Context& context, float sign,
                                 const Packet<float, kN>& cosines,
                                 const Packet<float, kN>& sines,
                                 Packet<T, kN>& low, Packet<T, kN>& high) {
  Unrolled<kN>([&](int j) {
    const float a = context.Widen(low.values[j]);
    const float b = context.Widen(high.values[j]);
    const float c = cosines.values[j], s = sines.values[j] * sign;
    low.values[j] = context.template Narrow<T>(fmaf(-b, s, a * c));
    high.values[j] = context.template Narrow<T>(fmaf(a, s, b * c));
  });
}

template <class T, class Context>
SHARDPROOF_DEVICE void Rope(Context& context, const RopeRows& table,
                            const RopeArgs& args) {
  constexpr int kN = kPerVector<T>;
  const auto half = static_cast<int>(table.head_dim / 2);
  const float sign = table.direction == RopeDirection::kForward ? 1.0F : -1.0F;
  for (int64_t token = context.block(); token < args.tokens;
       token += context.blocks()) {
    const int64_t row = token % table.rows * half;
    const float* const cosines = table.cosines + row;
    const float* const sines = table.sines + row;
    T* const x = static_cast<T*>(args.x) + token * args.stride;
    // Packets of pairs; with whole heads of them, none lies in two heads.
    const PacketMap<kN> map(static_cast<int>(args.heads) * half,
                            context.thread(), context.threads(),
                            half % kN == 0 && AllAligned(cosines, sines, x));
    const auto at = [&](int pair) {
      return x + pair / half * (2 * half) + pair % half;
    };
    for (int k = 0; map.Has(k); ++k) {
      if (map.contiguous()) {
        const int pair = map.Element(k, 0);
        T* const first = at(pair);
        auto low = LoadWhole<kN>(context, first);
        auto high = LoadWhole<kN>(context, first + half);
        TurnPairs(context, sign, LoadWhole<kN>(context, cosines + pair % half),
                  LoadWhole<kN>(context, sines + pair % half), low, high);
        StoreWhole(context, first, low);
        StoreWhole(context, first + half, high);
        continue;
      }
      Unrolled<kN>([&](int j) {
        if (!map.Has(k, j)) return;
        const int pair = map.Element(k, j);
        T* const first = at(pair);
        Packet<T, 1> low = {{context.Load(first)}};
        Packet<T, 1> high = {{context.Load(first + half)}};
        TurnPairs<T, 1>(context, sign, {{context.Load(cosines + pair % half)}},
                        {{context.Load(sines + pair % half)}}, low, high);
        context.Store(first, low.values[0]);
        context.Store(first + half, high.values[0]);
      });
    }
  }
}

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_LAYERS_KERNELS_CUDA_ROPE_H_
