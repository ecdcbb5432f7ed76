#include "tools/harness/trace.h"

#include <gtest/gtest.h>

#include "tools/harness/testing/toy_case.h"

namespace shardproof {
namespace {

using testing::Toy;
using testing::ToyCase;
using testing::ToyVariant;
using testing::ToyWorld;

Instance Of(const Toy& toy) {
  return {.params = toy, .values = {}, .ranks = toy.ranks};
}

TEST(Trace, ShowsEveryLoadOfEveryRank) {
  const CaseInfo info = Erase(ToyCase({ToyVariant("good")}));
  const auto trace = TraceSteps(ToyWorld(), info, info.variants[0],
                                Of({.count = 10, .ranks = 3}));
  ASSERT_TRUE(trace.ok()) << trace.status().ToString();
  EXPECT_EQ(trace->total, testing::ToyCost({.count = 10, .ranks = 3}).total);
  ASSERT_EQ(trace->steps.size(), 1U);
  EXPECT_EQ(trace->steps[0].operation, "toy/sum");
  EXPECT_EQ(trace->steps[0].kind, TraceKind::kLoad);
  std::vector<TraceTransfer> want;
  for (int from = 0; from < 3; ++from) {
    for (int to = 0; to < 3; ++to) {
      if (from != to) want.push_back({from, to, 40, 1});
    }
  }
  EXPECT_EQ(trace->steps[0].transfers, want);
}

TEST(Trace, ShowsMessages) {
  Variant<Toy> v = ToyVariant("v");
  v.bind = [](const Toy&, RankContext& c) -> StatusOr<Operation> {
    return Operation([&c]() -> Status {
      char byte = 0;
      return c.comm().rank() == 0 ? c.comm().Send(&byte, 1, 1)
                                  : c.comm().Recv(&byte, 1, 0);
    });
  };
  const CaseInfo info = Erase(ToyCase({v}));
  const auto trace = TraceSteps(ToyWorld(), info, info.variants[0],
                                Of({.count = 10, .ranks = 2}));
  ASSERT_TRUE(trace.ok()) << trace.status().ToString();
  ASSERT_EQ(trace->steps.size(), 1U);
  EXPECT_EQ(trace->steps[0].kind, TraceKind::kMessage);
  EXPECT_EQ(trace->steps[0].transfers,
            (std::vector<TraceTransfer>{{0, 1, 1, 1}}));
}

TEST(Trace, SaysWhyItCannot) {
  Variant<Toy> v = ToyVariant("v");
  v.needs = kSeveralRanks;
  const CaseInfo info = Erase(ToyCase({v, ToyVariant("good")}));
  const Instance alone = Of({.count = 10, .ranks = 1});
  const auto trace = TraceSteps(ToyWorld(), info, info.variants[0], alone);
  EXPECT_EQ(trace.status().code(), StatusCode::kUnsupported);
  // The world is whole.
  EXPECT_TRUE(TraceSteps(ToyWorld(), info, info.variants[1], alone).ok());
}

}  // namespace
}  // namespace shardproof
