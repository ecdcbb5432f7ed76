// Activations, biases, and the rounding of sums.
#include "layers/kernels/cuda/activation.h"
#include "layers/kernels/cuda/entry.cuh"

namespace shardproof::cuda {
namespace {

template <class T, LayerKernel kKernel>
__global__ void __launch_bounds__(kMaxTeam)
    ActivationKernel(__grid_constant__ const ActivationArgs args) {
  CudaContext context(0);
  if constexpr (kKernel == LayerKernel::kGelu) {
    Gelu<T>(context, args);
  } else if constexpr (kKernel == LayerKernel::kGeluBackward) {
    GeluBackward<T>(context, args);
  } else if constexpr (kKernel == LayerKernel::kSwiGlu) {
    SwiGlu<T>(context, args);
  } else if constexpr (kKernel == LayerKernel::kSwiGluBackward) {
    SwiGluBackward<T>(context, args);
  } else if constexpr (kKernel == LayerKernel::kAddBias) {
    AddBias<T>(context, args);
  } else if constexpr (kKernel == LayerKernel::kColumnSums) {
    ColumnSums<T>(context, args);
  } else {
    RoundSums<T>(context, args);
  }
}

}  // namespace

const void* FindActivationKernel(LayerKernel kernel, DType dtype) {
  return VisitStored(dtype, [&]<class T>(TypeTag<T> /*type*/) -> const void* {
    switch (kernel) {
      case LayerKernel::kGelu:
        return AddressOf(&ActivationKernel<T, LayerKernel::kGelu>);
      case LayerKernel::kGeluBackward:
        return AddressOf(&ActivationKernel<T, LayerKernel::kGeluBackward>);
      case LayerKernel::kSwiGlu:
        return AddressOf(&ActivationKernel<T, LayerKernel::kSwiGlu>);
      case LayerKernel::kSwiGluBackward:
        return AddressOf(&ActivationKernel<T, LayerKernel::kSwiGluBackward>);
      case LayerKernel::kAddBias:
        return AddressOf(&ActivationKernel<T, LayerKernel::kAddBias>);
      case LayerKernel::kColumnSums:
        return AddressOf(&ActivationKernel<T, LayerKernel::kColumnSums>);
      case LayerKernel::kRoundSums:
        return AddressOf(&ActivationKernel<T, LayerKernel::kRoundSums>);
      default:
        return nullptr;
    }
  });
}

}  // namespace shardproof::cuda
