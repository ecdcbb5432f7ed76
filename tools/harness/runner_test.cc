// Mistakes that the runner must find, each planted once (numerics.md), and
// what it must not mistake for one.
#include "tools/harness/runner.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cmath>
#include <limits>
#include <memory>
#include <thread>

#include "tools/harness/testing/toy_case.h"
#include "tools/harness/testing/verdicts.h"

namespace shardproof {
namespace {

using testing::Contains;
using testing::Only;
using testing::RunSpoiled;
using testing::RunToy;
using testing::Spoil;
using testing::Toy;
using testing::ToyCase;
using testing::ToyVariant;

TEST(Runner, PassesWhatIsRight) {
  const CaseInfo info = Only(ToyVariant("good"));
  for (const int ranks : {1, 2, 3, 4, 5}) {
    auto instances = info.expand(Purpose::kVerify, ranks, {});
    ASSERT_TRUE(instances.ok());
    EXPECT_EQ(instances->size(), 3 * 5 * 2U);
    for (const Instance& instance : *instances) {
      const Record r =
          RunOnWorld(testing::ToyWorld(), info, info.variants[0], instance, {});
      EXPECT_VERDICT(r, Verdict::kPassed, "");
      ASSERT_TRUE(r.traffic.has_value());
      EXPECT_EQ(r.traffic->bytes, r.traffic->predicted_bytes);
    }
  }
}

TEST(Runner, ReportsFiguresOfAPass) {
  const Record r = RunSpoiled(nullptr, {.count = 1000, .ranks = 3});
  EXPECT_VERDICT(r, Verdict::kPassed, "");
  ASSERT_TRUE(r.error.has_value());
  EXPECT_EQ(r.error->tier, "bounded");
  // Three executions; of replicas each element is compared once.
  EXPECT_EQ(r.error->compared, 3 * 1000);
  EXPECT_GT(r.error->worst_ratio, 0);
  EXPECT_LE(r.error->worst_ratio, 1);
  EXPECT_NEAR(r.error->gain.value_or(0), 1, 1e-6);
  EXPECT_FALSE(r.time_us.has_value());
}

TEST(Runner, FindsOutputsThatAreNotWritten) {
  Variant<Toy> nothing = ToyVariant("v");
  nothing.bind = [](const Toy&, RankContext&) -> StatusOr<Operation> {
    return Operation([] { return OkStatus(); });
  };
  const CaseInfo info = Only(nothing);
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kI32}) {
    EXPECT_VERDICT(RunToy(info, "v", {.dtype = dtype, .ranks = 2}),
                   Verdict::kIncorrect, "still poison");
  }
}

TEST(Runner, FindsNan) {
  const Record r = RunSpoiled(
      [](const Toy&, RankContext& c, int) {
        c.out("y").as<float>()[3] = std::numeric_limits<float>::quiet_NaN();
        return OkStatus();
      },
      {.ranks = 2});
  EXPECT_VERDICT(r, Verdict::kIncorrect, "1 of 100 elements are wrong");
  ASSERT_FALSE(r.error->mismatches.empty());
  EXPECT_TRUE(std::isnan(r.error->mismatches[0].got));
}

TEST(Runner, FindsTheLastElementWrong) {
  for (const int64_t count : {1, 7, 100, 100003}) {
    const Record r = RunSpoiled(
        [](const Toy& p, RankContext& c, int) {
          c.out("y").as<float>()[p.count - 1] += 1;
          return OkStatus();
        },
        {.count = count, .ranks = 3});
    EXPECT_VERDICT(r, Verdict::kIncorrect, fmt::format("[{}]", count - 1));
    ASSERT_FALSE(r.error->mismatches.empty());
    EXPECT_EQ(r.error->mismatches[0].index, std::vector<int64_t>{count - 1});
  }
}

TEST(Runner, FindsOneRankWrong) {
  for (const int bad : {0, 1, 2}) {
    const Record r = RunSpoiled(
        [bad](const Toy&, RankContext& c, int) {
          if (c.comm().rank() == bad) c.out("y").as<float>()[50] *= 1.5F;
          return OkStatus();
        },
        {.ranks = 3});
    EXPECT_VERDICT(r, Verdict::kIncorrect, fmt::format("y on rank {}", bad));
    ASSERT_FALSE(r.error->mismatches.empty());
    EXPECT_EQ(r.error->mismatches[0].rank, bad);
  }
}

