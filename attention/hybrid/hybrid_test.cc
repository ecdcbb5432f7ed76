// What the case cannot say: refusals, who has which tokens, that groups change no
// bit, what memory it asks for and the traffic as a formula.
#include "attention/hybrid/hybrid.h"

#include <gtest/gtest.h>

#include <limits>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "attention/kernels/flash.h"
#include "attention/testing/scheme_testing.h"
#include "layers/testing/allocations.h"

namespace shardproof {
namespace {

using Runs = std::vector<std::vector<TokenRun>>;

constexpr SequenceLayout kLayouts[] = {SequenceLayout::kContiguous,
                                       SequenceLayout::kStriped,
                                       SequenceLayout::kZigzag};

ShardedAttentionConfig Small() {
  return {.tokens = 24,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 8,
          .visibility = {.causal = true}};
}

auto Hybrid(const HybridConfig& config, RingMode mode = RingMode::kOverlapped,
            const AttentionKernels& kernels = {}) {
  return [config, mode, kernels](const Communicator& comm) {
    return HybridAttention::Create(comm, config, mode, kAutoCollectives,
                                   kernels);
  };
}

Runs RunsOfAll(const HybridConfig& config, int ranks) {
  Runs runs;
  for (int r = 0; r < ranks; ++r) {
    runs.push_back(*HybridRunsOf(config, ranks, r));
  }
  return runs;
}

WholeAttention Attend(int ranks, const HybridConfig& config,
                      RingMode mode = RingMode::kOverlapped) {
  return RunSchemeOver(RunsOfAll(config, ranks), config.attention,
                       Hybrid(config, mode));
}

// Rings without groups, over the layout.
WholeAttention AttendRing(int ranks, const ShardedAttentionConfig& config) {
  return RunScheme(ranks, config, [&](const Communicator& comm) {
    return RotatingAttention::Create(
        comm, RotationOver(ranks, config, RingMode::kOverlapped));
  });
}

// --- Results -----------------------------------------------------------------

// Of 24 zigzag tokens, group 0 has chunks 0 and 3 of 6, a rank of it one of them.
TEST(HybridRuns, AreRowsOfTheGroup) {
  HybridConfig config = {.attention = Small(), .ulysses = 2};
  config.attention.layout = SequenceLayout::kZigzag;
  EXPECT_EQ(RunsOfAll(config, 4), Runs({{{.offset = 0, .count = 6}},
                                        {{.offset = 18, .count = 6}},
                                        {{.offset = 6, .count = 6}},
                                        {{.offset = 12, .count = 6}}}));
  config.attention.layout = SequenceLayout::kStriped;
  config.attention.tokens = 5;
  EXPECT_EQ(RunsOfAll(config, 4),
            Runs({{{.offset = 0, .stride = 2, .count = 2}},
                  {{.offset = 4, .stride = 2, .count = 1}},
                  {{.offset = 1, .stride = 2, .count = 1}},
                  {{.offset = 3, .stride = 2, .count = 1}}}));
  // A rank's rows may be of both chunks.
  config = {.attention = Small(), .ulysses = 3};
  config.attention.layout = SequenceLayout::kZigzag;
  EXPECT_EQ(*HybridRunsOf(config, 6, 1),
            std::vector<TokenRun>(
                {{.offset = 4, .count = 2}, {.offset = 18, .count = 2}}));
  EXPECT_EQ(HybridRunsOf(config, 4, 0).status().code(),
            StatusCode::kInvalidArgument);
}

TEST(HybridRuns, EveryTokenIsOfOneRank) {
  for (const SequenceLayout layout : kLayouts) {
    for (const int group : {1, 2, 3, 6}) {
      HybridConfig config = {.attention = Small(), .ulysses = group};
      config.attention.layout = layout;
      std::multiset<int64_t> all;
      for (const std::vector<TokenRun>& runs : RunsOfAll(config, 6)) {
        for (const int64_t p : Positions(runs)) all.insert(p);
      }
      ASSERT_EQ(all.size(), 24u);
      for (int64_t p = 0; p < 24; ++p) EXPECT_EQ(all.count(p), 1u);
    }
  }
}

// The ring of a rank's heads is that of all heads over as many ranks as groups.
TEST(HybridAttention, GroupsChangeNoBit) {
  ShardedAttentionConfig config = Small();
  config.kv_heads = config.heads;
  for (const SequenceLayout layout : kLayouts) {
    config.layout = layout;
    const WholeAttention ring = AttendRing(2, config);
    for (const int group : {1, 2, 3}) {
      EXPECT_TRUE(SameBits(Attend(2 * group, {config, group}), ring))
          << Name(layout) << " " << group;
    }
  }
}

TEST(HybridAttention, ModesGiveTheSameBits) {
  const HybridConfig config = {.attention = Small(), .ulysses = 2};
  const WholeAttention in_turn = Attend(6, config, RingMode::kInTurn);
  EXPECT_TRUE(SameBits(in_turn, Attend(6, config)));
  EXPECT_TRUE(SameBits(in_turn, Attend(6, config, RingMode::kMessageThread)));
}

// Of one token among four ranks, attention is its value.
TEST(HybridAttention, OneToken) {
  ShardedAttentionConfig config = Small();
  config.tokens = 1;
  config.kv_heads = config.heads;
  const WholeAttention whole = Attend(4, {config, 2});
  EXPECT_EQ(Difference(whole.o, whole.v), 0);
}

TEST(HybridAttention, WhatSeesNothingIsZero) {
  ShardedAttentionConfig config = Small();
  config.visibility.cu_seqlens = {0, 1};
  const WholeAttention whole = Attend(4, {config, 2});
  for (int64_t h = 0; h < config.heads; ++h) {
    for (int64_t i = 1; i < config.tokens; ++i) {
      EXPECT_EQ(whole.lse.data<float>()[h * config.tokens + i],
                -std::numeric_limits<float>::infinity());
    }
  }
  const int64_t width = config.heads * config.head_dim;
  for (int64_t i = width; i < config.tokens * width; ++i) {
    EXPECT_EQ(whole.o.data<float>()[i], 0);
    EXPECT_EQ(whole.dq.data<float>()[i], 0);
  }
  EXPECT_NE(whole.o.data<float>()[0], 0);
}

// --- Refusals ----------------------------------------------------------------

constexpr char kOf[] =
    " attention of 1 x 24 tokens, contiguous, 4 heads, 2 KV heads of 8, scale "
    "0, f32, causal: ";

std::string Refusal(int ranks, const HybridConfig& config) {
  return RefusalOnEveryRank(ranks, StatusCode::kInvalidArgument,
                            Hybrid(config));
}

TEST(HybridAttention, RefusesGroupsThatAreNone) {
  EXPECT_EQ(Refusal(4, {Small(), 3}), "hybrid (groups of 3)" +
                                          std::string(kOf) +
                                          "4 ranks are not groups of 3");
  EXPECT_EQ(Refusal(4, {Small(), 0}), "hybrid (groups of 0)" +
                                          std::string(kOf) +
                                          "4 ranks are not groups of 0");
}

TEST(HybridAttention, RefusesGroupsOfMoreRanksThanHeads) {
  EXPECT_EQ(Refusal(5, {Small(), 5}),
            "hybrid (groups of 5)" + std::string(kOf) +
                "a head is computed by one rank of a group; make groups of at "
                "most as many ranks as heads");
}

// Zigzag is over groups: 24 tokens are for 2, 3, 4 and 6 of them.
TEST(HybridAttention, RefusesALayoutThatDoesNotFitTheGroups) {
  HybridConfig config = {.attention = Small(), .ulysses = 1};
  config.attention.layout = SequenceLayout::kZigzag;
  EXPECT_NE(Refusal(5, config).find("pad them to 30"), std::string::npos);
}

TEST(HybridAttention, RefusesRanksThatDiffer) {
  const std::string told = RefusalOnEveryRank(
      4, StatusCode::kInvalidArgument, [](const Communicator& comm) {
        return HybridAttention::Create(comm,
                                       {Small(), comm.rank() == 3 ? 4 : 2});
      });
  EXPECT_NE(told.find("ranks 0 and 3 make different layers"),
            std::string::npos);
}

// Ranks 1 and 3, with one head of three.
TEST(HybridAttention, RefusesOnEveryRankWhatSomeRefuse) {
  const AttentionKernels kernels = {
      .flash = [](const FlashShape& shape)
          -> StatusOr<std::unique_ptr<FlashAttention>> {
        if (shape.heads == 1) return OutOfMemory("no room for a kernel");
        return FlashAttention::Create(shape);
      }};
  HybridConfig config = {.attention = Small(), .ulysses = 2};
  config.attention.heads = 3;
  config.attention.kv_heads = 1;
  const std::string told =
      RefusalOnEveryRank(4, StatusCode::kOutOfMemory,
                         Hybrid(config, RingMode::kOverlapped, kernels));
  EXPECT_NE(told.find("no room for a kernel"), std::string::npos);
}

TEST(HybridAttention, ForwardOnlyGoesForwardOnly) {
  HybridConfig config = {.attention = Small(), .ulysses = 2};
  config.attention.backward = false;
  const Status ran = RunThreads(4, [&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(const HybridAttention attention,
                        HybridAttention::Create(comm, config));
    return attention.Backward({});
  });
  EXPECT_EQ(ran.code(), StatusCode::kInvalidArgument);
  const WholeAttention forward = Attend(4, config);
  EXPECT_EQ(Difference(forward.o, Attend(4, {Small(), 2}).o), 0);
}

// --- Memory and traffic ------------------------------------------------------

TEST(HybridAttention, WorksInWhatItSays) {
  const HybridConfig config = {.attention = Small(), .ulysses = 2};
  // Of 24 tokens a group of two has 12; a rank 6, and 2 of 4 heads and 1 of 2 KV
  // heads, of 8 numbers of 4 bytes.
  const int64_t line = 64, head = 8 * 4, group = 12, own = 6;
  const auto lines = [&](int64_t n) { return (n + line - 1) / line * line; };
  // Of and for each of two, the largest: q, k and v, or dq, dk and dv.
  const int64_t message = 2 * lines(own * (2 + 2) * head);
  // q, k, v, o and lse; dO; dk and dv.
  const int64_t kept = group * ((2 * 2 + 2 * 1) * head + 2 * 4) +
                       group * 2 * head + group * 2 * head;
  RotationConfig rotation =
      RotationOver(2, config.attention, RingMode::kOverlapped);
  rotation.shape.heads = 2;
  rotation.shape.kv_heads = 1;
  FlashShape shape = rotation.shape;
  shape.queries = shape.keys = group;
  const auto flash = FlashAttention::Create(shape);
  ASSERT_TRUE(flash.ok());
  const Status ran = RunThreads(4, [&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(const HybridAttention attention,
                        HybridAttention::Create(comm, config));
    EXPECT_EQ(attention.local_tokens(), own);
    EXPECT_EQ(attention.working_bytes(),
              2 * message + kept + RotationBytes(rotation, comm.rank() / 2) +
                  (*flash)->working_bytes());
    return OkStatus();
  });
  ASSERT_TRUE(ran.ok()) << ran.ToString();
}

TEST(HybridAttention, AllocatesNothingLargeAgain) {
  HybridConfig config = {.attention = Small(), .ulysses = 2};
  config.attention.tokens = 1024;  // Small messages may be held for a receiver.
  const WholeAttention whole(config.attention);
  const Runs runs = RunsOfAll(config, 4);
  const Status ran = RunThreads(4, [&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(const HybridAttention attention,
                        HybridAttention::Create(comm, config));
    RankAttention mine(config.attention, whole,
                       runs[static_cast<size_t>(comm.rank())]);
    int64_t before = 0;
    for (int i = 0; i < 2; ++i) {
      SP_RETURN_IF_ERROR(comm.Barrier());
      before = LargeAllocations();
      SP_RETURN_IF_ERROR(comm.Barrier());
      SP_RETURN_IF_ERROR(attention.Forward(mine.Forward()));
      SP_RETURN_IF_ERROR(attention.Backward(mine.Backward()));
    }
    SP_RETURN_IF_ERROR(comm.Barrier());
    EXPECT_EQ(LargeAllocations(), before);
    return OkStatus();
  });
  ASSERT_TRUE(ran.ok()) << ran.ToString();
}

// The formulas of hybrid.h and head_exchange.h, over all ranks.
TEST(HybridAttention, CostsWhatItSays) {
  HybridConfig config = {.attention = Small()};
  config.attention.sequences = 2;
  config.attention.heads = 8;
  config.attention.kv_heads = 4;
  config.attention.dtype = DType::kBF16;
  const int64_t s = 2, n = 24, d = 8, h = 8, g = 4, e = 2, a = 4;
  for (const int ranks : {1, 2, 4, 8}) {
    for (const int group : {1, 2, 4}) {
      if (ranks % group != 0) continue;
      config.ulysses = group;
      const int64_t u = group, r = ranks / group;
      const Cost forward = HybridForwardCost(ranks, config, kRingCollectives);
      EXPECT_EQ(forward.total.bytes,
                s * n * (d * e * (2 * h + 2 * g) + h * a) * (u - 1) / u +
                    2 * s * n * d * e * g * (r - 1));
      EXPECT_EQ(forward.total.messages, ranks * (2 * (u - 1) + 2 * (r - 1)));
      const Cost backward = HybridBackwardCost(ranks, config, kRingCollectives);
      const int64_t hops = r == 1 ? 0 : r;
      EXPECT_EQ(backward.total.bytes,
                s * n * d * (2 * h * e + 2 * g * a) * (u - 1) / u +
                    2 * s * n * d * g * (e * (r - 1) + a * hops));
      EXPECT_EQ(backward.total.messages,
                ranks * (2 * (u - 1) + 2 * (r - 1) + 2 * hops));
    }
  }
}

}  // namespace
}  // namespace shardproof
