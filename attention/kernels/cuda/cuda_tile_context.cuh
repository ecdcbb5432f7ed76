// The execution context of the kernels of attention on a GPU: what tile.h lists, an instruction each. sm_80 and up.
#ifndef SHARDPROOF_ATTENTION_KERNELS_CUDA_CUDA_TILE_CONTEXT_CUH_
#define SHARDPROOF_ATTENTION_KERNELS_CUDA_CUDA_TILE_CONTEXT_CUH_

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <type_traits>

#include "collectives/backend/cuda/kernels/cuda_context.cuh"
#include "reference/dtype.h"

namespace shardproof::cuda {

extern __shared__ uint4 dynamic_shared_memory[];

class CudaTileContext : public CudaContext {
 public:
  __device__ __forceinline__ CudaTileContext()
      : CudaContext(0),
        base_(static_cast<uint32_t>(
            __cvta_generic_to_shared(dynamic_shared_memory))) {}

  // volatile and "memory": not to be moved over a barrier.
  template <bool kTransposed>
  __device__ __forceinline__ void LoadMatrices(uint32_t (&words)[4],
                                               uint32_t offset) {
    if constexpr (kTransposed) {
      asm volatile(
          "ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, "
          "[%4];"
          : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
          : "r"(base_ + offset)
          : "memory");
    } else {
      asm volatile(
          "ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
          : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3])
          : "r"(base_ + offset)
          : "memory");
    }
  }

  // Operands `first` to `first` + kBatch - 1 of c.
  template <class T, int kRowTiles, int kOperands, int kBatch>
  __device__ __forceinline__ void Multiply(float (&c)[kRowTiles][kOperands][4],
                                           int first,
                                           const uint32_t (&a)[kRowTiles][4],
                                           const uint32_t (&b)[kBatch][2]) {
#pragma unroll
    for (int n = 0; n < kBatch; ++n) {
#pragma unroll
      for (int r = 0; r < kRowTiles; ++r) {
        MultiplyOne<T>(c[r][first + n], a[r], b[n]);
      }
    }
  }

  template <int kBytes>
  __device__ __forceinline__ void CopyAsync(uint32_t offset, const void* from,
                                            bool there) {
    const auto bytes = there ? kBytes : 0;
    if constexpr (kBytes == 16) {
      asm volatile(
          "cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(base_ + offset),
          "l"(__cvta_generic_to_global(from)), "r"(bytes)
          : "memory");
    } else {
      static_assert(kBytes == 4);
      asm volatile(
          "cp.async.ca.shared.global [%0], [%1], 4, %2;" ::"r"(base_ + offset),
          "l"(__cvta_generic_to_global(from)), "r"(bytes)
          : "memory");
    }
  }
  __device__ __forceinline__ void CommitCopies() {
    asm volatile("cp.async.commit_group;" ::: "memory");
  }
  template <int kPending>
  __device__ __forceinline__ void WaitForCopies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(kPending) : "memory");
  }
  __device__ __forceinline__ const std::byte* SharedAt(uint32_t offset) {
    return reinterpret_cast<const std::byte*>(dynamic_shared_memory) + offset;
  }

  // 2^-22 relatively; a result below 2^-126 is 0.
  __device__ __forceinline__ static float Exp2(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
  }
  __device__ __forceinline__ static float Log2(float x) { return log2f(x); }

  template <class T>
  __device__ __forceinline__ static uint32_t Pack(float low, float high) {
    uint32_t word;
    if constexpr (std::is_same_v<T, BFloat16>) {
      asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    } else {
      static_assert(std::is_same_v<T, Float16>);
      asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(word) : "f"(high), "f"(low));
    }
    return word;
  }

 private:
  template <class T>
  __device__ __forceinline__ static void MultiplyOne(float (&c)[4],
                                                     const uint32_t (&a)[4],
                                                     const uint32_t (&b)[2]) {
    if constexpr (std::is_same_v<T, BFloat16>) {
      asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
          "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
          : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    } else {
      static_assert(std::is_same_v<T, Float16>);
      asm("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 "
          "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
          : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
          : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
    }
  }

  uint32_t base_;
};

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_ATTENTION_KERNELS_CUDA_CUDA_TILE_CONTEXT_CUH_
