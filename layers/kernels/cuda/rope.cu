// Rotary position embeddings.
#include "layers/kernels/cuda/entry.cuh"
#include "layers/kernels/cuda/rope.h"

namespace shardproof::cuda {
namespace {

template <class T>
__global__ void __launch_bounds__(kMaxTeam)
    RopeKernel(__grid_constant__ const RopeRows table,
               __grid_constant__ const RopeArgs args) {
  CudaContext context(0);
  Rope<T>(context, table, args);
}

}  // namespace

const void* FindRopeKernel(DType dtype) {
  return VisitStored(dtype, []<class T>(TypeTag<T> /*type*/) {
    return AddressOf(&RopeKernel<T>);
  });
}

}  // namespace shardproof::cuda
