#include "layers/kernels/cuda/kernel_table.h"

namespace shardproof::cuda {

const void* FindLayerKernel(LayerKernel kernel, DType dtype) {
  switch (kernel) {
    case LayerKernel::kNormalize:
    case LayerKernel::kNormalizeBackward:
    case LayerKernel::kSumPartials:
      return FindNormKernel(kernel, dtype);
    case LayerKernel::kGelu:
    case LayerKernel::kGeluBackward:
    case LayerKernel::kSwiGlu:
    case LayerKernel::kSwiGluBackward:
    case LayerKernel::kAddBias:
    case LayerKernel::kColumnSums:
    case LayerKernel::kRoundSums:
      return FindActivationKernel(kernel, dtype);
    case LayerKernel::kSoftmax:
    case LayerKernel::kSoftmaxBackward:
      return FindSoftmaxKernel(kernel, dtype);
    case LayerKernel::kCrossEntropyLocal:
    case LayerKernel::kCrossEntropyRescale:
    case LayerKernel::kCrossEntropyLoss:
    case LayerKernel::kCrossEntropyGradient:
      return FindCrossEntropyKernel(kernel, dtype);
    case LayerKernel::kEmbeddingLookup:
    case LayerKernel::kEmbeddingCount:
    case LayerKernel::kEmbeddingStarts:
    case LayerKernel::kEmbeddingPlace:
    case LayerKernel::kEmbeddingOrder:
    case LayerKernel::kEmbeddingGradient:
      return FindEmbeddingKernel(kernel, dtype);
    case LayerKernel::kRope:
      return FindRopeKernel(dtype);
    case LayerKernel::kSgdStep:
    case LayerKernel::kSgdStepOfWideGradients:
    case LayerKernel::kAdamStep:
    case LayerKernel::kAdamStepOfWideGradients:
    case LayerKernel::kWidenParameters:
    case LayerKernel::kAddSquares:
    case LayerKernel::kFinishSquares:
      return FindOptimizerKernel(kernel, dtype);
    case LayerKernel::kDropout:
      return FindDropoutKernel(dtype);
    case LayerKernel::kGatherRows:
    case LayerKernel::kCombineRows:
    case LayerKernel::kRowDots:
      return FindMoeKernel(kernel, dtype);
  }
  return nullptr;
}

}  // namespace shardproof::cuda
