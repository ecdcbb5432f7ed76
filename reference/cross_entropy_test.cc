#include "reference/cross_entropy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <numbers>
#include <vector>

#include "reference/random.h"

namespace shardproof {
namespace {

using V = std::vector<double>;
using Ids = std::vector<int64_t>;

Tensor Make(DType dtype, const Shape& shape, const V& v) {
  Tensor t(dtype, shape);
  FromDouble(dtype, v.data(), static_cast<int64_t>(v.size()), t.raw());
  return t;
}

V Draw(DType dtype, int64_t n, double scale, const char* name) {
  V v(static_cast<size_t>(n));
  FillDouble(Uniform(dtype, scale), {1, TensorId(name)}, 0, n, v.data());
  return v;
}

TEST(CrossEntropy, ByHand) {
  // exp: 1 and 3; the last column is padding.
  const Tensor x = Make(DType::kF64, {2, 3}, {0, std::log(3.0), 99, 5, 7, 99});
  const Tensor two = Make(DType::kF64, {1}, {2});
  const Ids targets = {0, -100};
  CrossEntropyInputs in = {.logits = x.view(),
                           .targets = targets,
                           .vocabulary = 2,
                           .upstream = two.view()};
  const Arithmetic a = Arithmetic::For(DType::kF64);
  const CrossEntropyResult plain = CrossEntropyReference(in, a);
  EXPECT_NEAR(plain.loss[0].value, std::log(4.0), 1e-15);
  EXPECT_EQ(plain.loss[1].value, 0);
  EXPECT_NEAR(plain.mean.value, std::log(4.0), 1e-15);
  const V want = {2 * (0.25 - 1), 2 * 0.75, 0, 0, 0, 0};
  for (size_t i = 0; i < want.size(); ++i) {
    EXPECT_NEAR(plain.dlogits.values[i].value, want[i], 1e-15) << i;
  }
  in.smoothing = 0.5;  // Weights 3/4 and 1/4.
  const CrossEntropyResult smooth =
      CrossEntropyReference(in, a, {.tokens = {0}});
  EXPECT_NEAR(smooth.loss[0].value, std::log(4.0 / 3) + 0.75 * std::log(3.0),
              1e-15);
  ASSERT_EQ(smooth.dlogits.values.size(), 3u);
  EXPECT_NEAR(smooth.dlogits.values[0].value, 2 * (0.25 - 0.75), 1e-15);
  EXPECT_NEAR(smooth.dlogits.values[1].value, 2 * (0.75 - 0.25), 1e-15);
}

struct Problem {
  static constexpr int64_t kTokens = 6, kVocabulary = 11, kColumns = 13;
  explicit Problem(bool per_token, double smoothing)
      : x(Draw(DType::kF64, kTokens * kColumns, 2, "x")),
        up(Draw(DType::kF64, per_token ? kTokens : 1, 1, "upstream")),
        per_token(per_token),
        smoothing(smoothing) {}
  CrossEntropyResult Run() const {
    const Tensor logits = Make(DType::kF64, {kTokens, kColumns}, x);
    const Tensor upstream =
        Make(DType::kF64, {static_cast<int64_t>(up.size())}, up);
    return CrossEntropyReference({.logits = logits.view(),
                                  .targets = targets,
                                  .vocabulary = kVocabulary,
                                  .ignore_index = 3,
                                  .smoothing = smoothing,
                                  .upstream = upstream.view(),
                                  .per_token = per_token},
                                 Arithmetic::For(DType::kF64));
  }
  // What the gradient is of.
  double Objective() const {
    const CrossEntropyResult r = Run();
    if (!per_token) return up[0] * r.mean.value;
    double sum = 0;
    for (size_t i = 0; i < up.size(); ++i) sum += up[i] * r.loss[i].value;
    return sum;
  }
  V x, up;
  bool per_token;
  double smoothing;
  Ids targets = {0, 3, 10, 7, 3, 0};  // Two are ignored.
};

// Written down again, with no maximum.
TEST(CrossEntropy, AgreesWithTheTextbookForm) {
  for (const double smoothing : {0.0, 0.3}) {
    const Problem p(false, smoothing);
    const CrossEntropyResult r = p.Run();
    double total = 0;
    for (int64_t i = 0; i < Problem::kTokens; ++i) {
      double sum = 0, all = 0;
      const double* row = p.x.data() + i * Problem::kColumns;
      for (int64_t j = 0; j < Problem::kVocabulary; ++j) {
        sum += std::exp(row[j]);
        all += row[j];
      }
      const int64_t t = p.targets[static_cast<size_t>(i)];
      const double want = t == 3 ? 0
                                 : std::log(sum) - (1 - smoothing) * row[t] -
                                       smoothing / Problem::kVocabulary * all;
      EXPECT_NEAR(r.loss[static_cast<size_t>(i)].value, want, 1e-14);
      total += want;
    }
    EXPECT_NEAR(r.mean.value, total / 4, 1e-14);
  }
}

TEST(CrossEntropy, GradientIsTheFiniteDifference) {
  constexpr double kStep = 1e-5;
  for (const bool per_token : {false, true}) {
    for (const double smoothing : {0.0, 0.3}) {
      Problem p(per_token, smoothing);
      const CrossEntropyResult r = p.Run();
      for (size_t i = 0; i < p.x.size(); ++i) {
        const double x = p.x[i];
        p.x[i] = x + kStep;
        const double above = p.Objective();
        p.x[i] = x - kStep;
        const double below = p.Objective();
        p.x[i] = x;
        EXPECT_NEAR(r.dlogits.values[i].value, (above - below) / (2 * kStep),
                    1e-9)
            << "logit " << i;
      }
    }
  }
}

TEST(CrossEntropy, AllIgnoredIsZero) {
  Problem p(false, 0.1);
  p.targets.assign(p.targets.size(), 3);
  const CrossEntropyResult r = p.Run();
  EXPECT_EQ(r.mean.value, 0);
  EXPECT_EQ(r.mean.worst, 0);
  for (const Bounded& b : r.dlogits.values) EXPECT_EQ(b.value, 0);
}

// A power of two is added to all logits, and nothing else happens.
TEST(CrossEntropy, BoundsDoNotGrowWithAnOffset) {
  Problem p(false, 0.1);
  for (double& x : p.x) x = Round(DType::kBF16, x);
  const CrossEntropyResult near = p.Run();
  for (double& x : p.x) x += 1024;
  const CrossEntropyResult far = p.Run();
  for (size_t i = 0; i < near.loss.size(); ++i) {
    EXPECT_DOUBLE_EQ(near.loss[i].value, far.loss[i].value);
    EXPECT_DOUBLE_EQ(near.loss[i].worst, far.loss[i].worst);
  }
}

// An implementation in f32, in either order and with a sum that is rescaled in
// the middle: inside the bounds, and not far inside.
struct Honest {
  std::vector<float> loss;
  V dlogits;

