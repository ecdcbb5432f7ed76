// What the case of relayout cannot say: refusals, and there and back again.
#include "attention/relayout/relayout.h"

#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <vector>

#include "attention/testing/scheme_testing.h"

namespace shardproof {
namespace {

constexpr SequenceLayout kLayouts[] = {SequenceLayout::kContiguous,
                                       SequenceLayout::kStriped,
                                       SequenceLayout::kZigzag};

TEST(Relayout, RefusesOnEveryRankAlike) {
  const auto refusal = [](const RelayoutConfig& config) {
    return RefusalOnEveryRank(3, StatusCode::kInvalidArgument,
                              [&](const Communicator& comm) {
                                return Relayout::Create(comm, config);
                              });
  };
  EXPECT_EQ(refusal({.tokens = 8, .width = 2, .to = SequenceLayout::kZigzag}),
            "1 x 8 tokens of 2 f32 from contiguous to zigzag: a zigzag over 3 "
            "ranks has 6 equal chunks, and 8 tokens do not: pad them to 12");
  EXPECT_NE(refusal({.tokens = 8, .width = 2, .from = SequenceLayout::kZigzag})
                .find("from zigzag to contiguous"),
            std::string::npos);
  EXPECT_NE(refusal({.tokens = 6, .width = -1}).find("a size is negative"),
            std::string::npos);
  const std::string told = RefusalOnEveryRank(
      3, StatusCode::kInvalidArgument, [](const Communicator& comm) {
        return Relayout::Create(
            comm, {.tokens = 6,
                   .width = 1,
                   .to = comm.rank() == 1 ? SequenceLayout::kStriped
                                          : SequenceLayout::kZigzag});
      });
  EXPECT_NE(told.find("ranks 0 and 1"), std::string::npos);
}

// Each rank's rows hold their positions, and again after there and back.
TEST(Relayout, ThereAndBackAgain) {
  constexpr int64_t kTokens = 24;
  for (const int ranks : {1, 2, 4}) {
    for (const SequenceLayout from : kLayouts) {
      for (const SequenceLayout to : kLayouts) {
        const Status ran =
            RunThreads(ranks, [&](const Communicator& comm) -> Status {
              RelayoutConfig config = {.tokens = kTokens,
                                       .width = 1,
                                       .from = from,
                                       .to = to,
                                       .dtype = DType::kI64};
              SP_ASSIGN_OR_RETURN(const Relayout there,
                                  Relayout::Create(comm, config));
              std::swap(config.from, config.to);
              SP_ASSIGN_OR_RETURN(const Relayout back,
                                  Relayout::Create(comm, config));
              const std::vector<int64_t>& x = back.positions();
              std::vector<int64_t> y(there.positions().size()), z(x.size());
              SP_RETURN_IF_ERROR(there.Run(x.data(), y.data()));
              EXPECT_EQ(y, there.positions());
              SP_RETURN_IF_ERROR(back.Run(y.data(), z.data()));
              EXPECT_EQ(z, x);
              return OkStatus();
            });
        EXPECT_TRUE(ran.ok()) << ran.ToString();
      }
    }
  }
}

TEST(Relayout, OfOneLayoutSendsNothing) {
  for (const SequenceLayout layout : kLayouts) {
    const RelayoutConfig config = {
        .tokens = 24, .width = 3, .from = layout, .to = layout};
    EXPECT_EQ(RelayoutCost(4, config, kRingCollectives).total, Traffic());
  }
  // Every token of a rank but one in four is another's.
  EXPECT_EQ(RelayoutCost(
                4, {.tokens = 16, .width = 3, .to = SequenceLayout::kStriped},
                kRingCollectives)
                .total,
            (Traffic{.bytes = 12 * 3 * 4, .messages = 12}));
}

}  // namespace
}  // namespace shardproof
