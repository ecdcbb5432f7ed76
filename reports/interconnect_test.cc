#include "reports/interconnect.h"

#include <gtest/gtest.h>

#include <limits>
#include <nlohmann/json.hpp>
#include <string>

namespace shardproof {
namespace {

using Json = nlohmann::ordered_json;

// Every member differs from its default, so that one that is not written shows.
Interconnect Sample() {
  Interconnect all;
  all.p2p = {
      {.backend = "mpi",
       .ranks = 2,
       .bytes = 8,
       .bidirectional = true,
       .places = {"node0", "node1 core 3"},
       .median_us = {1, 2.5, 3.25, 4},
       .slow = {{.from = 0,
                 .to = 1,
                 .link_class = "between nodes",
                 .z = 17.5,
                 .median_us = 9,
                 .class_median_us = 2}},
       .asymmetric = {{.a = 0, .b = 1, .a_to_b_us = 9, .b_to_a_us = 2}}}};
  Fit fit{.case_name = "collectives/all_reduce",
          .variant = "ring",
          .backend = "thread",
          .params = "dtype=f32",
          .ranks = 4};
  fit.pieces = {{.from_bytes = 1,
                 .to_bytes = 1024,
                 .alpha_us = {.value = 1, .low = 0.5, .high = 1.5},
                 .beta_us_per_mib = {.value = 80, .low = 70, .high = 90},
                 .gamma_us_per_mib = Estimate{.value = 3, .low = 2, .high = 4},
                 .points = 5},
                {.from_bytes = 2048,
                 .to_bytes = 4096,
                 .alpha_us = {.value = 2, .low = 1, .high = 3},
                 .beta_us_per_mib = {.value = 40, .low = 30, .high = 50},
                 .points = 3}};
  fit.points = {{.bytes = 1024,
                 .measured_us = 7,
                 .low_us = 6,
                 .high_us = 8,
                 .fitted_us = 7.5,
                 .predicted_us = 5}};
  fit.worst_error = 0.25;
  fit.median_error = 0.125;
  fit.worst_prediction_error = 0.5;
  fit.median_prediction_error = 0.375;
  fit.half_bandwidth_bytes = 13107.2;
  fit.asymptotic_gbps = 12.5;
  all.fits = {fit};
  all.crossovers = {{.case_name = "collectives/all_reduce",
                     .backend = "mpi",
                     .params = "dtype=f32",
                     .from = "recursive_doubling",
                     .to = "ring",
                     .ranks = 4,
                     .bytes = 20000,
                     .low = 15000,
                     .high = 25000}};
  all.scaling = {{.kind = "pairs",
                  .case_name = "messages",
                  .variant = "exchange",
                  .backend = "mpi",
                  .params = "bytes=1024",
                  .ranks = 4,
                  .median_us = 10,
                  .low_us = 9,
                  .high_us = 11,
                  .ideal_us = 5,
                  .efficiency = 0.5}};
  all.findings = {"the link 0 -> 1 is \"slow\""};
  return all;
}

TEST(InterconnectTest, ComesBackAsItWasWritten) {
  const Interconnect all = Sample();
  const auto again = InterconnectFromJson(Json::parse(ToJson(all).dump()));
  ASSERT_TRUE(again.ok()) << again.status().ToString();
  EXPECT_EQ(*again, all);
  EXPECT_FALSE(again->empty());
}

TEST(InterconnectTest, EveryMemberIsWritten) {
  const Json json = ToJson(Sample());
  // A default would hide a member that is neither written nor read.
  const auto nothing_of = [](const Json& json, const auto& self) -> bool {
    if (json.is_structured()) {
      for (const Json& member : json) {
        if (self(member, self)) return true;
      }
      return json.empty();
    }
    return json.is_string() && json.get<std::string>().empty();
  };
  EXPECT_FALSE(nothing_of(json, nothing_of)) << json.dump(2);
  EXPECT_EQ(json["fits"][0].size(), 13u);
  EXPECT_EQ(json["p2p"][0].size(), 8u);
  EXPECT_EQ(json["crossovers"][0].size(), 9u);
  EXPECT_EQ(json["scaling"][0].size(), 11u);
}

TEST(InterconnectTest, KeepsNotANumber) {
  Interconnect all;
  const double nan = std::numeric_limits<double>::quiet_NaN();
  all.p2p = {{.ranks = 2, .median_us = {nan, 1, 2, nan}}};
  const auto again = InterconnectFromJson(Json::parse(ToJson(all).dump()));
  ASSERT_TRUE(again.ok()) << again.status().ToString();
  EXPECT_NE(again->p2p[0].median_us[0], again->p2p[0].median_us[0]);
  EXPECT_EQ(again->p2p[0].median_us[2], 2);
}

TEST(InterconnectTest, NothingIsEmptyAndUnknownMembersAreIgnored) {
  const auto none = InterconnectFromJson(Json::parse(R"({"records": []})"));
  ASSERT_TRUE(none.ok());
  EXPECT_TRUE(none->empty());
}

TEST(InterconnectTest, NamesWhatIsWrong) {
  const auto message = [](const std::string& text) {
    return std::string(
        InterconnectFromJson(Json::parse(text)).status().message());
  };
  EXPECT_EQ(message("[]"), "the result file is not an object");
  EXPECT_EQ(message(R"({"fits": 3})"),
            "\"fits\" of the result file is not an array");
  EXPECT_EQ(message(R"({"fits": [{"case": "a"}]})"),
            "fits[0] of the result file has no \"variant\"");
  EXPECT_EQ(message(R"({"p2p": [{"ranks": 2, "bytes": 8, "median_us": [1]}]})"),
            "p2p[0] of the result file: 1 times are not those of 2 by 2 ranks");
  EXPECT_EQ(message(R"({"p2p": [{"ranks": 1, "bytes": 8, "median_us": [1],)"
                    R"( "slow": [{"from": 0, "to": 7}]}]})"),
            "p2p[0] of the result file: there is no link 0 -> 7");
  EXPECT_EQ(message(R"({"fits": [{"case": "a", "variant": "b", "ranks": 1,)"
                    R"( "pieces": [{"from_bytes": 0, "to_bytes": 1}]}]})"),
            "pieces[0] of fits[0] of the result file has no \"alpha_us\"");
  EXPECT_EQ(message(R"({"findings": "slow"})"),
            "\"findings\" of the result file is not an array");
}

}  // namespace
}  // namespace shardproof
