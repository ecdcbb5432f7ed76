#include "reports/record.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "reports/key.h"

namespace shardproof {
namespace {

using Json = nlohmann::ordered_json;

Record Full() {
  Record r{.case_name = "collectives/all_reduce",
           .variant = "ring",
           .backend = "thread",
           .ranks = 4,
           .params = {{"dtype", "f32"},
                      {"count", "1048576"},
                      {"in_place", "false"},
                      {"note", "007"}},
           .verdict = Verdict::kIncorrect,
           .reason = "1 of 4 elements is wrong",
           .repro = "shardproof verify --filter x"};
  r.error = {.tier = "exact",
             .worst_ratio = std::numeric_limits<double>::infinity(),
             .max_abs = 0.1,
             .max_ulp = 3,
             .gain = 1.5,
             .compared = 12,
             .mismatches = {{"y", 2, {3, 1}, 0.5, -0.25}},
             .diagnosis = "rank 1 missing"};
  r.time_us = Record::Time{.median = 1.25, .samples = 50};
  r.time_us->per_rank_median = {1, 2, 3, 4};
  r.time_us->samples_us = {1.5, 1.25, 1};
  r.time_us->rank_samples_us = {{1, 2}, {3, 4}};
  r.time_us->flags = {"warm-up did not settle"};
  r.algbw_gbps = 12.5;
  r.traffic = {.bytes = 64, .messages = 2, .predicted_bytes = 64};
  r.native = true;
  r.memory = "ordinary";
  return r;
}

TEST(Record, ReadsBackWhatItWrites) {
  const Record r = Full();
  const StatusOr<Record> again = RecordFromJson(Json::parse(ToJson(r).dump()));
  ASSERT_TRUE(again.ok()) << again.status().ToString();
  EXPECT_EQ(*again, r);
  const Record empty{.case_name = "c", .variant = "v", .backend = "thread"};
  const StatusOr<Record> bare = RecordFromJson(ToJson(empty));
  ASSERT_TRUE(bare.ok());
  EXPECT_EQ(*bare, empty);
}

TEST(Record, WritesParamsWithTheirTypes) {
  const Json json = ToJson(Full());
  EXPECT_EQ(json["params"]["count"], 1048576);
  EXPECT_EQ(json["params"]["in_place"], false);
  EXPECT_EQ(json["params"]["dtype"], "f32");
  EXPECT_EQ(json["params"]["note"], "007");
  EXPECT_FALSE(json.contains("busbw_gbps"));
}

TEST(Record, KeepsNanAndInfinity) {
  Record r = Full();
  r.error->mismatches[0].got = std::numeric_limits<double>::quiet_NaN();
  r.error->mismatches[0].expected = -std::numeric_limits<double>::infinity();
  const StatusOr<Record> again = RecordFromJson(Json::parse(ToJson(r).dump()));
  ASSERT_TRUE(again.ok());
  EXPECT_TRUE(std::isnan(again->error->mismatches[0].got));
  EXPECT_EQ(again->error->mismatches[0].expected,
            -std::numeric_limits<double>::infinity());
}

TEST(Record, IgnoresUnknownMembers) {
  Json json = ToJson(Full());
  json["colour"] = "blue";
  json["error"]["colour"] = {1, 2};
  const StatusOr<Record> again = RecordFromJson(json);
  ASSERT_TRUE(again.ok());
  EXPECT_EQ(*again, Full());
}

void ExpectRefused(const Json& json, std::string_view named) {
  const StatusOr<Record> r = RecordFromJson(json);
  ASSERT_FALSE(r.ok()) << named;
  EXPECT_EQ(r.status().code(), StatusCode::kInvalidArgument);
  EXPECT_NE(r.status().message().find(named), std::string_view::npos)
      << r.status().ToString();
}

TEST(Record, NamesTheMemberThatIsWrong) {
  for (const char* key : {"case", "variant", "backend", "ranks", "verdict"}) {
    Json json = ToJson(Full());
    json.erase(key);
    ExpectRefused(json, key);
    json[key] = Json::array();
    ExpectRefused(json, key);
  }
  Json json = ToJson(Full());
  json["error"]["mismatches"][0]["index"] = "three";
  ExpectRefused(json, "index");
  json = ToJson(Full());
  json["time_us"]["samples"] = 1.5;
  ExpectRefused(json, "samples");
  json = ToJson(Full());
  json["time_us"] = 7;
  ExpectRefused(json, "time_us");
  json = ToJson(Full());
  json["verdict"] = "splendid";
  ExpectRefused(json, "splendid");
  json = ToJson(Full());
  json["ranks"] = 0;
  ExpectRefused(json, "ranks");
  json["ranks"] = int64_t{1} << 40;
  ExpectRefused(json, "ranks");
  ExpectRefused(Json::array(), "object");
}

TEST(Record, KeyNamesEverythingThatTellsMeasurementsApart) {
  Record r = Full();
  r.memory = "shared";
  EXPECT_EQ(KeyOf(r),
            "collectives/all_reduce ring thread 4 dtype=f32 count=1048576 "
            "in_place=false note=007");
  const auto differs = [&](auto change) {
    Record other = r;
    change(other);
    return KeyOf(other) != KeyOf(r);
  };
  EXPECT_TRUE(differs([](Record& o) { o.case_name += "_v"; }));
  EXPECT_TRUE(differs([](Record& o) { o.variant = "direct"; }));
  EXPECT_TRUE(differs([](Record& o) { o.backend = "mpi"; }));
  EXPECT_TRUE(differs([](Record& o) { o.ranks = 5; }));
  EXPECT_TRUE(differs([](Record& o) { o.params.pop_back(); }));
  EXPECT_TRUE(differs([](Record& o) { o.memory = "ordinary"; }));
  EXPECT_TRUE(differs([](Record& o) { o.time_us->cadence = "streaming"; }));
  EXPECT_TRUE(differs([](Record& o) { o.emulated = true; }));
  // What was found does not tell them apart, nor whether it was timed.
  EXPECT_FALSE(differs([](Record& o) { o.verdict = Verdict::kPassed; }));
  EXPECT_FALSE(differs([](Record& o) { o.time_us.reset(); }));
}

}  // namespace
}  // namespace shardproof
