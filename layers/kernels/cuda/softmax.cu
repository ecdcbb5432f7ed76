// Softmax and its derivative.
#include "layers/kernels/cuda/entry.cuh"
#include "layers/kernels/cuda/softmax.h"

namespace shardproof::cuda {
namespace {

template <class T>
__global__ void __launch_bounds__(kMaxTeam)
    SoftmaxKernel(__grid_constant__ const SoftmaxShape shape, const void* s,
                  void* p) {
  CudaContext context(0);
  Team team(context);
  Softmax<T>(team, shape, s, p);
}

template <class T>
__global__ void __launch_bounds__(kMaxTeam)
    SoftmaxBackwardKernel(__grid_constant__ const SoftmaxShape shape,
                          const void* p, const void* dp, void* ds) {
  CudaContext context(0);
  Team team(context);
  SoftmaxBackward<T>(team, shape, p, dp, ds);
}

}  // namespace

const void* FindSoftmaxKernel(LayerKernel kernel, DType dtype) {
  return VisitStored(dtype, [&]<class T>(TypeTag<T> /*type*/) {
    return kernel == LayerKernel::kSoftmax
               ? AddressOf(&SoftmaxKernel<T>)
               : AddressOf(&SoftmaxBackwardKernel<T>);
  });
}

}  // namespace shardproof::cuda
