#include "layers/kernels/cuda/device/layer_launch.h"

#include <array>

#include "collectives/backend/cuda/fiber/fiber_context.h"
#include "layers/kernels/cuda/partial_sums.h"
#include "layers/kernels/cuda/team.h"

namespace shardproof::cuda {
namespace {

// What any of the kernels shares within a block (context.Shared), in order of
// the headers: team.h, partial_sums.h, embedding.h.
constexpr int kSharedBytes = 4096;
static_assert(Team<FiberContext<>>::kSharedBytes <= kSharedBytes);
static_assert(2 * kMaxTeam * sizeof(float) <= kSharedBytes);
static_assert(kMaxTeam * sizeof(int64_t) <= kSharedBytes);

constexpr std::array<std::string_view, kLayerKernels> kNames = {
    "Normalize",
    "NormalizeBackward",
    "SumPartials",
    "Gelu",
    "GeluBackward",
    "SwiGlu",
    "SwiGluBackward",
    "AddBias",
    "ColumnSums",
    "RoundSums",
    "Softmax",
    "SoftmaxBackward",
    "CrossEntropyLocal",
    "CrossEntropyRescale",
    "CrossEntropyLoss",
    "CrossEntropyGradient",
    "EmbeddingLookup",
    "EmbeddingCount",
    "EmbeddingStarts",
    "EmbeddingPlace",
    "EmbeddingOrder",
    "EmbeddingGradient",
    "Rope",
    "SgdStep",
    "SgdStepOfWideGradients",
    "AdamStep",
    "AdamStepOfWideGradients",
    "WidenParameters",
    "AddSquares",
    "FinishSquares",
    "Dropout",
    "GatherRows",
    "CombineRows",
    "RowDots",
};
static_assert(!kNames.back().empty());

}  // namespace

std::string_view Name(LayerKernel kernel) {
  return kNames[static_cast<size_t>(kernel)];
}

GridLaunch LayerLaunch(LayerKernel kernel, DType dtype,
                       LayerKernelFinder finder, const LaunchShape& shape) {
  GridLaunch launch;
  launch.name = Name(kernel);
  launch.kernel = finder == nullptr ? nullptr : finder(kernel, dtype);
  launch.emulated = FindLayerKernelForFibers(kernel, dtype);
  launch.blocks = shape.blocks;
  launch.threads = shape.threads;
  launch.fiber_bytes = kSharedBytes;
  return launch;
}

}  // namespace shardproof::cuda
