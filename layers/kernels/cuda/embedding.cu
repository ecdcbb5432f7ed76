// Lookups in a table of embeddings, and gradients.
#include "layers/kernels/cuda/embedding.h"
#include "layers/kernels/cuda/entry.cuh"

namespace shardproof::cuda {
namespace {

template <class T>
__global__ void __launch_bounds__(kMaxTeam)
    EmbeddingLookupKernel(__grid_constant__ const EmbeddingShape shape,
                          __grid_constant__ const EmbeddingRows args) {
  CudaContext context(0);
  EmbeddingLookup<T>(context, shape, args);
}

template <class T>
__global__ void __launch_bounds__(kMaxTeam)
    EmbeddingGradientKernel(__grid_constant__ const EmbeddingShape shape,
                            __grid_constant__ const EmbeddingRows args) {
  CudaContext context(0);
  EmbeddingGradient<T>(context, shape, args);
}

template <LayerKernel kKernel>
__global__ void __launch_bounds__(kMaxTeam)
    EmbeddingSortKernel(__grid_constant__ const EmbeddingShape shape,
                        __grid_constant__ const EmbeddingRows args) {
  CudaContext context(0);
  if constexpr (kKernel == LayerKernel::kEmbeddingCount) {
    EmbeddingCount(context, shape, args);
  } else if constexpr (kKernel == LayerKernel::kEmbeddingStarts) {
    EmbeddingStarts<StandardProtocolOfTeams>(context, shape, args);
  } else if constexpr (kKernel == LayerKernel::kEmbeddingPlace) {
    EmbeddingPlace(context, shape, args);
  } else {
    EmbeddingOrder(context, shape, args);
  }
}

}  // namespace

const void* FindEmbeddingKernel(LayerKernel kernel, DType dtype) {
  switch (kernel) {
    case LayerKernel::kEmbeddingCount:
      return AddressOf(&EmbeddingSortKernel<LayerKernel::kEmbeddingCount>);
    case LayerKernel::kEmbeddingStarts:
      return AddressOf(&EmbeddingSortKernel<LayerKernel::kEmbeddingStarts>);
    case LayerKernel::kEmbeddingPlace:
      return AddressOf(&EmbeddingSortKernel<LayerKernel::kEmbeddingPlace>);
    case LayerKernel::kEmbeddingOrder:
      return AddressOf(&EmbeddingSortKernel<LayerKernel::kEmbeddingOrder>);
    default:
      break;
  }
  return VisitStored(dtype, [&]<class T>(TypeTag<T> /*type*/) {
    return kernel == LayerKernel::kEmbeddingLookup
               ? AddressOf(&EmbeddingLookupKernel<T>)
               : AddressOf(&EmbeddingGradientKernel<T>);
  });
}

}  // namespace shardproof::cuda
