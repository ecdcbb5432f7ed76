// The runner with a dense reference: a column-parallel product, whose output is
// cut across its rows.
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>

#include "reference/linear.h"
#include "tools/harness/case.h"
#include "tools/harness/testing/toy_case.h"

namespace shardproof {
namespace {

struct P {
  int64_t tokens = 40, in = 16, out = 24;
  int ranks = 1;
};

using Spoil = std::function<void(const P&, RankContext&)>;

Variant<P> Product(const Spoil& spoil = nullptr) {
  return {.name = "v",
          .bind = [spoil](const P& p, RankContext& c) -> StatusOr<Operation> {
            return Operation([=, &c] {
              const float* x = c.in("x").as<float>();
              const float* w = c.in("w").as<float>();
              const TensorView y = c.out("y");
              const int64_t columns = y.shape[1];
              for (int64_t t = 0; t < p.tokens; ++t) {
                for (int64_t j = 0; j < columns; ++j) {
                  float sum = 0;
                  for (int64_t k = 0; k < p.in; ++k) {
                    sum += x[t * p.in + k] * w[j * p.in + k];
                  }
                  y.as<float>()[t * columns + j] = sum;
                }
              }
              if (spoil) spoil(p, c);
              return OkStatus();
            });
          }};
}

// NOLINTNEXTLINE: of the reference; different ones on several threads at once.
std::atomic<int> evaluations{0};

Case<P> ProductCase(Variant<P> variant) {
  Case<P> c;
  c.name = "toy/product";
  c.tensors = [](const P& p) -> Tensors {
    const ExactLinearInputs exact =
        *ExactLinear(DType::kF32, DType::kF32, p.tokens, p.in, p.out);
    return {Input("x", DType::kF32, {p.tokens, p.in}, Replicated())
                .Data({.exact = exact.x}),
            Input("w", DType::kF32, {p.out, p.in}, Shard(0))
                .Data({.exact = exact.w}),
            Output("y", DType::kF32, {p.tokens, p.out}, Shard(1))
                .SampleDimension(0)};
  };
  c.reference =
      DenseReference<P>([](const P&, const Arithmetic& a, const Inputs& in,
                           const Sample& sample) -> StatusOr<DenseOutputs> {
        ++evaluations;
        const auto rows = sample.find("y");
        Matrix y = LinearForward(
            {.x = in.Global("x"), .w = in.Global("w"), .b = std::nullopt}, a,
            rows == sample.end() ? Rows{} : rows->second);
        DenseOutputs out;
        out["y"] = std::move(y.values);
        return out;
      });
  c.variants = {std::move(variant)};
  c.flops = [](const P& p) { return 2.0 * p.tokens * p.in * p.out; };
  return c;
}

Record RunProduct(const CaseInfo& info, const P& p,
                  const RunOptions& options = {}) {
  return RunOnWorld(testing::ToyWorld(), info, info.variants[0],
                    {.params = p, .values = {}, .ranks = p.ranks}, options);
}

TEST(Dense, PassesWhatIsRight) {
  const CaseInfo info = Erase(ProductCase(Product()));
  for (const int ranks : {1, 2, 3, 5}) {
    const Record r = RunProduct(info, {.ranks = ranks});
    EXPECT_EQ(r.verdict, Verdict::kPassed) << r.reason;
    EXPECT_EQ(r.error->compared, 3 * 40 * 24);
  }
}

// Too little for the bound of any element.
TEST(Dense, FindsAScaleWhereTheGainIsChecked) {
  for (const bool checked : {true, false}) {
    Case<P> c = ProductCase(Product([](const P&, RankContext& context) {
      const TensorView y = context.out("y");
      for (int64_t i = 0; i < y.num_elements(); ++i) {
        y.as<float>()[i] *= 1 + 220 * 0x1p-24F;
      }
    }));
    c.name = "toy/scaled";  // References are kept by name.
    c.exact = false;
    c.tensors = [all = c.tensors, checked](const P& p) {
      Tensors tensors = all(p);
      if (!checked) tensors.back().GainUnchecked();
      return tensors;
    };
    const Record r =
        RunProduct(Erase(std::move(c)), {.tokens = 400, .in = 400, .ranks = 2});
    EXPECT_EQ(r.verdict, checked ? Verdict::kIncorrect : Verdict::kPassed)
        << r.reason;
    EXPECT_EQ(r.reason.find("all are scaled") != std::string::npos, checked)
        << r.reason;
  }
}

TEST(Dense, FindsOneElementWrongOnAnyRank) {
  for (int bad = 0; bad < 3; ++bad) {
    const CaseInfo info =
        Erase(ProductCase(Product([bad](const P&, RankContext& c) {
          if (c.comm().rank() == bad) c.out("y").as<float>()[8 * 5 + 3] += 1;
        })));
    const Record r = RunProduct(info, {.ranks = 3});
    EXPECT_EQ(r.verdict, Verdict::kIncorrect);
    ASSERT_EQ(r.error->mismatches.size(), 1U) << r.reason;
    EXPECT_EQ(r.error->mismatches[0].rank, bad);
    EXPECT_EQ(r.error->mismatches[0].index, (std::vector<int64_t>{5, 3}));
  }
}

TEST(Dense, SamplesLargeOutputsButNotTheirBorders) {
  const auto spoiled = [](int64_t row) {
    return Erase(ProductCase(Product([row](const P& p, RankContext& c) {
      c.out("y").as<float>()[row * c.out("y").shape[1]] += row < p.tokens;
    })));
  };
  RunOptions options;
  options.check_elements = 5 * 24;
  const Record good = RunProduct(spoiled(40), {.ranks = 2}, options);
  EXPECT_EQ(good.verdict, Verdict::kPassed) << good.reason;
  EXPECT_LE(good.error->compared, 3 * 7 * 24);
  EXPECT_GE(good.error->compared, 3 * 5 * 24);
  for (const int64_t border : {0, 39}) {
    const Record r = RunProduct(spoiled(border), {.ranks = 2}, options);
    EXPECT_EQ(r.verdict, Verdict::kIncorrect) << border;
  }
  // The same where the reference would take long.
  options = RunOptions();
  options.check_flops = 2.0 * 16 * 24 * 5;
  const Record slow = RunProduct(spoiled(40), {.ranks = 2}, options);
  EXPECT_EQ(slow.verdict, Verdict::kPassed);
  EXPECT_LE(slow.error->compared, 3 * 7 * 24);
}

TEST(Dense, EvaluatesTheReferenceOncePerProcess) {
  Case<P> c = ProductCase(Product());
  c.name = "toy/counted";
  const CaseInfo info = Erase(c);
  // The first run also asks whether the case can see mistakes.
  EXPECT_EQ(RunProduct(info, {.ranks = 4}).verdict, Verdict::kPassed);
  RunOptions options;
  options.seed = 2;
  evaluations = 0;
  EXPECT_EQ(RunProduct(info, {.ranks = 4}, options).verdict, Verdict::kPassed);
  EXPECT_EQ(evaluations, 6);  // Three repeats of two tiers, for four ranks.
  EXPECT_EQ(RunProduct(info, {.ranks = 4}, options).verdict, Verdict::kPassed);
  EXPECT_EQ(evaluations, 6);  // Kept for the next variant.
}

// Whether the checks see mistakes does not depend on who made them.
TEST(Dense, AsksForPowerOncePerArithmetic) {
  Case<P> c = ProductCase(Product());
  c.name = "toy/arithmetics";
  for (const DType wire : {DType::kF32, DType::kBF16}) {
    Variant<P> v = Product();
    v.name = fmt::format("v{}", c.variants.size());
    v.arithmetic = [wire](const P& p) {
      Arithmetic a = Arithmetic::For(DType::kF32, p.ranks);
      a.wire = wire;
      return a;
    };
    c.variants.push_back(std::move(v));
  }
  const CaseInfo info = Erase(c);
  std::vector<int> counts;
  for (const ErasedVariant& v : info.variants) {
    evaluations = 0;
    const P p = {.ranks = 2};
    const Record r =
        RunOnWorld(testing::ToyWorld(), info, v,
                   {.params = p, .values = {}, .ranks = p.ranks}, {});
    EXPECT_EQ(r.verdict, Verdict::kPassed) << r.reason;
    counts.push_back(evaluations);
  }
  // Three repeats of two tiers, and in each tier once without each rank.
  EXPECT_EQ(counts, (std::vector<int>{10, 0, 10}));
}

// Each rank asks what happens without its own contribution. That of rank 1 is
// too small to be missed, which only rank 1 finds out, every time.
TEST(Dense, RefusesWhatOneRankFindsBlind) {
  Case<P> c = ProductCase(Product());
  c.name = "toy/drop";
  c.exact = false;
  c.tensors = [all = c.tensors](const P& p) {
    Tensors tensors = all(p);
    tensors[1] = Input("w", DType::kF32, {p.out, p.in}, Replicated());
    tensors.push_back(Input("z", DType::kF32, {2}, Shard(0)));
    return tensors;
  };
  c.reference.dense = [product = c.reference.dense](
                          const P& p, const Arithmetic& a, const Inputs& in,
                          const Sample& s) -> StatusOr<DenseOutputs> {
    SP_ASSIGN_OR_RETURN(DenseOutputs out, product(p, a, in, s));
    const std::vector<double> z = in.All("z");
    for (Bounded& y : out["y"]) y.value += z[0] + 1e-12 * z[1];
    return out;
  };
  const CaseInfo info = Erase(c);
  for (int i = 0; i < 2; ++i) {
    const Record r = RunProduct(info, {.ranks = 2});
    EXPECT_EQ(r.verdict, Verdict::kFailed);
    EXPECT_NE(r.reason.find("'the contribution of rank 1 dropped' would pass"),
              std::string::npos)
        << r.reason;
  }
}

TEST(Dense, FailsWhenTheReferenceIsWrongInShape) {
  Case<P> c = ProductCase(Product());
  c.name = "toy/short";
  c.reference = DenseReference<P>([](const P&, const Arithmetic&, const Inputs&,
                                     const Sample&) -> StatusOr<DenseOutputs> {
    DenseOutputs out;
    out["y"].resize(7);
    return out;
  });
  const Record r = RunProduct(Erase(c), {.ranks = 2});
  EXPECT_EQ(r.verdict, Verdict::kFailed);
  EXPECT_NE(r.reason.find("gives 7 elements of y, not 960"), std::string::npos)
      << r.reason;
}

// The power of so few elements is not asked: what the reference says is first
// wanted by a rank that prepares ahead, and then by all.
TEST(Dense, FailsWhenTheReferenceOfFewElementsFails) {
  Case<P> c = ProductCase(Product());
  c.name = "toy/no_reference";
  c.reference = DenseReference<P>(
      [](const P&, const Arithmetic&, const Inputs&,
         const Sample&) -> StatusOr<DenseOutputs> { return Internal("none"); });
  const Record r =
      RunProduct(Erase(c), {.tokens = 2, .in = 16, .out = 3, .ranks = 2});
  EXPECT_EQ(r.verdict, Verdict::kFailed);
  EXPECT_NE(r.reason.find("the reference: none"), std::string::npos)
      << r.reason;
}

// --- Elements that nobody writes -------------------------------------------

struct Gaps {
  DType dtype = DType::kF32;
  bool fill = false;
  int ranks = 1;
};

TEST(Block, GapsMustStayAsTheyWere) {
  Case<Gaps> c;
  c.name = "toy/gaps";
  c.tensors = [](const Gaps& p) -> Tensors {
    return {Input("x", p.dtype, {30}, PerRank()),
            Output("y", p.dtype, {40}, PerRank())};
  };
  // Ten, a gap of ten, twenty.
  c.reference =
      BlockReference<Gaps>([](const Gaps&, const Arithmetic&, const Inputs& in,
                              const BlockQuery& q, std::span<Bounded> out) {
        for (size_t i = 0; i < out.size(); ++i) {
          const int64_t at = q.begin + static_cast<int64_t>(i);
          if (at >= 10 && at < 20) continue;
          double x = 0;
          in.Read("x", q.rank, at < 10 ? at : at - 10, std::span(&x, 1));
          out[i] = {.value = x};
        }
      });
  c.variants = {
      {.name = "v",
       .bind = [](const Gaps& p, RankContext& context) -> StatusOr<Operation> {
         return Operation([p, &context] {
           const size_t size = SizeOf(p.dtype);
           const auto* x = static_cast<const std::byte*>(context.in("x").data);
           auto* y = static_cast<std::byte*>(context.out("y").data);
           std::copy_n(x, 10 * size, y);
           std::copy_n(x + 10 * size, 20 * size, y + 20 * size);
           if (p.fill) std::copy_n(x, size, y + 15 * size);
           return OkStatus();
         });
       }}};
  const CaseInfo info = Erase(c);
  for (const DType dtype :
       {DType::kF32, DType::kI64, DType::kU8, DType::kE4M3}) {
    for (const bool fill : {false, true}) {
      const Record r = RunOnWorld(
          testing::ToyWorld(), info, info.variants[0],
          {.params = Gaps{dtype, fill, 2}, .values = {}, .ranks = 2}, {});
      EXPECT_EQ(r.verdict, fill ? Verdict::kIncorrect : Verdict::kPassed)
          << Name(dtype) << ": " << r.reason;
      if (fill) {
        EXPECT_NE(r.reason.find("belong to no block were written, the first "
                                "at [15]"),
                  std::string::npos)
            << r.reason;
      }
    }
  }
}

// A reference whose bounds see nothing: every element is the product times a
// number that bf16 rounds, and may be anything.
Case<P> ChainCase(Variant<P> variant, int probes, int64_t columns = 400) {
  Case<P> c = ProductCase(std::move(variant));
  c.name = fmt::format("toy/chain_{}", columns);
  c.exact = false;
  c.reference.dense = [product = c.reference.dense](
                          const P& p, const Arithmetic& a, const Inputs& in,
                          const Sample& s) -> StatusOr<DenseOutputs> {
    SP_ASSIGN_OR_RETURN(DenseOutputs out, product(p, a, in, s));
    for (Bounded& y : out["y"]) {
      y = y * Rounded({1}, DType::kBF16);
      y.worst = y.likely = HUGE_VAL;
    }
    return out;
  };
  if (probes > 0) c.probes = [probes](const P&) { return probes; };
  return c;
}

TEST(Dense, ProbesSeeWhatBoundsDoNot) {
  const P p = {.out = 400, .ranks = 2};
  const Record blind = RunProduct(Erase(ChainCase(Product(), 0)), p);
  EXPECT_EQ(blind.verdict, Verdict::kFailed);
  EXPECT_TRUE(blind.reason.starts_with("blind: y")) << blind.reason;
  evaluations = 0;
  const Record sharp =
      RunProduct(Erase(ChainCase(Product(), 32)), p, {.repeats = 1});
  EXPECT_EQ(sharp.verdict, Verdict::kPassed) << sharp.reason;
  // Of this one run, and once without each rank for the power; no input is per
  // rank, so nothing else.
  EXPECT_EQ(evaluations, 33 + 2);
  const Record wrong =
      RunProduct(Erase(ChainCase(Product([](const P&, RankContext& c) {
                                   float* y = c.out("y").as<float>();
                                   if (c.comm().rank() == 1)
                                     std::fill_n(y + 200, 200, 0);
                                 }),
                                 32)),
                 p);
  EXPECT_EQ(wrong.verdict, Verdict::kIncorrect) << wrong.reason;
}

// All 64000 elements may err by the same rounding, which their gain then shows,
// and which is right; by 8 such, it is not.
TEST(Dense, ProbedGainKnowsWhatElementsShare) {
  const P p = {.out = 1600, .ranks = 2};
  for (const auto& [roundings, verdict] :
       {std::pair{0.9, Verdict::kPassed}, {8.0, Verdict::kIncorrect}}) {
    const double factor = 1 + roundings * 0x1p-8;
    const Record r = RunProduct(
        Erase(ChainCase(Product([factor](const P&, RankContext& c) {
                          const TensorView y = c.out("y");
                          for (int64_t i = 0; i < y.num_elements(); ++i) {
                            y.as<float>()[i] *= static_cast<float>(factor);
                          }
                        }),
                        32, p.out)),
        p);
    EXPECT_EQ(r.verdict, verdict) << r.reason;
    if (verdict == Verdict::kIncorrect) {
      EXPECT_NE(r.reason.find("scaled by"), std::string::npos) << r.reason;
    }
  }
}

}  // namespace
}  // namespace shardproof
