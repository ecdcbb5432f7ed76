// Mistakes that the runner must find around the clock: in what is timed, and in
// what is left afterwards.
#include <gtest/gtest.h>

#include <functional>
#include <memory>
#include <string_view>
#include <utility>

#include "tools/harness/runner.h"
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
using testing::ToyVariant;

TEST(RunnerTiming, FindsABenchmarkThatGoesWrongAfterWarmUp) {
  const Spoil later = [](const Toy&, RankContext& c, int call) {
    if (call > 20) c.out("y").as<float>()[0] += 1;
    return OkStatus();
  };
  RunOptions options;
  EXPECT_VERDICT(RunSpoiled(later, {.ranks = 2}, options), Verdict::kPassed,
                 "");
  options.measure = true;
  options.timing = {.warmup_seconds = 0.001, .max_seconds = 0.01};
  for (const int i : {0, 1, 2, 3}) {
    options.passed_before =
        i < 2 ? PassedBefore::kNowhere : PassedBefore::kElsewhere;
    const Record r =
        RunSpoiled(later, {.in_place = i % 2 == 1, .ranks = 2}, options);
    EXPECT_VERDICT(r, Verdict::kIncorrect, "after timing");
    EXPECT_FALSE(r.time_us.has_value());
    EXPECT_FALSE(r.algbw_gbps.has_value());
  }
}

TEST(RunnerTiming, VerifiesLessOfWhatPassedBefore) {
  int calls = 0;
  const Spoil count = [&calls](const Toy&, RankContext& c, int call) {
    if (c.comm().rank() == 0) calls = call;
    return OkStatus();
  };
  RunOptions options;
  options.measure = true;
  options.timing = {.fixed_iterations = 5, .fixed_warmup = 0};
  const auto calls_if = [&](PassedBefore passed) {
    options.passed_before = passed;
    EXPECT_VERDICT(RunSpoiled(count, {.ranks = 2}, options), Verdict::kPassed,
                   "");
    return calls;
  };
  const int here = calls_if(PassedBefore::kHere);
  // Both tiers.
  EXPECT_EQ(calls_if(PassedBefore::kElsewhere), here + 1);
  // Three repeats of two tiers, one of them twice, and one after timing.
  EXPECT_EQ(calls_if(PassedBefore::kNowhere), here - 1 + 3 + 3 + 1 + 1);
}

// Does `spoil` where the operation is timed, and nothing before and after it:
// only there the same inputs come again and again.
Spoil WhileTimed(std::function<void(const Toy&, RankContext&)> spoil) {
  return [spoil = std::move(spoil)](const Toy& toy, RankContext& c, int) {
    thread_local float last = 0;
    thread_local int times = 0;
    const float* x = c.in("x").as<float>();
    times = x[0] == last ? times + 1 : 1;
    last = x[0];
    if (times > 3) spoil(toy, c);
    return OkStatus();
  };
}

struct TimedFault {
  std::string_view found;
  std::function<void(const Toy&, RankContext&)> spoil;
};

TEST(RunnerTiming, FindsWhatIsWrongOnlyWhileItIsTimed) {
  const TimedFault faults[] = {
      {"(ranks 0, 1 are wrong)",
       [](const Toy& toy, RankContext& c) {
         c.out("y").as<float>()[toy.count - 1] += 1;
       }},
      // Of a replica, each rank compares a part: not this one.
      {"y on rank 0: 1 of 100 elements are wrong",
       [](const Toy& toy, RankContext& c) {
         if (c.comm().rank() == 0) c.out("y").as<float>()[toy.count - 1] += 1;
       }},
      {"the memory behind y was overwritten",
       [](const Toy& toy, RankContext& c) {
         c.out("y").as<float>()[toy.count] = 0;
       }},
      {"input x was changed",
       [](const Toy& toy, RankContext& c) {
         const_cast<float*>(c.in("x").as<float>())[toy.count - 1] += 0.5F;
       }},
  };
  RunOptions options;
  options.measure = true;
  options.timing = {.fixed_iterations = 5, .fixed_warmup = 5};
  for (const TimedFault& fault : faults) {
    for (const PassedBefore passed :
         {PassedBefore::kNowhere, PassedBefore::kElsewhere,
          PassedBefore::kHere}) {
      options.passed_before = passed;
      ++options.seed;  // Other inputs than before.
      const Record r =
          RunSpoiled(WhileTimed(fault.spoil), {.ranks = 2}, options);
      EXPECT_VERDICT(r, Verdict::kIncorrect, "after timing");
      EXPECT_TRUE(Contains(r.reason, fault.found)) << r.reason;
    }
  }
}

// What came of the same inputs before is in the outputs, and is right.
TEST(RunnerTiming, FindsWhatDoesNothingWhileItIsTimed) {
  Variant<Toy> once = ToyVariant("v");
  once.bind = [](const Toy& toy, RankContext& c) -> StatusOr<Operation> {
    auto last = std::make_shared<float>(0);
    return Operation([=, &c]() -> Status {
      const float x = c.in("x").as<float>()[0];
      return std::exchange(*last, x) == x ? OkStatus()
                                          : testing::ToySum(toy, c);
    });
  };
  RunOptions options;
  options.measure = true;
  options.timing = {.fixed_iterations = 5, .fixed_warmup = 5};
  options.passed_before = PassedBefore::kHere;
  const Record r = RunToy(Only(once), "v", {.ranks = 2}, options);
  EXPECT_VERDICT(r, Verdict::kIncorrect, "after timing");
  EXPECT_TRUE(Contains(r.reason, "still poison")) << r.reason;
}

TEST(RunnerTiming, MeasuresWhatIsRight) {
  RunOptions options;
  options.measure = true;
  options.timing = {.warmup_seconds = 0.001, .max_seconds = 0.01};
  const Record r = RunSpoiled(nullptr, {.count = 1000, .ranks = 2}, options);
  EXPECT_VERDICT(r, Verdict::kPassed, "");
  ASSERT_TRUE(r.time_us.has_value());
  EXPECT_GT(r.time_us->median, 0);
  EXPECT_EQ(r.time_us->per_rank_median.size(), 2U);
  ASSERT_TRUE(r.algbw_gbps.has_value());
  EXPECT_DOUBLE_EQ(*r.algbw_gbps, 4000 / r.time_us->median * 1e-3);
  EXPECT_DOUBLE_EQ(*r.busbw_gbps, *r.algbw_gbps);
}

}  // namespace
}  // namespace shardproof
