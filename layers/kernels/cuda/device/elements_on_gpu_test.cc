// Functions of layers that work element by element, launched on an emulated
// GPU: against the references with the bounds of the kernels' own tests, or
// the host bit for bit. Operands lie in the GPU's memory, and in memory that is
// staged.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "layers/kernels/activation.h"
#include "layers/kernels/cuda/device/device_testing.h"
#include "layers/kernels/dropout.h"
#include "layers/kernels/norm.h"
#include "layers/kernels/optimizer.h"
#include "reference/bounded.h"
#include "reference/optimizer.h"

namespace shardproof::cuda {
namespace {

using testing::ExpectSame;
using testing::ExpectWithin;
using testing::Memory;
using testing::OnGpuTest;
using testing::Operand;
using testing::Placed;
using testing::Setting;

constexpr double kUlps = 4;

Bounded Exactly(double value) { return {.value = value}; }

void ExpectClose(std::string_view what, const Operand& got,
                 std::vector<Bounded> want) {
  for (Bounded& w : want) w = Rounded(w, got.dtype());
  ExpectWithin(what, got, want);
}

class ElementsOnGpuTest : public OnGpuTest {
 protected:
  const double u_ = UnitRoundoff(DType::kF32);
};

TEST_P(ElementsOnGpuTest, Gelu) {
  const int64_t n = GetParam();
  ForAll([&](const Setting& s) {
    Placed z = Random(s, n, "z", 6), da = Random(s, n, "da", 6);
    Placed a = Empty(s, n), dz = Empty(s, n);
    const std::vector<double> v = z.Doubles(), d = da.Doubles();
    Launches(1, [&] {
      return shardproof::Gelu(stream_, s.dtype, n, z.raw(), a.raw());
    });
    Launches(1, [&] {
      return shardproof::GeluBackward(stream_, s.dtype, n, z.raw(), da.raw(),
                                      dz.raw());
    });
    // In place.
    Launches(1, [&] {
      return shardproof::GeluBackward(stream_, s.dtype, n, z.raw(), da.raw(),
                                      da.raw());
    });
    std::vector<Bounded> want_a, want_dz;
    for (size_t i = 0; i < v.size(); ++i) {
      want_a.push_back(GeluTanh(Exactly(v[i]), u_, kUlps));
      want_dz.push_back(
          Rounded(Exactly(d[i]) * GeluTanhGrad(Exactly(v[i]), u_, kUlps), u_));
    }
    ExpectClose("a", a.Now(), want_a);
    ExpectClose("dz", dz.Now(), want_dz);
    ExpectSame("dz in place", da.Now(), dz.Now());
  });
}

TEST_P(ElementsOnGpuTest, SwiGlu) {
  const int64_t n = GetParam();
  ForAll([&](const Setting& s) {
    Placed gate = Random(s, n, "gate", 6), up = Random(s, n, "up", 6);
    Placed da = Random(s, n, "da", 6), a = Empty(s, n);
    const std::vector<double> g = gate.Doubles(), v = up.Doubles(),
                              d = da.Doubles();
    Launches(1, [&] {
      return shardproof::SwiGlu(stream_, s.dtype, n, gate.raw(), up.raw(),
                                a.raw());
    });
    // In place, as the layer does it.
    Launches(1, [&] {
      return shardproof::SwiGluBackward(stream_, s.dtype, n, gate.raw(),
                                        up.raw(), da.raw(), gate.raw(),
                                        up.raw());
    });
    std::vector<Bounded> want_a, want_dgate, want_dup;
    for (size_t i = 0; i < g.size(); ++i) {
      const Bounded silu = Silu(Exactly(g[i]), u_, kUlps);
      want_a.push_back(Rounded(silu * Exactly(v[i]), u_));
      want_dup.push_back(Rounded(Exactly(d[i]) * silu, u_));
      const Bounded dsilu = Rounded(Exactly(d[i]) * Exactly(v[i]), u_);
      want_dgate.push_back(
          Rounded(dsilu * SiluGrad(Exactly(g[i]), u_, kUlps), u_));
    }
    ExpectClose("a", a.Now(), want_a);
    ExpectClose("dgate", gate.Now(), want_dgate);
    ExpectClose("dup", up.Now(), want_dup);
  });
}

// Integers, so that sums are exact.
TEST_P(ElementsOnGpuTest, ColumnSumAndBias) {
  constexpr int64_t kRows = 7;
  const int64_t n = GetParam();
  ForAll([&](const Setting& s) {
    Placed x = Exact(s, 8, kRows * n, "x"), b = Exact(s, 8, n, "b");
    Placed sums = Empty(s, n);
    const std::vector<double> before = x.Doubles(), bias = b.Doubles();
    // Of f32 there is nothing to round.
    Launches(s.dtype == DType::kF32 ? 2 : 3, [&] {
      return shardproof::ColumnSum(stream_, s.dtype, kRows, n, x.raw(),
                                   sums.raw());
    });
    Launches(1, [&] {
      return shardproof::AddBias(stream_, s.dtype, kRows, n, b.raw(), x.raw());
    });
    const std::vector<double> after = x.Doubles(), sum = sums.Doubles();
    ASSERT_TRUE(x.Now().GuardsAreIntact() && sums.Now().GuardsAreIntact());
    for (int64_t j = 0; j < n; ++j) {
      double want = 0;
      for (int64_t i = 0; i < kRows; ++i) {
        want += before[i * n + j];
        ASSERT_EQ(after[i * n + j], before[i * n + j] + bias[j]) << i;
      }
      ASSERT_EQ(sum[j], want) << "column " << j;
    }
  });
}

TEST_P(ElementsOnGpuTest, RoundingAndWideningAreTheHosts) {
  const int64_t n = GetParam();
  ForAll([&](const Setting& s) {
    Placed sums = RandomF32(s, n, "sums", 3), narrow = Random(s, n, "x", 3);
    Placed out = Empty(s, n), want = Empty(s, n);
    Placed wide = EmptyF32(s, n), want_wide = EmptyF32(s, n);
    Launches(1, [&] {
      return shardproof::RoundSums(stream_, s.dtype, n, sums.raw(), out.raw());
    });
    Launches(1, [&] {
      return shardproof::WidenParameters(stream_, s.dtype, n, narrow.raw(),
                                         wide.raw());
    });
    on_.OnHost([&]() -> Status {
      SP_RETURN_IF_ERROR(
          shardproof::RoundSums(stream_, s.dtype, n, sums.raw(), want.raw()));
      return shardproof::WidenParameters(stream_, s.dtype, n, narrow.raw(),
                                         want_wide.raw());
    });
    ExpectSame("rounded", out.Now(), want.Now());
    ExpectSame("widened", wide.Now(), want_wide.Now());
  });
}

TEST_P(ElementsOnGpuTest, DropoutIsTheHosts) {
  const int64_t n = GetParam();
  ForAll([&](const Setting& s) {
    Placed x = Random(s, 3 * n, "x", 3), want = Empty(s, 3 * n);
    DropoutArgs args = {.dtype = s.dtype,
                        .rows = 3,
                        .columns = n,
                        .first = 5,
                        .row_stride = n + 6,
                        .probability = 0.3,
                        .seed = 0x123456789,
                        .call = 0xabcdef0123,
                        .x = x.raw(),
                        .y = want.raw()};
    on_.OnHost([&] { return shardproof::Dropout(stream_, args); });
    args.y = x.raw();  // In place.
    Launches(1, [&] { return shardproof::Dropout(stream_, args); });
    ExpectSame("y", x.Now(), want.Now());
  });
}

// Both rules, with gradients of the parameters' type and of f32.
TEST_P(ElementsOnGpuTest, OptimizerSteps) {
  constexpr int kSteps = 2;
  const int64_t n = GetParam();
  for (const bool adam : {false, true}) {
    for (const bool wide : {false, true}) {
      SCOPED_TRACE(fmt::format("adam {}, wide gradients {}", adam, wide));
      ForAll([&](const Setting& s) {
        const DType type = wide ? DType::kF32 : s.dtype;
        Placed w = Random(s, n, "w", 1), master = EmptyF32(s, n);
        const std::vector<double> none(static_cast<size_t>(n), 0);
        Placed first = Of(s, DType::kF32, none, s.offset);
        Placed second = Of(s, DType::kF32, none, s.offset);
        OptimizerSettings settings = {.rule = OptimizerRule::kSgd,
                                      .learning_rate = 0.1,
                                      .momentum = 0.9,
                                      .weight_decay = 0.2};
        if (adam) {
          settings = {.rule = OptimizerRule::kAdam,
                      .learning_rate = 0.1,
                      .beta1 = 0.9,
                      .beta2 = 0.95,
                      .epsilon = 1e-3,
                      .weight_decay = 0.2};
        }
        OptimizerReference reference(settings, s.dtype, w.Doubles());
        Launches(1, [&] {
          return shardproof::WidenParameters(stream_, s.dtype, n, w.raw(),
                                             master.raw());
        });
        for (int k = 1; k <= kSteps; ++k) {
          Placed g(
              on_, s.memory,
              Operand::Random(type, n, fmt::format("g{}", k), 1, s.offset));
          std::vector<Bounded> slope;
          for (const double x : g.Doubles()) slope.push_back(Exactly(x));
          reference.Step(slope, 3.0);
          const UpdateTensors tensors = {
              .n = n,
              .dtype = s.dtype,
              .gradient_dtype = type,
              .parameter = w.raw(),
              .gradient = g.raw(),
              .master = s.dtype == DType::kF32 ? nullptr : master.raw(),
              .first = first.raw(),
              .second = adam ? second.raw() : nullptr};
          Launches(1, [&] {
            if (!adam) {
              return shardproof::SgdStep(stream_, {.tensors = tensors,
                                                   .gradient_scale = 3,
                                                   .learning_rate = 0.1,
                                                   .momentum = 0.9,
                                                   .coupled_decay = 0.2});
            }
            return shardproof::AdamStep(
                stream_, {.tensors = tensors,
                          .gradient_scale = 3,
                          .beta1 = 0.9,
                          .beta2 = 0.95,
                          .epsilon = 1e-3,
                          .step_size = 0.1 / (1 - std::pow(0.9, k)),
                          .second_scale = 1 / std::sqrt(1 - std::pow(0.95, k)),
                          .coupled_decay = 0.2});
          });
        }
        ExpectWithin("parameter", w.Now(), reference.parameters());
        if (s.dtype != DType::kF32) {
          ExpectWithin("master", master.Now(), reference.weights());
        }
        ExpectWithin("first moment", first.Now(), reference.first());
        if (adam) {
          ExpectWithin("second moment", second.Now(), reference.second());
        }
      });
    }
  }
}

// SGD without momentum has no moment.
TEST_P(ElementsOnGpuTest, SgdWithoutAMoment) {
  const int64_t n = GetParam();
  for (const Memory memory : {Memory::kOfGpu, Memory::kOrdinary}) {
    const Setting s = {DType::kF32, memory, 0};
    Placed w = Random(s, n, "w", 1), g = Random(s, n, "g", 1);
    const std::vector<double> before = w.Doubles(), slope = g.Doubles();
    Launches(1, [&] {
      return shardproof::SgdStep(
          stream_,
          {.tensors = {.n = n, .parameter = w.raw(), .gradient = g.raw()},
           .learning_rate = 0.5});
    });
    const std::vector<double> after = w.Doubles();
    for (size_t i = 0; i < after.size(); ++i) {
      ASSERT_EQ(after[i], Round(DType::kF32, before[i] - 0.5 * slope[i]));
    }
  }
}

// Integers: every order of additions gives the same. The sum is the caller's
// and is added to.
TEST_P(ElementsOnGpuTest, SquaresAreAddedToWhatIsThere) {
  const int64_t n = GetParam();
  ForAll([&](const Setting& s) {
    Placed x = Exact(s, 8, n, "x");
    SquareSum total = {.sum = 5};
    double want = 5;
    for (int twice = 0; twice < 2; ++twice) {
      for (const double v : x.Doubles()) want += v * v;
      Launches(2, [&] {
        return shardproof::AddSquares(stream_, s.dtype, n, x.raw(), &total);
      });
    }
    EXPECT_EQ(total.sum, want);
    EXPECT_TRUE(total.finite);
    const double bad = std::numeric_limits<double>::infinity();
    FromDouble(s.dtype, &bad, 1, x.raw());
    Launches(2, [&] {
      return shardproof::AddSquares(stream_, s.dtype, n, x.raw(), &total);
    });
    EXPECT_FALSE(total.finite);
  });
}

INSTANTIATE_TEST_SUITE_P(Lengths, ElementsOnGpuTest,
                         ::testing::Values(1, 33, 1000));

}  // namespace
}  // namespace shardproof::cuda
