// Attention backward: delta, dQ, and dK and dV.
#include "attention/kernels/cuda/entry.cuh"
#include "attention/kernels/cuda/gradients.h"
#include "attention/kernels/cuda/key_gradients.h"
#include "attention/kernels/cuda/query_gradients.h"

namespace shardproof::cuda {
namespace {

template <class T, int kHeadDim>
__global__ void __launch_bounds__(kDeltaThreads)
    FlashDeltaKernel(__grid_constant__ const FlashDeltaArgs args) {
  CudaTileContext context;
  FlashDelta<T, kHeadDim>(context, args);
}

template <class T, class Tiling>
__global__ void __launch_bounds__(Tiling::kThreads)
    FlashKeyGradientKernel(__grid_constant__ const FlashBackwardArgs args) {
  CudaTileContext context;
  FlashKeyGradients<T, Tiling>(context, args);
}

template <class T, class Tiling>
__global__ void __launch_bounds__(Tiling::kThreads)
    FlashQueryGradientKernel(__grid_constant__ const FlashBackwardArgs args) {
  CudaTileContext context;
  FlashQueryGradients<T, Tiling>(context, args);
}

}  // namespace

const void* FindFlashDeltaKernel(DType dtype, int head_dim) {
  return VisitFlash(dtype, head_dim,
                    []<class T, int kHeadDim>(
                        TypeTag<T> /*type*/,
                        std::integral_constant<int, kHeadDim> /*head_dim*/) {
                      return AddressOf(&FlashDeltaKernel<T, kHeadDim>);
                    });
}

const void* FindFlashKeyGradientKernel(DType dtype, int head_dim) {
  return VisitFlash(
      dtype, head_dim,
      []<class T, int kHeadDim>(
          TypeTag<T> /*type*/,
          std::integral_constant<int, kHeadDim> /*head_dim*/) {
        return AddressOf(
            &FlashKeyGradientKernel<T, KeyGradientTiling<kHeadDim>>);
      });
}

const void* FindFlashQueryGradientKernel(DType dtype, int head_dim) {
  return VisitFlash(
      dtype, head_dim,
      []<class T, int kHeadDim>(
          TypeTag<T> /*type*/,
          std::integral_constant<int, kHeadDim> /*head_dim*/) {
        return AddressOf(
            &FlashQueryGradientKernel<T, QueryGradientTiling<kHeadDim>>);
      });
}

}  // namespace shardproof::cuda
