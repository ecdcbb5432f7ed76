#include "tools/harness/axis.h"

#include <gtest/gtest.h>

#include "tools/harness/case.h"
#include "tools/harness/testing/toy_case.h"

namespace shardproof {
namespace {

template <class T>
T Parsed(std::string_view text) {
  T value{};
  const Status s = ParseAxisValue(text, &value);
  EXPECT_TRUE(s.ok()) << s.ToString();
  return value;
}

template <class T>
void ExpectRefused(std::string_view text) {
  T value{};
  EXPECT_EQ(ParseAxisValue(text, &value).code(), StatusCode::kInvalidArgument)
      << text;
}

TEST(Axis, ReadsIntegersWithSuffixes) {
  EXPECT_EQ(Parsed<int64_t>("0"), 0);
  EXPECT_EQ(Parsed<int64_t>("-7"), -7);
  EXPECT_EQ(Parsed<int64_t>("4K"), 4000);
  EXPECT_EQ(Parsed<int64_t>("4Ki"), 4096);
  EXPECT_EQ(Parsed<int64_t>("3Mi"), 3 << 20);
  EXPECT_EQ(Parsed<int64_t>("5M"), 5'000'000);
  EXPECT_EQ(Parsed<int64_t>("2Gi"), int64_t{2} << 30);
  EXPECT_EQ(Parsed<int64_t>("2G"), 2'000'000'000);
  for (const char* bad : {"", "x", "1.5", "1k", "K", "1 ",
                          "99999999999999999999", "9223372036854775807K"}) {
    ExpectRefused<int64_t>(bad);
  }
  ExpectRefused<int>("4Gi");
  EXPECT_EQ(Parsed<int>("-1"), -1);
}

TEST(Axis, ReadsBackWhatItPrints) {
  for (const DType d : kAllDTypes) {
    EXPECT_EQ(Parsed<DType>(FormatAxisValue(d)), d);
  }
  for (const ReduceOp op : kAllReduceOps) {
    EXPECT_EQ(Parsed<ReduceOp>(FormatAxisValue(op)), op);
  }
  EXPECT_EQ(Parsed<bool>(FormatAxisValue(true)), true);
  EXPECT_EQ(Parsed<bool>(FormatAxisValue(false)), false);
  EXPECT_EQ(Parsed<double>(FormatAxisValue(0.1)), 0.1);
  EXPECT_EQ(Parsed<std::string>("any text"), "any text");
  ExpectRefused<bool>("1");
  ExpectRefused<DType>("f33");
  ExpectRefused<ReduceOp>("plus");
  ExpectRefused<double>("1.5x");
}

using testing::Toy;
using testing::ToyCase;
using testing::ToyVariant;

CaseInfo Info() {
  Case<Toy> c = ToyCase({ToyVariant("good")});
  c.axes = {
      Axis("dtype", &Toy::dtype, {DType::kF32, DType::kI32})
          .Bench({DType::kBF16}),
      Axis("count", &Toy::count, {0, 7}).Bench({4096, 1 << 20}).Smoke({64})};
  c.skip = [](const Toy& p) -> std::optional<std::string> {
    if (p.count == 7 && p.dtype == DType::kI32) return "unlucky";
    return std::nullopt;
  };
  return Erase(c);
}

std::vector<std::string> Texts(const std::vector<Instance>& instances) {
  std::vector<std::string> out;
  for (const Instance& i : instances) {
    std::string text;
    for (const auto& [axis, value] : i.values) {
      text.append(axis).append("=").append(value).append(" ");
    }
    out.push_back(text);
  }
  return out;
}

TEST(Axis, ExpandsForEachPurpose) {
  const CaseInfo info = Info();
  const auto verify = info.expand(Purpose::kVerify, 3, {});
  ASSERT_TRUE(verify.ok());
  EXPECT_EQ(Texts(*verify), (std::vector<std::string>{"dtype=f32 count=0 ",
                                                      "dtype=f32 count=7 ",
                                                      "dtype=i32 count=0 "}));
  EXPECT_EQ((*verify)[0].ranks, 3);
  EXPECT_EQ(std::any_cast<Toy>((*verify)[1].params).ranks, 3);
  EXPECT_EQ(std::any_cast<Toy>((*verify)[1].params).count, 7);
  EXPECT_EQ(info.expand(Purpose::kBench, 2, {})->size(), 2U);
  const auto smoke = info.expand(Purpose::kSmoke, 2, {});
  EXPECT_EQ(Texts(*smoke), std::vector<std::string>{"dtype=f32 count=64 "});
}

TEST(Axis, OverridesReplaceValues) {
  const CaseInfo info = Info();
  const auto some = info.expand(Purpose::kVerify, 2, {{"count", {"1Ki", "2"}}});
  ASSERT_TRUE(some.ok());
  EXPECT_EQ(Texts(*some)[0], "dtype=f32 count=1024 ");
  EXPECT_EQ(some->size(), 4U);
  const auto unknown = info.expand(Purpose::kVerify, 2, {{"colour", {"red"}}});
  EXPECT_EQ(unknown.status().message(),
            "there is no axis \"colour\"; there is dtype, count");
  const auto bad = info.expand(Purpose::kVerify, 2, {{"count", {"red"}}});
  EXPECT_EQ(bad.status().code(), StatusCode::kInvalidArgument);
  EXPECT_NE(bad.status().message().find("axis count of toy/all_reduce"),
            std::string_view::npos);
}

TEST(Registry, RefusesWhatCannotWork) {
  Registry registry;
  EXPECT_TRUE(registry.TryAdd(Info()).ok());
  EXPECT_EQ(registry.TryAdd(Info()).message(),
            "two cases are called toy/all_reduce");
  const auto refused =
      [&registry](const std::function<void(CaseInfo&)>& spoil) {
        CaseInfo info = Info();
        info.name = "toy/other";
        spoil(info);
        return registry.TryAdd(std::move(info)).code() ==
               StatusCode::kInvalidArgument;
      };
  EXPECT_TRUE(refused([](CaseInfo& i) { i.variants.clear(); }));
  EXPECT_TRUE(refused([](CaseInfo& i) { i.block = nullptr; }));
  EXPECT_TRUE(refused([](CaseInfo& i) { i.name.clear(); }));
  EXPECT_TRUE(refused([](CaseInfo& i) { i.exact = i.bounded = false; }));
  EXPECT_TRUE(refused([](CaseInfo& i) { i.axes[1].name = "dtype"; }));
  EXPECT_TRUE(refused([](CaseInfo& i) { i.axes[1].verify.clear(); }));
  EXPECT_TRUE(refused([](CaseInfo& i) { i.variants[0].bind = nullptr; }));
  EXPECT_TRUE(
      refused([](CaseInfo& i) { i.variants.push_back(i.variants[0]); }));
  EXPECT_FALSE(refused([](CaseInfo& i) { i.name = "a/first"; }));
  ASSERT_EQ(registry.cases().size(), 2U);
  EXPECT_EQ(registry.cases()[0].name, "a/first");
  EXPECT_NE(registry.Find("toy/all_reduce"), nullptr);
  EXPECT_EQ(registry.Find("toy/none"), nullptr);
}

TEST(Registry, MutantsApplyToSeveralRanksAndSomeData) {
  Case<Toy> c = ToyCase({ToyVariant("good")});
  c.mutants = {{.name = "m", .bind = ToyVariant("m").bind}};
  const CaseInfo info = Erase(c);
  const auto applies = [&info](int64_t count, int ranks) {
    return info.mutants[0].applies(
        {.params = Toy{.count = count, .ranks = ranks},
         .values = {},
         .ranks = ranks});
  };
  EXPECT_TRUE(applies(7, 2));
  EXPECT_FALSE(applies(7, 1));
  EXPECT_FALSE(applies(0, 2));
  EXPECT_NE(info.FindVariant("mutant/m"), nullptr);
  EXPECT_EQ(info.FindVariant("m"), nullptr);
}

}  // namespace
}  // namespace shardproof
