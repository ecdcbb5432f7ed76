// Activations in fibers against the bounded references, as those of the host are.
#include "layers/kernels/cuda/activation.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "layers/kernels/cuda/partial_sums.h"
#include "layers/kernels/cuda/testing/fiber_launch.h"
#include "reference/bounded.h"
#include "reference/random.h"

namespace shardproof::cuda {
namespace {

using testing::ExpectWithin;
using testing::Launcher;
using testing::LaunchShape;
using testing::Operand;
using testing::VisitStored;

constexpr double kUlps = 4;
constexpr LaunchShape kShape = {3, 32};

Bounded Exactly(double value) { return {.value = value}; }

class ActivationTest : public ::testing::TestWithParam<int64_t> {
 protected:
  // body(TypeTag, dtype, n, offset) for all types; operands on and off multiples of 16 bytes.
  template <class Body>
  void ForAll(const Body& body) {
    for (const DType dtype : testing::kTypes) {
      for (const int64_t offset : {0, 1}) {
        SCOPED_TRACE(fmt::format("{}, offset {}", Name(dtype), offset));
        VisitStored(dtype, [&]<class T>(TypeTag<T> type) {
          body(type, dtype, GetParam(), offset);
        });
        if (HasFatalFailure()) return;
      }
    }
  }
  static void ExpectClose(std::string_view what, const Operand& got,
                          std::vector<Bounded> want) {
    for (Bounded& w : want) w = Rounded(w, got.dtype());
    ExpectWithin(what, got, want);
  }

