// Norms, softmax and rotations, launched on an emulated GPU, against the
// bounded references: in the GPU's memory and staged.
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "layers/kernels/cuda/device/device_testing.h"
#include "layers/kernels/norm.h"
#include "layers/kernels/rope.h"
#include "layers/kernels/softmax.h"
#include "reference/attention_core.h"
#include "reference/norm.h"

namespace shardproof::cuda {
namespace {

using testing::ExpectWithin;
using testing::OnGpuTest;
using testing::Placed;
using testing::Setting;

constexpr int64_t kRows = 5;

class RowsOnGpuTest : public OnGpuTest {
 protected:
  // `full`: with a residual, a bias and a dz. Outputs lie where inputs did:
  // without a residual y is x, and dx is dy, with one z is the residual and dx
  // is dz.
  void CheckNorm(const Setting& s, NormKind kind, bool full) {
    const int64_t columns = GetParam(), n = kRows * columns;
    const NormRows rows = {.dtype = s.dtype,
                           .rows = kRows,
                           .columns = columns,
                           .centred = kind == NormKind::kLayerNorm,
                           .epsilon = 0.0625};
    Placed x = Random(s, n, "x", 2), residual = Random(s, n, "residual", 2);
    Placed weight = Random(s, columns, "w", 2),
           bias = Random(s, columns, "b", 2);
    Placed dy = Random(s, n, "dy", 2), dz = Random(s, n, "dz", 2);
    Placed y = Empty(s, n);
    Placed mean = EmptyF32(s, kRows), inverse = EmptyF32(s, kRows);
    Placed dweight = EmptyF32(s, columns), dbias = EmptyF32(s, columns);
    const Shape size = {kRows, columns};
    const Tensor tx = x.Now().ToTensor(size),
                 tr = residual.Now().ToTensor(size),
                 tw = weight.Now().ToTensor({columns}),
                 tb = bias.Now().ToTensor({columns}),
                 tdy = dy.Now().ToTensor(size), tdz = dz.Now().ToTensor(size);
    // What a backward pass reads is there before y is written over it.
    Placed kept = Random(s, n, "x", 2);
    Placed& out = full ? y : x;
    Launches(1, [&] {
      return shardproof::Normalize(stream_, rows,
                                   {.x = x.raw(),
                                    .residual = full ? residual.raw() : nullptr,
                                    .weight = weight.raw(),
                                    .bias = full ? bias.raw() : nullptr,
                                    .z = full ? residual.raw() : nullptr,
                                    .y = out.raw(),
                                    .mean = rows.centred ? mean.raw() : nullptr,
                                    .inverse = inverse.raw()});
    });
    Placed& dx = full ? dz : dy;
    Launches(2, [&] {
      return shardproof::NormalizeBackward(
          stream_, rows,
          {.z = full ? residual.raw() : kept.raw(),
           .weight = weight.raw(),
           .dy = dy.raw(),
           .dz = full ? dz.raw() : nullptr,
           .mean = rows.centred ? mean.raw() : nullptr,
           .inverse = inverse.raw(),
           .dx = dx.raw(),
           .dweight = dweight.raw(),
           .dbias = full ? dbias.raw() : nullptr});
    });
    NormInputs in{.kind = kind,
                  .epsilon = rows.epsilon,
                  .x = tx.view(),
                  .weight = tw.view(),
                  .dy = tdy.view()};
    if (full) {
      in.residual = tr.view();
      in.bias = tb.view();
      in.dz = tdz.view();
    }
    NormArithmetic arithmetic = NormArithmetic::For(s.dtype);
    arithmetic.dw.store = arithmetic.dw.accumulate;
    const NormResult want = NormReference(in, arithmetic);
    if (full) ExpectWithin("z", residual.Now(), want.z.values);
    ExpectWithin("y", out.Now(), want.y.values);
    ExpectWithin("dx", dx.Now(), want.dx.values);
    ExpectWithin("dweight", dweight.Now(), want.dw.values);
    if (full) ExpectWithin("dbias", dbias.Now(), want.db.values);
  }

  static int64_t Seen(const SoftmaxShape& shape, int64_t row) {
    if (!shape.causal) return shape.columns;
    return std::clamp<int64_t>(row + shape.diagonal + 1, 0, shape.columns);
  }
  static std::vector<Bounded> RowOf(const std::vector<double>& all,
                                    int64_t columns, int64_t row, int64_t n) {
    std::vector<Bounded> out;
    for (int64_t j = 0; j < n; ++j) {
      out.push_back({.value = all[row * columns + j]});
    }
    return out;
  }

