#include "tools/cli/options.h"

#include <gtest/gtest.h>

#include <CLI/CLI.hpp>
#include <string>
#include <tuple>
#include <vector>

namespace shardproof {
namespace {

Options Parse(std::vector<std::string> arguments) {
  Options options;
  CLI::App app;
  AddSelectionFlags(app, options);
  AddMeshFlag(app, options);
  AddRunFlags(app, options);
  AddMeasureFlags(app, options);
  AddNcclTestsFlags(app, options);
  std::reverse(arguments.begin(), arguments.end());
  app.parse(arguments);
  return options;
}

TEST(Options, AxesAndTheirShortForms) {
  const Options options = Parse({"--axis", "count=1,2Ki", "--axis", "op=max",
                                 "--dtype", "f32,bf16", "--ranks", "2,3"});
  const auto overrides = OverridesOf(options);
  ASSERT_TRUE(overrides.ok());
  const AxisOverrides expected = {
      {"count", {"1", "2Ki"}}, {"op", {"max"}}, {"dtype", {"f32", "bf16"}}};
  EXPECT_EQ(*overrides, expected);
  EXPECT_EQ(options.ranks, (std::vector<int>{2, 3}));
}

TEST(Options, MalformedAxesAreQuoted) {
  for (const char* text : {"count", "=3", "count="}) {
    const auto overrides = OverridesOf(Parse({"--axis", text}));
    ASSERT_FALSE(overrides.ok()) << text;
    EXPECT_NE(overrides.status().message().find(text), std::string::npos);
  }
}

TEST(Options, MeshIsAnAxisAndTheRanks) {
  for (const auto& [text, value, size] :
       std::vector<std::tuple<std::string, std::string, int>>{
           {"tp=2,pp=2,dp=2", "tp2xpp2xdp2", 8},
           {"pp=2,tp=4", "pp2xtp4", 8},
           {"cp=3", "cp3", 3}}) {
    const Options options = Parse({"--mesh", text});
    const auto overrides = OverridesOf(options);
    ASSERT_TRUE(overrides.ok()) << text;
    EXPECT_EQ(*overrides, (AxisOverrides{{"mesh", {value}}}));
    const auto ranks = RanksOf(options, {4});
    ASSERT_TRUE(ranks.ok()) << text;
    EXPECT_EQ(*ranks, std::vector<int>{size});
  }
}

TEST(Options, RanksComeBeforeTheFallback) {
  EXPECT_EQ(*RanksOf(Parse({}), {4}), std::vector<int>{4});
  EXPECT_EQ(*RanksOf(Parse({"--ranks", "2,3"}), {4}), (std::vector<int>{2, 3}));
  EXPECT_EQ(*RanksOf(Parse({"--ranks", "6", "--mesh", "tp=3,dp=2"}), {4}),
            std::vector<int>{6});
}

TEST(Options, MeshesOfOtherRanksAreRefused) {
  for (const char* ranks : {"4", "8,4"}) {
    const auto refused =
        RanksOf(Parse({"--mesh", "tp=2,pp=4", "--ranks", ranks}), {4});
    ASSERT_FALSE(refused.ok()) << ranks;
    EXPECT_EQ(refused.status().message(),
              "--mesh tp=2,pp=4 is of 8 ranks, and there are 4");
  }
  // Products that would wrap around.
  const Options huge =
      Parse({"--mesh", "tp=65536,pp=65536,dp=2147483647", "--ranks", "4"});
  EXPECT_FALSE(RanksOf(huge, {4}).ok());
}

TEST(Options, MalformedMeshesAreQuoted) {
  for (const char* text : {"tp2", "tp=0", "tp=2,", "tp=x"}) {
    const Options options = Parse({"--mesh", text});
    const auto ranks = RanksOf(options, {4});
    ASSERT_FALSE(ranks.ok()) << text;
    EXPECT_NE(ranks.status().message().find(text), std::string::npos);
    EXPECT_FALSE(OverridesOf(options).ok()) << text;
  }
  EXPECT_FALSE(
      OverridesOf(Parse({"--mesh", "tp=2", "--axis", "mesh=tp2"})).ok());
}

TEST(Options, FlagsOfNcclTests) {
  const Options options =
      Parse({"-b", "8", "-e", "128M",     "-f", "4",   "-g", "2", "-n", "20",
             "-w", "5", "-d", "bfloat16", "-o", "avg", "-c", "1", "-r", "1"});
  const auto overrides = OverridesOf(options);
  ASSERT_TRUE(overrides.ok());
  const AxisOverrides expected = {{"dtype", {"bf16"}}, {"op", {"avg"}}};
  EXPECT_EQ(*overrides, expected);
  EXPECT_EQ(MeasureOptionsOf(options).fixed_iterations, 20);
  EXPECT_EQ(MeasureOptionsOf(options).fixed_warmup, 5);
}

TEST(Options, SizesAreThoseOfNcclTests) {
  EXPECT_EQ(*ParseBytes("8"), 8);
  EXPECT_EQ(*ParseBytes("32K"), 32 << 10);
  EXPECT_EQ(*ParseBytes("128m"), 128 << 20);
  EXPECT_EQ(*ParseBytes("1Mi"), 1 << 20);
  for (const char* text : {"", "x", "-5", "5Q", "K"}) {
    EXPECT_FALSE(ParseBytes(text).ok()) << text;
  }
}

TEST(Options, CadenceAndLimitsAreChecked) {
  EXPECT_EQ(MeasureOptionsOf(Parse({"--cadence", "streaming"})).cadence,
            Cadence::kStreaming);
  EXPECT_THROW(Parse({"--cadence", "sometimes"}), CLI::ParseError);
  EXPECT_THROW(Parse({"--ranks", "0"}), CLI::ParseError);
  EXPECT_THROW(Parse({"--timeout", "-1"}), CLI::ParseError);
}

}  // namespace
}  // namespace shardproof
