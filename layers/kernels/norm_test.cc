// Norms against the bounded reference, on every instruction set that this
// machine has.
#include "layers/kernels/norm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <vector>

#include "collectives/kernels/targets.h"
#include "layers/kernels/kernel_testing.h"
#include "reference/norm.h"

namespace shardproof {
namespace {

constexpr DType kTypes[] = {DType::kF32, DType::kF64, DType::kBF16,
                            DType::kF16};
constexpr double kEpsilon = 0.0625;

// The tensors of one layer, and what the kernels make of them. Sums are in the
// accumulator's type.
struct Work {
  Work(DType dtype, int64_t rows, int64_t columns, NormKind kind)
      : rows{.dtype = dtype,
             .rows = rows,
             .columns = columns,
             .centred = kind == NormKind::kLayerNorm,
             .epsilon = kEpsilon},
        kind(kind),
        x(Random({rows, columns}, "x")),
        residual(Random({rows, columns}, "residual")),
        w(Random({columns}, "w")),
        b(Random({columns}, "b")),
        dy(Random({rows, columns}, "dy")),
        dz(Random({rows, columns}, "dz")),
        z(dtype, {rows, columns}),
        y(dtype, {rows, columns}),
        dx(dtype, {rows, columns}),
        mean(Accumulator(dtype), {rows}),
        inverse(Accumulator(dtype), {rows}),
        dw(Accumulator(dtype), {columns}),
        db(Accumulator(dtype), {columns}) {}
  Tensor Random(const Shape& shape, std::string_view name) const {
    return Filled(Uniform(rows.dtype, 2), shape, name);
  }

  void Forward(bool full) {
    ASSERT_TRUE(Normalize(Stream::Inline(), rows,
                          {.x = x.raw(),
                           .residual = full ? residual.raw() : nullptr,
                           .weight = w.raw(),
                           .bias = full ? b.raw() : nullptr,
                           .z = full ? z.raw() : nullptr,
                           .y = y.raw(),
                           .mean = rows.centred ? mean.raw() : nullptr,
                           .inverse = inverse.raw()})
                    .ok());
  }
  void Backward(bool full, void* to) {
    ASSERT_TRUE(NormalizeBackward(Stream::Inline(), rows,
                                  {.z = full ? z.raw() : x.raw(),
                                   .weight = w.raw(),
                                   .dy = dy.raw(),
                                   .dz = full ? dz.raw() : nullptr,
                                   .mean = rows.centred ? mean.raw() : nullptr,
                                   .inverse = inverse.raw(),
                                   .dx = to,
                                   .dweight = dw.raw(),
                                   .dbias = full ? db.raw() : nullptr})
                    .ok());
  }
  NormResult Reference(bool full) const {
    NormInputs in{.kind = kind,
                  .epsilon = kEpsilon,
                  .x = x.view(),
                  .weight = w.view(),
                  .dy = dy.view()};
    if (full) {
      in.residual = residual.view();
      in.bias = b.view();
      in.dz = dz.view();
    }
    NormArithmetic a = NormArithmetic::For(rows.dtype);
    a.dw.store = a.dw.accumulate;
    return NormReference(in, a);
  }

