// The execution context of forward.h on a GPU: what it lists, an instruction each. sm_90a only.
#ifndef SHARDPROOF_ATTENTION_KERNELS_CUDA_WARPGROUP_CUDA_WARPGROUP_CONTEXT_CUH_
#define SHARDPROOF_ATTENTION_KERNELS_CUDA_WARPGROUP_CUDA_WARPGROUP_CONTEXT_CUH_

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#include "attention/kernels/cuda/cuda_tile_context.cuh"
#include "attention/kernels/cuda/warpgroup/tile_map.h"
#include "attention/kernels/cuda/warpgroup/wgmma.cuh"
#include "attention/kernels/cuda/warpgroup/wgmma.h"

namespace shardproof::cuda {

// It is addresses that are swizzled.
extern __shared__ __align__(kAtomBytes) std::byte atoms_in_shared_memory[];

class CudaWarpgroupContext : public CudaTileContext {
 public:
  __device__ __forceinline__ CudaWarpgroupContext()
      : base_(static_cast<uint32_t>(
            __cvta_generic_to_shared(atoms_in_shared_memory))) {}

  __device__ __forceinline__ uint32_t SharedAddress(uint32_t offset) const {
    return base_ + offset;
  }

  __device__ __forceinline__ void InitializeBarrier(uint32_t offset,
                                                    int arrivals) {
    asm volatile(
        "mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(base_ + offset),
        "r"(arrivals)
        : "memory");
  }
  // To the copies that complete them; Sync does it for the threads.
  __device__ __forceinline__ void PublishBarriers() {
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  }
  __device__ __forceinline__ void ExpectBytes(uint32_t offset, uint32_t bytes) {
    asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(
                     base_ + offset),
                 "r"(bytes)
                 : "memory");
  }
  __device__ __forceinline__ void Arrive(uint32_t offset) {
    asm volatile(
        "mbarrier.arrive.shared::cta.b64 _, [%0];" ::"r"(base_ + offset)
        : "memory");
  }
  // try_wait lets the thread sleep for a time of the GPU's choice.
  __device__ __forceinline__ void Await(uint32_t offset, uint32_t parity) {
    asm volatile(
        "{\n.reg .pred done;\n"
        "again:\n"
        "mbarrier.try_wait.parity.shared::cta.b64 done, [%0], %1;\n"
        "@!done bra again;\n}" ::"r"(base_ + offset),
        "r"(parity)
        : "memory");
  }
  __device__ __forceinline__ void CopyBox(const TileMap& map, uint32_t to,
                                          uint32_t barrier, int column,
                                          int head, int token, int sequence) {
    asm volatile(
        "cp.async.bulk.tensor.4d.shared::cluster.global.mbarrier::complete_tx::"
        "bytes [%0], [%1, {%3, %4, %5, %6}], [%2];" ::"r"(base_ + to),
        "l"(&map), "r"(base_ + barrier), "r"(column), "r"(head), "r"(token),
        "r"(sequence)
        : "memory");
  }

  __device__ __forceinline__ void FenceProducts() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
  }
  __device__ __forceinline__ void CommitProducts() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
  }
  template <int kPending>
  __device__ __forceinline__ void AwaitProducts() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(kPending)
                 : "memory");
  }
  template <class T, bool kAccumulates, int kOperands>
  __device__ __forceinline__ void MultiplyShared(float (&c)[kOperands][4],
                                                 uint64_t a, uint64_t b) {
    WgmmaShared<T, kAccumulates>(c, a, b);
  }
  template <class T, int kOperands>
  __device__ __forceinline__ void MultiplyWords(float (&c)[kOperands][4],
                                                const uint32_t (&a)[4],
                                                uint64_t b) {
    WgmmaWords<T>(c, a, b);
  }
  // Nothing for the GPU: the compiler knows of no wait for registers, and would use them before it.
  template <int kOperands>
  __device__ __forceinline__ void Settle(float (&c)[kOperands][4]) {
#pragma unroll
    for (int n = 0; n < kOperands; ++n) {
#pragma unroll
      for (int i = 0; i < 4; ++i) asm volatile("" : "+f"(c[n][i])::"memory");
    }
  }

  template <int kRegisters>
  __device__ __forceinline__ void GiveRegisters() {
    asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
  }
  template <int kRegisters>
  __device__ __forceinline__ void TakeRegisters() {
    asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
  }

 private:
  const uint32_t base_;
};

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_ATTENTION_KERNELS_CUDA_WARPGROUP_CUDA_WARPGROUP_CONTEXT_CUH_
