// The execution context of kernels (rounds.h) on a GPU.
//
//     __global__ void Kernel(World world, CollectiveArgs args) {
//       CudaContext context(blockIdx.y);               // or the rank of this GPU
//       Rounds rounds(context, world);
//       ...
//
// Flags go with .sys scope, for peers on other GPUs. A release after __syncthreads covers what all threads of the block
// did before the barrier, and an acquire before one covers what they do after it (causality order is transitive through
// the barrier; PTX ISA, "Memory Consistency Model"). Data are ordinary loads and stores: never ld.global.nc, whose
// cache no acquire empties, so pointers to data of peers must not be const __restrict__.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_CUDA_KERNELS_CUDA_CONTEXT_CUH_
#define SHARDPROOF_COLLECTIVES_BACKEND_CUDA_KERNELS_CUDA_CONTEXT_CUH_

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "collectives/backend/cuda/kernels/rounds.h"
#include "collectives/backend/cuda/kernels/walk.h"
#include "reference/dtype.h"

namespace shardproof::cuda {

class CudaContext {
 public:
  __device__ __forceinline__ explicit CudaContext(int rank) : rank_(rank) {}

  __device__ __forceinline__ int rank() const { return rank_; }
  __device__ __forceinline__ int block() const {
    return static_cast<int>(blockIdx.x);
  }
  __device__ __forceinline__ int blocks() const {
    return static_cast<int>(gridDim.x);
  }
  __device__ __forceinline__ int thread() const {
    return static_cast<int>(threadIdx.x);
  }
  __device__ __forceinline__ int threads() const {
    return static_cast<int>(blockDim.x);
  }

  __device__ __forceinline__ void Sync() { __syncthreads(); }
  __device__ __forceinline__ bool SyncOr(bool vote) {
    return __syncthreads_or(vote) != 0;
  }

  // Of a whole warp; T is of 4-byte words.
  template <class T>
  __device__ __forceinline__ T ShuffleXor(const T& value, int mask) {
    constexpr int kWords = sizeof(T) / sizeof(uint32_t);
    static_assert(kWords * sizeof(uint32_t) == sizeof(T));
    uint32_t words[kWords];
    memcpy(words, &value, sizeof(T));
    for (int i = 0; i < kWords; ++i) {
      words[i] = __shfl_xor_sync(0xffffffffu, words[i], mask);
    }
    T other;
    memcpy(&other, words, sizeof(T));
    return other;
  }
  // What the block shares. To be called in one place of a kernel: another call is other memory.
  template <int kBytes>
  __device__ __forceinline__ std::byte* Shared() {
    __shared__ alignas(kVectorBytes) std::byte memory[kBytes];
    return memory;
  }
  // Relaxed; returns what was there.
  template <class T>
  __device__ __forceinline__ T AtomicAdd(T* to, T value) {
    static_assert(sizeof(T) == sizeof(unsigned long long));
    return static_cast<T>(atomicAdd(reinterpret_cast<unsigned long long*>(to),
                                    static_cast<unsigned long long>(value)));
  }

  // reference/dtype.h's conversions, an instruction each. Bitwise the same, but for which NaN a NaN is.
  __device__ __forceinline__ static float Widen(float value) { return value; }
  __device__ __forceinline__ static float Widen(BFloat16 value) {
    return __uint_as_float(static_cast<uint32_t>(value.bits) << 16);
  }
  __device__ __forceinline__ static float Widen(Float16 value) {
    float wide;
    asm("cvt.f32.f16 %0, %1;" : "=f"(wide) : "h"(value.bits));
    return wide;
  }
  template <class T>
  __device__ __forceinline__ static T Narrow(float value) {
    if constexpr (std::is_same_v<T, float>) {
      return value;
    } else {
      T narrow;
      if constexpr (std::is_same_v<T, BFloat16>) {
        asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(narrow.bits) : "f"(value));
      } else {
        static_assert(std::is_same_v<T, Float16>);
        asm("cvt.rn.f16.f32 %0, %1;" : "=h"(narrow.bits) : "f"(value));
      }
      return narrow;
    }
  }

  __device__ __forceinline__ void StoreRelease(uint32_t* flag, uint32_t value) {
    asm volatile("st.release.sys.global.u32 [%0], %1;" ::"l"(
                     __cvta_generic_to_global(flag)),
                 "r"(value)
                 : "memory");
  }
  __device__ __forceinline__ SpinEnd Wait(const uint32_t* flag, uint32_t wanted,
                                          uint32_t before, int /*peer*/,
                                          uint64_t patience) {
    uint32_t seen = LoadAcquire(flag);
    if (seen == wanted) return SpinEnd::kCame;
    const uint64_t start = Nanoseconds();
    while (seen == before) {
      if (patience != 0 && Nanoseconds() - start > patience) {
        return SpinEnd::kDeadline;
      }
      seen = LoadAcquire(flag);
    }
    return seen == wanted ? SpinEnd::kCame : SpinEnd::kBadSignal;
  }

  template <class T>
  __device__ __forceinline__ T Load(const T* from) {
    return *from;
  }
  // One instruction of 16 bytes.
  __device__ __forceinline__ Vector Load(const Vector* from) {
    const uint4 v = *reinterpret_cast<const uint4*>(from);
    return {{v.x, v.y, v.z, v.w}};
  }
  template <class T>
  __device__ __forceinline__ void Store(T* to, const T& value) {
    *to = value;
  }
  __device__ __forceinline__ void Store(Vector* to, const Vector& v) {
    *reinterpret_cast<uint4*>(to) =
        make_uint4(v.words[0], v.words[1], v.words[2], v.words[3]);
  }

  __device__ __forceinline__ uint64_t FailureWord(const uint64_t* word) {
    return *reinterpret_cast<const volatile uint64_t*>(word);
  }
  // The host may look while the kernel runs.
  __device__ __forceinline__ void Fail(uint64_t* word, uint64_t value) {
    static_assert(sizeof(unsigned long long) == sizeof(uint64_t));
    atomicCAS_system(reinterpret_cast<unsigned long long*>(word), 0ull,
                     static_cast<unsigned long long>(value));
  }

 private:
  __device__ __forceinline__ static uint32_t LoadAcquire(const uint32_t* flag) {
    uint32_t value;
    asm volatile("ld.acquire.sys.global.u32 %0, [%1];"
                 : "=r"(value)
                 : "l"(__cvta_generic_to_global(flag))
                 : "memory");
    return value;
  }
  // Steps of up to a microsecond, on some GPUs of 32: exact enough for a deadline.
  __device__ __forceinline__ static uint64_t Nanoseconds() {
    uint64_t value;
    asm volatile("mov.u64 %0, %%globaltimer;" : "=l"(value));
    return value;
  }

  int rank_;
};

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_CUDA_KERNELS_CUDA_CONTEXT_CUH_
