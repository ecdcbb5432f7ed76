// Optimizer steps in fibers against the bounded reference, as those of the host are.
#include "layers/kernels/cuda/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "layers/kernels/cuda/testing/fiber_launch.h"
#include "reference/optimizer.h"

namespace shardproof::cuda {
namespace {

using testing::ExpectWithin;
using testing::Launcher;
using testing::LaunchShape;
using testing::Operand;
using testing::VisitStored;

constexpr int kSteps = 3;
constexpr LaunchShape kShape = {3, 32};

// Everything that a rule works on.
struct State {
  State(DType type, DType gradient_type, int64_t size, int64_t offset)
      : dtype(type),
        gradient_dtype(gradient_type),
        n(size),
        parameter(Operand::Random(type, n, "w", 1, offset)),
        master(DType::kF32, n, offset),
        first(Operand::Of(Tensor::Zeros(DType::kF32, {n}), offset)),
        second(Operand::Of(Tensor::Zeros(DType::kF32, {n}), offset)),
        initial(parameter.Doubles()) {
    for (int k = 0; k < kSteps; ++k) {
      gradients.push_back(
          Operand::Random(gradient_type, n, fmt::format("g{}", k), 1, offset));
    }
  }
  UpdateTensors Tensors(int step) {
    return {.n = n,
            .dtype = dtype,
            .gradient_dtype = gradient_dtype,
            .parameter = parameter.raw(),
            .gradient = gradients[static_cast<size_t>(step)].raw(),
            .master = master.raw(),
            .first = first.raw(),
            .second = second.raw()};
  }

  DType dtype, gradient_dtype;
  int64_t n;
  Operand parameter, master, first, second;
  std::vector<Operand> gradients;
  std::vector<double> initial;
};

class OptimizerTest : public ::testing::TestWithParam<int64_t> {
 protected:
  // `step` makes one step in a context; the reference makes the same.
  template <class Step>
  void Compare(const OptimizerSettings& settings, double factor,
               const Step& step) {
    uint64_t seed = 0;
    for (const DType dtype : testing::kTypes) {
      for (const DType gradient : {dtype, DType::kF32}) {
        for (const int64_t offset : {0, 1}) {
          SCOPED_TRACE(fmt::format("{}, gradients {}, offset {}", Name(dtype),
                                   Name(gradient), offset));
          State state(dtype, gradient, GetParam(), offset);
          OptimizerReference reference(settings, dtype, state.initial);
          VisitStored(dtype, [&]<class T>(TypeTag<T> type) {
            launch_(kShape, ++seed, [&](auto& context) {
              WidenParameters<T>(context,
                                 {.n = state.n,
                                  .parameter = state.parameter.raw(),
                                  .master = state.master.template as<float>()});
            });
            for (int k = 0; k < kSteps; ++k) {
              std::vector<Bounded> g;
              for (const double x : state.gradients[k].Doubles()) {
                g.push_back({.value = x});
              }
              reference.Step(g, factor);
              launch_(kShape, ++seed, [&](auto& context) {
                if (gradient == dtype) {
                  step(context, type, type, state.Tensors(k), k + 1);
                } else {
                  step(context, type, TypeTag<float>(), state.Tensors(k),
                       k + 1);
                }
              });
            }
          });
          ExpectWithin("parameter", state.parameter, reference.parameters());
          if (dtype != DType::kF32) {
            ExpectWithin("master", state.master, reference.weights());
          }
          ExpectWithin("first moment", state.first, reference.first());
          if (settings.HasSecondMoment()) {
            ExpectWithin("second moment", state.second, reference.second());
          }
          if (HasFatalFailure()) return;
        }
      }
    }
  }

