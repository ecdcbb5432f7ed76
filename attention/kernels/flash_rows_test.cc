// The rows of flash attention on every instruction set that this machine has.
#include "attention/kernels/flash_rows.h"

#include <gtest/gtest.h>

#include "attention/kernels/flash_testing.h"
#include "collectives/kernels/targets.h"
#include "hwy/targets.h"

namespace shardproof {
namespace {

// Calls f with Highway restricted to one instruction set after the other.
template <class F>
void OnEveryTarget(const F& f) {
  const int64_t usable = hwy::SupportedTargets() & HWY_TARGETS;
  const auto restrict = [](int64_t target) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  };
  for (int bit = 0; bit < 63; ++bit) {
    const int64_t target = int64_t{1} << bit;
    if ((usable & target) == 0) continue;
    SCOPED_TRACE(hwy::TargetName(target));
    restrict(target);
    f();
  }
  restrict(0);
}

TEST(FlashRows, RightOnEveryTarget) {
  OnEveryTarget([] {
    for (const DType dtype : kFlashTypes) {
      ExpectBlockRight(ShapeOf(dtype, 75, 99, 40),
                       {.causal = true, .window = 33},
                       {.offset = 20, .count = 75}, {.count = 99});
    }
  });
}

// P of BackwardRows with exponents 0 is exp(s).
template <typename T>
std::vector<double> Exponentials(DType products, const std::vector<T>& scores) {
  const auto n = static_cast<int64_t>(scores.size());
  const std::vector<T> zeros(scores.size(), 0);
  Tensor p(products, {n}), ds(products, {n});
  const IndexRange all = {0, n};
  kernels::BackwardRows({.products = products,
                         .rows = 1,
                         .columns = n,
                         .seen = &all,
                         .scores = scores.data(),
                         .d_probabilities = zeros.data(),
                         .exponents = zeros.data(),
                         .delta = zeros.data(),
                         .probabilities = p.raw(),
                         .d_scores = ds.raw()});
  return Doubles(p);
}

// As the header has it, beside the rounding of the exponent, lg(e) and the
// product with it, and that of the result.
template <typename T>
void ExpectExponentials(DType products, double error, double u_result) {
  std::vector<T> scores;
  for (int i = 0; i < (1 << 16); ++i) {
    scores.push_back(static_cast<T>(-86. * i / (1 << 16)));
  }
  const double u = UnitRoundoff(Accumulator(products));
  const std::vector<double> got = Exponentials(products, scores);
  double worst = 0;
  for (size_t i = 0; i < scores.size(); ++i) {
    const double want = std::exp(static_cast<double>(scores[i]));
    const double bound = error + u_result + 2 * u * std::abs(scores[i]);
    const double e = std::abs(got[i] / want - 1);
    ASSERT_TRUE(e <= bound) << Name(products) << ", exp(" << scores[i]
                            << ") errs by " << e / u << " u";
    worst = std::max(worst, e / bound);
  }
  EXPECT_EQ(got[0], 1);
  EXPECT_GT(worst, 0.1);  // A bound that says something.
}

TEST(FlashRows, ExponentialsErrAsDeclared) {
  OnEveryTarget([] {
    ExpectExponentials<float>(DType::kF32, 2 * 0x1p-24, 0);
    ExpectExponentials<float>(DType::kBF16, 0x1p-18,
                              UnitRoundoff(DType::kBF16));
    ExpectExponentials<double>(DType::kF64, 2 * 0x1p-53, 0);
  });
}

TEST(FlashRows, ExponentialsOfNothingAndOfNan) {
  OnEveryTarget([] {
    for (const DType products : {DType::kF32, DType::kBF16}) {
      std::vector<float> scores(32, -std::numeric_limits<float>::infinity());
      scores[1] = -1e4f;
      scores[2] = -88;
      scores[3] = std::numeric_limits<float>::quiet_NaN();
      const std::vector<double> got = Exponentials(products, scores);
      for (size_t i = 0; i < got.size(); ++i) {
        if (i == 3) {
          EXPECT_TRUE(std::isnan(got[i]));
        } else {
          EXPECT_LE(got[i], 0x1p-126) << scores[i];
        }
      }
    }
  });
}

// Every interval of a row: zeros outside, whatever was there.
TEST(FlashRows, EveryIntervalIsSeenExactly) {
  constexpr int64_t kColumns = 48;
  OnEveryTarget([] {
    std::vector<IndexRange> seen;
    for (int64_t first = 0; first <= kColumns; ++first) {
      for (int64_t last = first; last <= kColumns; ++last) {
        seen.push_back({first, last});
      }
    }
    const auto rows = static_cast<int64_t>(seen.size());
    const Tensor scores = Random(DType::kF32, {rows, kColumns}, "scores");
    for (const DType products : {DType::kF32, DType::kBF16}) {
      Tensor p = Poisoned(products, {rows, kColumns});
      Tensor o = Tensor::Zeros(DType::kF32, {rows, 16});
      std::vector<float> top(seen.size(),
                             -std::numeric_limits<float>::infinity());
      std::vector<float> sum(seen.size(), 0);
      kernels::ForwardRows({.products = products,
                            .rows = rows,
                            .columns = kColumns,
                            .width = 16,
                            .seen = seen.data(),
                            .scores = scores.raw(),
                            .probabilities = p.raw(),
                            .o = o.raw(),
                            .top = top.data(),
                            .sum = sum.data()});
      const std::vector<double> got = Doubles(p);
      for (size_t i = 0; i < seen.size(); ++i) {
        double total = 0;
        float largest = -std::numeric_limits<float>::infinity();
        for (int64_t j = 0; j < kColumns; ++j) {
          const size_t at = i * kColumns + static_cast<size_t>(j);
          const bool sees = seen[i].first <= j && j < seen[i].last;
          ASSERT_EQ(got[at] > 0, sees) << seen[i].first << seen[i].last << j;
          ASSERT_LE(got[at], 1);
          total += got[at];
          if (sees) largest = std::max(largest, scores.data<float>()[at]);
        }
        ASSERT_EQ(top[i], largest);
        ASSERT_LE(std::abs(total - sum[i]),
                  total * (UnitRoundoff(products) + kColumns * 0x1p-24));
      }
    }
  });
}

TEST(FlashRows, Transposes) {
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF64}) {
    const Tensor x = Random(dtype, {37, 19}, "x");
    Tensor y(dtype, {19, 37});
    kernels::Transposed(dtype, x.raw(), 37, 19, y.raw());
    const std::vector<double> from = Doubles(x), to = Doubles(y);
    for (size_t i = 0; i < 37; ++i) {
      for (size_t j = 0; j < 19; ++j) {
        ASSERT_EQ(to[j * 37 + i], from[i * 19 + j]);
      }
    }
  }
}

}  // namespace
}  // namespace shardproof
