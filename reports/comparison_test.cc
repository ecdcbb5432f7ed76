#include "reports/comparison.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "reports/calibration.h"

namespace shardproof {
namespace {

using Json = nlohmann::ordered_json;

Comparison Full() {
  return {.key = "collectives/all_reduce ring thread 4 dtype=f32",
          .case_name = "collectives/all_reduce",
          .variant = "ring",
          .backend = "thread",
          .params = "dtype=f32",
          .ranks = 4,
          .change = Change::kRegressed,
          .reason = "5 percent slower",
          .base_us = 100.5,
          .cand_us = 105.25,
          .effect = 0.05,
          .interval_low = 0.04,
          .interval_high = 0.06,
          .hodges_lehmann = 0.049,
          .p = 1e-5,
          .sign_flip_p = 1.0 / 1024,
          .adjusted_p = 1e-4,
          .margin = 0.02,
          .suspect = true,
          .screened_pairs = 5,
          .pairs = 10,
          .more_pairs = 7,
          .more_seconds = 12.5,
          .base_launches = {1, 2, 3},
          .cand_launches = {1.5, 2.5, 3.5},
          .repro = "shardproof ab --filter x"};
}

TEST(Comparison, ReadsBackWhatItWrites) {
  const auto again = ComparisonFromJson(Json::parse(ToJson(Full()).dump()));
  ASSERT_TRUE(again.ok()) << again.status().ToString();
  EXPECT_EQ(*again, Full());
  const Comparison bare{.key = "k"};
  const auto bare_again = ComparisonFromJson(ToJson(bare));
  ASSERT_TRUE(bare_again.ok()) << bare_again.status().ToString();
  EXPECT_EQ(*bare_again, bare);
  EXPECT_FALSE(ToJson(bare).contains("more_pairs"));
}

TEST(Comparison, WritesEveryMember) {
  // A member that is not written would come back as its default.
  const Comparison full = Full();
  const Json json = ToJson(full);
  EXPECT_EQ(json.size(), 26U);
  for (const auto& [key, value] : json.items()) {
    Json without = json;
    without.erase(key);
    const auto again = ComparisonFromJson(without);
    EXPECT_TRUE(!again.ok() || *again != full) << key;
  }
}

TEST(Comparison, KeepsNanAndInfinity) {
  Comparison c = Full();
  c.interval_high = std::numeric_limits<double>::infinity();
  c.interval_low = -c.interval_high;
  c.effect = std::numeric_limits<double>::quiet_NaN();
  c.base_launches[1] = std::numeric_limits<double>::quiet_NaN();
  const auto again = ComparisonFromJson(Json::parse(ToJson(c).dump()));
  ASSERT_TRUE(again.ok()) << again.status().ToString();
  EXPECT_EQ(again->interval_low, c.interval_low);
  EXPECT_EQ(again->interval_high, c.interval_high);
  EXPECT_TRUE(std::isnan(again->effect));
  EXPECT_TRUE(std::isnan(again->base_launches[1]));
}

void ExpectRefused(const Json& json, std::string_view named) {
  const auto c = ComparisonFromJson(json);
  ASSERT_FALSE(c.ok()) << named;
  EXPECT_EQ(c.status().code(), StatusCode::kInvalidArgument);
  EXPECT_NE(c.status().message().find(named), std::string_view::npos)
      << c.status().ToString();
}

TEST(Comparison, NamesTheMemberThatIsWrong) {
  for (const char* key :
       {"key", "case", "variant", "backend", "ranks", "change", "reason"}) {
    Json json = ToJson(Full());
    json.erase(key);
    ExpectRefused(json, key);
    json[key] = Json::array();
    ExpectRefused(json, key);
  }
  Json json = ToJson(Full());
  json["change"] = "splendid";
  ExpectRefused(json, "splendid");
  json = ToJson(Full());
  json["ranks"] = 0;
  ExpectRefused(json, "ranks");
  json = ToJson(Full());
  json["base_launches"] = {1, "two"};
  ExpectRefused(json, "base_launches");
  ExpectRefused(Json::array(), "object");
}

TEST(Comparison, NamesAreReadBack) {
  for (int i = 0; i < 5; ++i) {
    const auto change = static_cast<Change>(i);
    const auto again = ParseChange(Name(change));
    ASSERT_TRUE(again.ok());
    EXPECT_EQ(*again, change);
  }
  EXPECT_FALSE(ParseChange("Regressed").ok());
}

Calibration Measured() {
  return {.machine = "0123456789abcdef",
          .measured = "2026-11-22T11:00:00Z",
          .seconds = 1800,
          .cases = 12,
          .null_verdicts = 300,
          .false_alarms = 1,
          .false_alarms_high = 0.0157,
          .noise = 0.013,
          .power = {{0.02, 50, 11, 0.129, 0.021},
                    {0.05, 50, 49, 0.909, 0.051},
                    {0.1, 50, 50, 0.942, 0.1}}};
}

TEST(Calibration, ReadsBackWhatItWrites) {
  const auto again =
      CalibrationFromJson(Json::parse(ToJson(Measured()).dump()));
  ASSERT_TRUE(again.ok()) << again.status().ToString();
  EXPECT_EQ(*again, Measured());
  const auto bare = CalibrationFromJson(ToJson(Calibration{}));
  ASSERT_TRUE(bare.ok());
  EXPECT_EQ(*bare, Calibration{});
}

TEST(Calibration, RefusesWhatCannotBe) {
  const auto refused = [](auto change, std::string_view named) {
    Json json = ToJson(Measured());
    change(json);
    const auto c = CalibrationFromJson(json);
    EXPECT_FALSE(c.ok());
    EXPECT_NE(c.status().message().find(named), std::string_view::npos)
        << c.status().ToString();
  };
  for (const char* key :
       {"machine", "measured", "null_verdicts", "false_alarms", "noise"}) {
    refused([&](Json& j) { j.erase(key); }, key);
  }
  refused([](Json& j) { j["false_alarms"] = 301; }, "false_alarms");
  refused([](Json& j) { j["power"] = 7; }, "power");
  refused([](Json& j) { j["power"][1]["found"] = 51; }, "found");
  refused([](Json& j) { j["power"][0].erase("trials"); }, "trials");
  EXPECT_FALSE(CalibrationFromJson(Json::array()).ok());
}

TEST(Calibration, SaysWhatTheGateCanSee) {
  EXPECT_EQ(Sentence(Measured()),
            "on this machine the gate raises a false alarm in 0.33 percent of "
            "verdicts (at most 1.6) and finds a slow-down of 5 percent in 98 "
            "percent (at least 90.9)");
  Calibration c = Measured();
  c.power.clear();
  EXPECT_EQ(Sentence(c),
            "on this machine the gate raises a false alarm in 0.33 percent of "
            "verdicts (at most 1.6); which slow-downs it finds is not known");
  c = Measured();
  c.null_verdicts = c.false_alarms = 0;
  EXPECT_NE(Sentence(c).find("unknown share"), std::string::npos);
  EXPECT_NE(Sentence(c).find("5 percent in 98"), std::string::npos);
  EXPECT_NE(Sentence({}).find("run shardproof calibrate"), std::string::npos);
  // Powers of which nothing is known are passed over.
  c = Measured();
  c.power = {
      {std::nan(""), 5, 5, 0, 0}, {0.05, 0, 0, 0, 0}, {0.1, 4, 4, .4, 0}};
  EXPECT_NE(Sentence(c).find("of 10 percent in 100"), std::string::npos);
}

}  // namespace
}  // namespace shardproof
