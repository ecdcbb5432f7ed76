// Against CoreReference: the same values, and the same of the same probes.
#include "reference/causal_core.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "reference/probe.h"
#include "reference/random.h"

namespace shardproof {
namespace {

using Values = CausalCore::Values;

constexpr CausalCoreShape kShape = {
    .sequences = 3, .heads = 6, .kv_heads = 2, .head_dim = 4};
constexpr int64_t kLength = 7;

Values Draw(const char* name, int64_t heads) {
  const int64_t n = kShape.sequences * kLength * heads * kShape.head_dim;
  Values v(static_cast<size_t>(n));
  FillDouble(Uniform(DType::kF32, 2), {1, TensorId(name)}, 0, n, v.data());
  return v;
}

Matrix Make(const Values& values, int64_t heads) {
  Matrix m;
  m.cols = heads * kShape.head_dim;
  for (const double v : values) m.values.push_back({v});
  for (int64_t i = 0; i < kShape.sequences * kLength; ++i) m.rows.push_back(i);
  return m;
}

// o, dq, dk and dv, one after the other.
Values OfCore(DType dtype) {
  CausalCore core(kShape, CoreArithmetic::For(dtype));
  Values all = core.Forward(Draw("q", kShape.heads), Draw("k", kShape.kv_heads),
                            Draw("v", kShape.kv_heads));
  const CausalCore::Gradients d = core.Backward(Draw("d_o", kShape.heads));
  for (const Values* part : {&d.dq, &d.dk, &d.dv}) {
    all.insert(all.end(), part->begin(), part->end());
  }
  return all;
}

Values OfReference(DType dtype) {
  const CoreResult r = CoreReference(
      {.sequences = kShape.sequences,
       .heads = kShape.heads,
       .kv_heads = kShape.kv_heads,
       .heads_per_kv = kShape.heads / kShape.kv_heads,
       .head_dim = kShape.head_dim,
       .causal = true,
       .scale = 1 / std::sqrt(static_cast<double>(kShape.head_dim)),
       .q = Make(Draw("q", kShape.heads), kShape.heads),
       .k = Make(Draw("k", kShape.kv_heads), kShape.kv_heads),
       .v = Make(Draw("v", kShape.kv_heads), kShape.kv_heads),
       .d_o = Make(Draw("d_o", kShape.heads), kShape.heads)},
      CoreArithmetic::For(dtype));
  Values all;
  for (const Matrix* part : {&r.o, &r.dq, &r.dk, &r.dv}) {
    for (const Bounded& v : part->values) all.push_back(v.value);
  }
  return all;
}

TEST(CausalCore, HasTheValuesOfTheReference) {
  for (const DType dtype : {DType::kF32, DType::kF64}) {
    const Values expected = OfReference(dtype), actual = OfCore(dtype);
    ASSERT_EQ(actual.size(), expected.size());
    for (size_t i = 0; i < actual.size(); ++i) {
      // Both in double, of numbers of at most 2 and sums of 21 at most.
      ASSERT_NEAR(actual[i], expected[i], 1e-13) << i;
    }
  }
}

// A rounding in a probe is a function of the number that is rounded, so that
// both make the same; but for few numbers, which doubles made differently round
// to either side.
TEST(CausalCore, MakesTheRoundingsOfTheReference) {
  const Values exact = OfReference(DType::kF32);
  double of_reference = 0, of_difference = 0;
  for (uint64_t k = 0; k < 16; ++k) {
    const Probe probe(k);
    const Values expected = OfReference(DType::kF32),
                 actual = OfCore(DType::kF32);
    for (size_t i = 0; i < exact.size(); ++i) {
      of_reference += std::pow(expected[i] - exact[i], 2);
      of_difference += std::pow(expected[i] - actual[i], 2);
    }
  }
  EXPECT_GT(of_reference, 0);
  EXPECT_LT(of_difference, of_reference * 1e-6);
}

}  // namespace
}  // namespace shardproof
