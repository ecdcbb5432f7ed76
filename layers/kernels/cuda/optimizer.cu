// Steps of SGD and Adam, and sums of squares.
#include "layers/kernels/cuda/entry.cuh"
#include "layers/kernels/cuda/optimizer.h"

namespace shardproof::cuda {
namespace {

template <class T, class G>
__global__ void __launch_bounds__(kMaxTeam)
    SgdKernel(__grid_constant__ const SgdArgs args) {
  CudaContext context(0);
  SgdStep<T, G>(context, args);
}

template <class T, class G>
__global__ void __launch_bounds__(kMaxTeam)
    AdamKernel(__grid_constant__ const AdamArgs args) {
  CudaContext context(0);
  AdamStep<T, G>(context, args);
}

template <class T>
__global__ void __launch_bounds__(kMaxTeam)
    WidenKernel(__grid_constant__ const WidenArgs args) {
  CudaContext context(0);
  WidenParameters<T>(context, args);
}

template <class T>
__global__ void __launch_bounds__(kMaxTeam)
    AddSquaresKernel(__grid_constant__ const SquareArgs args) {
  CudaContext context(0);
  Team team(context);
  AddSquares<T>(team, args);
}

__global__ void __launch_bounds__(kMaxTeam)
    FinishSquaresKernel(__grid_constant__ const SquareArgs args) {
  CudaContext context(0);
  Team team(context);
  FinishSquares(team, args);
}

}  // namespace

const void* FindOptimizerKernel(LayerKernel kernel, DType dtype) {
  if (kernel == LayerKernel::kFinishSquares) {
    return AddressOf(&FinishSquaresKernel);
  }
  return VisitStored(dtype, [&]<class T>(TypeTag<T> /*type*/) -> const void* {
    switch (kernel) {
      case LayerKernel::kSgdStep:
        return AddressOf(&SgdKernel<T, T>);
      case LayerKernel::kSgdStepOfWideGradients:
        return AddressOf(&SgdKernel<T, float>);
      case LayerKernel::kAdamStep:
        return AddressOf(&AdamKernel<T, T>);
      case LayerKernel::kAdamStepOfWideGradients:
        return AddressOf(&AdamKernel<T, float>);
      case LayerKernel::kWidenParameters:
        return AddressOf(&WidenKernel<T>);
      default:
        return AddressOf(&AddSquaresKernel<T>);
    }
  });
}

}  // namespace shardproof::cuda
