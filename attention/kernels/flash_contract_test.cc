// What flash attention promises beside numbers within bounds.
#include <gtest/gtest.h>

#include <limits>

#include "attention/kernels/flash.h"
#include "attention/kernels/flash_testing.h"
#include "layers/testing/allocations.h"

namespace shardproof {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

void Set(Tensor& t, const std::vector<double>& values) {
  Visit(t.dtype(), [&]<typename T>(TypeTag<T>) {
    for (size_t i = 0; i < values.size(); ++i) {
      t.data<T>()[i] = static_cast<T>(static_cast<float>(values[i]));
    }
  });
}

double At(const Tensor& t, int64_t i) {
  double x = 0;
  ToDouble(t.dtype(), FlashProblem::Element(t, i), 1, &x);
  return x;
}

// Column j of O is the probability of key j: not negative, 0 beyond the query,
// and all of them 1 together.
TEST(FlashContract, OneHotValuesShowProbabilities) {
  constexpr int64_t kTokens = 48;
  for (const DType dtype : kFlashTypes) {
    FlashShape shape = ShapeOf(dtype, kTokens, kTokens, kTokens);
    const auto flash = FlashAttention::Create(shape);
    FlashProblem problem(shape, {.causal = true}, {.count = kTokens},
                         {.count = kTokens});
    std::vector<double> identity(kTokens * kTokens, 0);
    for (int64_t i = 0; i < kTokens; ++i) {
      identity[static_cast<size_t>(i * kTokens + i)] = 1;
    }
    Set(problem.t["v"], identity);
    ASSERT_TRUE(problem.Forward(**flash).ok());
    const Tensor& o = problem.t["o"];
    for (int64_t i = 0; i < kTokens; ++i) {
      double sum = 0;
      for (int64_t j = 0; j < kTokens; ++j) {
        const double p = At(o, i * o.shape()[1] + j);
        if (j > i) {
          ASSERT_EQ(p, 0) << i << " sees " << j;
        } else {
          ASSERT_GT(p, 0) << i << " does not see " << j;
        }
        sum += p;
      }
      // Each was rounded twice to the type, and added up in the accumulator.
      const double u = UnitRoundoff(dtype) +
                       UnitRoundoff(Accumulator(dtype)) * (kTokens + 16);
      EXPECT_LE(std::abs(sum - 1), 2 * u) << Name(dtype) << ", row " << i;
    }
  }
}

// All scores are equal, so all exponentials 1 exactly: O is the mean of V, and
// lse = score + ln keys. With sums that are exact and numbers of keys that are
// powers of two there is no rounding at all.
TEST(FlashContract, EqualKeysGiveTheMean) {
  for (const DType dtype : kFlashTypes) {
    for (const int64_t keys : {1, 2, 64, 1024}) {
      FlashShape shape = ShapeOf(dtype, 3, keys, 16);
      shape.scale = 0.25;
      const auto flash = FlashAttention::Create(shape);
      FlashProblem problem(shape, {}, {.count = 3}, {.count = keys});
      Set(problem.t["q"], std::vector<double>(3 * 16, 0.5));
      Set(problem.t["k"],
          std::vector<double>(static_cast<size_t>(keys) * 16, 0.25));
      std::vector<double> v;
      for (int64_t j = 0; j < keys; ++j) {
        for (int e = 0; e < 16; ++e) {
          v.push_back(e % 2 == 0 ? 3 : (j % 2 == 0 ? 4 : -2));
        }
      }
      Set(problem.t["v"], v);
      ASSERT_TRUE(problem.Forward(**flash).ok());
      for (int64_t i = 0; i < 3 * 16; ++i) {
        const int64_t at = i / 16 * problem.t["o"].shape()[1] + i % 16;
        EXPECT_EQ(At(problem.t["o"], at), i % 2 == 0 ? 3 : keys > 1 ? 1 : 4);
      }
      const double lse = 0.25 * 16 * 0.125 + std::log(keys);
      for (int64_t i = 0; i < 3; ++i) {
        EXPECT_LE(std::abs(At(problem.t["lse"], i) - lse),
                  4 * UnitRoundoff(problem.wide) * (lse + 1));
      }
    }
  }
}

TEST(FlashContract, OneTokenSeesItself) {
  for (const DType dtype : kFlashTypes) {
    for (const int64_t d : {1, 64, 80}) {
      const FlashShape shape = ShapeOf(dtype, 1, 1, d);
      const auto flash = FlashAttention::Create(shape);
      FlashProblem problem(shape, {.causal = true}, {.count = 1}, {.count = 1});
      ASSERT_TRUE(problem.Run(**flash).ok());
      for (int64_t e = 0; e < d; ++e) {
        EXPECT_EQ(At(problem.t["o"], e), At(problem.t["v"], e));
      }
      problem.ExpectRight();
    }
  }
}

// Queries that see nothing: 0 and -inf, and no gradient, whatever came before.
TEST(FlashContract, MaskedRowsAreEmpty) {
  for (const DType dtype : kFlashTypes) {
    const FlashShape shape = ShapeOf(dtype, 40, 40, 24, 2);
    const auto flash = FlashAttention::Create(shape);
    FlashProblem full(shape, {}, {.count = 40}, {.count = 40});
    ASSERT_TRUE(full.Run(**flash).ok());
    FlashProblem problem(shape, {.causal = true}, {.count = 40},
                         {.offset = 40, .count = 40});
    ASSERT_TRUE(problem.Run(**flash).ok());
    for (const char* name : {"o", "dq", "dk", "dv"}) {
      const Tensor& t = problem.t[name];
      for (int64_t i = 0; i < 40; ++i) {
        for (int64_t e = 0; e < problem.q_width; ++e) {
          ASSERT_EQ(At(t, i * t.shape()[1] + e), 0) << name;
        }
      }
    }
    for (const double lse : Doubles(problem.t["lse"])) {
      EXPECT_EQ(lse, -kInfinity);
    }
    for (const double delta : Doubles(problem.t["delta"])) EXPECT_EQ(delta, 0);
  }
}

// [sequence, head, query], natural logarithms.
TEST(FlashContract, LseIsANaturalLogarithmInItsPlace) {
  FlashShape shape = ShapeOf(DType::kF64, 5, 7, 3, 2);
  shape.sequences = 3;
  const auto flash = FlashAttention::Create(shape);
  FlashProblem problem(shape, {}, {.count = 5}, {.count = 7});
  ASSERT_TRUE(problem.Forward(**flash).ok());
  const std::vector<double> q = Doubles(problem.t["q"]);
  const std::vector<double> k = Doubles(problem.t["k"]);
  const std::vector<double> lse = Doubles(problem.t["lse"]);
  size_t at = 0;
  for (size_t s = 0; s < 3; ++s) {
    for (size_t h = 0; h < 2; ++h) {
      for (size_t i = 0; i < 5; ++i) {
        double sum = 0;
        for (size_t j = 0; j < 7; ++j) {
          double dot = 0;
          for (size_t e = 0; e < 3; ++e) {
            dot += q[((s * 5 + i) * 2 + h) * 3 + e] *
                   k[((s * 7 + j) * 2 + h) * 3 + e];
          }
          sum += std::exp(shape.scale * dot);
        }
        EXPECT_NEAR(lse[at++], std::log(sum), 1e-13);
      }
    }
  }
}

// Into a part of longer tensors, as a zigzag schedule does.
TEST(FlashContract, PlanesMayBeLonger) {
  FlashShape shape = ShapeOf(DType::kBF16, 20, 30, 16, 2);
  shape.sequences = 2;
  const auto flash = FlashAttention::Create(shape);
  FlashProblem problem(shape, {}, {.count = 20}, {.count = 30});
  ASSERT_TRUE(problem.Forward(**flash).ok());
  Tensor lse = Poisoned(DType::kF32, {4, 50});
  Tensor o = Poisoned(DType::kF32, {2, 60, 32});
  ASSERT_TRUE((*flash)
                  ->Forward(Stream::Inline(),
                            {.block = problem.block(),
                             .q = problem.In("q"),
                             .k = problem.In("k"),
                             .v = problem.In("v"),
                             .o = {o.data<float>() + 10 * 32, 32, 60 * 32},
                             .o_type = DType::kF32,
                             .lse = {lse.data<float>() + 30, 50}})
                  .ok());
  for (int64_t i = 0; i < 2 * 60 * 32; ++i) {
    const int64_t row = i / 32 % 60, sequence = i / 32 / 60;
    if (row < 10 || row >= 30) {
      ASSERT_TRUE(IsPoison(DType::kF32, o.raw(), i)) << i;
    } else {
      const Tensor& narrow = problem.t["o"];
      ASSERT_EQ(
          static_cast<double>(BFloat16(o.data<float>()[i])),
          At(narrow, (sequence * 20 + row - 10) * narrow.shape()[1] + i % 32));
    }
  }
  for (int64_t i = 0; i < 4 * 50; ++i) {
    if (i % 50 < 30) {
      ASSERT_TRUE(IsPoison(DType::kF32, lse.raw(), i));
    } else {
      ASSERT_EQ(lse.data<float>()[i],
                problem.t["lse"].data<float>()[i / 50 * 20 + i % 50 - 30]);
    }
  }
}

TEST(FlashContract, BackwardAddsOrOverwrites) {
  for (const DType dtype : kFlashTypes) {
    FlashShape shape = ShapeOf(dtype, 33, 33, 24, 4);
    shape.kv_heads = 2;
    shape.heads_per_kv = 2;
    const auto flash = FlashAttention::Create(shape);
    FlashProblem problem(shape, {.causal = true}, {.count = 33}, {.count = 33});
    ASSERT_TRUE(problem.Run(**flash).ok());
    std::map<std::string, std::vector<double>> once;
    for (const char* name : {"dq", "dk", "dv"}) {
      once[name] = Doubles(problem.t[name]);
    }
    ASSERT_TRUE(
        (*flash)->Backward(Stream::Inline(), problem.BackwardArgs(false)).ok());
    // A group's heads are added one by one, so that there is rounding.
    const double u = 4 * UnitRoundoff(problem.wide);
    for (const char* name : {"dq", "dk", "dv"}) {
      const Tensor& t = problem.t[name];
      double largest = 0;
      for (int64_t i = 0; i < t.num_elements(); ++i) {
        if (IsPoison(t.dtype(), t.raw(), i)) continue;
        largest = std::max(largest, std::abs(At(t, i)));
      }
      for (int64_t i = 0; i < t.num_elements(); ++i) {
        if (IsPoison(t.dtype(), t.raw(), i)) continue;
        ASSERT_LE(std::abs(At(t, i) - 2 * once[name][static_cast<size_t>(i)]),
                  u * largest)
            << name;
      }
    }
  }
}

TEST(FlashContract, SameBitsTwiceAndNoAllocation) {
  for (const DType dtype : kFlashTypes) {
    const FlashShape shape = ShapeOf(dtype, 300, 600, 48, 2);
    const auto flash = FlashAttention::Create(shape);
    FlashProblem first(shape, {.causal = true}, {.count = 300}, {.count = 600});
    ASSERT_TRUE(first.Run(**flash).ok());
    FlashProblem second(shape, {.causal = true}, {.count = 300},
                        {.count = 600});
    const int64_t before = LargeAllocations();
    ASSERT_TRUE(second.Run(**flash).ok());
    EXPECT_EQ(LargeAllocations(), before) << Name(dtype);
    for (const auto& [name, t] : first.t) {
      EXPECT_TRUE(SameBits(t, second.t[name])) << name;
    }
  }
}

// All scores of a head would be 64 times as much.
TEST(FlashContract, MemoryIsLinearInTheSequence) {
  const auto bytes = [](int64_t tokens) {
    return (*FlashAttention::Create(ShapeOf(DType::kBF16, tokens, tokens, 64)))
        ->working_bytes();
  };
  EXPECT_LE(bytes(16384), 8 * bytes(2048));
}

TEST(FlashContract, NanShows) {
  for (const DType dtype : kFlashTypes) {
    const FlashShape shape = ShapeOf(dtype, 40, 40, 32);
    const auto flash = FlashAttention::Create(shape);
    FlashProblem problem(shape, {.causal = true}, {.count = 40}, {.count = 40});
    Poison(dtype, problem.t["k"].bytes().data() + 20 * 32 * SizeOf(dtype), 1);
    ASSERT_TRUE(problem.Run(**flash).ok());
    for (int64_t i = 0; i < 40; ++i) {
      EXPECT_EQ(std::isnan(At(problem.t["lse"], i)), i >= 20)
          << Name(dtype) << ", query " << i;
      EXPECT_EQ(std::isnan(At(problem.t["o"], i * (32 + FlashProblem::kMore))),
                i >= 20);
    }
  }
}

TEST(FlashContract, Refusals) {
  const auto code = [](const FlashShape& shape) {
    return FlashAttention::Create(shape).status().code();
  };
  EXPECT_EQ(code({.heads = 4, .kv_heads = 2}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.heads = 1, .kv_heads = 1, .first_in_group = 1}),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.queries = -1}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.scale = -1}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.scale = std::nan("")}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.dtype = DType::kI32}), StatusCode::kUnsupported);
  EXPECT_EQ(code({.queries = 64,
                  .keys = int64_t{1} << 50,
                  .heads = 1,
                  .kv_heads = 1,
                  .head_dim = 64}),
            StatusCode::kOutOfMemory);

  FlashShape shape = ShapeOf(DType::kBF16, 4, 4, 8);
  shape.backward = false;
  const auto flash = FlashAttention::Create(shape);
  FlashProblem problem(shape, {}, {.count = 4}, {.count = 4});
  ASSERT_TRUE(problem.Forward(**flash).ok());
  EXPECT_EQ(
      (*flash)->Backward(Stream::Inline(), problem.BackwardArgs(true)).code(),
      StatusCode::kInvalidArgument);
  const auto forward = [&](const FlashBlock& block, DType o_type) {
    return (*flash)
        ->Forward(Stream::Inline(), {.block = block,
                                     .q = problem.In("q"),
                                     .k = problem.In("k"),
                                     .v = problem.In("v"),
                                     .o = problem.Out("o"),
                                     .o_type = o_type,
                                     .lse = {problem.t["lse"].raw()}})
        .code();
  };
  const Visibility all;
  constexpr StatusCode kInvalid = StatusCode::kInvalidArgument;
  EXPECT_EQ(forward({{.count = 5}, {.count = 4}, &all}, DType::kBF16),
            kInvalid);
  EXPECT_EQ(forward({{.count = 4}, {.count = 5}, &all}, DType::kBF16),
            kInvalid);
  EXPECT_EQ(forward({{.count = 4}, {0, 0, 4}, &all}, DType::kBF16), kInvalid);
  EXPECT_EQ(forward({{.count = 4}, {.count = 4}, nullptr}, DType::kBF16),
            kInvalid);
  EXPECT_EQ(forward({{.count = 4}, {.count = 4}, &all}, DType::kF16), kInvalid);
}

}  // namespace
}  // namespace shardproof