  Launcher launch_;
};

TEST_P(OptimizerTest, Sgd) {
  Compare({.rule = OptimizerRule::kSgd,
           .learning_rate = 0.1,
           .momentum = 0.9,
           .weight_decay = 0.2},
          1.0 / 3,
          []<class T, class G>(auto& context, TypeTag<T>, TypeTag<G>,
                               const UpdateTensors& tensors, int /*step*/) {
            SgdStep<T, G>(context, {.tensors = tensors,
                                    .gradient_scale = 1.0 / 3,
                                    .learning_rate = 0.1,
                                    .momentum = 0.9,
                                    .coupled_decay = 0.2});
          });
}

TEST_P(OptimizerTest, AdamAndAdamW) {
  for (const bool decoupled : {false, true}) {
    Compare(
        {.rule = decoupled ? OptimizerRule::kAdamW : OptimizerRule::kAdam,
         .learning_rate = 0.1,
         .beta1 = 0.9,
         .beta2 = 0.95,
         .epsilon = 1e-3,
         .weight_decay = 0.2},
        3.0,
        [decoupled]<class T, class G>(auto& context, TypeTag<T>, TypeTag<G>,
                                      const UpdateTensors& tensors, int step) {
          AdamStep<T, G>(
              context, {.tensors = tensors,
                        .gradient_scale = 3,
                        .beta1 = 0.9,
                        .beta2 = 0.95,
                        .epsilon = 1e-3,
                        .step_size = 0.1 / (1 - std::pow(0.9, step)),
                        .second_scale = 1 / std::sqrt(1 - std::pow(0.95, step)),
                        .coupled_decay = decoupled ? 0 : 0.2,
                        .shrink = decoupled ? 1 - 0.1 * 0.2 : 1});
        });
  }
}

// SGD without momentum has no moment to read or write.
TEST_P(OptimizerTest, SgdWithoutAMoment) {
  const int64_t n = GetParam();
  Operand w = Operand::Random(DType::kF32, n, "w", 1);
  Operand g = Operand::Random(DType::kF32, n, "g", 1);
  const std::vector<double> before = w.Doubles(), slope = g.Doubles();
  launch_(kShape, 1, [&](auto& context) {
    SgdStep<float, float>(
        context,
        {.tensors = {.n = n, .parameter = w.raw(), .gradient = g.raw()},
         .learning_rate = 0.5});
  });
  const std::vector<double> after = w.Doubles();
  for (int64_t i = 0; i < n; ++i) {
    EXPECT_EQ(after[i], Round(DType::kF32, before[i] - 0.5 * slope[i]));
  }
}

SquareSum SquaresOf(Launcher& launch, Operand& x, const LaunchShape& shape) {
  std::vector<Squares> partials(shape.blocks, Squares{-1, -1});
  SquareSum total{.sum = 5};
  VisitStored(x.dtype(), [&]<class T>(TypeTag<T> /*type*/) {
    launch(shape, 1, [&](auto& context) {
      Team team(context);
      AddSquares<T>(team,
                    {.n = x.size(), .x = x.raw(), .partials = partials.data()});
    });
    launch({1, 64}, 2, [&](auto& context) {
      Team team(context);
      FinishSquares(
          team,
          {.n = shape.blocks, .partials = partials.data(), .total = &total});
    });
  });
  return total;
}

// Integers: every order of additions gives the same.
TEST_P(OptimizerTest, SquaresOfIntegersAreExact) {
  for (const DType dtype : testing::kTypes) {
    for (const int64_t offset : {0, 1}) {
      auto exact = ExactSum(dtype, 8);
      ASSERT_TRUE(exact.ok());
      exact->magnitude = 31;
      Operand x = Operand::Of(Filled(*exact, {GetParam()}, "x"), offset);
      double want = 5;
      for (const double v : x.Doubles()) want += v * v;
      const SquareSum got = SquaresOf(launch_, x, {3, 96});
      EXPECT_EQ(got.sum, want) << Name(dtype);
      EXPECT_TRUE(got.finite);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Lengths, OptimizerTest,
                         ::testing::Values(1, 7, 31, 33, 1000, 4097));

// Wherever it is.
TEST(SquaresTest, FindWhatIsNotFinite) {
  Launcher launch;
  for (const DType dtype : testing::kTypes) {
    for (const double bad : {std::numeric_limits<double>::infinity(),
                             std::numeric_limits<double>::quiet_NaN()}) {
      for (int64_t at = 0; at < 75; at += 2) {
        Operand x = Operand::Random(dtype, 75, "x", 1);
        FromDouble(dtype, &bad, 1,
                   static_cast<std::byte*>(x.raw()) + at * SizeOf(dtype));
        ASSERT_FALSE(SquaresOf(launch, x, {2, 32}).finite)
            << bad << " at " << at << " of " << Name(dtype);
      }
    }
  }
}

}  // namespace
}  // namespace shardproof::cuda
