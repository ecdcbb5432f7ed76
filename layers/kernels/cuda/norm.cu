// LayerNorm and RMSNorm, and stage 2 of sums over rows.
#include "layers/kernels/cuda/entry.cuh"
#include "layers/kernels/cuda/norm.h"
#include "layers/kernels/cuda/partial_sums.h"

namespace shardproof::cuda {
namespace {

template <class T>
__global__ void __launch_bounds__(kMaxTeam)
    NormalizeKernel(__grid_constant__ const NormRows rows,
                    __grid_constant__ const NormalizeArgs args) {
  CudaContext context(0);
  Team team(context);
  Normalize<T>(team, rows, args);
}

template <class T>
__global__ void __launch_bounds__(kMaxTeam)
    NormalizeBackwardKernel(__grid_constant__ const NormRows rows,
                            __grid_constant__ const NormalizeBackwardArgs args,
                            float* partials) {
  CudaContext context(0);
  Team team(context);
  NormalizeBackward<T>(team, rows, args, partials);
}

__global__ void __launch_bounds__(kMaxTeam)
    SumPartialsKernel(__grid_constant__ const PartialSums args) {
  CudaContext context(0);
  SumPartials<StandardProtocolOfTeams>(context, args);
}

}  // namespace

const void* FindNormKernel(LayerKernel kernel, DType dtype) {
  if (kernel == LayerKernel::kSumPartials) return AddressOf(&SumPartialsKernel);
  return VisitStored(dtype, [&]<class T>(TypeTag<T> /*type*/) {
    return kernel == LayerKernel::kNormalize
               ? AddressOf(&NormalizeKernel<T>)
               : AddressOf(&NormalizeBackwardKernel<T>);
  });
}

}  // namespace shardproof::cuda
