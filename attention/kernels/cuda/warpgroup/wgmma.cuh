// The instructions of products by warpgroups: wgmma.mma_async m64n64k16 and m64n128k16, of bf16 and f16.
//
// An instruction names every register of D, so each is written out once, by macros that end with this file.
#ifndef SHARDPROOF_ATTENTION_KERNELS_CUDA_WARPGROUP_WGMMA_CUH_
#define SHARDPROOF_ATTENTION_KERNELS_CUDA_WARPGROUP_WGMMA_CUH_

#include <cstdint>
#include <type_traits>

#include "reference/dtype.h"

namespace shardproof::cuda {

// The operands of asm: 8 times 4 registers of D from c[n] on, and the text that names the first 32 or all 64.
#define SHARDPROOF_D4(n) \
  "+f"(c[n][0]), "+f"(c[n][1]), "+f"(c[n][2]), "+f"(c[n][3])
#define SHARDPROOF_D32(n)                                               \
  SHARDPROOF_D4(n), SHARDPROOF_D4(n + 1), SHARDPROOF_D4(n + 2),         \
      SHARDPROOF_D4(n + 3), SHARDPROOF_D4(n + 4), SHARDPROOF_D4(n + 5), \
      SHARDPROOF_D4(n + 6), SHARDPROOF_D4(n + 7)
#define SHARDPROOF_D_LOW                                                   \
  "%0, %1, %2, %3, %4, %5, %6, %7, %8, %9, %10, %11, %12, %13, %14, %15, " \
  "%16, %17, %18, %19, %20, %21, %22, %23, %24, %25, %26, %27, %28, %29, " \
  "%30, %31"
#define SHARDPROOF_D_HIGH                                                  \
  ", %32, %33, %34, %35, %36, %37, %38, %39, %40, %41, %42, %43, %44, "    \
  "%45, %46, %47, %48, %49, %50, %51, %52, %53, %54, %55, %56, %57, %58, " \
  "%59, %60, %61, %62, %63"

// A and B in shared memory, both K-major; D = A B, or D += A B.
#define SHARDPROOF_WGMMA_SHARED_N128(type)                         \
  asm volatile(                                                    \
      "{\n.reg .pred adds;\nsetp.ne.b32 adds, %66, 0;\n"           \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type \
      " {" SHARDPROOF_D_LOW SHARDPROOF_D_HIGH                      \
      "}, %64, %65, adds, 1, 1, 0, 0;\n}"                          \
      : SHARDPROOF_D32(0), SHARDPROOF_D32(8)                       \
      : "l"(a), "l"(b), "n"(kAccumulates ? 1 : 0)                  \
      : "memory")

// A in registers, B in shared memory and MN-major; D += A B.
#define SHARDPROOF_WGMMA_WORDS_N64(type)                                      \
  asm volatile(                                                               \
      "{\n.reg .pred adds;\nsetp.ne.b32 adds, 1, 0;\n"                        \
      "wgmma.mma_async.sync.aligned.m64n64k16.f32." type "." type             \
      " {" SHARDPROOF_D_LOW "}, {%32, %33, %34, %35}, %36, adds, 1, 1, 1;\n}" \
      : SHARDPROOF_D32(0)                                                     \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b)                    \
      : "memory")
#define SHARDPROOF_WGMMA_WORDS_N128(type)                          \
  asm volatile(                                                    \
      "{\n.reg .pred adds;\nsetp.ne.b32 adds, 1, 0;\n"             \
      "wgmma.mma_async.sync.aligned.m64n128k16.f32." type "." type \
      " {" SHARDPROOF_D_LOW SHARDPROOF_D_HIGH                      \
      "}, {%64, %65, %66, %67}, %68, adds, 1, 1, 1;\n}"            \
      : SHARDPROOF_D32(0), SHARDPROOF_D32(8)                       \
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "l"(b)         \
      : "memory")

template <class T, bool kAccumulates>
__device__ __forceinline__ void WgmmaShared(float (&c)[16][4], uint64_t a,
                                            uint64_t b) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    SHARDPROOF_WGMMA_SHARED_N128("bf16");
  } else {
    static_assert(std::is_same_v<T, Float16>);
    SHARDPROOF_WGMMA_SHARED_N128("f16");
  }
}

template <class T>
__device__ __forceinline__ void WgmmaWords(float (&c)[8][4],
                                           const uint32_t (&a)[4], uint64_t b) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    SHARDPROOF_WGMMA_WORDS_N64("bf16");
  } else {
    static_assert(std::is_same_v<T, Float16>);
    SHARDPROOF_WGMMA_WORDS_N64("f16");
  }
}
template <class T>
__device__ __forceinline__ void WgmmaWords(float (&c)[16][4],
                                           const uint32_t (&a)[4], uint64_t b) {
  if constexpr (std::is_same_v<T, BFloat16>) {
    SHARDPROOF_WGMMA_WORDS_N128("bf16");
  } else {
    static_assert(std::is_same_v<T, Float16>);
    SHARDPROOF_WGMMA_WORDS_N128("f16");
  }
}

#undef SHARDPROOF_WGMMA_WORDS_N128
#undef SHARDPROOF_WGMMA_WORDS_N64
#undef SHARDPROOF_WGMMA_SHARED_N128
#undef SHARDPROOF_D_HIGH
#undef SHARDPROOF_D_LOW
#undef SHARDPROOF_D32
#undef SHARDPROOF_D4

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_ATTENTION_KERNELS_CUDA_WARPGROUP_WGMMA_CUH_