TEST(Runner, FindsInputsThatAreChanged) {
  const Record r = RunSpoiled(
      [](const Toy&, RankContext& c, int) {
        const_cast<float*>(c.in("x").as<float>())[99] += 1;
        return OkStatus();
      },
      {.ranks = 2});
  EXPECT_VERDICT(r, Verdict::kIncorrect, "input x was changed at [99]");
}

TEST(Runner, FindsWritesOutsideOfTheTensors) {
  for (const int64_t at : {int64_t{-1}, int64_t{100}, int64_t{120}}) {
    const Record r = RunSpoiled(
        [at](const Toy&, RankContext& c, int) {
          c.out("y").as<float>()[at] = 0;
          return OkStatus();
        },
        {.ranks = 2});
    EXPECT_VERDICT(r, Verdict::kIncorrect,
                   at < 0 ? "the memory before y" : "the memory behind y");
  }
}

// What differs is far below the tolerance, so only the bits tell.
Variant<Toy> Reversing(const std::function<bool(int rank, int call)>& when) {
  Variant<Toy> v = ToyVariant("v");
  v.bind = [when](const Toy& toy, RankContext& c) -> StatusOr<Operation> {
    auto calls = std::make_shared<int>(0);
    return Operation([=, &c] {
      return testing::ToySum(toy, c, when(c.comm().rank(), ++*calls));
    });
  };
  return v;
}

TEST(Runner, FindsNondeterminism) {
  Variant<Toy> v = Reversing([](int, int call) { return call % 2 == 0; });
  EXPECT_VERDICT(RunToy(Only(v), "v", {.count = 1000, .ranks = 3}),
                 Verdict::kIncorrect, "other bits");
  v.deterministic = false;  // Said so: then it is allowed.
  EXPECT_VERDICT(RunToy(Only(v), "v", {.count = 1000, .ranks = 3}),
                 Verdict::kPassed, "");
}

TEST(Runner, FindsReplicasThatDiffer) {
  const CaseInfo info =
      Only(Reversing([](int rank, int) { return rank == 1; }));
  EXPECT_VERDICT(RunToy(info, "v", {.count = 1000, .ranks = 3}),
                 Verdict::kIncorrect, "other bits on rank 1 than on rank 0");
}

TEST(Runner, FindsTrafficOffByOneMessage) {
  Variant<Toy> v = ToyVariant("v");
  v.cost = [](const Toy& p) {
    Cost cost = testing::ToyCost(p);
    cost.total.messages += 1;
    return cost;
  };
  EXPECT_VERDICT(RunToy(Only(v), "v", {.ranks = 3}), Verdict::kIncorrect,
                 "messages were counted");
  v.cost = [](const Toy& p) {
    Cost cost = testing::ToyCost(p);
    cost.total.bytes -= 4;
    return cost;
  };
  EXPECT_VERDICT(RunToy(Only(v), "v", {.ranks = 3}), Verdict::kIncorrect,
                 "2400 bytes in 6 messages were counted");
}

TEST(Runner, RefusesACaseThatIsBlind) {
  Case<Toy> c = ToyCase({ToyVariant("v")});
  c.name = "toy/blind";  // Each case is asked once.
  const auto honest = c.reference.block;
  c.exact = false;
  c.reference.block = [honest](const Toy& p, const Arithmetic& a,
                               const Inputs& in, const BlockQuery& q,
                               std::span<Bounded> out) {
    honest(p, a, in, q, out);
    for (Bounded& b : out) b.worst = b.likely = 1e3;
  };
  EXPECT_VERDICT(RunToy(Erase(c), "v", {.ranks = 2}), Verdict::kFailed,
                 "blind: y: the tolerance is blind: the fault 'all zero'");
  // Sees zeros, but not the smallest contribution.
  c.name = "toy/half_blind";
  c.reference.block = [honest](const Toy& p, const Arithmetic& a,
                               const Inputs& in, const BlockQuery& q,
                               std::span<Bounded> out) {
    honest(p, a, in, q, out);
    for (Bounded& b : out) b.worst = b.likely = 1.2;
  };
  EXPECT_VERDICT(RunToy(Erase(c), "v", {.ranks = 8}), Verdict::kFailed,
                 "dropped");
}

TEST(Runner, RefusesInputsThatHideMistakes) {
  Case<Toy> c = ToyCase({ToyVariant("v")});
  c.name = "toy/constant";
  c.tensors = [tensors = c.tensors](const Toy& p) {
    Tensors t = tensors(p);
    // Unsigned ones: neither the index nor the rank matters.
    t[0].data.exact = Distribution{.kind = Distribution::Kind::kPowerOfTwo,
                                   .dtype = DType::kU8,
                                   .magnitude = 0};
    t[0].dtype = t[1].dtype = DType::kU8;
    return t;
  };
  EXPECT_VERDICT(RunToy(Erase(c), "v", {.ranks = 2}), Verdict::kFailed,
                 "blind: input x of rank 0 repeats itself");
}

