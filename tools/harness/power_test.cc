// Cases of which the checks would let a wrong result pass: each is refused, and
// would pass otherwise.
#include "tools/harness/power.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>

#include "tools/harness/testing/toy_case.h"

namespace shardproof {
namespace {

using testing::RunToy;
using testing::Toy;
using testing::ToyCase;
using testing::ToyVariant;

using Bounds = std::function<void(const Toy&, Bounded&)>;

// Bounds in proportion to the values: elements within `likely` pass, and up to
// `worst` they are suspect.
Bounds Relative(double likely, double worst) {
  return [=](const Toy&, Bounded& b) {
    b.likely = likely * std::abs(b.value);
    b.worst = worst * std::abs(b.value);
    b.likely2 = 0;
  };
}

// A bounded case that leaves elements [begin, end) of the sum times `factor`.
Case<Toy> Lenient(std::string name, const Bounds& bounds, double factor,
                  int64_t begin, int64_t end) {
  Case<Toy> c =
      ToyCase({ToyVariant("v", [=](const Toy& toy, RankContext& to, int) {
        float* y = to.out("y").as<float>();
        for (int64_t i = begin; i < std::min(end, toy.count); ++i) {
          y[i] *= static_cast<float>(factor);
        }
        return OkStatus();
      })});
  c.name = std::move(name);  // Each case is asked once.
  c.exact = false;
  c.reference.block = [honest = c.reference.block, bounds](
                          const Toy& p, const Arithmetic& a, const Inputs& in,
                          const BlockQuery& q, std::span<Bounded> out) {
    honest(p, a, in, q, out);
    for (Bounded& b : out) bounds(p, b);
  };
  return c;
}

void ExpectRefused(const Case<Toy>& c, const Toy& toy, std::string_view what) {
  const Record r = RunToy(Erase(c), "v", toy);
  EXPECT_EQ(Name(r.verdict), Name(Verdict::kFailed)) << r.reason;
  EXPECT_NE(r.reason.find("blind: y: the tolerance is blind"),
            std::string::npos)
      << r.reason;
  EXPECT_NE(r.reason.find(what), std::string::npos) << r.reason;
}

// The gain of 200 elements would show zeros; that of the 25 which each of eight
// ranks compares does not.
TEST(Power, RefusesWhatOnlyAllRanksTogetherWouldSee) {
  ExpectRefused(Lenient("toy/lenient", Relative(1.05, 2), 0, 0, 200),
                {.count = 200, .ranks = 8}, "'all zero' would pass");
}

// Half of each value is missing, which is within the likely bound, and too few
// elements for their gain.
TEST(Power, RefusesWhereAScaleWouldPass) {
  ExpectRefused(Lenient("toy/scale", Relative(0.6, 0.9), 0.5, 0, 100),
                {.count = 100, .ranks = 2},
                "'divided by the ranks' would pass");
}

// One rank sees zeros, the other does not.
TEST(Power, RefusesWhereOneRankIsBlind) {
  Case<Toy> c = Lenient(
      "toy/one_rank", [](const Toy&, Bounded&) {}, 0, 50, 100);
  c.reference.block = [honest = c.reference.block](
                          const Toy& p, const Arithmetic& a, const Inputs& in,
                          const BlockQuery& q, std::span<Bounded> out) {
    honest(p, a, in, q, out);
    for (size_t i = 0; i < out.size(); ++i) {
      if (q.begin + static_cast<int64_t>(i) >= 50) Relative(2, 2)(p, out[i]);
    }
  };
  ExpectRefused(c, {.count = 100, .ranks = 2},
                "'all zero on rank 1' would pass");
}

// Zeros would show, a chunk of them would not. Every rank holds an output of
// its own and compares all of it.
TEST(Power, RefusesWhereAChunkCouldBeDropped) {
  Case<Toy> c = Lenient("toy/chunk", Relative(1.05, 2), 0, 0, 100);
  c.tensors = [](const Toy& p) -> Tensors {
    return {Input("x", p.dtype, {p.count}, PerRank())
                .Terms(ReduceOp::kSum, p.ranks),
            Output("y", p.dtype, {p.count}, PerRank())};
  };
  ExpectRefused(c, {.count = 300, .ranks = 3},
                "'chunk 0 dropped on rank 0' would pass");
}

// The first 5000 elements, more than are looked at, show nothing; the others do.
TEST(Power, LooksBeyondTheFirstElements) {
  Case<Toy> c = Lenient(
      "toy/first", [](const Toy&, Bounded&) {}, 1, 0, 0);
  c.reference.block = [honest = c.reference.block](
                          const Toy& p, const Arithmetic& a, const Inputs& in,
                          const BlockQuery& q, std::span<Bounded> out) {
    honest(p, a, in, q, out);
    for (size_t i = 0; i < out.size(); ++i) {
      if (q.begin + static_cast<int64_t>(i) < 5000) {
        Relative(100, 100)(p, out[i]);
      }
    }
  };
  const Record r = RunToy(Erase(c), "v", {.count = 20000});
  EXPECT_EQ(r.verdict, Verdict::kPassed) << r.reason;
}

// What is seen in 1000 elements need not be in 100.
TEST(Power, AsksAgainForOtherShapes) {
  const Bounds loose_below_1000 = [](const Toy& p, Bounded& b) {
    if (p.count < 1000) Relative(2, 2)(p, b);
  };
  const Case<Toy> c = Lenient("toy/shapes", loose_below_1000, 0, 0, 100);
  Case<Toy> honest = c;
  honest.variants = {ToyVariant("v")};
  EXPECT_EQ(RunToy(Erase(honest), "v", {.count = 1000, .ranks = 2}).verdict,
            Verdict::kPassed);
  ExpectRefused(c, {.count = 100, .ranks = 2}, "'all zero' would pass");
}

// Bounds as the references derive them hide nothing.
TEST(Power, RefusesNothingHonest) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int ranks : {1, 3, 16}) {
      for (const int64_t count : {24, 1000}) {
        Case<Toy> c = ToyCase({ToyVariant("v")});
        c.name = "toy/honest";
        const Record r = RunToy(
            Erase(c), "v", {.dtype = dtype, .count = count, .ranks = ranks});
        EXPECT_EQ(r.verdict, Verdict::kPassed) << r.reason;
      }
    }
  }
}

}  // namespace
}  // namespace shardproof
