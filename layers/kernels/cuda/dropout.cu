// Dropout.
#include "layers/kernels/cuda/dropout.h"
#include "layers/kernels/cuda/entry.cuh"

namespace shardproof::cuda {
namespace {

template <class T>
__global__ void __launch_bounds__(kMaxTeam)
    DropoutKernel(__grid_constant__ const DropoutArgs args) {
  CudaContext context(0);
  Dropout<T>(context, args);
}

}  // namespace

const void* FindDropoutKernel(DType dtype) {
  return VisitStored(dtype, []<class T>(TypeTag<T> /*type*/) {
    return AddressOf(&DropoutKernel<T>);
  });
}

}  // namespace shardproof::cuda
