#include "tools/cli/options.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace shardproof {
namespace {

Options Parse(std::vector<std::string> arguments) {
  Options options;
  CLI::App app;
  AddSelectionFlags(app, options);
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
