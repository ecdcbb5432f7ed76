// Optimizer steps against the bounded reference, on every instruction set that
// this machine has.
#include "layers/kernels/optimizer.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "layers/kernels/kernel_testing.h"
#include "reference/optimizer.h"

namespace shardproof {
namespace {

constexpr DType kTypes[] = {DType::kF32, DType::kF64, DType::kBF16,
                            DType::kF16};
constexpr int64_t kLengths[] = {0, 1, 7, 16, 31, 1003};
constexpr int kSteps = 3;

// Everything that a rule works on.
struct State {
  State(DType type, DType gradient_type, int64_t size)
      : dtype(type),
        gradient_dtype(gradient_type),
        n(size),
        parameter(Filled(Uniform(type), Shape{size}, "w")),
        master(Tensor::Zeros(Accumulator(type), {size})),
        first(Tensor::Zeros(Accumulator(type), {size})),
        second(Tensor::Zeros(Accumulator(type), {size})),
        initial(Doubles(parameter)) {
    EXPECT_TRUE(WidenParameters(Stream::Inline(), dtype, n, parameter.raw(),
                                master.raw())
                    .ok());
    for (int k = 0; k < kSteps; ++k) {
      gradients.push_back(
          Filled(Uniform(gradient_type), Shape{size}, fmt::format("g{}", k)));
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
  Tensor parameter, master, first, second;
  std::vector<Tensor> gradients;
  std::vector<double> initial;
};

void ExpectWithin(const Tensor& got, const std::vector<Bounded>& want,
                  std::string_view what) {
  const std::vector<double> values = Doubles(got);
  ASSERT_EQ(values.size(), want.size());
  for (size_t i = 0; i < values.size(); ++i) {
    ASSERT_LE(std::abs(values[i] - want[i].value), want[i].worst)
        << what << " " << i << " is " << values[i] << ", not " << want[i].value;
  }
}

class OptimizerKernelTest : public testing::TestWithParam<int64_t> {
 protected:
  // `step` makes one step; the reference, the same under `settings`.
  template <class Step>
  void Compare(const OptimizerSettings& settings, double factor, Step step) {
    const OnlyTarget only(GetParam());
    for (const DType dtype : kTypes) {
      for (const DType gradient : {dtype, Accumulator(dtype)}) {
        for (const int64_t n : kLengths) {
          SCOPED_TRACE(fmt::format("{} of {}, gradients {}", n, Name(dtype),
                                   Name(gradient)));
          State state(dtype, gradient, n);
          OptimizerReference reference(settings, dtype, state.initial);
          for (int k = 0; k < kSteps; ++k) {
            std::vector<Bounded> g;
            for (const double x :
                 Doubles(state.gradients[static_cast<size_t>(k)])) {
              g.push_back({.value = x});
            }
            reference.Step(g, factor);
            step(state.Tensors(k), k + 1);
          }
          ExpectWithin(state.parameter, reference.parameters(), "parameter");
          if (dtype != Accumulator(dtype)) {
            ExpectWithin(state.master, reference.weights(), "master");
          }
          ExpectWithin(state.first, reference.first(), "first moment");
          if (settings.HasSecondMoment()) {
            ExpectWithin(state.second, reference.second(), "second moment");
          }
        }
      }
    }
  }
};

TEST_P(OptimizerKernelTest, Sgd) {
  Compare({.rule = OptimizerRule::kSgd,
           .learning_rate = 0.1,
           .momentum = 0.9,
           .weight_decay = 0.2},
          1.0 / 3, [](const UpdateTensors& tensors, int) {
            ASSERT_TRUE(SgdStep(Stream::Inline(), {.tensors = tensors,
                                                   .gradient_scale = 1.0 / 3,
                                                   .learning_rate = 0.1,
                                                   .momentum = 0.9,
                                                   .coupled_decay = 0.2})
                            .ok());
          });
}

TEST_P(OptimizerKernelTest, AdamAndAdamW) {
  for (const bool decoupled : {false, true}) {
    Compare(
        {.rule = decoupled ? OptimizerRule::kAdamW : OptimizerRule::kAdam,
         .learning_rate = 0.1,
         .beta1 = 0.9,
         .beta2 = 0.95,
         .epsilon = 1e-3,
         .weight_decay = 0.2},
        3.0, [decoupled](const UpdateTensors& tensors, int step) {
          ASSERT_TRUE(
              AdamStep(Stream::Inline(),
                       {.tensors = tensors,
                        .gradient_scale = 3,
                        .beta1 = 0.9,
                        .beta2 = 0.95,
                        .epsilon = 1e-3,
                        .step_size = 0.1 / (1 - std::pow(0.9, step)),
                        .second_scale = 1 / std::sqrt(1 - std::pow(0.95, step)),
                        .coupled_decay = decoupled ? 0 : 0.2,
                        .shrink = decoupled ? 1 - 0.1 * 0.2 : 1})
                  .ok());
        });
  }
}

// Integers: every order of additions gives the same.
TEST_P(OptimizerKernelTest, SquaresOfIntegersAreExact) {
  const OnlyTarget only(GetParam());
  for (const DType dtype : kTypes) {
    for (const int64_t n : kLengths) {
      SCOPED_TRACE(fmt::format("{} of {}", n, Name(dtype)));
      const auto exact = ExactSum(dtype, 8);
      ASSERT_TRUE(exact.ok());
      Distribution small = *exact;
      small.magnitude = 31;
      const Tensor x = Filled(small, Shape{n}, "x");
      double want = 5;
      for (const double v : Doubles(x)) want += v * v;
      SquareSum got{.sum = 5};
      ASSERT_TRUE(AddSquares(Stream::Inline(), dtype, n, x.raw(), &got).ok());
      EXPECT_EQ(got.sum, want);
      EXPECT_TRUE(got.finite);
    }
  }
}

// 200^2 is beyond f16, the square of 1e30 beyond f32.
TEST_P(OptimizerKernelTest, SquaresAreTakenInDouble) {
  const OnlyTarget only(GetParam());
  const std::vector<Float16> halves(100, Float16(200.0F));
  SquareSum s;
  ASSERT_TRUE(
      AddSquares(Stream::Inline(), DType::kF16, 100, halves.data(), &s).ok());
  EXPECT_EQ(s.sum, 4e6);
  const std::vector<float> large(33, 1e30F);
  SquareSum of_large;
  ASSERT_TRUE(
      AddSquares(Stream::Inline(), DType::kF32, 33, large.data(), &of_large)
          .ok());
  EXPECT_TRUE(of_large.finite);
  EXPECT_NEAR(of_large.sum / 33e60, 1, 1e-6);
}

// Wherever it is, and whether or not it fills a vector.
TEST_P(OptimizerKernelTest, FindsWhatIsNotFinite) {
  const OnlyTarget only(GetParam());
  for (const DType dtype : kTypes) {
    for (const double bad : {std::numeric_limits<double>::infinity(),
                             -std::numeric_limits<double>::infinity(),
                             std::numeric_limits<double>::quiet_NaN()}) {
      for (int64_t at = 0; at < 75; ++at) {
        Tensor x = Filled(Uniform(dtype), Shape{75}, "x");
        FromDouble(dtype, &bad, 1,
                   static_cast<std::byte*>(x.raw()) + at * SizeOf(dtype));
        SquareSum s;
        ASSERT_TRUE(AddSquares(Stream::Inline(), dtype, 75, x.raw(), &s).ok());
        ASSERT_FALSE(s.finite) << bad << " at " << at << " of " << Name(dtype);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, OptimizerKernelTest,
                         testing::ValuesIn(UsableTargets()),
                         [](const auto& info) {
                           return std::string(hwy::TargetName(info.param));
                         });

TEST(OptimizerKernelArgsTest, Refuses) {
  int32_t x = 1;
  SquareSum s;
  EXPECT_EQ(AddSquares(Stream::Inline(), DType::kI32, 1, &x, &s).code(),
            StatusCode::kUnsupported);
  EXPECT_EQ(
      SgdStep(Stream::Inline(), {.tensors = {.n = 1, .dtype = DType::kI32}})
          .code(),
      StatusCode::kUnsupported);
  float w = 1;
  const UpdateTensors without_moment = {
      .n = 1, .parameter = &w, .gradient = &w};
  EXPECT_EQ(
      SgdStep(Stream::Inline(), {.tensors = without_moment, .momentum = 0.5})
          .code(),
      StatusCode::kInvalidArgument);
  EXPECT_EQ(AdamStep(Stream::Inline(), {.tensors = without_moment}).code(),
            StatusCode::kInvalidArgument);
  UpdateTensors mixed = without_moment;
  mixed.gradient_dtype = DType::kBF16;
  EXPECT_EQ(SgdStep(Stream::Inline(), {.tensors = mixed}).code(),
            StatusCode::kUnsupported);
}

}  // namespace
}  // namespace shardproof
