// The local work of a cross entropy.
#include "layers/kernels/cuda/cross_entropy.h"
#include "layers/kernels/cuda/entry.cuh"

namespace shardproof::cuda {
namespace {

template <class T>
__global__ void __launch_bounds__(kMaxTeam)
    CrossEntropyLocalKernel(__grid_constant__ const CrossEntropyShape shape,
                            __grid_constant__ const CrossEntropyRows args) {
  CudaContext context(0);
  Team team(context);
  CrossEntropyLocal<T>(team, shape, args);
}

template <class T>
__global__ void __launch_bounds__(kMaxTeam)
    CrossEntropyRescaleKernel(__grid_constant__ const CrossEntropyShape shape,
                              __grid_constant__ const CrossEntropyRows args) {
  CudaContext context(0);
  CrossEntropyRescale<T>(context, shape, args);
}

__global__ void __launch_bounds__(kMaxTeam)
    CrossEntropyLossKernel(__grid_constant__ const CrossEntropyShape shape,
                           __grid_constant__ const CrossEntropyRows args) {
  CudaContext context(0);
  Team team(context);
  CrossEntropyLoss(team, shape, args);
}

template <class T>
__global__ void __launch_bounds__(kMaxTeam)
    CrossEntropyGradientKernel(__grid_constant__ const CrossEntropyShape shape,
                               __grid_constant__ const CrossEntropyRows args) {
  CudaContext context(0);
  CrossEntropyGradient<T>(context, shape, args);
}

}  // namespace

const void* FindCrossEntropyKernel(LayerKernel kernel, DType dtype) {
  if (kernel == LayerKernel::kCrossEntropyLoss) {
    return AddressOf(&CrossEntropyLossKernel);
  }
  return VisitStored(dtype, [&]<class T>(TypeTag<T> /*type*/) {
    if (kernel == LayerKernel::kCrossEntropyLocal) {
      return AddressOf(&CrossEntropyLocalKernel<T>);
    }
    return kernel == LayerKernel::kCrossEntropyRescale
               ? AddressOf(&CrossEntropyRescaleKernel<T>)
               : AddressOf(&CrossEntropyGradientKernel<T>);
  });
}

}  // namespace shardproof::cuda
