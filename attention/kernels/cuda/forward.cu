// Attention forward.
#include "attention/kernels/cuda/entry.cuh"
#include "attention/kernels/cuda/forward.h"

namespace shardproof::cuda {
namespace {

template <class T, class Tiling>
__global__ void __launch_bounds__(Tiling::kThreads)
    FlashForwardKernel(__grid_constant__ const FlashForwardArgs args) {
  CudaTileContext context;
  FlashForward<T, Tiling>(context, args);
}

}  // namespace

const void* FindFlashForwardKernel(DType dtype, int head_dim) {
  return VisitFlash(
      dtype, head_dim,
      []<class T, int kHeadDim>(
          TypeTag<T> /*type*/,
          std::integral_constant<int, kHeadDim> /*head_dim*/) {
        return AddressOf(&FlashForwardKernel<T, ForwardTiling<kHeadDim>>);
      });
}

}  // namespace shardproof::cuda
