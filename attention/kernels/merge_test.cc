// Parts of attention, merged, against the whole.
#include "attention/kernels/merge.h"

#include <gtest/gtest.h>

#include <limits>
#include <utility>

#include "attention/kernels/flash_testing.h"

namespace shardproof {
namespace {

constexpr float kNone = -std::numeric_limits<float>::infinity();

// Keys in contiguous parts that begin at `cuts`, or in that many stripes.
struct Split {
  std::vector<int64_t> cuts = {};
  int64_t stripes = 0;

  std::vector<TokenRun> Runs(int64_t keys) const {
    std::vector<TokenRun> runs;
    for (size_t i = 0; i < cuts.size(); ++i) {
      const int64_t end = i + 1 < cuts.size() ? cuts[i + 1] : keys;
      runs.push_back({cuts[i], 1, end - cuts[i]});
    }
    for (int64_t r = 0; r < stripes; ++r) {
      runs.push_back({r, stripes, (keys - r + stripes - 1) / stripes});
    }
    return runs;
  }
};

// Forward part by part, in f32 and merged; then backward, part by part with the
// final lse and delta.
void ExpectMergedIsWhole(FlashShape shape, const Visibility& v,
                         const Split& split) {
  const DType wide = Accumulator(shape.dtype);
  const auto flash = FlashAttention::Create(shape);
  ASSERT_TRUE(flash.ok()) << flash.status().ToString();
  FlashProblem problem(shape, v, {.count = shape.queries},
                       {.count = shape.keys});
  problem.t["o"] = Poisoned(wide, {shape.sequences * shape.queries,
                                   problem.q_width + FlashProblem::kMore});
  Tensor o = Poisoned(wide, {shape.sequences * shape.queries, problem.q_width});
  Tensor lse = Poisoned(wide, {shape.sequences * shape.heads, shape.queries});
  const std::vector<TokenRun> runs = split.Runs(shape.keys);
  // Rows of a run in tensors of all keys.
  const auto part = [&](auto* data, DType dtype, int64_t stride,
                        const TokenRun& run) {
    using Byte = std::conditional_t<
        std::is_const_v<std::remove_pointer_t<decltype(data)>>, const std::byte,
        std::byte>;
    return TokensIn<std::remove_pointer_t<decltype(data)>>{
        static_cast<Byte*>(data) + run.offset * stride * SizeOf(dtype),
        run.stride * stride, shape.keys * stride};
  };
  const auto in = [&](const char* name, const TokenRun& run) {
    return part(std::as_const(problem.t[name]).raw(), shape.dtype,
                problem.k_width, run);
  };
  for (size_t r = 0; r < runs.size(); ++r) {
    const bool first = r == 0;
    const Tokens to =
        first ? problem.Out("o") : Tokens{o.raw(), problem.q_width};
    ASSERT_TRUE(
        (*flash)
            ->Forward(Stream::Inline(),
                      {.block = {problem.queries, runs[r], &v},
                       .q = problem.In("q"),
                       .k = in("k", runs[r]),
                       .v = in("v", runs[r]),
                       .o = to,
                       .o_type = wide,
                       .lse = {first ? problem.t["lse"].raw() : lse.raw()}})
            .ok());
    if (first) continue;
    ASSERT_TRUE(
        MergeAttention(Stream::Inline(), {.dtype = wide,
                                          .sequences = shape.sequences,
                                          .queries = shape.queries,
                                          .heads = shape.heads,
                                          .head_dim = shape.head_dim,
                                          .o = problem.Out("o"),
                                          .lse = {problem.t["lse"].raw()},
                                          .o_b = {o.raw(), problem.q_width},
                                          .lse_b = {lse.raw()}})
            .ok());
  }
  ASSERT_TRUE(problem.Delta().ok());
  for (size_t r = 0; r < runs.size(); ++r) {
    FlashAttention::BackwardArgs args = problem.BackwardArgs(true);
    const int64_t stride = problem.k_width + FlashProblem::kMore;
    args.block.keys = runs[r];
    args.k = in("k", runs[r]);
    args.v = in("v", runs[r]);
    args.dk = part(problem.t["dk"].raw(), wide, stride, runs[r]);
    args.dv = part(problem.t["dv"].raw(), wide, stride, runs[r]);
    if (r > 0) {  // dQ is added to; dK and dV of this part begin.
      for (auto* t : {&args.dk, &args.dv}) {
        for (int64_t row = 0; row < shape.sequences * runs[r].count; ++row) {
          const int64_t at = row / runs[r].count * t->sequence_stride +
                             row % runs[r].count * t->stride;
          std::memset(static_cast<std::byte*>(t->data) + at * SizeOf(wide), 0,
                      static_cast<size_t>(problem.k_width * SizeOf(wide)));
        }
      }
      args.overwrite = false;
    }
    ASSERT_TRUE((*flash)->Backward(Stream::Inline(), args).ok());
  }
  problem.ExpectRight(static_cast<int64_t>(runs.size()));
}

TEST(MergeAttention, AnySplitIsTheWhole) {
  const Split splits[] = {{.cuts = {0}},
                          {.cuts = {0, 1}},
                          {.cuts = {0, 63}},
                          {.cuts = {0, 20, 21, 40}},
                          {.cuts = {0, 0, 30, 64}},
                          {.stripes = 3},
                          {.stripes = 5}};
  for (const DType dtype : kFlashTypes) {
    for (const bool causal : {false, true}) {
      for (const Split& split : splits) {
        FlashShape shape = ShapeOf(dtype, 64, 64, 32, 2);
        shape.kv_heads = 1;
        shape.heads_per_kv = 2;
        shape.sequences = 2;
        SCOPED_TRACE(fmt::format("{}, causal {}, {} cuts, {} stripes",
                                 Name(dtype), causal, split.cuts.size(),
                                 split.stripes));
        ExpectMergedIsWhole(shape, {.causal = causal}, split);
        ExpectMergedIsWhole(shape, {causal, 17, {0, 30, 64}}, split);
      }
    }
  }
}

struct Part {
  std::vector<float> o;
  float lse;
};

Part Merged(Part a, const Part& b) {
  const auto n = static_cast<int64_t>(a.o.size());
  EXPECT_TRUE(MergeAttention(Stream::Inline(), {.queries = 1,
                                                .heads = 1,
                                                .head_dim = n,
                                                .o = {a.o.data(), n},
                                                .lse = {&a.lse},
                                                .o_b = {b.o.data(), n},
                                                .lse_b = {&b.lse}})
                  .ok());
  return a;
}

Part Values(float lse, float first) {
  Part part = {.o = {}, .lse = lse};
  for (int i = 0; i < 37; ++i) {
    part.o.push_back(first + 0.37f * static_cast<float>(i * i % 11));
  }
  return part;
}

TEST(MergeAttention, EmptyPartsChangeNoBit) {
  const Part empty = {.o = std::vector<float>(37, 0), .lse = kNone};
  for (const float lse : {-1e30f, -700.f, 0.f, 3.f, 1e30f}) {
    const Part part = Values(lse, 1.1f);
    for (const Part& merged : {Merged(part, empty), Merged(empty, part)}) {
      EXPECT_EQ(merged.o, part.o);
      EXPECT_EQ(merged.lse, part.lse);
    }
  }
  // Nor does what stands in one, which has no weight.
  const Part garbage = {
      .o = std::vector<float>(37, std::numeric_limits<float>::quiet_NaN()),
      .lse = kNone};
  const Part part = Values(3, 1.1f);
  EXPECT_EQ(Merged(part, garbage).o, part.o);
  EXPECT_EQ(Merged(garbage, part).o, part.o);
  const Part none = Merged(empty, empty);
  EXPECT_EQ(none.o, empty.o);
  EXPECT_EQ(none.lse, kNone);
}

// What one part has far more of than the other is that part; no overflow.
TEST(MergeAttention, LargeLogarithms) {
  const Part a = Values(800, 1), b = Values(0, -2);
  EXPECT_EQ(Merged(a, b).o, a.o);
  EXPECT_EQ(Merged(a, b).lse, 800);
  const Part c = Merged(b, a);
  EXPECT_EQ(c.lse, 800);
  for (size_t i = 0; i < a.o.size(); ++i) {
    // b + (a - b), each rounded.
    EXPECT_LE(std::abs(c.o[i] - a.o[i]), 0x1p-23f * 8);
  }
  // Equal parts of equal weight.
  const Part twice = Merged(a, a);
  EXPECT_EQ(twice.o, a.o);
  EXPECT_EQ(twice.lse, static_cast<float>(800 + std::log(2.)));
}

TEST(MergeAttention, NanShows) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(std::isnan(Merged(Values(nan, 1), Values(0, 1)).lse));
  EXPECT_TRUE(std::isnan(Merged(Values(0, 1), Values(nan, 1)).lse));
  EXPECT_TRUE(std::isnan(Merged(Values(0, 1), Values(nan, 1)).o[0]));
  EXPECT_TRUE(std::isnan(Merged(Values(0, 1), Values(nan, 1)).o[36]));
}

TEST(MergeAttention, Refusals) {
  EXPECT_EQ(MergeAttention(Stream::Inline(), {.dtype = DType::kBF16}).code(),
            StatusCode::kUnsupported);
  EXPECT_EQ(MergeAttention(Stream::Inline(), {.queries = -1}).code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(AttentionDelta(Stream::Inline(), {.dtype = DType::kI32}).code(),
            StatusCode::kUnsupported);
  EXPECT_EQ(AttentionDelta(Stream::Inline(),
                           {.dtype = DType::kBF16, .o_type = DType::kF16})
                .code(),
            StatusCode::kInvalidArgument);
}

// Exact: small integers.
TEST(AttentionDelta, IsTheRowsOfTheProduct) {
  for (const DType dtype : kFlashTypes) {
    for (const DType o_type : {dtype, Accumulator(dtype)}) {
      constexpr int64_t kQueries = 3, kHeads = 2, kDim = 37;
      Tensor d_o(dtype, {2, kQueries, kHeads * kDim});
      Tensor o(o_type, {2, kQueries, kHeads * kDim});
      const auto fill = [](Tensor& t, int step) {
        Visit(t.dtype(), [&]<typename T>(TypeTag<T>) {
          for (int64_t i = 0; i < t.num_elements(); ++i) {
            t.data<T>()[i] =
                static_cast<T>(static_cast<float>(i * step % 17 - 8));
          }
        });
      };
      fill(d_o, 5);
      fill(o, 7);
      Tensor delta = Poisoned(Accumulator(dtype), {2, kHeads, kQueries});
      ASSERT_TRUE(
          AttentionDelta(Stream::Inline(), {.dtype = dtype,
                                            .o_type = o_type,
                                            .sequences = 2,
                                            .queries = kQueries,
                                            .heads = kHeads,
                                            .head_dim = kDim,
                                            .d_o = {d_o.raw(), kHeads * kDim},
                                            .o = {o.raw(), kHeads * kDim},
                                            .delta = {delta.raw()}})
              .ok());
      const std::vector<double> got = Doubles(delta);
      for (int64_t row = 0; row < 2 * kHeads * kQueries; ++row) {
        const int64_t s = row / (kHeads * kQueries),
                      h = row / kQueries % kHeads;
        int64_t want = 0;
        for (int64_t e = 0; e < kDim; ++e) {
          const int64_t at =
              (s * kQueries + row % kQueries) * kHeads * kDim + h * kDim + e;
          want += (at * 5 % 17 - 8) * (at * 7 % 17 - 8);
        }
        EXPECT_EQ(got[static_cast<size_t>(row)], static_cast<double>(want));
      }
    }
  }
}

}  // namespace
}  // namespace shardproof
