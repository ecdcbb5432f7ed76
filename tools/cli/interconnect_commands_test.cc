#include "tools/cli/interconnect_commands.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "tools/cli/congestion.h"
#include "tools/cli/fit_group.h"
#include "tools/cli/machine_model.h"
#include "tools/cli/tuning_check.h"

namespace shardproof {
namespace {

TEST(SizesOf, GoesUpByTheFactor) {
  Options options;
  EXPECT_EQ(*SizesOf(options, 8, 64, 2), (std::vector<int64_t>{8, 16, 32, 64}));
  options.min_bytes = "1K";
  options.max_bytes = "20K";
  options.step_factor = "4";
  EXPECT_EQ(*SizesOf(options, 8, 64, 2),
            (std::vector<int64_t>{1024, 4096, 16384}));
  // Only one of the two given.
  options = Options();
  options.min_bytes = "1M";
  EXPECT_EQ(*SizesOf(options, 8, 64, 2), std::vector<int64_t>{1 << 20});
  options = Options();
  options.max_bytes = "4";
  EXPECT_EQ(*SizesOf(options, 8, 64, 2), std::vector<int64_t>{4});
}

TEST(SizesOf, RefusesWhatDoesNotGoUp) {
  for (const auto& [low, high, factor] :
       std::vector<std::array<std::string, 3>>{{"0", "8", "2"},
                                               {"16", "8", "2"},
                                               {"8", "16", "1"},
                                               {"8", "16", "x"},
                                               {"many", "16", "2"},
                                               {"8", "-1", "2"}}) {
    Options options;
    options.min_bytes = low;
    options.max_bytes = high;
    options.step_factor = factor;
    EXPECT_EQ(SizesOf(options, 8, 64, 2).status().code(),
              StatusCode::kInvalidArgument)
        << low << " " << high << " " << factor;
  }
}

TEST(RateText, HasThreeDigits) {
  EXPECT_EQ(RateText(1e6, 40000), "25 MB/s");
  EXPECT_EQ(RateText(1e6, 80), "12.5 GB/s");
  EXPECT_EQ(RateText(1e6, 0), "any rate");
}

// --- Groups ------------------------------------------------------------------

// A case of two variants, by hand.
struct Fixture {
  CaseInfo info;
  std::map<FitKey, FitGroup> groups;

  Fixture() {
    info.name = "collectives/all_reduce";
    info.bytes = [](const Instance& i) {
      return int64_t{4} * std::stoll(i.values[1].second);
    };
    for (const char* name : {"auto", "ring", "recursive_doubling", "native"}) {
      ErasedVariant v;
      v.name = name;
      v.native = v.name == "native";
      v.cost = [name = v.name](const Instance& i) -> std::optional<Cost> {
        if (name == "auto" || name == "native") return std::nullopt;
        const double bytes = 4.0 * std::stod(i.values[1].second);
        return name == "ring" ? Cost{6, 1.5 * bytes, 0.75 * bytes, {}}
                              : Cost{2, 2 * bytes, 2 * bytes, {}};
      };
      info.variants.push_back(v);
    }
  }

  void Add(const std::string& variant, int64_t count, double us) {
    Instance instance{.params = {},
                      .values = {{"dtype", "f32"},
                                 {"count", std::to_string(count)},
                                 {"op", "sum"}},
                      .ranks = 4};
    Record record{.case_name = info.name,
                  .variant = variant,
                  .backend = "mpi",
                  .ranks = 4,
                  .params = instance.values,
                  .verdict = Verdict::kPassed,
                  .native = variant == "native"};
    record.time_us = Record::Time{
        .median = us, .interval_low = us, .interval_high = us, .samples = 7};
    AddToGroup({&info, info.FindVariant(variant), instance}, record, groups);
  }
  FitGroup& group() { return groups.begin()->second; }
  const FitKey& key() const { return groups.begin()->first; }

