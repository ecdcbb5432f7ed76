// The passes of the cross entropy against the bounded reference: on one part,
// and on parts that are put together here; on every instruction set that this
// machine has.
#include "layers/kernels/cross_entropy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "layers/kernels/kernel_testing.h"
#include "reference/cross_entropy.h"

namespace shardproof {
namespace {

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr DType kTypes[] = {DType::kF32, DType::kF64, DType::kBF16,
                            DType::kF16};

using V = std::vector<double>;
using Ids = std::vector<int64_t>;

Tensor Make(DType dtype, const Shape& shape, const V& v) {
  Tensor t(dtype, shape);
  FromDouble(dtype, v.data(), static_cast<int64_t>(v.size()), t.raw());
  return t;
}

struct Problem {
  DType dtype = DType::kF32;
  int64_t vocabulary = 1;
  double scale = 1;
  double smoothing = 0;
};

struct Result {
  V loss, dlogits;  // dlogits as [tokens, vocabulary]
  double total = 0;
};

// `logits` [tokens, vocabulary] in `parts` parts, each with two columns of
// padding that hold NaN, and what is sent done here. In place if asked.
Result RunParts(const Problem& p, const V& logits, const Ids& targets,
                const V& upstream, int parts, bool in_place) {
  const auto tokens = static_cast<int64_t>(targets.size());
  const DType lane = Accumulator(p.dtype);
  const int64_t rows = (p.vocabulary + parts - 1) / parts;
  struct Part {
    CrossEntropyShape shape;
    Tensor x, local_max, sums;
  };
  std::vector<Part> all;
  V max(static_cast<size_t>(tokens), -kInf);
  for (int part = 0; part < parts; ++part) {
    const int64_t begin = part * rows;
    const int64_t valid = std::clamp<int64_t>(p.vocabulary - begin, 0, rows);
    V local;
    for (int64_t i = 0; i < tokens; ++i) {
      for (int64_t j = 0; j < rows + 2; ++j) {
        local.push_back(
            j < valid
                ? logits[static_cast<size_t>(i * p.vocabulary + begin + j)]
                : kNan);
      }
    }
    Part made = {.shape = {.dtype = p.dtype,
                           .tokens = tokens,
                           .columns = rows + 2,
                           .valid = valid,
                           .begin = begin,
                           .vocabulary = p.vocabulary,
                           .smoothing = p.smoothing},
                 .x = Make(p.dtype, {tokens, rows + 2}, local),
                 .local_max = Tensor(lane, {tokens}),
                 .sums = Tensor(lane, {2 * tokens})};
    EXPECT_TRUE(CrossEntropyLocal(made.shape, made.x.raw(), targets.data(),
                                  made.local_max.raw(), made.sums.raw())
                    .ok());
    const V here = Doubles(made.local_max);
    for (size_t i = 0; i < max.size(); ++i) max[i] = std::max(max[i], here[i]);
    all.push_back(std::move(made));
  }
  const Tensor whole_max = Make(lane, {tokens}, max);
  V sums(static_cast<size_t>(2 * tokens), 0);
  for (Part& part : all) {
    EXPECT_TRUE(CrossEntropyRescale(part.shape, part.x.raw(), targets.data(),
                                    part.local_max.raw(), whole_max.raw(),
                                    part.sums.raw())
                    .ok());
    const V here = Doubles(part.sums);
    for (size_t i = 0; i < sums.size(); ++i) {
      sums[i] = Round(lane, sums[i] + here[i]);
    }
  }
  Tensor whole = Make(lane, {2 * tokens}, sums);
  Tensor loss(lane, {tokens});
  Result result;
  const StatusOr<double> total =
      CrossEntropyLoss(all[0].shape, targets.data(), whole.raw(), loss.raw());
  EXPECT_TRUE(total.ok());
  result.total = *total;
  result.loss = Doubles(loss);
  result.dlogits.resize(logits.size());
  const Tensor up =
      Make(lane, {static_cast<int64_t>(upstream.size())}, upstream);
  for (Part& part : all) {
    Tensor other(p.dtype, part.x.shape());
    void* const out = in_place ? part.x.raw() : other.raw();
    EXPECT_TRUE(CrossEntropyGradient(part.shape, part.x.raw(), targets.data(),
                                     whole_max.raw(), whole.raw(),
                                     {.upstream = up.raw(),
                                      .per_token = upstream.size() > 1,
                                      .count = 1},
                                     out)
                    .ok());
    const V here = Doubles(in_place ? part.x : other);
    for (int64_t i = 0; i < tokens; ++i) {
      for (int64_t j = 0; j < rows + 2; ++j) {
        const double g = here[static_cast<size_t>(i * (rows + 2) + j)];
        if (j < part.shape.valid) {
          result.dlogits[static_cast<size_t>(i * p.vocabulary +
                                             part.shape.begin + j)] = g;
        } else {
          EXPECT_EQ(g, 0) << "padding of token " << i;
        }
      }
    }
  }
  return result;
}

class CrossEntropyTest : public testing::TestWithParam<int64_t> {};

// Lengths around a vector, an odd number of them, and around two blocks.
TEST_P(CrossEntropyTest, IsInsideTheBoundInAnyNumberOfParts) {
  const OnlyTarget only(GetParam());
  const Ids targets = {0, -100, 3, 1, 0};
  for (const DType dtype : kTypes) {
    for (const int64_t vocabulary : {4, 7, 31, 131, 2 * 2048 + 5}) {
      for (const double scale : {3.0, 1000.0}) {
        for (const double smoothing : {0.0, 0.1}) {
          const Problem p = {.dtype = dtype,
                             .vocabulary = vocabulary,
                             .scale = scale,
                             .smoothing = smoothing};
          const Tensor x = Filled(Uniform(dtype, scale), {5, vocabulary}, "x");
          const Tensor up = Filled(Uniform(Accumulator(dtype)), {5}, "up");
          for (const int parts : {1, 3}) {
            SCOPED_TRACE(fmt::format("{} columns of {} in {}, scale {}, {}",
                                     vocabulary, Name(dtype), parts, scale,
                                     smoothing));
            const Result got = RunParts(p, Doubles(x), targets, Doubles(up),
                                        parts, /*in_place=*/parts > 1);
            const CrossEntropyResult want = CrossEntropyReference(
                {.logits = x.view(),
                 .targets = targets,
                 .vocabulary = vocabulary,
                 .smoothing = smoothing,
                 .upstream = up.view(),
                 .per_token = true},
                Arithmetic::For(dtype, parts), {.rescalings = 4});
            double total = 0;
            for (size_t i = 0; i < targets.size(); ++i) {
              const Bounded& b = want.loss[i];
              ASSERT_LE(std::abs(got.loss[i] - b.value), b.worst) << i;
              total += got.loss[i];
            }
            ASSERT_EQ(got.total, total);
            for (size_t i = 0; i < got.dlogits.size(); ++i) {
              const Bounded& b = want.dlogits.values[i];
              ASSERT_LE(std::abs(got.dlogits[i] - b.value), b.worst) << i;
            }
          }
        }
      }
    }
  }
}

TEST_P(CrossEntropyTest, CarriesNanAndForgetsWhatIsMinusInfinity) {
  const OnlyTarget only(GetParam());
  for (const int64_t vocabulary : {5, 2048 + 40}) {
    for (const int64_t at : {int64_t{1}, vocabulary - 1}) {
      for (const DType dtype : kTypes) {
        SCOPED_TRACE(fmt::format("{} of {} {}", at, vocabulary, Name(dtype)));
        const Problem p = {.dtype = dtype, .vocabulary = vocabulary};
        V x(static_cast<size_t>(2 * vocabulary), 1.0);
        const auto place = static_cast<size_t>(at);
        // Token 1 is ignored, whatever it holds.
        x[static_cast<size_t>(vocabulary) + 2] = kNan;
        const Ids targets = {0, -100};
        for (const double bad : {kNan, kInf}) {
          x[place] = bad;
          const Result r = RunParts(p, x, targets, {1}, 2, false);
          EXPECT_TRUE(std::isnan(r.loss[0])) << bad;
          EXPECT_EQ(r.loss[1], 0);
          EXPECT_TRUE(std::isnan(r.dlogits[place])) << bad;
          for (int64_t j = 0; j < vocabulary; ++j) {
            ASSERT_EQ(r.dlogits[static_cast<size_t>(vocabulary + j)], 0);
          }
        }
        x[place] = -kInf;
        const Result r = RunParts(p, x, targets, {1}, 2, false);
        const auto left = static_cast<double>(vocabulary - 1);
        EXPECT_NEAR(r.loss[0], std::log(left), 1e-5);
        EXPECT_EQ(r.dlogits[place], 0);
      }
    }
  }
}

// A part without a finite logit, as a mask over ids may leave it.
TEST_P(CrossEntropyTest, APartOfMinusInfinityAddsNothing) {
  const OnlyTarget only(GetParam());
  const Problem p = {.dtype = DType::kF32, .vocabulary = 6};
  const Result r =
      RunParts(p, {0, 0, 0, -kInf, -kInf, -kInf}, {1}, {1}, 2, false);
  EXPECT_NEAR(r.loss[0], std::log(3.0), 1e-6);
  EXPECT_NEAR(r.dlogits[1], 1.0 / 3 - 1, 1e-6);
  EXPECT_EQ(r.dlogits[4], 0);
}

INSTANTIATE_TEST_SUITE_P(All, CrossEntropyTest,
                         testing::ValuesIn(UsableTargets()),
                         [](const auto& info) {
                           return std::string(hwy::TargetName(info.param));
                         });

}  // namespace
}  // namespace shardproof
