#include "tools/harness/measure.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <map>
#include <mutex>
#include <numeric>

#include "tools/harness/rates.h"
#include "tools/harness/testing/toy_case.h"

namespace shardproof {
namespace {

using testing::ToyWorld;

void Busy(double us) {
  const auto start = std::chrono::steady_clock::now();
  while (std::chrono::duration<double>(std::chrono::steady_clock::now() - start)
             .count() < us * 1e-6) {
  }
}

// What each rank measured, and how often it ran.
struct Measured {
  std::mutex mutex;
  std::map<int, Timing> timing;
  std::map<int, int> calls;
};

void MeasureOn(int ranks, const std::function<void(int rank)>& work,
               const MeasureOptions& options, Measured& out) {
  const Status s = ToyWorld().Run(ranks, [&](const Communicator& comm) {
    int calls = 0;
    auto timing = Measure(
        comm, Stream::Inline(),
        [&] {
          ++calls;
          work(comm.rank());
          return OkStatus();
        },
        options);
    const std::lock_guard<std::mutex> lock(out.mutex);
    if (timing.ok()) out.timing[comm.rank()] = *timing;
    out.calls[comm.rank()] = calls;
    return timing.status();
  });
  ASSERT_TRUE(s.ok()) << s.ToString();
}

TEST(Measure, ASampleIsTheMaximumOverRanks) {
  Measured m;
  MeasureOptions options;
  options.warmup_seconds = 0.002;
  options.fixed_iterations = 12;
  options.fixed_warmup = 1;
  MeasureOn(
      2, [](int rank) { Busy(rank == 1 ? 400 : 100); }, options, m);
  const Timing& t = m.timing[0];
  EXPECT_EQ(t.samples_us.size(), 12U);
  // The slower rank decides; never is a sample shorter than its work.
  EXPECT_GE(t.min_us, 400);
  EXPECT_GE(t.per_rank_median_us[0], 100);
  EXPECT_GE(t.per_rank_median_us[1], 400);
  ASSERT_EQ(t.rank_samples_us.size(), 2U);
  ASSERT_EQ(t.rank_samples_us[0].size(), 12U);
  ASSERT_EQ(t.rank_samples_us[1].size(), 12U);
  for (size_t i = 0; i < 12; ++i) {
    EXPECT_EQ(t.samples_us[i],
              std::max(t.rank_samples_us[0][i], t.rank_samples_us[1][i]));
  }
  EXPECT_EQ(t.samples_us, m.timing[1].samples_us);
  EXPECT_EQ(t.operations_per_sample, 1);
  EXPECT_EQ(m.calls[0], 13);
  EXPECT_EQ(m.calls[0], m.calls[1]);
}

TEST(Measure, RanksAgreeOnHowOftenTheyRun) {
  for (const Cadence cadence : {Cadence::kIsolated, Cadence::kStreaming}) {
    Measured m;
    MeasureOptions options;
    options.cadence = cadence;
    options.warmup_seconds = 0.001;
    options.max_seconds = 0.005;
    MeasureOn(
        3, [](int rank) { Busy(rank + 1); }, options, m);
    EXPECT_EQ(m.calls[0], m.calls[1]);
    EXPECT_EQ(m.calls[0], m.calls[2]);
    EXPECT_EQ(m.timing[0].samples_us, m.timing[2].samples_us);
    // Too short to be timed one by one.
    EXPECT_GT(m.timing[0].operations_per_sample, 1);
    EXPECT_GE(m.timing[0].min_us, 3);
  }
}

TEST(Measure, StopsAtTheBudgetAndSaysSo) {
  Measured m;
  MeasureOptions options;
  options.warmup_seconds = 0.001;
  options.max_seconds = 0.01;
  options.min_samples = 5;
  options.target_relative_interval = 0;  // Cannot be reached.
  int k = 0;
  MeasureOn(
      1, [&k](int) { Busy(50 + (k++ % 7) * 20); }, options, m);
  EXPECT_FALSE(m.timing[0].target_reached);
  EXPECT_GE(m.timing[0].samples_us.size(), 5U);
  EXPECT_LT(m.timing[0].samples_us.size(), 1000U);
  const Timing& t = m.timing[0];
  EXPECT_LE(t.min_us, t.p10_us);
  EXPECT_LE(t.p10_us, t.median_us);
  EXPECT_LE(t.interval_low_us, t.median_us);
  EXPECT_GE(t.interval_high_us, t.median_us);
  EXPECT_LE(t.p90_us, t.max_us);
}

TEST(Measure, AnErrorOnOneRankEndsAllOfThem) {
  const Status s = ToyWorld().Run(2, [](const Communicator& comm) {
    int calls = 0;
    return Measure(comm, Stream::Inline(),
                   [&]() -> Status {
                     if (comm.rank() == 1 && ++calls > 3)
                       return Internal("broke");
                     return comm.Barrier();
                   },
                   {})
        .status();
  });
  EXPECT_EQ(s.code(), StatusCode::kInternal);
  EXPECT_NE(s.message().find("broke"), std::string_view::npos);
}

TEST(Rates, AreTheSameOnAllRanks) {
  std::mutex mutex;
  std::vector<MachineRates> all;
  const Status s = ToyWorld().Run(2, [&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(const MachineRates rates,
                        MeasureRates(comm, size_t{1} << 20));
    const std::lock_guard<std::mutex> lock(mutex);
    all.push_back(rates);
    return OkStatus();
  });
  ASSERT_TRUE(s.ok()) << s.ToString();
  ASSERT_EQ(all.size(), 2U);
  EXPECT_EQ(all[0].copy_bytes_per_second, all[1].copy_bytes_per_second);
  EXPECT_EQ(all[0].alpha_us, all[1].alpha_us);
  EXPECT_GT(all[0].copy_bytes_per_second, 0);
  EXPECT_GT(all[0].alpha_us, 0);
}

TEST(Rates, PredictAndBound) {
  const MachineRates rates{
      .alpha_us = 2, .copy_bytes_per_second = 1e9, .flops_per_second = 1e9};
  Cost cost;
  cost.alpha_count = 3;
  cost.beta_bytes = 1000;
  cost.gamma_bytes = 500;
  EXPECT_DOUBLE_EQ(rates.PredictUs(cost), 3 * 2 + 3.0);
  EXPECT_DOUBLE_EQ(rates.FloorUs({.copy_bytes = 4000}), 4);
  EXPECT_DOUBLE_EQ(rates.FloorUs({.copy_bytes = 4000, .flops = 9000}), 9);
}

}  // namespace
}  // namespace shardproof
