#include "reference/collectives.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>

#include "reference/random.h"

namespace shardproof {
namespace {

// x_r[i] = 100 r + i: names its origin.
void Named(int rank, int64_t begin, std::span<double> out) {
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = 100 * rank + static_cast<double>(begin) + static_cast<double>(i);
  }
}

InputFn From(const std::vector<std::vector<double>>& x) {
  return [x](int rank, int64_t begin, std::span<double> out) {
    for (size_t i = 0; i < out.size(); ++i) {
      out[i] = x[static_cast<size_t>(rank)][static_cast<size_t>(begin) + i];
    }
  };
}

std::vector<double> Values(const std::vector<Bounded>& y) {
  std::vector<double> v;
  v.reserve(y.size());
  for (const Bounded& b : y) v.push_back(b.value);
  return v;
}

using V = std::vector<double>;

double One(ReduceOp op, DType dtype, const V& x, const V& factors = {}) {
  std::vector<std::vector<double>> inputs;
  for (double v : x) inputs.push_back({v});
  const Reduction r{.op = op,
                    .dtype = dtype,
                    .ranks = static_cast<int>(x.size()),
                    .arithmetic = Arithmetic::For(dtype),
                    .factors = factors};
  std::vector<Bounded> y(1);
  AllReduceExpected(r, From(inputs), 0, 0, y);
  return y[0].value;
}

TEST(Collectives, EveryOperationByHand) {
  EXPECT_EQ(One(ReduceOp::kSum, DType::kF32, {1, 2, 4.5}), 7.5);
  EXPECT_EQ(One(ReduceOp::kProd, DType::kF32, {2, -3, 4}), -24);
  EXPECT_EQ(One(ReduceOp::kMin, DType::kF32, {2, -3, 4}), -3);
  EXPECT_EQ(One(ReduceOp::kMax, DType::kI32, {2, -3, 4}), 4);
  EXPECT_EQ(One(ReduceOp::kAvg, DType::kF32, {1, 2, 6}), 3);
  EXPECT_EQ(One(ReduceOp::kPremulSum, DType::kF32, {1, 2}, {3, 0.5}), 4);
  EXPECT_EQ(One(ReduceOp::kSum, DType::kI8, {100, 100}), -56);
  EXPECT_EQ(One(ReduceOp::kProd, DType::kU8, {16, 17}), 16);
  EXPECT_EQ(One(ReduceOp::kAvg, DType::kI32, {-3, -4}), -3);
  EXPECT_EQ(One(ReduceOp::kSum, DType::kI64, {0x1p53, -0x1p53, 1}), 1);
}

TEST(Collectives, NanAndInfinityPropagate) {
  const double nan = std::nan("");
  for (ReduceOp op : kAllReduceOps) {
    EXPECT_TRUE(std::isnan(One(op, DType::kF32, {1, nan, 2}, {1, 1, 1})));
    EXPECT_TRUE(std::isnan(One(op, DType::kF32, {nan, 1, 2}, {1, 1, 1})));
  }
  EXPECT_EQ(One(ReduceOp::kSum, DType::kF64, {1, HUGE_VAL, 2}), HUGE_VAL);
  EXPECT_TRUE(
      std::isnan(One(ReduceOp::kSum, DType::kF32, {HUGE_VAL, -HUGE_VAL})));
}

// In plain double the 1 is lost.
TEST(Collectives, DoubleIsSummedInMoreThanDouble) {
  EXPECT_EQ(One(ReduceOp::kSum, DType::kF64, {1e16, 1, -1e16}), 1);
}

TEST(Collectives, MovementByHand) {
  const Layout layout{{2, 0, 1}, {3, 0, 1}};
  ASSERT_TRUE(layout.Validate().ok());
  EXPECT_EQ(layout.extent(), 5);
  std::vector<Bounded> y(5, Bounded{-1});
  AllGatherExpected(layout, &Named, 1, 0, y);
  EXPECT_EQ(Values(y), (V{-1, 200, -1, 0, 1}));
  y.assign(5, Bounded{-1});
  GatherExpected(layout, 2, &Named, 0, 0, y);
  EXPECT_EQ(Values(y), (V{-1, -1, -1, -1, -1}));
  GatherExpected(layout, 2, &Named, 2, 0, y);
  EXPECT_EQ(Values(y), (V{-1, 200, -1, 0, 1}));
  std::vector<Bounded> part(2);
  ScatterExpected(layout, 1, &Named, 0, 0, part);
  EXPECT_EQ(Values(part), (V{103, 104}));
  BroadcastExpected(3, &Named, 0, 7, part);
  EXPECT_EQ(Values(part), (V{307, 308}));
  SendRecvExpected(4, 1, &Named, 0, 5, part);
  EXPECT_EQ(Values(part), (V{305, 306}));
  SendRecvExpected(4, -1, &Named, 3, 5, part);
  EXPECT_EQ(Values(part), (V{5, 6}));
}

TEST(Collectives, ReduceScatterTakesItsBlock) {
  const Reduction sum{.op = ReduceOp::kSum,
                      .dtype = DType::kF32,
                      .ranks = 2,
                      .arithmetic = Arithmetic::For(DType::kF32)};
  std::vector<Bounded> y(2);
  ReduceScatterExpected(sum, Layout::Split(2, 5), &Named, 1, 0, y);
  EXPECT_EQ(Values(y), (V{100 + 3 + 3, 100 + 4 + 4}));
  y.assign(2, Bounded{-1});
  ReduceExpected(sum, 0, &Named, 1, 0, y);
  EXPECT_EQ(Values(y), (V{-1, -1}));
  ReduceExpected(sum, 0, &Named, 0, 1, y);
  EXPECT_EQ(Values(y), (V{102, 104}));
}

TEST(Collectives, AllToAllByHand) {
  const AllToAllLayout layout =
      AllToAllLayout::FromCounts({{1, 2, 0}, {0, 1, 3}, {2, 0, 1}});
  ASSERT_TRUE(layout.Validate().ok());
  std::vector<Bounded> y(3);
  AllToAllExpected(layout, &Named, 0, 0, y);
  EXPECT_EQ(Values(y), (V{0, 200, 201}));
  AllToAllExpected(layout, &Named, 1, 0, y);
  EXPECT_EQ(Values(y), (V{1, 2, 100}));
  y.resize(2);
  AllToAllExpected(layout, &Named, 2, 1, y);  // from the second element on
  EXPECT_EQ(Values(y), (V{102, 103}));
  y.resize(4);
  AllToAllExpected(AllToAllLayout::Even(2, 2), &Named, 1, 0, y);
  EXPECT_EQ(Values(y), (V{2, 3, 102, 103}));
}

// Any range of blocks of one size, as the layout of such blocks has it.
TEST(Collectives, AllToAllOfEvenBlocksNeedsNoLayout) {
  constexpr int kRanks = 3;
  for (const int64_t count : {int64_t{1}, int64_t{4}}) {
    const AllToAllLayout layout = AllToAllLayout::Even(kRanks, count);
    for (int rank = 0; rank < kRanks; ++rank) {
      for (int64_t begin = 0; begin < kRanks * count; ++begin) {
        for (int64_t end = begin; end <= kRanks * count; ++end) {
          std::vector<Bounded> with(end - begin), without(end - begin);
          AllToAllExpected(layout, &Named, rank, begin, with);
          AllToAllExpected(count, &Named, rank, begin, without);
          EXPECT_EQ(Values(without), Values(with))
              << count << " " << rank << " " << begin << " " << end;
        }
      }
    }
  }
}

TEST(Collectives, LayoutsAreChecked) {
  EXPECT_EQ(Layout::Split(3, 8).counts, (std::vector<int64_t>{3, 3, 2}));
  EXPECT_EQ(Layout::Split(3, 8).displacements, (std::vector<int64_t>{0, 3, 6}));
  EXPECT_EQ(Layout::Split(4, 2).counts, (std::vector<int64_t>{1, 1, 0, 0}));
  EXPECT_FALSE((Layout{{2, 2}, {0, 1}}).Validate().ok());
  EXPECT_FALSE((Layout{{2, -1}, {0, 2}}).Validate().ok());
  EXPECT_FALSE((Layout{{2}, {0, 2}}).Validate().ok());
  AllToAllLayout bad = AllToAllLayout::Even(2, 3);
  bad.recv[1].counts[0] = 2;
  EXPECT_FALSE(bad.Validate().ok());
}

// Blocks of any size and place agree with the whole.
TEST(Collectives, BlocksAgreeWithTheWhole) {
  const Reduction sum{.op = ReduceOp::kAvg,
                      .dtype = DType::kF32,
                      .ranks = 3,
                      .arithmetic = Arithmetic::For(DType::kF32)};
  const Layout layout = Layout::Split(3, 100);
  std::vector<Bounded> whole(100), gathered(100);
  AllReduceExpected(sum, &Named, 0, 0, whole);
  AllGatherExpected(layout, &Named, 0, 0, gathered);
  for (int64_t begin = 0; begin < 90; begin += 7) {
    std::vector<Bounded> part(10);
    AllReduceExpected(sum, &Named, 0, begin, part);
    for (int64_t i = 0; i < 10; ++i) {
      EXPECT_EQ(part[i].value, whole[begin + i].value);
      EXPECT_EQ(part[i].worst, whole[begin + i].worst);
    }
    AllGatherExpected(layout, &Named, 0, begin, part);
    for (int64_t i = 0; i < 10; ++i) {
      EXPECT_EQ(part[i].value, gathered[begin + i].value);
    }
  }
}

// The roundings of each operation, counted: p - 1 additions, q = 1 storage, and
// what scaling adds.
TEST(Collectives, BoundsCountTheRoundings) {
  const InputFn ones = [](int, int64_t, std::span<double> out) {
    std::fill(out.begin(), out.end(), 1.0);
  };
  const auto units = [&](ReduceOp op, int q) {
    Reduction r{.op = op,
                .dtype = DType::kF32,
                .ranks = 4,
                .arithmetic = Arithmetic::For(DType::kF32, 4),
                .factors = {1, 1, 1, 1}};
    r.arithmetic.wire_roundings = q;
    std::vector<Bounded> y(1);
    AllReduceExpected(r, ones, 0, 0, y);
    return y[0].worst / (std::abs(y[0].value) * 0x1p-24);
  };
  EXPECT_NEAR(units(ReduceOp::kSum, 1), 4, 1e-5);
  EXPECT_NEAR(units(ReduceOp::kSum, 3), 6, 1e-5);
  EXPECT_NEAR(units(ReduceOp::kProd, 1), 4, 1e-5);
  EXPECT_NEAR(units(ReduceOp::kPremulSum, 1), 5, 1e-5);
  EXPECT_NEAR(units(ReduceOp::kAvg, 1), 6, 1e-5);
  EXPECT_EQ(units(ReduceOp::kMax, 1), 0);
}

// An honest implementation in each type and operation, in random order, stays inside the bounds, and not far inside.
TEST(Collectives, BoundsHoldInSimulatedArithmetic) {
  constexpr int kRanks = 5;
  constexpr int64_t kN = 20000;
  std::mt19937 random(3);
  for (DType dtype : {DType::kF32, DType::kBF16, DType::kF16, DType::kE4M3}) {
    for (ReduceOp op : {ReduceOp::kSum, ReduceOp::kProd, ReduceOp::kAvg,
                        ReduceOp::kPremulSum}) {
      Reduction r{.op = op,
                  .dtype = dtype,
                  .ranks = kRanks,
                  .arithmetic = Arithmetic::For(dtype, kRanks),
                  .factors = {0.3, 1.7, -1.1, 0.9, 1.3}};
      // The factors, too, are numbers of the accumulator.
      for (double& f : r.factors) f = Round(DType::kF32, f);
      std::vector<std::vector<double>> x(kRanks, std::vector<double>(kN));
      for (int rank = 0; rank < kRanks; ++rank) {
        FillDouble(Uniform(dtype), {1, 2, static_cast<uint64_t>(rank)}, 0, kN,
                   x[rank].data());
      }
      for (const bool ring : {false, true}) {
        r.arithmetic.wire_roundings = ring ? kRanks - 1 : 1;
        std::vector<Bounded> y(kN);
        AllReduceExpected(r, From(x), 0, 0, y);
        double worst = 0;
        for (int64_t i = 0; i < kN; ++i) {
          const int first = static_cast<int>(random() % kRanks);
          float v = 0;
          for (int k = 0; k < kRanks; ++k) {
            const int rank = (first + k) % kRanks;
            float term = static_cast<float>(x[rank][i]);
            if (op == ReduceOp::kPremulSum) {
              term *= static_cast<float>(r.factors[rank]);
            }
            if (op == ReduceOp::kAvg) term *= 1.0f / kRanks;
            v = k == 0 ? term : op == ReduceOp::kProd ? v * term : v + term;
            if (ring && k > 0 && k + 1 < kRanks) {
              v = static_cast<float>(Round(dtype, v));
            }
          }
          const double got = Round(dtype, v);
          if (y[i].worst > 0) {
            worst = std::max(worst, std::abs(got - y[i].value) / y[i].worst);
          }
        }
        std::printf("%s %s %s: e/B %.3f\n", std::string(Name(dtype)).c_str(),
                    std::string(Name(op)).c_str(), ring ? "ring" : "one-shot",
                    worst);
        EXPECT_LE(worst, 1) << Name(dtype) << " " << Name(op);
        EXPECT_GE(worst, 0.2) << Name(dtype) << " " << Name(op);
      }
    }
  }
}

TEST(Collectives, TermsAddUp) {
  for (ReduceOp op : {ReduceOp::kSum, ReduceOp::kAvg, ReduceOp::kPremulSum}) {
    const Reduction r{.op = op,
                      .dtype = DType::kF32,
                      .ranks = 3,
                      .arithmetic = Arithmetic::For(DType::kF32),
                      .factors = {2, 0.5, -1}};
    std::vector<Bounded> y(4);
    AllReduceExpected(r, &Named, 0, 0, y);
    V total(4), term(4);
    for (int rank = 0; rank < 3; ++rank) {
      ReductionTerm(r, &Named, rank, 0, term);
      for (int i = 0; i < 4; ++i) total[i] += term[i];
    }
    for (int i = 0; i < 4; ++i) EXPECT_NEAR(total[i], y[i].value, 1e-12);
  }
}

}  // namespace
}  // namespace shardproof
