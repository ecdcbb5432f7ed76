// The kernels of this folder as bodies of fibers: what the .cu files are for
// CUDA.
#include <cstddef>
#include <utility>

#include "collectives/backend/cuda/fiber/fiber_context.h"
#include "layers/kernels/cuda/activation.h"
#include "layers/kernels/cuda/cross_entropy.h"
#include "layers/kernels/cuda/device/layer_launch.h"
#include "layers/kernels/cuda/dropout.h"
#include "layers/kernels/cuda/embedding.h"
#include "layers/kernels/cuda/moe.h"
#include "layers/kernels/cuda/norm.h"
#include "layers/kernels/cuda/optimizer.h"
#include "layers/kernels/cuda/partial_sums.h"
#include "layers/kernels/cuda/rope.h"
#include "layers/kernels/cuda/softmax.h"
#include "layers/kernels/cuda/team.h"

namespace shardproof::cuda {
namespace {

// Kernel: a lambda without captures that takes a context and Parameters.
template <class... Parameters, class Kernel>
FiberBody OnContext(Kernel /*kernel*/) {
  return [](FiberThread& thread, void* const* parameters) {
    FiberContext<> context(thread);
    [&]<size_t... kAt>(std::index_sequence<kAt...> /*at*/) {
      Kernel()(context, *static_cast<Parameters*>(parameters[kAt])...);
    }
    (std::index_sequence_for<Parameters...>());
  };
}
// One that takes a team.
template <class... Parameters, class Kernel>
FiberBody OnTeam(Kernel /*kernel*/) {
  return OnContext<Parameters...>([](auto& context, const auto&... parameters) {
    Team team(context);
    Kernel()(team, parameters...);
  });
}

template <class T>
FiberBody FindActivation(LayerKernel kernel) {
  using A = ActivationArgs;
  switch (kernel) {
    case LayerKernel::kGelu:
      return OnContext<A>([](auto& c, const A& a) { Gelu<T>(c, a); });
    case LayerKernel::kGeluBackward:
      return OnContext<A>([](auto& c, const A& a) { GeluBackward<T>(c, a); });
    case LayerKernel::kSwiGlu:
      return OnContext<A>([](auto& c, const A& a) { SwiGlu<T>(c, a); });
    case LayerKernel::kSwiGluBackward:
      return OnContext<A>([](auto& c, const A& a) { SwiGluBackward<T>(c, a); });
    case LayerKernel::kAddBias:
      return OnContext<A>([](auto& c, const A& a) { AddBias<T>(c, a); });
    case LayerKernel::kColumnSums:
      return OnContext<A>([](auto& c, const A& a) { ColumnSums<T>(c, a); });
    case LayerKernel::kRoundSums:
      return OnContext<A>([](auto& c, const A& a) { RoundSums<T>(c, a); });
    default:
      return nullptr;
  }
}

template <class T>
FiberBody FindRows(LayerKernel kernel) {
  switch (kernel) {
    case LayerKernel::kNormalize:
      return OnTeam<NormRows, NormalizeArgs>(
          [](auto& team, const NormRows& rows, const NormalizeArgs& a) {
            Normalize<T>(team, rows, a);
          });
    case LayerKernel::kNormalizeBackward:
      return OnTeam<NormRows, NormalizeBackwardArgs, float*>(
          [](auto& team, const NormRows& rows, const NormalizeBackwardArgs& a,
             float* partials) {
            NormalizeBackward<T>(team, rows, a, partials);
          });
    case LayerKernel::kSoftmax:
      return OnTeam<SoftmaxShape, const void*, void*>(
          [](auto& team, const SoftmaxShape& shape, const void* s, void* p) {
            Softmax<T>(team, shape, s, p);
          });
    case LayerKernel::kSoftmaxBackward:
      return OnTeam<SoftmaxShape, const void*, const void*, void*>(
          [](auto& team, const SoftmaxShape& shape, const void* p,
             const void* dp,
             void* ds) { SoftmaxBackward<T>(team, shape, p, dp, ds); });
    case LayerKernel::kRope:
      return OnContext<RopeRows, RopeArgs>(
          [](auto& c, const RopeRows& table, const RopeArgs& a) {
            Rope<T>(c, table, a);
          });
    default:
      return nullptr;
  }
}

template <class T>
FiberBody FindTokens(LayerKernel kernel) {
  using Shape = CrossEntropyShape;
  using A = CrossEntropyRows;
  using ES = EmbeddingShape;
  using E = EmbeddingRows;
  switch (kernel) {
    case LayerKernel::kCrossEntropyLocal:
      return OnTeam<Shape, A>([](auto& team, const Shape& s, const A& a) {
        CrossEntropyLocal<T>(team, s, a);
      });
    case LayerKernel::kCrossEntropyRescale:
      return OnContext<Shape, A>([](auto& c, const Shape& s, const A& a) {
        CrossEntropyRescale<T>(c, s, a);
      });
    case LayerKernel::kCrossEntropyGradient:
      return OnContext<Shape, A>([](auto& c, const Shape& s, const A& a) {
        CrossEntropyGradient<T>(c, s, a);
      });
    case LayerKernel::kEmbeddingLookup:
      return OnContext<ES, E>([](auto& c, const ES& s, const E& a) {
        EmbeddingLookup<T>(c, s, a);
      });
    case LayerKernel::kEmbeddingGradient:
      return OnContext<ES, E>([](auto& c, const ES& s, const E& a) {
        EmbeddingGradient<T>(c, s, a);
      });
    case LayerKernel::kGatherRows:
      return OnContext<GatherRowsArgs>(
          [](auto& c, const GatherRowsArgs& a) { GatherRows<T>(c, a); });
    case LayerKernel::kCombineRows:
      return OnContext<CombineRowsArgs>(
          [](auto& c, const CombineRowsArgs& a) { CombineRows<T>(c, a); });
    case LayerKernel::kRowDots:
      return OnTeam<RowDotsArgs>(
          [](auto& team, const RowDotsArgs& a) { RowDots<T>(team, a); });
    default:
      return nullptr;
  }
}

template <class T>
FiberBody FindSteps(LayerKernel kernel) {
  switch (kernel) {
    case LayerKernel::kSgdStep:
      return OnContext<SgdArgs>(
          [](auto& c, const SgdArgs& a) { SgdStep<T, T>(c, a); });
    case LayerKernel::kSgdStepOfWideGradients:
      return OnContext<SgdArgs>(
          [](auto& c, const SgdArgs& a) { SgdStep<T, float>(c, a); });
    case LayerKernel::kAdamStep:
      return OnContext<AdamArgs>(
          [](auto& c, const AdamArgs& a) { AdamStep<T, T>(c, a); });
    case LayerKernel::kAdamStepOfWideGradients:
      return OnContext<AdamArgs>(
          [](auto& c, const AdamArgs& a) { AdamStep<T, float>(c, a); });
    case LayerKernel::kWidenParameters:
      return OnContext<WidenArgs>(
          [](auto& c, const WidenArgs& a) { WidenParameters<T>(c, a); });
    case LayerKernel::kAddSquares:
      return OnTeam<SquareArgs>(
          [](auto& team, const SquareArgs& a) { AddSquares<T>(team, a); });
    case LayerKernel::kDropout:
      return OnContext<DropoutArgs>(
          [](auto& c, const DropoutArgs& a) { Dropout<T>(c, a); });
    default:
      return nullptr;
  }
}

template <class T>
FiberBody FindOf(LayerKernel kernel) {
  for (const auto find :
       {&FindActivation<T>, &FindRows<T>, &FindTokens<T>, &FindSteps<T>}) {
    if (const FiberBody body = find(kernel)) return body;
  }
  return nullptr;
}

FiberBody FindOfOneType(LayerKernel kernel) {
  using S = EmbeddingShape;
  using E = EmbeddingRows;
  switch (kernel) {
    case LayerKernel::kSumPartials:
      return OnContext<PartialSums>([](auto& c, const PartialSums& a) {
        SumPartials<StandardProtocolOfTeams>(c, a);
      });
    case LayerKernel::kCrossEntropyLoss:
      return OnTeam<CrossEntropyShape, CrossEntropyRows>(
          [](auto& team, const CrossEntropyShape& shape,
             const CrossEntropyRows& a) { CrossEntropyLoss(team, shape, a); });
    case LayerKernel::kFinishSquares:
      return OnTeam<SquareArgs>(
          [](auto& team, const SquareArgs& a) { FinishSquares(team, a); });
    case LayerKernel::kEmbeddingCount:
      return OnContext<S, E>(
          [](auto& c, const S& s, const E& a) { EmbeddingCount(c, s, a); });
    case LayerKernel::kEmbeddingStarts:
      return OnContext<S, E>([](auto& c, const S& s, const E& a) {
        EmbeddingStarts<StandardProtocolOfTeams>(c, s, a);
      });
    case LayerKernel::kEmbeddingPlace:
      return OnContext<S, E>(
          [](auto& c, const S& s, const E& a) { EmbeddingPlace(c, s, a); });
    case LayerKernel::kEmbeddingOrder:
      return OnContext<S, E>(
          [](auto& c, const S& s, const E& a) { EmbeddingOrder(c, s, a); });
    default:
      return nullptr;
  }
}

}  // namespace

FiberBody FindLayerKernelForFibers(LayerKernel kernel, DType dtype) {
  if (IsOfOneType(kernel)) return FindOfOneType(kernel);
  switch (dtype) {
    case DType::kF32:
      return FindOf<float>(kernel);
    case DType::kBF16:
      return FindOf<BFloat16>(kernel);
    case DType::kF16:
      return FindOf<Float16>(kernel);
    default:
      return nullptr;
  }
}

}  // namespace shardproof::cuda