  NormRows rows;
  NormKind kind;
  Tensor x, residual, w, b, dy, dz;
  Tensor z, y, dx, mean, inverse, dw, db;
};

double worst_ratio = 0;  // NOLINT: printed at the end.

void ExpectClose(const char* what, const Tensor& got, const Matrix& want) {
  const std::vector<double> values = Doubles(got);
  ASSERT_EQ(values.size(), want.values.size()) << what;
  for (size_t i = 0; i < values.size(); ++i) {
    const Bounded& w = want.values[i];
    const double e = std::abs(values[i] - w.value);
    ASSERT_LE(e, w.worst) << what << " " << i << " is " << values[i] << ", not "
                          << w.value;
    if (w.worst > 0) worst_ratio = std::max(worst_ratio, e / w.worst);
  }
}

class NormKernelTest : public testing::TestWithParam<int64_t> {
 protected:
  // Calls body(work) for all types, kinds and shapes: columns around the lengths
  // of vectors, and rows around the tile of the backward pass.
  template <class Body>
  void ForAll(Body body) {
    const OnlyTarget only(GetParam());
    for (const DType dtype : kTypes) {
      for (const NormKind kind : {NormKind::kLayerNorm, NormKind::kRmsNorm}) {
        for (const int64_t columns : {1, 3, 16, 31, 64, 131, 1027}) {
          for (const int64_t rows : {0, 1, 4, 7}) {
            SCOPED_TRACE(fmt::format("{} of [{}, {}], {}", Name(kind), rows,
                                     columns, Name(dtype)));
            Work work(dtype, rows, columns, kind);
            body(work);
            if (testing::Test::HasFatalFailure()) return;
          }
        }
      }
    }
  }
};

TEST_P(NormKernelTest, BothPasses) {
  ForAll([](Work& work) {
    work.Forward(false);
    work.Backward(false, work.dx.raw());
    const NormResult want = work.Reference(false);
    ExpectClose("y", work.y, want.y);
    ExpectClose("dx", work.dx, want.dx);
    ExpectClose("dw", work.dw, want.dw);
  });
}

TEST_P(NormKernelTest, BothPassesWithBiasAndResidual) {
  ForAll([](Work& work) {
    work.Forward(true);
    work.Backward(true, work.dx.raw());
    const NormResult want = work.Reference(true);
    ExpectClose("z", work.z, want.z);
    ExpectClose("y", work.y, want.y);
    ExpectClose("dx", work.dx, want.dx);
    ExpectClose("dw", work.dw, want.dw);
    ExpectClose("db", work.db, want.db);
  });
  std::printf("largest e/worst so far: %.3f\n", worst_ratio);
}

// The same bits where outputs take the place of inputs.
TEST_P(NormKernelTest, InPlace) {
  ForAll([](Work& work) {
    const auto same = [](const Tensor& a, const Tensor& b) {
      ASSERT_EQ(std::memcmp(a.raw(), b.raw(), a.bytes().size()), 0);
    };
    work.Forward(true);
    work.Backward(true, work.dx.raw());
    work.Backward(true, work.dz.raw());
    same(work.dz, work.dx);
    work.Backward(false, work.dx.raw());
    work.Backward(false, work.dy.raw());
    same(work.dy, work.dx);
    work.Forward(false);
    ASSERT_TRUE(Normalize(Stream::Inline(), work.rows,
                          {.x = work.x.raw(),
                           .weight = work.w.raw(),
                           .y = work.x.raw(),
                           .mean = work.mean.raw(),
                           .inverse = work.inverse.raw()})
                    .ok());
    same(work.x, work.y);
  });
}

// A row's bits depend neither on the other rows nor on where it lies in a tile.
TEST_P(NormKernelTest, RowsAreIndependent) {
  const OnlyTarget only(GetParam());
  for (const DType dtype : kTypes) {
    Work all(dtype, 7, 37, NormKind::kLayerNorm);
    all.Forward(true);
    all.Backward(true, all.dx.raw());
    for (int64_t i = 0; i < 7; ++i) {
      Work one(dtype, 1, 37, NormKind::kLayerNorm);
      const auto bytes = static_cast<size_t>(37 * SizeOf(dtype));
      const auto row = [&](Tensor& t) {
        return t.bytes().subspan(static_cast<size_t>(i) * bytes, bytes);
      };
      for (Tensor Work::*t :
           {&Work::x, &Work::residual, &Work::dy, &Work::dz}) {
        std::ranges::copy(row(all.*t), (one.*t).bytes().begin());
      }
      one.Forward(true);
      one.Backward(true, one.dx.raw());
      for (Tensor Work::*t : {&Work::z, &Work::y, &Work::dx}) {
        EXPECT_TRUE(std::ranges::equal(row(all.*t), (one.*t).bytes()))
            << "row " << i << " of " << Name(dtype);
      }
    }
  }
}

// A mean of 1000 deviations, where a one-pass variance has nothing left, and a
// row without any.
TEST_P(NormKernelTest, FarFromZero) {
  const OnlyTarget only(GetParam());
  Work work(DType::kF32, 3, 131, NormKind::kLayerNorm);
  auto* x = work.x.data<float>();
  for (int64_t i = 0; i < 2 * 131; ++i) x[i] += 2000;
  for (int64_t i = 2 * 131; i < 3 * 131; ++i) x[i] = 1;
  work.Forward(false);
  work.Backward(false, work.dx.raw());
  const NormResult want = work.Reference(false);
  ExpectClose("y", work.y, want.y);
  ExpectClose("dx", work.dx, want.dx);
  ExpectClose("dw", work.dw, want.dw);
  EXPECT_EQ(work.inverse.data<float>()[2], 4);  // 1 / sqrt(0.0625)
}

TEST_P(NormKernelTest, NanStaysInItsRow) {
  const OnlyTarget only(GetParam());
  Work work(DType::kBF16, 5, 20, NormKind::kLayerNorm);
  work.x.data<BFloat16>()[2 * 20 + 3] = BFloat16(NAN);
  work.Forward(false);
  const std::vector<double> y = Doubles(work.y);
  for (size_t i = 0; i < y.size(); ++i) {
    EXPECT_EQ(std::isnan(y[i]), i / 20 == 2) << i;
  }
}

// Of any 16 bits, NaN, infinities and subnormals among them: the same bits as
// BFloat16 makes.
TEST_P(NormKernelTest, ResidualSumsAreRoundedAsScalarsAre) {
  const OnlyTarget only(GetParam());
  Work work(DType::kBF16, 64, 1027, NormKind::kRmsNorm);
  auto* x = work.x.data<BFloat16>();
  auto* residual = work.residual.data<BFloat16>();
  for (int64_t i = 0; i < 64 * 1027; ++i) {
    const auto bits = static_cast<uint16_t>(i * 40503);
    std::memcpy(static_cast<void*>(x + i), &bits, sizeof(bits));
    // Not far from x, so that sums have bits to lose.
    const uint16_t near = bits ^ static_cast<uint16_t>(i * 7 % 1024);
    std::memcpy(static_cast<void*>(residual + i), &near, sizeof(near));
  }
  work.Forward(true);
  const auto* z = work.z.data<BFloat16>();
  for (int64_t i = 0; i < 64 * 1027; ++i) {
    const BFloat16 want(static_cast<float>(x[i]) +
                        static_cast<float>(residual[i]));
    uint16_t got_bits, want_bits;
    std::memcpy(&got_bits, z + i, sizeof(got_bits));
    std::memcpy(&want_bits, &want, sizeof(want_bits));
    // Which of two NaN lends its sign is the adder's choice.
    const uint16_t mask =
        std::isnan(static_cast<float>(want)) ? 0x7fff : 0xffff;
    ASSERT_EQ(got_bits & mask, want_bits & mask) << i;
  }
}

TEST_P(NormKernelTest, SumsAreRoundedOnce) {
  const OnlyTarget only(GetParam());
  for (const DType dtype : kTypes) {
    for (const int64_t n : {0, 1, 37}) {
      const Tensor sums =
          Filled(Uniform(Accumulator(dtype), 3), Shape{n}, "sums");
      Tensor out(dtype, {n});
      ASSERT_TRUE(
          RoundSums(Stream::Inline(), dtype, n, sums.raw(), out.raw()).ok());
      const std::vector<double> s = Doubles(sums), o = Doubles(out);
      for (size_t i = 0; i < s.size(); ++i) {
        EXPECT_EQ(o[i], Round(dtype, s[i]));
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(All, NormKernelTest,
                         testing::ValuesIn(UsableTargets()),
                         [](const auto& info) {
                           return std::string(hwy::TargetName(info.param));
                         });

TEST(NormKernelArgsTest, RefusesIntegers) {
  EXPECT_EQ(Normalize(Stream::Inline(), {.dtype = DType::kI32}, {}).code(),
            StatusCode::kUnsupported);
  EXPECT_EQ(
      NormalizeBackward(Stream::Inline(), {.dtype = DType::kI32}, {}).code(),
      StatusCode::kUnsupported);
  EXPECT_EQ(
      RoundSums(Stream::Inline(), DType::kI32, 0, nullptr, nullptr).code(),
      StatusCode::kUnsupported);
}

}  // namespace
}  // namespace shardproof