TEST(Runner, NeverCountsARefusalAsAPass) {
  Variant<Toy> v = ToyVariant("v");
  v.refuses = [](const Toy&) -> std::optional<std::string> {
    return "the moon is full";
  };
  EXPECT_VERDICT(RunToy(Only(v), "v", {.ranks = 2}), Verdict::kUnsupported,
                 "the moon is full");
  v = ToyVariant("v");
  v.needs = kPowerOfTwoRanks;
  EXPECT_VERDICT(RunToy(Only(v), "v", {.ranks = 3}), Verdict::kUnsupported,
                 "power of two");
  v = ToyVariant("v");
  v.bind = [](const Toy&, RankContext&) -> StatusOr<Operation> {
    return Operation([] { return Unsupported("no such operation here"); });
  };
  EXPECT_VERDICT(RunToy(Only(v), "v", {.ranks = 2}), Verdict::kUnsupported,
                 "no such operation here");
}

TEST(Runner, AgreesWhenOneRankCannotBind) {
  Variant<Toy> v = ToyVariant("v");
  const auto bind = v.bind;
  v.bind = [bind](const Toy& p, RankContext& c) -> StatusOr<Operation> {
    if (c.comm().rank() == 1) return Unavailable("no room on this rank");
    return bind(p, c);
  };
  EXPECT_VERDICT(RunToy(Only(v), "v", {.ranks = 3}), Verdict::kFailed,
                 "rank 1: no room on this rank");
  EXPECT_VERDICT(RunSpoiled(nullptr, {.ranks = 3}), Verdict::kPassed, "");
}

TEST(Runner, AgreesWhenOneRankFailsAfterwards) {
  const Record r = RunSpoiled(
      [](const Toy&, RankContext& c, int call) -> Status {
        if (c.comm().rank() == 1 && call == 2) return Internal("it broke");
        return OkStatus();
      },
      {.ranks = 3});
  EXPECT_VERDICT(r, Verdict::kFailed, "rank 1: it broke");
  EXPECT_VERDICT(RunSpoiled(nullptr, {.ranks = 3}), Verdict::kPassed, "");
}

// Whoever found it: that other ranks fail comes of it.
TEST(Runner, DamageIsAWrongResult) {
  const Record r = RunSpoiled(
      [](const Toy&, RankContext& c, int /*call*/) -> Status {
        return c.comm().rank() == 1 ? DataLoss("written beside")
                                    : Internal("left alone");
      },
      {.ranks = 2});
  EXPECT_VERDICT(r, Verdict::kIncorrect, "rank 1: written beside");
}

TEST(Runner, DoesNotHangWhenOneRankLeavesTheOthersWaiting) {
  Variant<Toy> v = ToyVariant("v");
  const auto bind = v.bind;
  v.bind = [bind](const Toy& p, RankContext& c) -> StatusOr<Operation> {
    SP_ASSIGN_OR_RETURN(Operation sum, bind(p, c));
    return Operation([sum, &c]() -> Status {
      if (c.comm().rank() == 1) return Internal("it broke");
      return sum();
    });
  };
  RunOptions options;
  options.grace_seconds = 0.05;
  EXPECT_VERDICT(RunToy(Only(v), "v", {.ranks = 3}, options), Verdict::kFailed,
                 "it broke; after 0.05 s other ranks had not returned");
  EXPECT_VERDICT(RunSpoiled(nullptr, {.ranks = 3}), Verdict::kPassed, "");
}

TEST(Runner, EndsAHangThatSomeoneAborts) {
  Variant<Toy> v = ToyVariant("v");
  const auto bind = v.bind;
  v.bind = [bind](const Toy& p, RankContext& c) -> StatusOr<Operation> {
    SP_ASSIGN_OR_RETURN(Operation sum, bind(p, c));
    return Operation(
        [sum, &c] { return c.comm().rank() == 1 ? OkStatus() : sum(); });
  };
  World& world = testing::ToyWorld();
  std::vector<std::string> whereabouts;
  std::thread watchdog([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(200));
    whereabouts = world.Whereabouts();
    world.Abort("the watchdog barked");
  });
  const Record r = RunToy(Only(v), "v", {.ranks = 3});
  watchdog.join();
  EXPECT_VERDICT(r, Verdict::kFailed, "the watchdog barked");
  ASSERT_EQ(whereabouts.size(), 3U);
  EXPECT_TRUE(Contains(whereabouts[0], "rank 0: is in #")) << whereabouts[0];
  EXPECT_TRUE(Contains(whereabouts[0], "toy/sum")) << whereabouts[0];
  EXPECT_TRUE(Contains(whereabouts[1], "rank 1: never entered #"))
      << whereabouts[1];
  EXPECT_VERDICT(RunSpoiled(nullptr, {.ranks = 3}), Verdict::kPassed, "");
}

