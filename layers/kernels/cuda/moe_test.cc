// Rows of tokens in fibers: integers times powers of two, so that every element must be right, and dot products of random
// rows against bounds.
#include "layers/kernels/cuda/moe.h"

#include <gtest/gtest.h>

#include <vector>

#include "layers/kernels/cuda/testing/fiber_launch.h"
#include "reference/bounded.h"

namespace shardproof::cuda {
namespace {

using testing::ExpectWithin;
using testing::Launcher;
using testing::LaunchShape;
using testing::Operand;
using testing::VisitStored;

using V = std::vector<double>;

Operand Of(DType dtype, const V& values) {
  const auto n = static_cast<int64_t>(values.size());
  Operand out(dtype, n);
  FromDouble(dtype, values.data(), n, out.raw());
  return out;
}

class MoeTest : public ::testing::TestWithParam<int64_t> {
 protected:
  template <class Body>
  void ForAll(const Body& body) {
    uint64_t seed = 0;
    for (const DType dtype : testing::kTypes) {
      for (const int64_t offset : {0, 1}) {
        for (const LaunchShape& shape :
             {LaunchShape{3, 32}, LaunchShape{2, 96}}) {
          SCOPED_TRACE(fmt::format("{}, offset {}, {} threads", Name(dtype),
                                   offset, shape.threads));
          VisitStored(dtype, [&]<class T>(TypeTag<T> type) {
            body(type, dtype, offset, shape, ++seed);
          });
          if (HasFatalFailure()) return;
        }
      }
    }
  }
  static Operand Exact(DType dtype, int terms, int64_t rows, int64_t width,
                       std::string_view name, int64_t offset) {
    return Operand::Of(Filled(*ExactSum(dtype, terms), {rows, width}, name),
                       offset);
  }

  const std::vector<int64_t> place_ = {0, 5, 8, -1, 2, -1, -1, -1, -1, 4, 4, 1};
  static constexpr int64_t kTokens = 4, kK = 3;
  Launcher launch_;
};

TEST_P(MoeTest, RowsAreGatheredAndScaled) {
  const int64_t width = GetParam();
  ForAll([&]<class T>(TypeTag<T>, DType dtype, int64_t offset,
                      const LaunchShape& shape, uint64_t seed) {
    Operand source = Exact(dtype, 4, 5, width, "x", offset);
    const std::vector<int64_t> index = {3, 0, 0, 4, 2, 1, 3};
    const V scale = {1, 0.5, 2, -1, 0.25, 4, -2};
    Operand scales = Of(DType::kF32, scale);
    const V x = source.Doubles();
    for (const bool scaled : {false, true}) {
      Operand out(dtype, 7 * width, offset);
      launch_(shape, seed, [&](auto& context) {
        GatherRows<T>(context, {.rows = 7,
                                .width = width,
                                .source = source.raw(),
                                .index = index.data(),
                                .scale = scaled ? scales.raw() : nullptr,
                                .out = out.raw()});
      });
      ASSERT_TRUE(out.GuardsAreIntact());
      const V got = out.Doubles();
      for (int64_t i = 0; i < 7 * width; ++i) {
        const int64_t r = i / width;
        ASSERT_EQ(got[i],
                  x[index[r] * width + i % width] * (scaled ? scale[r] : 1))
            << i;
      }
    }
  });
}

TEST_P(MoeTest, RowsAreCombined) {
  const int64_t width = GetParam();
  ForAll([&]<class T>(TypeTag<T>, DType dtype, int64_t offset,
                      const LaunchShape& shape, uint64_t seed) {
    Operand source = Exact(dtype, 16, 9, width, "x", offset);
    const V weight = {1, 2, -1, 1, -2, 1, 1, 1, 1, 1, -1, 2};
    Operand weights = Of(DType::kF32, weight);
    V wide_values;
    for (int64_t i = 0; i < kTokens * width; ++i) {
      wide_values.push_back(static_cast<double>(i % 5) - 2);
    }
    Operand wide = Of(DType::kF32, wide_values);
    const V x = source.Doubles();
    for (const bool weighted : {false, true}) {
      for (const bool added : {false, true}) {
        Operand narrow = Exact(dtype, 16, kTokens, width, "n", offset);
        const V n = narrow.Doubles();
        Operand other(dtype, kTokens * width, offset);
        // In the place of an addend.
        Operand& out = added ? narrow : other;
        launch_(shape, seed, [&](auto& context) {
          CombineRows<T>(context,
                         {.tokens = kTokens,
                          .k = kK,
                          .width = width,
                          .source = source.raw(),
                          .place = place_.data(),
                          .weights = weighted ? weights.raw() : nullptr,
                          .wide = added ? wide.raw() : nullptr,
                          .narrow = added ? narrow.raw() : nullptr,
                          .out = out.raw()});
        });
        ASSERT_TRUE(out.GuardsAreIntact());
        const V got = out.Doubles();
        for (int64_t i = 0; i < kTokens * width; ++i) {
          double want = added ? wide_values[i] + n[i] : 0;
          for (int64_t s = i / width * kK; s < (i / width + 1) * kK; ++s) {
            if (place_[s] < 0) continue;
            want +=
                (weighted ? weight[s] : 1) * x[place_[s] * width + i % width];
          }
          ASSERT_EQ(got[i], want) << i;
        }
      }
    }
  });
}

TEST_P(MoeTest, RowsAreDotted) {
  const int64_t width = GetParam();
  ForAll([&]<class T>(TypeTag<T>, DType dtype, int64_t offset,
                      const LaunchShape& shape, uint64_t seed) {
    Operand source = Operand::Random(dtype, 9 * width, "x", 2, offset);
    Operand y = Operand::Random(dtype, kTokens * width, "y", 2, offset);
    Operand dots(DType::kF32, kTokens * kK);
    launch_(shape, seed, [&](auto& context) {
      Team team(context);
      RowDots<T>(team, {.tokens = kTokens,
                        .k = kK,
                        .width = width,
                        .y = y.raw(),
                        .source = source.raw(),
                        .place = place_.data(),
                        .dots = dots.raw()});
    });
    const V a = y.Doubles(), b = source.Doubles();
    std::vector<Bounded> want;
    for (int64_t s = 0; s < kTokens * kK; ++s) {
      std::vector<Bounded> left, right;
      for (int64_t j = 0; place_[s] >= 0 && j < width; ++j) {
        left.push_back({.value = a[s / kK * width + j]});
        right.push_back({.value = b[place_[s] * width + j]});
      }
      want.push_back(Dot(left, right, UnitRoundoff(DType::kF32)));
    }
    ExpectWithin("dots", dots, want);
  });
}

INSTANTIATE_TEST_SUITE_P(Widths, MoeTest,
                         ::testing::Values(1, 7, 31, 33, 64, 1000, 4097));

}  // namespace
}  // namespace shardproof::cuda