  // f32 probabilities take the place of the scores, and ds that of dp.
  void CheckSoftmax(const Setting& s, const SoftmaxShape& shape) {
    constexpr double kUlps = 4;
    const double u = UnitRoundoff(DType::kF32);
    const int64_t n = shape.rows * shape.columns;
    Placed scores = RandomF32(s, n, "s", 30), other = Empty(s, n);
    Placed& p = s.dtype == DType::kF32 ? scores : other;
    Placed dp = RandomF32(s, n, "dp", 2);
    const std::vector<double> before = scores.Doubles(), dps = dp.Doubles();
    Launches(1, [&] {
      return shardproof::Softmax(stream_, shape, scores.raw(), p.raw());
    });
    Launches(1, [&] {
      return shardproof::SoftmaxBackward(stream_, shape, p.raw(), dp.raw(),
                                         dp.raw());
    });
    const std::vector<double> got = p.Doubles();
    std::vector<Bounded> want_p, want_ds;
    for (int64_t i = 0; i < shape.rows; ++i) {
      const int64_t seen = Seen(shape, i);
      std::vector<Bounded> x = RowOf(before, shape.columns, i, seen);
      for (Bounded& v : x) v = Rounded(shape.scale * v, u);
      std::vector<Bounded> row = SoftmaxRow(x, u, kUlps);
      for (Bounded& v : row) v = Rounded(v, shape.dtype);
      std::vector<Bounded> slopes = SoftmaxRowGrad(
          RowOf(got, shape.columns, i, seen),
          RowOf(dps, shape.columns, i, seen), shape.scale, u + kSlack);
      row.resize(static_cast<size_t>(shape.columns));
      slopes.resize(static_cast<size_t>(shape.columns));
      want_p.insert(want_p.end(), row.begin(), row.end());
      want_ds.insert(want_ds.end(), slopes.begin(), slopes.end());
    }
    ExpectWithin("p", p.Now(), want_p);
    ExpectWithin("ds", dp.Now(), want_ds);
  }
};

TEST_P(RowsOnGpuTest, Norms) {
  for (const NormKind kind : {NormKind::kLayerNorm, NormKind::kRmsNorm}) {
    for (const bool full : {false, true}) {
      SCOPED_TRACE(fmt::format("{}, full {}", Name(kind), full));
      ForAll([&](const Setting& s) { CheckNorm(s, kind, full); });
    }
  }
}

TEST_P(RowsOnGpuTest, Softmax) {
  for (const bool causal : {false, true}) {
    ForAll([&](const Setting& s) {
      CheckSoftmax(s, {.dtype = s.dtype,
                       .rows = kRows,
                       .columns = GetParam(),
                       .scale = 0.3,
                       .causal = causal,
                       .diagonal = -1});
    });
  }
}

INSTANTIATE_TEST_SUITE_P(Columns, RowsOnGpuTest,
                         ::testing::Values(1, 33, 1000));

class RopeOnGpuTest : public OnGpuTest {};

// Two sequences of five tokens, in rows with elements between them that nothing
// may touch: another thread may be writing there.
TEST_P(RopeOnGpuTest, TurnsAndTurnsBack) {
  constexpr int64_t kTokens = 10, kHeads = 3;
  const std::vector<int64_t> positions = {0, 1, 2, 777, 131071};
  const int64_t d = GetParam(), width = kHeads * d;
  for (const int64_t more : {0, 8}) {
    ForAll([&](const Setting& s) {
      const int64_t stride = width + more;
      const auto table =
          RopeTable::Create({.dtype = s.dtype, .head_dim = d}, positions);
      ASSERT_TRUE(table.ok());
      Placed x = Random(s, kTokens * stride, "x", 3);
      for (const RopeDirection direction :
           {RopeDirection::kForward, RopeDirection::kBackward}) {
        const Matrix all =
            ExactMatrix(x.Now().ToTensor({kTokens, stride}).view());
        const Matrix want = RopeReference(
            ColumnsOf(all, 0, width), d, table->config().theta, positions,
            direction == RopeDirection::kBackward, Arithmetic::For(s.dtype));
        Launches(1, [&] {
          return shardproof::Rope(stream_, *table, direction,
                                  {.tokens = kTokens,
                                   .heads = kHeads,
                                   .stride = stride,
                                   .x = x.raw()});
        });
        ASSERT_TRUE(x.Now().GuardsAreIntact());
        const std::vector<double> got = x.Doubles();
        for (int64_t i = 0; i < kTokens * stride; ++i) {
          const int64_t t = i / stride, j = i % stride;
          if (j >= width) {
            ASSERT_EQ(got[i], all.at(t, j).value) << "beside the heads";
            continue;
          }
          const Bounded& w = want.at(t, j);
          ASSERT_LE(std::abs(got[i] - w.value), w.worst)
              << "token " << t << ", element " << j;
        }
      }
    });
  }
}

INSTANTIATE_TEST_SUITE_P(HeadDims, RopeOnGpuTest,
                         ::testing::Values(2, 34, 128));

}  // namespace
}  // namespace shardproof::cuda
