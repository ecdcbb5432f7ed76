// Against the bounds of cross_entropy.h, which count the same roundings.
#include "reference/cross_entropy_row.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "reference/cross_entropy.h"
#include "reference/probe.h"
#include "reference/random.h"

namespace shardproof {
namespace {

using Doubles = std::vector<double>;

constexpr int64_t kVocabulary = 29;
constexpr int64_t kTarget = 11;

Doubles Logits(double scale, uint64_t seed) {
  Doubles x(kVocabulary);
  FillDouble(Uniform(DType::kF32, scale), {seed, TensorId("x")}, 0, kVocabulary,
             x.data());
  return x;
}

// dx, and then the loss.
Doubles Evaluate(Doubles x, DType dtype) {
  const double loss = CrossEntropyRow(x, kTarget, Arithmetic::For(dtype));
  x.push_back(loss);
  return x;
}

std::vector<Bounded> Expected(const Doubles& x, DType dtype) {
  Tensor logits(DType::kF64, {1, kVocabulary}), one(DType::kF64, {1});
  std::copy(x.begin(), x.end(), logits.data<double>());
  *one.data<double>() = 1;
  const std::vector<int64_t> targets = {kTarget};
  const CrossEntropyResult r = CrossEntropyReference({.logits = logits.view(),
                                                      .targets = targets,
                                                      .vocabulary = kVocabulary,
                                                      .upstream = one.view(),
                                                      .per_token = true},
                                                     Arithmetic::For(dtype));
  std::vector<Bounded> all = r.dlogits.values;
  all.push_back(r.loss[0]);
  return all;
}

TEST(CrossEntropyRow, HasTheValuesOfTheReference) {
  for (const DType dtype : {DType::kF32, DType::kF64}) {
    for (const double scale : {1., 30., 1000.}) {
      const Doubles x = Logits(scale, 1), actual = Evaluate(x, dtype);
      const std::vector<Bounded> expected = Expected(x, dtype);
      for (size_t i = 0; i < actual.size(); ++i) {
        const double size = i < kVocabulary ? 1 : scale;
        EXPECT_NEAR(actual[i], expected[i].value, 8 * kSlack * size) << i;
      }
    }
  }
}

// A deviation is the root of the sum of the squares of what the worst bound adds
// up: for n roundings at most that bound, and at least its n-th part times root n.
TEST(CrossEntropyRow, DeviatesAsTheBoundsSay) {
  // For each term its exponent, exp, and addition, and of the rest fewer.
  constexpr double kRoundings = 3 * kVocabulary + 16;
  // Estimates of a deviation deviate by 1 / sqrt(2 probes), a 32nd.
  constexpr int kProbes = 512;
  constexpr double kEstimate = 6.0 / 32;
  for (const double scale : {1., 30., 1000.}) {
    for (uint64_t seed = 0; seed < 4; ++seed) {
      const Doubles x = Logits(scale, seed);
      const Doubles exact = Evaluate(x, DType::kF32);
      const std::vector<Bounded> expected = Expected(x, DType::kF32);
      Doubles squares(exact.size());
      for (uint64_t k = 0; k < kProbes; ++k) {
        const Probe probe(k);
        const Doubles probed = Evaluate(x, DType::kF32);
        for (size_t i = 0; i < exact.size(); ++i) {
          squares[i] += std::pow(probed[i] - exact[i], 2) / kProbes;
        }
      }
      for (size_t i = 0; i < exact.size(); ++i) {
        const double deviation = std::sqrt(squares[i]);
        const double worst = expected[i].worst;
        EXPECT_LT(deviation, (1 + kEstimate) * worst) << scale << " " << i;
        EXPECT_GT(deviation, (1 - kEstimate) * worst / std::sqrt(kRoundings))
            << scale << " " << i;
        // No smaller than what the difference to the maximum alone makes of
        // it; of a loss, that and its last rounding.
        const size_t j = i < kVocabulary ? i : kTarget;
        const double d = *std::max_element(x.begin(), x.end()) - x[j];
        const double p = exact[j] + (j == kTarget ? 1 : 0);
        const double least =
            i < kVocabulary ? p * (1 - p) * d : std::hypot(d, exact[i]);
        EXPECT_GE(deviation, (1 - kEstimate) * 0x1p-24 * least)
            << scale << " " << i;
      }
    }
  }
}

}  // namespace
}  // namespace shardproof
