// Norms in fibers against the bounded reference, as those of the host are.
#include "layers/kernels/cuda/norm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "layers/kernels/cuda/partial_sums.h"
#include "layers/kernels/cuda/testing/fiber_launch.h"
#include "reference/norm.h"

namespace shardproof::cuda {
namespace {

using testing::ExpectSame;
using testing::ExpectWithin;
using testing::Launcher;
using testing::LaunchShape;
using testing::Operand;
using testing::VisitStored;

constexpr double kEpsilon = 0.0625;

struct Case {
  DType dtype = DType::kF32;
  NormKind kind = NormKind::kLayerNorm;
  int64_t rows = 0;
  int64_t columns = 0;
  int64_t offset = 0;
  bool full = false;  // With a residual, a bias and a dz.
};

// The operands of one layer and what kernels make of them.
struct Work {
  explicit Work(const Case& c)
      : c(c),
        rows{.dtype = c.dtype,
             .rows = c.rows,
             .columns = c.columns,
             .centred = c.kind == NormKind::kLayerNorm,
             .epsilon = kEpsilon},
        x(Random("x", c.rows)),
        residual(Random("residual", c.rows)),
        weight(Random("w", 1)),
        bias(Random("b", 1)),
        dy(Random("dy", c.rows)),
        dz(Random("dz", c.rows)),
        z(c.dtype, c.rows * c.columns, c.offset),
        y(c.dtype, c.rows * c.columns, c.offset),
        dx(c.dtype, c.rows * c.columns, c.offset),
        mean(DType::kF32, c.rows),
        inverse(DType::kF32, c.rows),
        dweight(DType::kF32, c.columns),
        dbias(DType::kF32, c.columns) {}
  Operand Random(std::string_view name, int64_t count) const {
    return Operand::Random(c.dtype, count * c.columns, name, 2, c.offset);
  }

  void Forward(Launcher& launch, const LaunchShape& shape, uint64_t seed,
               Operand& out) {
    const NormalizeArgs args = {.x = x.raw(),
                                .residual = c.full ? residual.raw() : nullptr,
                                .weight = weight.raw(),
                                .bias = c.full ? bias.raw() : nullptr,
                                .z = c.full ? z.raw() : nullptr,
                                .y = out.raw(),
                                .mean = rows.centred ? mean.raw() : nullptr,
                                .inverse = inverse.raw()};
    VisitStored(c.dtype, [&]<class T>(TypeTag<T> /*type*/) {
      launch(shape, seed, [&](auto& context) {
        Team team(context);
        Normalize<T>(team, rows, args);
      });
    });
  }

  void Backward(Launcher& launch, const LaunchShape& shape, uint64_t seed,
                Operand& out) {
    const NormalizeBackwardArgs args = {
        .z = c.full ? z.raw() : x.raw(),
        .weight = weight.raw(),
        .dy = dy.raw(),
        .dz = c.full ? dz.raw() : nullptr,
        .mean = rows.centred ? mean.raw() : nullptr,
        .inverse = inverse.raw(),
        .dx = out.raw(),
        .dweight = dweight.raw(),
        .dbias = c.full ? dbias.raw() : nullptr};
    Operand partials(DType::kF32, shape.blocks * c.columns * (c.full ? 2 : 1));
    VisitStored(c.dtype, [&]<class T>(TypeTag<T> /*type*/) {
      launch(shape, seed, [&](auto& context) {
        Team team(context);
        NormalizeBackward<T>(team, rows, args, partials.as<float>());
      });
    });
    ASSERT_TRUE(partials.GuardsAreIntact());
    const PartialSums sums = {.parts = shape.blocks,
                              .columns = c.columns,
                              .partials = partials.as<float>(),
                              .out = dweight.as<float>(),
                              .more = c.full ? dbias.as<float>() : nullptr};
    launch({.blocks = 2, .threads = shape.threads}, seed, [&](auto& context) {
      SumPartials<StandardProtocolOfTeams>(context, sums);
    });
  }

  void Check(const Operand& out, const Operand& gradient) const {
    const Shape size = {c.rows, c.columns};
    const Tensor tx = x.ToTensor(size), tr = residual.ToTensor(size),
                 tw = weight.ToTensor({c.columns}),
                 tb = bias.ToTensor({c.columns}), tdy = dy.ToTensor(size),
                 tdz = dz.ToTensor(size);
    NormInputs in{.kind = c.kind,
                  .epsilon = kEpsilon,
                  .x = tx.view(),
                  .weight = tw.view(),
                  .dy = tdy.view()};
    if (c.full) {
      in.residual = tr.view();
      in.bias = tb.view();
      in.dz = tdz.view();
    }
    NormArithmetic a = NormArithmetic::For(c.dtype);
    a.dw.store = a.dw.accumulate;
    const NormResult want = NormReference(in, a);
    if (c.full) ExpectWithin("z", z, want.z.values);
    ExpectWithin("y", out, want.y.values);
    ExpectWithin("dx", gradient, want.dx.values);
    ExpectWithin("dweight", dweight, want.dw.values);
    if (c.full) ExpectWithin("dbias", dbias, want.db.values);
  }