  Honest(const V& x, const Ids& targets, int64_t columns, double smoothing,
         float w, DType store, bool backwards) {
    for (size_t i = 0; i < targets.size(); ++i) {
      V row(x.begin() + static_cast<int64_t>(i) * columns,
            x.begin() + static_cast<int64_t>(i + 1) * columns);
      if (backwards) std::reverse(row.begin(), row.end());
      const size_t half = row.size() / 2;
      float max = -HUGE_VALF, sum = 0, spread = 0;
      for (const size_t end : {half, row.size()}) {
        const size_t begin = end == half ? 0 : half;
        float next = max;
        for (size_t j = begin; j < end; ++j) {
          next = std::max(next, static_cast<float>(row[j]));
        }
        if (begin > 0) {
          sum *= std::exp(max - next);
          spread += static_cast<float>(begin) * (max - next);
        }
        max = next;
        for (size_t j = begin; j < end; ++j) {
          const float d = static_cast<float>(row[j]) - max;
          sum += std::exp(d);
          spread += d;
        }
      }
      const auto share =
          static_cast<float>(smoothing / static_cast<double>(columns));
      const auto rest = static_cast<float>(1 - smoothing);
      const double* logits = x.data() + static_cast<int64_t>(i) * columns;
      const float target = static_cast<float>(logits[targets[i]]) - max;
      loss.push_back(std::log(sum) - (rest * target + share * spread));
      const float inverse = 1 / sum;
      for (int64_t j = 0; j < columns; ++j) {
        const float p = std::exp(static_cast<float>(logits[j]) - max) * inverse;
        const auto q =
            static_cast<float>(smoothing / static_cast<double>(columns) +
                               (j == targets[i] ? 1 - smoothing : 0));
        dlogits.push_back(Round(store, (p - q) * w));
      }
    }
  }
};

TEST(CrossEntropy, HonestF32IsInsideTheBound) {
  constexpr int64_t kTokens = 40, kVocabulary = 300;
  Ids targets;
  for (int64_t i = 0; i < kTokens; ++i) targets.push_back(i * 7);
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const double scale : {3.0, 1000.0}) {
      for (const double smoothing : {0.0, 0.1}) {
        const V x = Draw(dtype, kTokens * kVocabulary, scale, "x");
        const Tensor logits = Make(dtype, {kTokens, kVocabulary}, x);
        const Tensor up = Make(DType::kF32, {kTokens}, V(kTokens, 0.7));
        const CrossEntropyResult r =
            CrossEntropyReference({.logits = logits.view(),
                                   .targets = targets,
                                   .vocabulary = kVocabulary,
                                   .smoothing = smoothing,
                                   .upstream = up.view(),
                                   .per_token = true},
                                  Arithmetic::For(dtype), {.rescalings = 2});
        double worst_loss = 0, worst_gradient = 0;
        for (const bool backwards : {false, true}) {
          const Honest honest(x, targets, kVocabulary, smoothing, 0.7F, dtype,
                              backwards);
          for (size_t i = 0; i < honest.loss.size(); ++i) {
            const double e = std::abs(double{honest.loss[i]} - r.loss[i].value);
            ASSERT_LE(e, r.loss[i].Likely(8)) << "token " << i;
            worst_loss = std::max(worst_loss, e / r.loss[i].Likely(8));
          }
          for (size_t i = 0; i < honest.dlogits.size(); ++i) {
            const Bounded& b = r.dlogits.values[i];
            const double e = std::abs(honest.dlogits[i] - b.value);
            ASSERT_LE(e, b.Likely(8)) << "logit " << i;
            if (e > 0)
              worst_gradient = std::max(worst_gradient, e / b.Likely(8));
          }
        }
        EXPECT_GT(worst_loss, 0.005) << Name(dtype) << " " << scale;
        EXPECT_GT(worst_gradient, 0.02) << Name(dtype) << " " << scale;
      }
    }
  }
}

}  // namespace
}  // namespace shardproof