  const double u_ = UnitRoundoff(DType::kF32);
  Launcher launch_;
};

TEST_P(ActivationTest, GeluAndItsDerivative) {
  ForAll([&]<class T>(TypeTag<T>, DType dtype, int64_t n, int64_t offset) {
    Operand z = Operand::Random(dtype, n, "z", 6, offset);
    Operand da = Operand::Random(dtype, n, "da", 6, offset);
    Operand a(dtype, n, offset), dz(dtype, n, offset);
    launch_(kShape, 1, [&](auto& context) {
      Gelu<T>(context, {.n = n, .x = z.raw(), .out = a.raw()});
      GeluBackward<T>(context,
                      {.n = n, .x = z.raw(), .da = da.raw(), .out = dz.raw()});
    });
    std::vector<Bounded> want_a, want_dz;
    const std::vector<double> v = z.Doubles(), d = da.Doubles();
    for (size_t i = 0; i < v.size(); ++i) {
      want_a.push_back(GeluTanh(Exactly(v[i]), u_, kUlps));
      want_dz.push_back(
          Rounded(Exactly(d[i]) * GeluTanhGrad(Exactly(v[i]), u_, kUlps), u_));
    }
    ExpectClose("a", a, want_a);
    ExpectClose("dz", dz, want_dz);
  });
}

TEST_P(ActivationTest, SwiGluAndItsDerivatives) {
  ForAll([&]<class T>(TypeTag<T>, DType dtype, int64_t n, int64_t offset) {
    Operand gate = Operand::Random(dtype, n, "gate", 6, offset);
    Operand up = Operand::Random(dtype, n, "up", 6, offset);
    Operand da = Operand::Random(dtype, n, "da", 6, offset);
    Operand a(dtype, n, offset);
    std::vector<Bounded> want_a, want_dgate, want_dup;
    const std::vector<double> g = gate.Doubles(), v = up.Doubles(),
                              d = da.Doubles();
    for (size_t i = 0; i < g.size(); ++i) {
      const Bounded silu = Silu(Exactly(g[i]), u_, kUlps);
      want_a.push_back(Rounded(silu * Exactly(v[i]), u_));
      want_dup.push_back(Rounded(Exactly(d[i]) * silu, u_));
      const Bounded dsilu = Rounded(Exactly(d[i]) * Exactly(v[i]), u_);
      want_dgate.push_back(
          Rounded(dsilu * SiluGrad(Exactly(g[i]), u_, kUlps), u_));
    }
    launch_(kShape, 2, [&](auto& context) {
      const ActivationArgs args = {
          .n = n, .x = gate.raw(), .up = up.raw(), .out = a.raw()};
      SwiGlu<T>(context, args);
    });
    ExpectClose("a", a, want_a);
    // In place, as the layer does it.
    launch_(kShape, 3, [&](auto& context) {
      SwiGluBackward<T>(context, {.n = n,
                                  .x = gate.raw(),
                                  .up = up.raw(),
                                  .da = da.raw(),
                                  .out = gate.raw(),
                                  .dup = up.raw()});
    });
    ExpectClose("dgate", gate, want_dgate);
    ExpectClose("dup", up, want_dup);
  });
}

// Integers, so that sums are exact.
TEST_P(ActivationTest, ColumnSumAndBias) {
  constexpr int64_t kRows = 7;
  ForAll([&]<class T>(TypeTag<T>, DType dtype, int64_t n, int64_t offset) {
    const auto exact = ExactSum(dtype, 8);
    ASSERT_TRUE(exact.ok());
    Operand x = Operand::Of(Filled(*exact, {kRows, n}, "x"), offset);
    Operand b = Operand::Of(Filled(*exact, {n}, "b"), offset);
    Operand partials(DType::kF32, kShape.blocks * n), sums(DType::kF32, n);
    Operand rounded(dtype, n, offset);
    const std::vector<double> before = x.Doubles(), bias = b.Doubles();
    launch_(kShape, 4, [&](auto& context) {
      ColumnSums<T>(
          context,
          {.n = n, .rows = kRows, .x = x.raw(), .out = partials.raw()});
    });
    launch_(kShape, 5, [&](auto& context) {
      SumPartials<StandardProtocolOfTeams>(context,
                                           {.parts = kShape.blocks,
                                            .columns = n,
                                            .partials = partials.as<float>(),
                                            .out = sums.as<float>()});
    });
    launch_(kShape, 6, [&](auto& context) {
      RoundSums<T>(context, {.n = n, .x = sums.raw(), .out = rounded.raw()});
      AddBias<T>(context,
                 {.n = n, .rows = kRows, .up = b.raw(), .out = x.raw()});
    });
    ASSERT_TRUE(partials.GuardsAreIntact() && rounded.GuardsAreIntact() &&
                x.GuardsAreIntact());
    const std::vector<double> after = x.Doubles(), sum = rounded.Doubles();
    for (int64_t j = 0; j < n; ++j) {
      double want = 0;
      for (int64_t i = 0; i < kRows; ++i) {
        want += before[i * n + j];
        ASSERT_EQ(after[i * n + j], before[i * n + j] + bias[j])
            << "row " << i << ", column " << j;
      }
      ASSERT_EQ(sum[j], want) << "column " << j;
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Lengths, ActivationTest,
                         ::testing::Values(1, 7, 31, 33, 512, 1000, 4097));

TEST(ActivationFarTest, ArgumentsSaturateAndNanIsSeen) {
  Launcher launch;
  std::vector<float> z = {1e38F, -1e38F, 200.F, -200.F, 0.F, NAN};
  std::vector<float> gelu(z.size()), silu(z.size()), one(z.size(), 1.F);
  const auto n = static_cast<int64_t>(z.size());
  launch({1, 32}, 1, [&](auto& context) {
    Gelu<float>(context, {.n = n, .x = z.data(), .out = gelu.data()});
    SwiGlu<float>(
        context, {.n = n, .x = z.data(), .up = one.data(), .out = silu.data()});
  });
  for (size_t i = 0; i + 1 < z.size(); ++i) {
    EXPECT_EQ(silu[i], std::max(z[i], 0.F));
    EXPECT_EQ(gelu[i], std::max(z[i], 0.F));
  }
  EXPECT_TRUE(std::isnan(gelu.back()) && std::isnan(silu.back()));
}

}  // namespace
}  // namespace shardproof::cuda