  Case c;
  NormRows rows;
  Operand x, residual, weight, bias, dy, dz;
  Operand z, y, dx, mean, inverse, dweight, dbias;
};

// 32 threads hold 512 columns of f32 and 1024 of bf16, in the backward pass half of that.
class NormTest : public ::testing::TestWithParam<int64_t> {
 protected:
  template <class Body>
  void ForAll(const Body& body) {
    for (const DType dtype : testing::kTypes) {
      for (const NormKind kind : {NormKind::kLayerNorm, NormKind::kRmsNorm}) {
        for (const int64_t offset : {0, 1}) {
          for (const bool full : {false, true}) {
            const Case c = {.dtype = dtype,
                            .kind = kind,
                            .rows = 3,
                            .columns = GetParam(),
                            .offset = offset,
                            .full = full};
            SCOPED_TRACE(fmt::format("{} of {}, offset {}, full {}", Name(kind),
                                     Name(dtype), offset, full));
            body(c);
            if (HasFatalFailure()) return;
          }
        }
      }
    }
  }

  Launcher launch_;
};

TEST_P(NormTest, BothPasses) {
  uint64_t seed = 0;
  ForAll([&](const Case& c) {
    // More blocks than rows, fewer, and one.
    for (const LaunchShape& shape :
         {LaunchShape{7, 32}, LaunchShape{2, 64}, LaunchShape{1, 96}}) {
      Work work(c);
      work.Forward(launch_, shape, ++seed, work.y);
      work.Backward(launch_, shape, seed, work.dx);
      work.Check(work.y, work.dx);
    }
  });
}

class NormSchedulesTest : public NormTest {};

// Outputs in the place of inputs, and other schedules: the same bits.
TEST_P(NormSchedulesTest, InPlaceInAnySchedule) {
  ForAll([&](const Case& c) {
    constexpr LaunchShape kShape = {2, 64};
    Work work(c);
    work.Forward(launch_, kShape, 1, work.y);
    work.Backward(launch_, kShape, 1, work.dx);
    Operand dw = work.dweight, db = work.dbias;
    for (uint64_t seed = 2; seed < 5; ++seed) {
      Work other(c);
      if (c.full) {
        // z is read in the backward pass.
        other.Forward(launch_, kShape, seed, other.y);
        other.Backward(launch_, kShape, seed, seed == 2 ? other.dz : other.dy);
        ExpectSame("y", other.y, work.y);
      } else {
        Work before(c);
        before.Forward(launch_, kShape, seed, before.y);
        other.mean = before.mean;
        other.inverse = before.inverse;
        other.Backward(launch_, kShape, seed, other.dy);
        other.Forward(launch_, kShape, seed, other.x);
        ExpectSame("y", other.x, work.y);
      }
      ExpectSame("dx", c.full && seed == 2 ? other.dz : other.dy, work.dx);
      ExpectSame("dweight", other.dweight, dw);
      ExpectSame("dbias", other.dbias, db);
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Columns, NormTest,
                         ::testing::Values(1, 7, 31, 33, 64, 1000, 2048, 4097));

INSTANTIATE_TEST_SUITE_P(Columns, NormSchedulesTest,
                         ::testing::Values(7, 64, 1000));

// A mean of 1000 deviations, where a one-pass variance has nothing left.
TEST(NormFarFromZeroTest, IsWithinItsBounds) {
  Launcher launch;
  Work work({.rows = 3, .columns = 131});
  for (int64_t i = 0; i < 2 * 131; ++i) work.x.as<float>()[i] += 2000;
  for (int64_t i = 2 * 131; i < 3 * 131; ++i) work.x.as<float>()[i] = 1;
  work.Forward(launch, {2, 64}, 1, work.y);
  work.Backward(launch, {2, 64}, 1, work.dx);
  work.Check(work.y, work.dx);
  EXPECT_EQ(work.inverse.as<float>()[2], 4);  // 1 / sqrt(0.0625)
}

TEST(NormNanTest, StaysInItsRow) {
  Launcher launch;
  Work work({.dtype = DType::kBF16, .rows = 5, .columns = 200});
  work.x.as<BFloat16>()[2 * 200 + 3] = BFloat16(NAN);
  work.Forward(launch, {2, 64}, 1, work.y);
  const std::vector<double> y = work.y.Doubles();
  for (size_t i = 0; i < y.size(); ++i) {
    EXPECT_EQ(std::isnan(y[i]), i / 200 == 2) << i;
  }
}

}  // namespace
}  // namespace shardproof::cuda
