// Stage 2 of sums over rows: adds up what the blocks of stage 1 have left for each column.
//
//     out[c] = sum over p of partials[p, c], p < parts
//
// Warp w of W sums parts w, w + W, ... of 32 columns, ascending; then the sums of the warps are added, ascending: an order
// that depends on the number of parts and of threads alone. Every partial sum is read once: 4 x parts x columns bytes.
#ifndef SHARDPROOF_LAYERS_KERNELS_CUDA_PARTIAL_SUMS_H_
#define SHARDPROOF_LAYERS_KERNELS_CUDA_PARTIAL_SUMS_H_

#include <cstdint>

#include "layers/kernels/cuda/team.h"

namespace shardproof::cuda {

struct PartialSums {
  int64_t parts = 0;
  int64_t columns = 0;
  const float* partials = nullptr;  // [parts, columns, or 2 columns with more]
  float* out = nullptr;             // [columns]
  float* more = nullptr;            // [columns]: of the second half; or null.
};

template <class Protocol, class Context>
SHARDPROOF_DEVICE void SumPartials(Context& context, const PartialSums& a) {
  constexpr int kWarps = kMaxTeam / kLanes;
  auto* const shared = reinterpret_cast<float*>(
      context.template Shared<2 * kWarps * kLanes * sizeof(float)>());
  const int lane = context.thread() % kLanes, warp = context.thread() / kLanes;
  const int warps = context.threads() / kLanes;
  const int64_t width = (a.more == nullptr ? 1 : 2) * a.columns;
  int slot = 0;  // In turn, as in team.h.
  for (int64_t begin = int64_t{kLanes} * context.block(); begin < width;
       begin += int64_t{kLanes} * context.blocks()) {
    const int64_t column = begin + lane;
    float sum = 0;
    if (column < width) {
      for (int64_t part = warp; part < a.parts; part += warps) {
        sum += context.Load(a.partials + part * width + column);
      }
    }
    float* const of_warps = shared + slot * kWarps * kLanes;
    slot = (slot + 1) % Protocol::kSlots;
    context.Store(of_warps + warp * kLanes + lane, sum);
    if constexpr (Protocol::kSyncs) context.Sync();
    if (warp != 0 || column >= width) continue;
    for (int other = 1; other < warps; ++other) {
      sum += context.Load(of_warps + other * kLanes + lane);
    }
    float* const to =
        column < a.columns ? a.out + column : a.more + (column - a.columns);
    context.Store(to, sum);
  }
}

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_LAYERS_KERNELS_CUDA_PARTIAL_SUMS_H_
