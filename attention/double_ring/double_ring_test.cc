// What the case of double-ring attention cannot say.
#include "attention/double_ring/double_ring.h"

#include <gtest/gtest.h>

#include <string>

#include "attention/testing/scheme_testing.h"

namespace shardproof {
namespace {

ShardedAttentionConfig Small() {
  return {.tokens = 24,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 8,
          .visibility = {.causal = true}};
}

auto Rings(const DoubleRingConfig& config,
           RingMode mode = RingMode::kOverlapped) {
  return [config, mode](const Communicator& comm) {
    return DoubleRingAttention::Create(comm, config, mode);
  };
}

TEST(DoubleRingAttention, RefusesOnEveryRankAlike) {
  EXPECT_EQ(
      RefusalOnEveryRank(4, StatusCode::kInvalidArgument, Rings({Small(), 3})),
      "4 ranks are not rings of 3");
  EXPECT_EQ(
      RefusalOnEveryRank(4, StatusCode::kInvalidArgument, Rings({Small(), 0})),
      "4 ranks are not rings of 0");
  const std::string told = RefusalOnEveryRank(
      4, StatusCode::kInvalidArgument, [](const Communicator& comm) {
        return DoubleRingAttention::Create(comm,
                                           {Small(), comm.rank() == 3 ? 1 : 2});
      });
  EXPECT_NE(told.find("ranks 0 and 3"), std::string::npos) << told;
}

// One inner ring of all, and inner rings of one, are a ring: blocks come in the
// same order.
TEST(DoubleRingAttention, OfOneRingIsARing) {
  const ShardedAttentionConfig c = Small();
  const WholeAttention ring = RunScheme(4, c, [&](const Communicator& comm) {
    return RotatingAttention::Create(comm,
                                     RotationOver(4, c, RingMode::kOverlapped));
  });
  EXPECT_TRUE(SameBits(ring, RunScheme(4, c, Rings({c, 4}))));
  EXPECT_TRUE(SameBits(ring, RunScheme(4, c, Rings({c, 1}))));
}

TEST(DoubleRingAttention, ModesGiveTheSameBits) {
  ShardedAttentionConfig c = Small();
  c.layout = SequenceLayout::kStriped;
  for (const int inner : {2, 3}) {
    const WholeAttention in_turn =
        RunScheme(6, c, Rings({c, inner}, RingMode::kInTurn));
    EXPECT_TRUE(SameBits(in_turn, RunScheme(6, c, Rings({c, inner}))));
    EXPECT_TRUE(SameBits(
        in_turn, RunScheme(6, c, Rings({c, inner}, RingMode::kMessageThread))));
  }
}

}  // namespace
}  // namespace shardproof