  // ring: 60 us and 1 ns a byte; recursive doubling: 20 us and 3 ns. They meet
  // at 20000 bytes. The rounds differ by 1 percent.
  void Fill() {
    for (const double round : {0.99, 1.0, 1.01}) {
      for (int64_t count = 64; count <= 65536; count *= 4) {
        const double bytes = 4.0 * static_cast<double>(count);
        Add("auto", count, 1 * round);
        Add("native", count, 2 * round);
        Add("ring", count, (60 + 1e-3 * bytes) * round);
        Add("recursive_doubling", count, (20 + 3e-3 * bytes) * round);
      }
    }
    Finish(group());
  }
};

TEST(FitGroup, ARoundIsOneMoreMedianOfTheSamePoint) {
  Fixture f;
  f.Fill();
  ASSERT_EQ(f.groups.size(), 1u);
  EXPECT_EQ(f.key().params, "dtype=f32 op=sum");
  const FitGroup::Measured& ring = f.group().variants.at("ring");
  ASSERT_EQ(ring.curve.points.size(), 6u);
  const Curve::Point& p = ring.curve.points[0];
  EXPECT_EQ(p.cost.bytes, 256);
  EXPECT_EQ(ring.argument_bytes[0], 256);
  EXPECT_EQ(p.blocks_us.size(), 3u);
  EXPECT_NEAR(p.cost.time_us, 60.256, 1e-9);
  EXPECT_NEAR(p.low_us, 0.99 * 60.256, 1e-9);
  EXPECT_NEAR(p.high_us, 1.01 * 60.256, 1e-9);
  EXPECT_TRUE(ring.costed);
  EXPECT_EQ(p.cost.alpha_count, 6);
  EXPECT_EQ(p.cost.beta_bytes, 1.5 * 256);
  EXPECT_FALSE(f.group().variants.at("auto").costed);
  EXPECT_TRUE(f.group().variants.at("native").native);
}

TEST(FitGroup, CrossoversAndWinnersAreOfOurAlgorithms) {
  Fixture f;
  f.Fill();
  const auto crossovers = CrossoversOf(f.key(), f.group(), "mpi", 1);
  ASSERT_EQ(crossovers.size(), 1u);
  EXPECT_EQ(crossovers[0].from, "recursive_doubling");
  EXPECT_EQ(crossovers[0].to, "ring");
  // Between 16384 and 65536 the lines are over logarithms, not over bytes.
  EXPECT_GT(crossovers[0].bytes, 16384);
  EXPECT_LT(crossovers[0].bytes, 30000);
  const auto winners = WinnersOf(f.group());
  ASSERT_EQ(winners.size(), 2u);
  EXPECT_EQ(winners[0].variant, "recursive_doubling");
  EXPECT_EQ(winners[1].variant, "ring");
  EXPECT_EQ(winners[1].argument_bytes, 65536);
  EXPECT_EQ(WinnersSentence(f.key(), f.group()),
            "collectives/all_reduce (dtype=f32 op=sum) on 4 ranks: fastest is "
            "recursive_doubling, ring from 64 KiB on");
}

TEST(FitGroup, TheTableStartsAtNothing) {
  Fixture f;
  f.Fill();
  f.group().shared = false;
  EXPECT_EQ(TuningOf(f.groups).Text(),
            "# shardproof tuning 1\n"
            "all_reduce messages 4 0 recursive_doubling\n"
            "all_reduce messages 4 65536 ring\n");
  FitGroup other = f.group();
  f.groups.clear();
  f.groups[{.case_name = "layers/mlp", .ranks = 4}] = other;
  f.groups[{.case_name = "collectives/all_reduce_v", .ranks = 4}] = other;
  EXPECT_TRUE(TuningOf(f.groups).rows().empty());
}

TEST(FitGroup, WhatIsNotFasterBeyondNoiseDoesNotWin) {
  Fixture f;
  for (const double round : {0.9, 1.0, 1.1}) {
    f.Add("ring", 64, 10 * round);
    f.Add("recursive_doubling", 64, 20 * round);
    f.Add("ring", 256, 20.5 * round);
    f.Add("recursive_doubling", 256, 20 * round);
  }
  Finish(f.group());
  ASSERT_EQ(WinnersOf(f.group()).size(), 1u);
  EXPECT_EQ(WinnersOf(f.group())[0].variant, "ring");
}

// --- Predictions -------------------------------------------------------------

TEST(MachineModel, PredictsByThePieceOfTheMeanMessage) {
  MachineModel model;
  const auto piece = [](int64_t from, int64_t to, double alpha, double beta) {
    Piecewise::Piece p{.from_bytes = from, .to_bytes = to};
    p.fit.alpha_us.value = alpha;
    p.fit.beta_us_per_mib.value = beta;
    return p;
  };
  model.messages.pieces = {piece(1, 1024, 5, 1000),
                           piece(2048, 1 << 24, 50, 100)};
  model.gamma_us_per_mib = 10;
  const double mib = 1 << 20;
  EXPECT_DOUBLE_EQ(model.PredictUs({6, 6 * 1000, 3000, {}}, false),
                   6 * 5 + (6000 * 1000 + 3000 * 10) / mib);
  EXPECT_DOUBLE_EQ(model.PredictUs({6, 6 * 4096, 0, {}}, false),
                   6 * 50 + 6 * 4096 * 100 / mib);
  EXPECT_TRUE(std::isnan(model.PredictUs({1, 1, 0, {}}, true)));
  model.memory = Piecewise{.pieces = {piece(1, 1024, 1, 20)}};
  EXPECT_DOUBLE_EQ(model.PredictUs({1, 3000, 3000, {}}, true),
                   1 + 3000 * 20 / mib);
}

TEST(BlockMedians, AreOfConsecutiveSamples) {
  EXPECT_EQ(BlockMedians({1, 2, 3, 4, 5, 6}, 5), (std::vector<double>{2, 5}));
  EXPECT_EQ(BlockMedians({3, 1}, 5), std::vector<double>{2});
  EXPECT_TRUE(BlockMedians({}, 5).empty());
  EXPECT_EQ(BlockMedians(std::vector<double>(100, 1.0), 5).size(), 5u);
}

TEST(DescribeFit, GivesErrorsOfTheFitAndOfThePrediction) {
  Curve curve;
  for (int64_t n = 1024; n <= 1 << 20; n *= 4) {
    const double us = 10 + 100.0 * static_cast<double>(n) / (1 << 20);
    curve.points.push_back({.cost = {.bytes = n,
                                     .beta_bytes = static_cast<double>(n),
                                     .time_us = us},
                            .low_us = us,
                            .high_us = us,
                            .blocks_us = {us}});
  }
  const auto pieces = FitCurve(curve);
  ASSERT_TRUE(pieces.ok()) << pieces.status().ToString();
  const Fit none = DescribeFit(curve, *pieces);
  EXPECT_TRUE(std::isnan(none.worst_prediction_error));
  EXPECT_LT(none.worst_error, 1e-9);
  const Fit half = DescribeFit(
      curve, *pieces, [](const auto& p) { return p.cost.time_us / 2; });
  EXPECT_DOUBLE_EQ(half.worst_prediction_error, 0.5);
  EXPECT_DOUBLE_EQ(half.median_prediction_error, 0.5);
  EXPECT_NEAR(half.half_bandwidth_bytes, 0.1 * (1 << 20), 1);
}

TEST(Combine, LeavesOutTheRoundThatWasDisturbed) {
  const auto round = [](double us) {
    PairTimes t;
    t.latency = {.median_us = us, .low_us = 0.98 * us, .high_us = 1.02 * us};
    t.forward = {t.latency};
    return t;
  };
  const PairTimes t = Combine({round(100), round(1000), round(102)});
  EXPECT_EQ(t.latency.median_us, 102);
  ASSERT_EQ(t.forward.size(), 1u);
  // 1.4826 * 2 us between the rounds, and 1.04 us of each.
  EXPECT_NEAR(t.forward[0].RelativeError(), std::hypot(2.9652, 1.0408) / 102,
              1e-4);
  EXPECT_EQ(Combine({round(7)}).latency.median_us, 7);
}

// --- Congestion --------------------------------------------------------------

MessageTime Time(double us) {
  return {.median_us = us, .low_us = 0.99 * us, .high_us = 1.01 * us};
}

TEST(Bottlenecks, TellsASlowLinkFromASharedOne) {
  Congestion c{.bytes = 1000000,
               .ranks = 4,
               .places = {"a", "b", "c", "d"},
               .alone = {Time(40000), Time(40000)},
               .together = {Time(40000), Time(80000)}};
  auto found = Bottlenecks(c);
  ASSERT_EQ(found.size(), 1u);
  EXPECT_EQ(found[0],
            "2 pairs at once take 2 times as long as the slowest of them "
            "alone: they share a bottleneck of 25 MB/s");
  c.together[1] = Time(40000);
  c.alone[1] = Time(160000);
  c.together[1] = Time(160000);
  found = Bottlenecks(c);
  ASSERT_EQ(found.size(), 2u);
  EXPECT_EQ(
      found[0],
      "the pair 1 -> 3 (b, d) is the slowest even alone, 6.25 MB/s, where "
      "0 -> 2 (a, c) has 25 MB/s: what goes over both waits for it");
  EXPECT_NE(found[1].find("share no bottleneck"), std::string::npos);
  const auto points = PointsOf(c, "mpi");
  ASSERT_EQ(points.size(), 2u);
  EXPECT_EQ(points[1].ranks, 4);
  EXPECT_EQ(points[1].ideal_us, 160000);
  EXPECT_EQ(points[1].efficiency, 1);
  EXPECT_TRUE(Bottlenecks({}).empty());
}

// --- Tables ------------------------------------------------------------------

TEST(CheckTuning, NamesAPrimitiveThatReadsNone) {
  const TuningTable table({{.primitive = "send_recv",
                            .shared = true,
                            .ranks = 2,
                            .variant = "direct"}});
  EXPECT_NE(CheckTuning(table).message().find("no primitive \"send_recv\""),
            std::string::npos);
}

}  // namespace
}  // namespace shardproof
