// The copy that every kernel bound by memory is held against: as little as a kernel can do with the bytes that it moves.
//
//     void(CopyArgs)        any grid; no warps are needed
//
// Reads and writes 16 bytes a vector, and has kCopyAhead loads of a thread under way at a time.
#ifndef SHARDPROOF_LAYERS_KERNELS_CUDA_BENCHMARK_COPY_H_
#define SHARDPROOF_LAYERS_KERNELS_CUDA_BENCHMARK_COPY_H_

#include <cstdint>

#include "layers/kernels/cuda/packet.h"

namespace shardproof::cuda {

struct CopyArgs {
  int64_t vectors = 0;  // Of 16 bytes, at multiples of 16 bytes.
  const Vector* from = nullptr;
  Vector* to = nullptr;
};

inline constexpr int kCopyAhead = 4;
inline constexpr int kCopyThreads = 1024;  // Of a block, at most.

// The entry point for CUDA; null where this program was built without.
const void* FindCopyKernel();
// The size of the second-level cache of a CUDA GPU, as the runtime counts these; 0: not known.
int64_t L2BytesOfCudaGpu(int gpu);

template <class Context>
SHARDPROOF_DEVICE void CopyVectors(Context& context, const CopyArgs& a) {
  const int64_t all =
      static_cast<int64_t>(context.blocks()) * context.threads();
  const int64_t first =
      static_cast<int64_t>(context.block()) * context.threads() +
      context.thread();
  for (int64_t i = first; i < a.vectors; i += kCopyAhead * all) {
    Vector held[kCopyAhead];
    Unrolled<kCopyAhead>([&](int j) {
      if (i + j * all < a.vectors) held[j] = context.Load(a.from + i + j * all);
    });
    Unrolled<kCopyAhead>([&](int j) {
      if (i + j * all < a.vectors) context.Store(a.to + i + j * all, held[j]);
    });
  }
}

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_LAYERS_KERNELS_CUDA_BENCHMARK_COPY_H_