// Within the certain bound and beyond the likely one, on data that are not
// integers.
TEST(Runner, CallsWhatIsUnlikelySuspect) {
  Case<Toy> c =
      ToyCase({ToyVariant("v", [](const Toy&, RankContext& context, int) {
        float& y = context.out("y").as<float>()[5];
        if (y != std::floor(y)) y += 1e-4F;
        return OkStatus();
      })});
  c.reference.block = [honest = c.reference.block](
                          const Toy& p, const Arithmetic& a, const Inputs& in,
                          const BlockQuery& q, std::span<Bounded> out) {
    honest(p, a, in, q, out);
    for (Bounded& b : out) b.worst = 1e-3;
  };
  // So many elements that the gain does not show it.
  EXPECT_VERDICT(RunToy(Erase(c), "v", {.count = 10000, .ranks = 2}),
                 Verdict::kSuspect, "beyond the likely bound");
}

// Each element is within its bound: only all of them together are not.
TEST(Runner, FindsAGradientOfTheWrongScale) {
  Case<Toy> c =
      ToyCase({ToyVariant("v", [](const Toy& toy, RankContext& context, int) {
        float* y = context.out("y").as<float>();
        const bool random = y[5] != std::floor(y[5]);
        for (int64_t i = 0; random && i < toy.count; ++i) y[i] *= 1.003F;
        return OkStatus();
      })});
  c.tensors = [honest = c.tensors](const Toy& p) {
    Tensors tensors = honest(p);
    tensors.back().Gradient();
    return tensors;
  };
  c.reference.block = [honest = c.reference.block](
                          const Toy& p, const Arithmetic& a, const Inputs& in,
                          const BlockQuery& q, std::span<Bounded> out) {
    honest(p, a, in, q, out);
    for (Bounded& b : out) {
      b.likely2 = 0;
      b.worst = b.likely = 0.01 * std::abs(b.value);
    }
  };
  EXPECT_VERDICT(RunToy(Erase(c), "v", {.count = 10000, .ranks = 2}),
                 Verdict::kIncorrect, "all are scaled by 1.003");
}

TEST(Runner, SaysInOneLineHowToSeeItAgain) {
  const Record r = RunSpoiled(
      [](const Toy&, RankContext& c, int) {
        c.out("y").as<float>()[0] += 1;
        return OkStatus();
      },
      {.count = 7, .ranks = 2}, {.seed = 9, .ordinary_memory = true});
  EXPECT_EQ(r.repro,
            "shardproof verify --backend thread --ranks 2 --filter "
            "'^toy/all_reduce$' --variant v --axis dtype=f32 --axis count=7 "
            "--axis in_place=false --seed 9 --memory ordinary");
  EXPECT_EQ(r.repro.find('\n'), std::string::npos);
}

TEST(Runner, SaysWhichRankIsMissing) {
  Variant<Toy> v = ToyVariant("v");
  v.bind = [](const Toy& toy, RankContext& c) -> StatusOr<Operation> {
    return Operation([&c, toy]() -> Status {
      SP_RETURN_IF_ERROR(testing::ToySum(toy, c));
      // Takes rank 1 out again, by way of what it would have sent.
      std::vector<float> x(static_cast<size_t>(toy.count));
      if (c.comm().rank() == 1) {
        std::copy_n(c.in("x").as<float>(), x.size(), x.begin());
        for (const int to : {0, 2}) {
          SP_RETURN_IF_ERROR(c.comm().Send(x.data(), x.size() * 4, to));
        }
      } else {
        SP_RETURN_IF_ERROR(c.comm().Recv(x.data(), x.size() * 4, 1));
      }
      for (size_t i = 0; i < x.size(); ++i) c.out("y").as<float>()[i] -= x[i];
      return OkStatus();
    });
  };
  v.cost = nullptr;
  EXPECT_VERDICT(RunToy(Only(v), "v", {.ranks = 3}), Verdict::kIncorrect,
                 "rank 1 missing everywhere");
}

}  // namespace
}  // namespace shardproof
