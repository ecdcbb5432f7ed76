// The passes of the cross entropy in fibers against the bounded reference: on one part, and on parts that are put
// together here, as those of the host are.
#include "layers/kernels/cuda/cross_entropy.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

#include "layers/kernels/cuda/testing/fiber_launch.h"
#include "reference/cross_entropy.h"

namespace shardproof::cuda {
namespace {

using testing::Launcher;
using testing::LaunchShape;
using testing::Operand;
using testing::VisitStored;

constexpr double kNan = std::numeric_limits<double>::quiet_NaN();
constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr int64_t kPadding = 2;

using V = std::vector<double>;
using Ids = std::vector<int64_t>;

Operand Make(DType dtype, const V& values, int64_t offset = 0) {
  const auto n = static_cast<int64_t>(values.size());
  Operand out(dtype, n, offset);
  FromDouble(dtype, values.data(), n, out.raw());
  return out;
}

struct Problem {
  DType dtype = DType::kF32;
  int64_t vocabulary = 1;
  double smoothing = 0;
  int parts = 1;
  int64_t offset = 0;
  LaunchShape shape = {};
  uint64_t seed = 0;
};

struct Part {
  CrossEntropyShape shape;
  Operand x, local_max, sums;
};

struct Result {
  V loss, dlogits;  // dlogits as [tokens, vocabulary]
  double total = 0;
};

// [tokens, vocabulary] in parts, each with columns of padding that hold NaN.
std::vector<Part> Cut(const Problem& p, const V& logits, int64_t tokens) {
  const int64_t rows = (p.vocabulary + p.parts - 1) / p.parts;
  std::vector<Part> parts;
  for (int part = 0; part < p.parts; ++part) {
    const int64_t begin = part * rows;
    const int64_t valid = std::clamp<int64_t>(p.vocabulary - begin, 0, rows);
    V local;
    for (int64_t i = 0; i < tokens; ++i) {
      for (int64_t j = 0; j < rows + kPadding; ++j) {
        local.push_back(j < valid ? logits[i * p.vocabulary + begin + j]
                                  : kNan);
      }
    }
    parts.push_back({.shape = {.dtype = p.dtype,
                               .tokens = tokens,
                               .columns = rows + kPadding,
                               .valid = valid,
                               .begin = begin,
                               .vocabulary = p.vocabulary,
                               .smoothing = p.smoothing},
                     .x = Make(p.dtype, local, p.offset),
                     .local_max = Operand(DType::kF32, tokens),
                     .sums = Operand(DType::kF32, 2 * tokens)});
  }
  return parts;
}

template <class T>
Result RunParts(Launcher& launch, const Problem& p, const V& logits,
                const Ids& targets, const V& upstream) {
  const auto tokens = static_cast<int64_t>(targets.size());
  std::vector<Part> parts = Cut(p, logits, tokens);
  const auto args_of = [&](Part& part) {
    CrossEntropyRows args;
    args.logits = part.x.raw();
    args.targets = targets.data();
    args.local_max = part.local_max.as<float>();
    args.sums = part.sums.as<float>();
    return args;
  };
  V max(tokens, -kInf);
  for (Part& part : parts) {
    launch(p.shape, p.seed, [&](auto& context) {
      Team team(context);
      CrossEntropyLocal<T>(team, part.shape, args_of(part));
    });
    const V here = part.local_max.Doubles();
    for (int64_t i = 0; i < tokens; ++i) max[i] = std::max(max[i], here[i]);
  }
  Operand whole_max = Make(DType::kF32, max);
  V sums(2 * tokens, 0);
  for (Part& part : parts) {
    CrossEntropyRows args = args_of(part);
    args.max = whole_max.as<float>();
    launch(p.shape, p.seed, [&](auto& context) {
      CrossEntropyRescale<T>(context, part.shape, args);
    });
    EXPECT_TRUE(part.sums.GuardsAreIntact());
    const V here = part.sums.Doubles();
    for (size_t i = 0; i < sums.size(); ++i) {
      sums[i] = Round(DType::kF32, sums[i] + here[i]);
    }
  }
  Operand whole = Make(DType::kF32, sums), loss(DType::kF32, tokens);
  Result result;
  CrossEntropyRows args = args_of(parts[0]);
  args.sums = whole.as<float>();
  args.loss = loss.as<float>();
  args.total = &result.total;
  launch(p.shape, p.seed, [&](auto& context) {
    Team team(context);
    CrossEntropyLoss(team, parts[0].shape, args);
  });
  result.loss = loss.Doubles();
  result.dlogits.resize(logits.size());
  Operand up = Make(DType::kF32, upstream);
  for (Part& part : parts) {
    CrossEntropyRows gradient = args_of(part);
    gradient.max = whole_max.as<float>();
    gradient.inverse_sums = whole.as<float>();
    gradient.upstream = {
        .upstream = up.raw(), .per_token = upstream.size() > 1, .count = 1};
    // In place where there are parts.
    Operand other(p.dtype, part.x.size(), p.offset);
    Operand& out = p.parts > 1 ? part.x : other;
    gradient.dlogits = out.raw();
    launch(p.shape, p.seed, [&](auto& context) {
      CrossEntropyGradient<T>(context, part.shape, gradient);
    });
    EXPECT_TRUE(out.GuardsAreIntact());
    const V here = out.Doubles();
    const int64_t columns = part.shape.columns;
    for (int64_t i = 0; i < tokens; ++i) {
      for (int64_t j = 0; j < columns; ++j) {
        const double g = here[i * columns + j];
        if (j < part.shape.valid) {
          result.dlogits[i * p.vocabulary + part.shape.begin + j] = g;
        } else {
          EXPECT_EQ(g, 0) << "padding of token " << i;
        }
      }
    }
  }
  return result;
}

Result RunProblem(Launcher& launch, const Problem& p, const V& logits,
                  const Ids& targets, const V& upstream) {
  Result result;
  VisitStored(p.dtype, [&]<class T>(TypeTag<T> /*type*/) {
    result = RunParts<T>(launch, p, logits, targets, upstream);
  });
  return result;
}

// How often a thread rescales, and once more.
int Rescalings(const Problem& p) {
  const int64_t group = kCrossEntropyGroup * 16 / SizeOf(p.dtype);
  const int64_t columns = (p.vocabulary + p.parts - 1) / p.parts;
  return static_cast<int>(columns / (group * p.shape.threads)) + 3;
}

void Check(Launcher& launch, const Problem& p, double scale) {
  const Ids targets = {0, -100, 3, 1, 0};
  const Tensor x = Filled(Uniform(p.dtype, scale), {5, p.vocabulary}, "x");
  const Tensor up = Filled(Uniform(DType::kF32), {5}, "up");
  const Result got = RunProblem(launch, p, Doubles(x), targets, Doubles(up));
  const CrossEntropyResult want = CrossEntropyReference(
      {.logits = x.view(),
       .targets = targets,
       .vocabulary = p.vocabulary,
       .smoothing = p.smoothing,
       .upstream = up.view(),
       .per_token = true},
      Arithmetic::For(p.dtype, p.parts), {.rescalings = Rescalings(p)});
  double total = 0, size = 0;
  for (size_t i = 0; i < targets.size(); ++i) {
    const Bounded& b = want.loss[i];
    ASSERT_LE(std::abs(got.loss[i] - b.value), b.worst) << i;
    total += got.loss[i];
    size += std::abs(got.loss[i]);
  }
  ASSERT_LE(std::abs(got.total - total),
            2 * Gamma(static_cast<double>(targets.size()), kSlack) * size);
  for (size_t i = 0; i < got.dlogits.size(); ++i) {
    const Bounded& b = want.dlogits.values[i];
    ASSERT_LE(std::abs(got.dlogits[i] - b.value), b.worst) << i;
  }
}

class CrossEntropyTest : public ::testing::TestWithParam<int64_t> {};

TEST_P(CrossEntropyTest, IsInsideTheBoundInAnyNumberOfParts) {
  Launcher launch;
  uint64_t seed = 0;
  for (const DType dtype : testing::kTypes) {
    for (const double scale : {3.0, 1000.0}) {
      for (const double smoothing : {0.0, 0.1}) {
        for (const int parts : {1, 3}) {
          SCOPED_TRACE(fmt::format("{} in {}, scale {}, {}", Name(dtype), parts,
                                   scale, smoothing));
          ++seed;
          Check(launch,
                {.dtype = dtype,
                 .vocabulary = GetParam(),
                 .smoothing = smoothing,
                 .parts = parts,
                 .offset = static_cast<int64_t>(seed % 2),
                 .shape = {2, seed % 3 == 0 ? 32 : 96},
                 .seed = seed},
                scale);
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Vocabulary, CrossEntropyTest,
                         ::testing::Values(4, 7, 31, 33, 1000, 4097));

TEST(CrossEntropyNanTest, IsCarriedAndMinusInfinityIsForgotten) {
  Launcher launch;
  for (const int64_t vocabulary : {5, 1040}) {
    for (const int64_t at : {int64_t{1}, vocabulary - 1}) {
      for (const DType dtype : testing::kTypes) {
        SCOPED_TRACE(fmt::format("{} of {} {}", at, vocabulary, Name(dtype)));
        const Problem p = {.dtype = dtype,
                           .vocabulary = vocabulary,
                           .parts = 2,
                           .shape = {2, 64}};
        V x(2 * vocabulary, 1.0);
        // Token 1 is ignored, whatever it holds.
        x[vocabulary + 2] = kNan;
        const Ids targets = {0, -100};
        for (const double bad : {kNan, kInf}) {
          x[at] = bad;
          const Result r = RunProblem(launch, p, x, targets, {1});
          EXPECT_TRUE(std::isnan(r.loss[0])) << bad;
          EXPECT_EQ(r.loss[1], 0);
          EXPECT_TRUE(std::isnan(r.dlogits[at])) << bad;
          for (int64_t j = 0; j < vocabulary; ++j) {
            ASSERT_EQ(r.dlogits[vocabulary + j], 0);
          }
        }
        x[at] = -kInf;
        const Result r = RunProblem(launch, p, x, targets, {1});
        const auto left = static_cast<double>(vocabulary - 1);
        EXPECT_NEAR(r.loss[0], std::log(left), 1e-5);
        EXPECT_EQ(r.dlogits[at], 0);
      }
    }
  }
}

// A part without a finite logit, as a mask over ids may leave it.
TEST(CrossEntropyNanTest, APartOfMinusInfinityAddsNothing) {
  Launcher launch;
  const Problem p = {.vocabulary = 6, .parts = 2, .shape = {2, 64}};
  const Result r =
      RunProblem(launch, p, {0, 0, 0, -kInf, -kInf, -kInf}, {1}, {1});
  EXPECT_NEAR(r.loss[0], std::log(3.0), 1e-6);
  EXPECT_NEAR(r.dlogits[1], 1.0 / 3 - 1, 1e-6);
  EXPECT_EQ(r.dlogits[4], 0);
}

}  // namespace
}  // namespace shardproof::cuda
