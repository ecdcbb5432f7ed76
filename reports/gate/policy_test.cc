#include "reports/gate/policy.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

namespace shardproof {
namespace {

using ::testing::HasSubstr;

constexpr const char* kWhole = R"(version = 1
inconclusive = "fail"

[margins]
least = "3%"
least_us = 2
[[margins.for]]
filter = "^pipeline/"
least = "5%"
[[margins.for]]
filter = " mpi "
least = "10.5%"
least_us = 1.5

[filters]
include = ["^collectives/", "^pipeline/"]
exclude = [" emulated$"]
required = ["all_reduce ring "]

[[quarantine]]
filter = "all_to_all .* mpi"
owner = "links@example.com"
reason = "loses a message"
expires = 2026-12-01
[[quarantine]]
filter = "broadcast"
owner = "me"
reason = "ticket 17"
expires = "2026-12-24"
)";

TEST(Policy, IsWhatTheFileSays) {
  const auto policy = ParsePolicy(kWhole, "gate.toml");
  ASSERT_TRUE(policy.ok()) << policy.status().ToString();
  EXPECT_EQ(policy->name, "gate.toml");
  EXPECT_TRUE(policy->inconclusive_fails);
  EXPECT_EQ(policy->MarginOf("collectives/all_reduce ring thread 2"),
            (Policy::Margin{.least = 0.03, .least_us = 2}));
  EXPECT_EQ(policy->MarginOf("pipeline/gpipe x thread 2"),
            (Policy::Margin{.least = 0.05, .least_us = 2}));
  // The last that matches.
  EXPECT_EQ(policy->MarginOf("pipeline/gpipe x mpi 2"),
            (Policy::Margin{.least = 0.105, .least_us = 1.5}));
  EXPECT_TRUE(policy->Selects("collectives/all_reduce ring thread 2"));
  EXPECT_FALSE(policy->Selects("collectives/all_reduce ring cuda 2 emulated"));
  EXPECT_FALSE(policy->Selects("layers/mlp x thread 2"));
  ASSERT_EQ(policy->required.size(), 1u);
  EXPECT_EQ(policy->required[0].text(), "all_reduce ring ");
  ASSERT_EQ(policy->quarantine.size(), 2u);
  EXPECT_EQ(policy->quarantine[0].owner, "links@example.com");
  EXPECT_EQ(policy->quarantine[0].reason, "loses a message");
  EXPECT_EQ(policy->quarantine[0].expires, "2026-12-01");
  EXPECT_EQ(policy->quarantine[0].line, 20);
  EXPECT_EQ(policy->quarantine[1].expires, "2026-12-24");
}

TEST(Policy, TheShortestFileIsTheDefault) {
  const auto policy = ParsePolicy("version = 1", "gate.toml");
  ASSERT_TRUE(policy.ok()) << policy.status().ToString();
  for (const Policy& one : {*policy, DefaultPolicy()}) {
    EXPECT_FALSE(one.inconclusive_fails);
    EXPECT_EQ(one.MarginOf("x"),
              (Policy::Margin{.least = 0.02, .least_us = 0.5}));
    EXPECT_TRUE(one.Selects("anything"));
    EXPECT_TRUE(one.required.empty());
    EXPECT_TRUE(one.quarantine.empty());
  }
}

struct Wrong {
  const char* text;
  const char* said;
};

class WrongPolicy : public ::testing::TestWithParam<Wrong> {};

TEST_P(WrongPolicy, IsRefusedWithItsLine) {
  const auto policy = ParsePolicy(GetParam().text, "my/gate.toml");
  ASSERT_FALSE(policy.ok());
  EXPECT_EQ(policy.status().code(), StatusCode::kInvalidArgument);
  const std::string message(policy.status().message());
  EXPECT_THAT(message, HasSubstr("my/gate.toml"));
  EXPECT_THAT(message, HasSubstr(GetParam().said));
  EXPECT_EQ(message.find('\n'), std::string::npos) << message;
}

INSTANTIATE_TEST_SUITE_P(
    Policy, WrongPolicy,
    ::testing::Values(
        Wrong{"", "has no \"version\""},
        Wrong{"version = 2\nnew = 1", "line 1: version 2 is not known"},
        Wrong{"version = 0", "line 1: version 0 is not known"},
        Wrong{"version = \"1\"", "line 1: \"version\" is not an integer"},
        Wrong{"version = 1\nversion = 1", "line 2"},
        Wrong{"version = 1\nx = [", "line 2"},
        Wrong{"version = 1\n[^", "line 2"},
        Wrong{"version = 1\n[[[1]]]", "line 2"},
        Wrong{"version = 1\nsch\u00fcssel = 1", "line 2"},
        Wrong{"version = 1\nkey\u02b2 = 1", "line 2"},
        Wrong{"version = 1\n\nmargin = 3",
              "line 3: the file has no key \"margin\""},
        Wrong{"version = 1\nmargins = 3",
              "line 2: \"margins\" is not a table: [margins]"},
        Wrong{"version = 1\n[margins]\nlest = \"2%\"",
              "line 3: [margins] has no key \"lest\""},
        Wrong{"version = 1\n[margins]\nleast = 2",
              "line 3: \"least\" is not a text"},
        Wrong{"version = 1\n[margins]\nleast = \"2\"",
              "line 3: \"least\" is not a percentage"},
        Wrong{"version = 1\n[margins]\nleast = \"-2%\"", "not a percentage"},
        Wrong{"version = 1\n[margins]\nleast = \"nan%\"", "not a percentage"},
        Wrong{"version = 1\n[margins]\nleast = \"2%%\"", "not a percentage"},
        Wrong{"version = 1\n[margins]\nleast_us = \"1\"",
              "line 3: \"least_us\" is not a number"},
        Wrong{"version = 1\n[margins]\nleast_us = -1", "not a number"},
        Wrong{"version = 1\n[margins]\nleast_us = inf", "not a number"},
        Wrong{"version = 1\n[margins]\nleast_us = nan", "not a number"},
        Wrong{"version = 1\n[margins]\nleast_us = true", "not a number"},
        Wrong{"version = 1\n[[margins.for]]\nleast = \"2%\"",
              "line 2: [[margins.for]] has no \"filter\""},
        Wrong{"version = 1\n[[margins.for]]\nfilter = \"a\"\nmost = 1",
              "line 4: [[margins.for]] has no key \"most\""},
        Wrong{"version = 1\n[margins]\nfor = 3", "\"for\" is not a list"},
        Wrong{"version = 1\n[filters]\ninclude = \"a\"",
              "line 3: \"include\" is not a list"},
        Wrong{"version = 1\n[filters]\ninclude = [\"a\", 3]",
              "line 3: \"include\" is not a text"},
        Wrong{"version = 1\n[filters]\nexclude = [\n\"a\",\n\"(\"]",
              "line 5: \"exclude\": \"(\" is not a regular expression"},
        Wrong{"version = 1\n[filters]\nonly = []",
              "line 3: [filters] has no key \"only\""},
        Wrong{"version = 1\ninconclusive = \"maybe\"",
              "line 2: \"inconclusive\" is \"maybe\""},
        Wrong{"version = 1\ninconclusive = false",
              "line 2: \"inconclusive\" is not a text"},
        Wrong{"version = 1\n[quarantine]\nfilter = \"a\"",
              "line 2: \"quarantine\" is not a list of tables"},
        Wrong{"version = 1\nquarantine = [3]",
              "an entry of \"quarantine\" is not a table"}));

// All four are required, and none is empty.
TEST(Policy, AQuarantineHasAnOwnerAReasonAndAnEnd) {
  const std::string complete =
      "version = 1\n[[quarantine]]\nfilter = \"a\"\nowner = \"b\"\n"
      "reason = \"c\"\nexpires = 2026-02-28\n";
  ASSERT_TRUE(ParsePolicy(complete, "g").ok());
  for (const std::string key : {"filter", "owner", "reason", "expires"}) {
    const size_t begin = complete.find(key + " =");
    const size_t end = complete.find('\n', begin);
    std::string without = complete;
    without.erase(begin, end + 1 - begin);
    EXPECT_THAT(ParsePolicy(without, "g").status().ToString(),
                HasSubstr("line 2: [[quarantine]] has no \"" + key + "\""));
    if (key == "expires" || key == "filter") continue;
    std::string empty = complete;
    empty.replace(begin, end - begin, key + " = \" \"");
    EXPECT_THAT(ParsePolicy(empty, "g").status().ToString(),
                HasSubstr("\"" + key + "\" of [[quarantine]] is empty"));
  }
  for (const std::string day :
       {"\"2026-02-30\"", "\"soon\"", "20261201", "\"2026-12-01T00:00:00Z\"",
        "\"2026-1-01\"", "2026-12-01T00:00:00Z", "\"-026-12-01\""}) {
    std::string other = complete;
    other.replace(other.find("2026-02-28"), 10, day);
    EXPECT_THAT(ParsePolicy(other, "g").status().ToString(),
                HasSubstr("line 6: \"expires\" is not a day"));
  }
}

TEST(Policy, DaysAreThoseOfTheCalendar) {
  using std::chrono::days;
  ASSERT_TRUE(DayOf("2024-02-29T10:00:00Z").has_value());
  EXPECT_FALSE(DayOf("2023-02-29").has_value());
  EXPECT_EQ(*DayOf("2024-03-01") - *DayOf("2024-02-28"), days(2));
  for (const char* text : {"", "2024", "2024/01/01", "2024-13-01", "2024-00-10",
                           "2024-01-00", "0000-01-01", "abcd-ef-gh"}) {
    EXPECT_FALSE(DayOf(text).has_value()) << text;
  }
}

TEST(Policy, RegularExpressionsHaveAnEnd) {
  EXPECT_FALSE(Pattern::Create(std::string(1001, '(')).ok());
  EXPECT_FALSE(Pattern::Create("(a{1000}){1000}").ok());
  EXPECT_TRUE(Pattern::Create(std::string(1000, 'a')).ok());
  const std::string huge(30, '3');
  for (const std::string before : {"a{", "a{2,", "(a)\\"}) {
    const auto pattern = Pattern::Create(before + huge + "}");
    EXPECT_THAT(pattern.status().ToString(), HasSubstr("too many digits"));
  }
  EXPECT_TRUE(Pattern::Create("a{2,3}b,count=" + huge).ok());
}

TEST(Policy, IsReadFromAFile) {
  EXPECT_EQ(LoadPolicy("/no/such/gate.toml").status().code(),
            StatusCode::kUnavailable);
}

}  // namespace
}  // namespace shardproof
