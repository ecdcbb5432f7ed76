// Moving the rows of tokens to experts and back.
#include "layers/kernels/cuda/entry.cuh"
#include "layers/kernels/cuda/moe.h"

namespace shardproof::cuda {
namespace {

template <class T>
__global__ void __launch_bounds__(kMaxTeam)
    GatherRowsKernel(__grid_constant__ const GatherRowsArgs args) {
  CudaContext context(0);
  GatherRows<T>(context, args);
}

template <class T>
__global__ void __launch_bounds__(kMaxTeam)
    CombineRowsKernel(__grid_constant__ const CombineRowsArgs args) {
  CudaContext context(0);
  CombineRows<T>(context, args);
}

template <class T>
__global__ void __launch_bounds__(kMaxTeam)
    RowDotsKernel(__grid_constant__ const RowDotsArgs args) {
  CudaContext context(0);
  Team team(context);
  RowDots<T>(team, args);
}

}  // namespace

const void* FindMoeKernel(LayerKernel kernel, DType dtype) {
  return VisitStored(dtype, [&]<class T>(TypeTag<T> /*type*/) {
    if (kernel == LayerKernel::kGatherRows) {
      return AddressOf(&GatherRowsKernel<T>);
    }
    return kernel == LayerKernel::kCombineRows
               ? AddressOf(&CombineRowsKernel<T>)
               : AddressOf(&RowDotsKernel<T>);
  });
}

}  // namespace shardproof::cuda
