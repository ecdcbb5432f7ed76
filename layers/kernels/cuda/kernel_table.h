// The kernels of the layers for GPUs, by name.
//
//     const void* const kernel = FindLayerKernel(LayerKernel::kNormalize, DType::kBF16);
//     void* parameters[] = {&rows, &args};
//     cudaLaunchKernel(kernel, blocks, threads, parameters, 0, stream);
//
// The header of each says what its parameters are, what its blocks do, and which bytes move. Threads: 32 or a multiple of
// it, at most kMaxTeam (team.h). None asks for dynamic shared memory.
#ifndef SHARDPROOF_LAYERS_KERNELS_CUDA_KERNEL_TABLE_H_
#define SHARDPROOF_LAYERS_KERNELS_CUDA_KERNEL_TABLE_H_

#include <cstdint>

#include "reference/dtype.h"

namespace shardproof::cuda {

enum class LayerKernel : uint8_t {
  // norm.h, partial_sums.h
  kNormalize,
  kNormalizeBackward,
  kSumPartials,  // Of one type.
  // activation.h
  kGelu,
  kGeluBackward,
  kSwiGlu,
  kSwiGluBackward,
  kAddBias,
  kColumnSums,
  kRoundSums,
  // softmax.h
  kSoftmax,
  kSoftmaxBackward,
  // cross_entropy.h
  kCrossEntropyLocal,
  kCrossEntropyRescale,
  kCrossEntropyLoss,  // Of one type.
  kCrossEntropyGradient,
  // embedding.h
  kEmbeddingLookup,
  kEmbeddingCount,  // Of one type, as the next three.
  kEmbeddingStarts,
  kEmbeddingPlace,
  kEmbeddingOrder,
  kEmbeddingGradient,
  // rope.h
  kRope,
  // optimizer.h
  kSgdStep,
  kSgdStepOfWideGradients,  // Of f32, whatever the parameters are.
  kAdamStep,
  kAdamStepOfWideGradients,
  kWidenParameters,
  kAddSquares,
  kFinishSquares,  // Of one type.
  // dropout.h
  kDropout,
  // moe.h
  kGatherRows,
  kCombineRows,
  kRowDots,
};

inline constexpr int kLayerKernels =
    static_cast<int>(LayerKernel::kRowDots) + 1;

// What holds no tensor of the layer's type, or serves them all.
constexpr bool IsOfOneType(LayerKernel kernel) {
  return kernel == LayerKernel::kSumPartials ||
         kernel == LayerKernel::kCrossEntropyLoss ||
         kernel == LayerKernel::kFinishSquares ||
         (kernel >= LayerKernel::kEmbeddingCount &&
          kernel <= LayerKernel::kEmbeddingOrder);
}

// Of tensors stored as f32, bf16 or f16; null for other types.
const void* FindLayerKernel(LayerKernel kernel, DType dtype);

// The parts of it, each in a file of its own.
const void* FindNormKernel(LayerKernel kernel, DType dtype);
const void* FindActivationKernel(LayerKernel kernel, DType dtype);
const void* FindSoftmaxKernel(LayerKernel kernel, DType dtype);
const void* FindCrossEntropyKernel(LayerKernel kernel, DType dtype);
const void* FindEmbeddingKernel(LayerKernel kernel, DType dtype);
const void* FindRopeKernel(DType dtype);
const void* FindOptimizerKernel(LayerKernel kernel, DType dtype);
const void* FindDropoutKernel(DType dtype);
const void* FindMoeKernel(LayerKernel kernel, DType dtype);

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_LAYERS_KERNELS_CUDA_KERNEL_TABLE_H_
