// What the case of ring attention cannot say: refusals, tokens that see nothing,
// what is the same to the bit, and what memory it asks for.
#include "attention/ring/ring.h"

#include <gtest/gtest.h>

#include <atomic>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "attention/testing/scheme_testing.h"
#include "layers/testing/allocations.h"

namespace shardproof {
namespace {

ShardedAttentionConfig Small() {
  return {.tokens = 12,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 8,
          .visibility = {.causal = true}};
}

auto Ring(const ShardedAttentionConfig& config,
          RingMode mode = RingMode::kOverlapped) {
  return [config, mode](const Communicator& comm) {
    return RingAttention::Create(comm, config, mode);
  };
}

std::string Refusal(const ShardedAttentionConfig& config, int ranks = 3,
                    StatusCode code = StatusCode::kInvalidArgument) {
  return RefusalOnEveryRank(ranks, code, Ring(config));
}

TEST(RingAttention, RefusesOnEveryRankAlike) {
  ShardedAttentionConfig c = Small();
  c.kv_heads = 3;
  EXPECT_EQ(
      Refusal(c),
      "ring attention of 1 x 12 tokens, contiguous, 4 heads, 3 KV heads "
      "of 8, scale 0, f32, causal: 4 heads are no multiple of 3 KV heads");
  c = Small();
  c.head_dim = -8;
  EXPECT_NE(Refusal(c).find("a size is negative"), std::string::npos);
  c = Small();
  c.scale = -1;
  EXPECT_NE(Refusal(c).find("scaled by -1"), std::string::npos);
  c = Small();
  c.tokens = 14;
  c.layout = SequenceLayout::kZigzag;
  EXPECT_NE(Refusal(c).find("14 tokens do not: pad them to 18"),
            std::string::npos);
  c = Small();
  c.visibility.window = -2;
  EXPECT_NE(Refusal(c).find("-2"), std::string::npos);
  c = Small();
  c.dtype = DType::kI32;
  Refusal(c, 3, StatusCode::kUnsupported);
}

TEST(RingAttention, RefusesDocumentsThatAreNone) {
  for (const std::vector<int64_t>& cu :
       {std::vector<int64_t>{0, 4, 4, 12}, {0, 8, 4, 12}, {1, 12}, {0, 13}}) {
    ShardedAttentionConfig c = Small();
    c.visibility.cu_seqlens = cu;
    EXPECT_NE(Refusal(c).find("documents"), std::string::npos);
  }
}

TEST(RingAttention, RefusesRanksThatDiffer) {
  const std::string told = RefusalOnEveryRank(
      3, StatusCode::kInvalidArgument, [](const Communicator& comm) {
        ShardedAttentionConfig c = Small();
        if (comm.rank() == 1) c.visibility.causal = false;
        return RingAttention::Create(comm, c);
      });
  EXPECT_NE(told.find("ranks 0 and 1 make different layers"),
            std::string::npos);
}

TEST(RingAttention, ForwardOnlyGoesForwardOnly) {
  ShardedAttentionConfig c = Small();
  c.backward = false;
  const Status ran = RunThreads(2, [&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(const RingAttention ring,
                        RingAttention::Create(comm, c));
    return ring.Backward({});
  });
  EXPECT_EQ(ran.code(), StatusCode::kInvalidArgument);
  const WholeAttention forward = RunScheme(2, c, Ring(c));
  c.backward = true;
  EXPECT_EQ(Difference(forward.o, RunScheme(2, c, Ring(c)).o), 0);
}

// Of one token among three ranks, attention is its value, and lse the one score:
// 8 products of at most 1.5^2, scaled, which take 8 roundings, and 8 more of that
// size for the scale, exp, its sum and ln.
TEST(RingAttention, OneToken) {
  const double bound = 16 * 0x1p-24 * 8 * 1.5 * 1.5 * Small().Scale();
  for (const SequenceLayout layout :
       {SequenceLayout::kContiguous, SequenceLayout::kStriped}) {
    ShardedAttentionConfig c = Small();
    c.tokens = 1;
    c.layout = layout;
    const WholeAttention whole = RunScheme(3, c, Ring(c));
    for (int64_t h = 0; h < c.heads; ++h) {
      double score = 0;
      for (int64_t e = 0; e < c.head_dim; ++e) {
        const int64_t kv = h / 2 * c.head_dim + e, at = h * c.head_dim + e;
        score += static_cast<double>(whole.q.data<float>()[at]) *
                 whole.k.data<float>()[kv];
        EXPECT_EQ(whole.o.data<float>()[at], whole.v.data<float>()[kv]);
      }
      EXPECT_NEAR(whole.lse.data<float>()[h], score * c.Scale(), bound);
    }
  }
}

// Tokens behind the last document see nothing, and nobody sees them.
TEST(RingAttention, WhatSeesNothingIsZero) {
  for (const SequenceLayout layout :
       {SequenceLayout::kContiguous, SequenceLayout::kStriped,
        SequenceLayout::kZigzag}) {
    ShardedAttentionConfig c = Small();
    c.layout = layout;
    c.visibility.cu_seqlens = {0, 5};
    const WholeAttention whole = RunScheme(3, c, Ring(c));
    for (int64_t i = 5; i < c.tokens; ++i) {
      for (int64_t e = 0; e < c.heads * c.head_dim; ++e) {
        EXPECT_EQ(whole.o.data<float>()[i * c.heads * c.head_dim + e], 0);
        EXPECT_EQ(whole.dq.data<float>()[i * c.heads * c.head_dim + e], 0);
      }
      for (int64_t e = 0; e < c.kv_heads * c.head_dim; ++e) {
        EXPECT_EQ(whole.dk.data<float>()[i * c.kv_heads * c.head_dim + e], 0);
        EXPECT_EQ(whole.dv.data<float>()[i * c.kv_heads * c.head_dim + e], 0);
      }
      for (int64_t h = 0; h < c.heads; ++h) {
        EXPECT_EQ(whole.lse.data<float>()[h * c.tokens + i],
                  -std::numeric_limits<float>::infinity());
      }
    }
    // What is in front of it is not.
    EXPECT_NE(whole.o.data<float>()[4 * c.heads * c.head_dim], 0);
    EXPECT_TRUE(std::isfinite(whole.lse.data<float>()[4]));
  }
}

TEST(RingAttention, ModesGiveTheSameBits) {
  for (const int ranks : {2, 5}) {
    ShardedAttentionConfig c = Small();
    c.tokens = 20;
    c.layout = SequenceLayout::kZigzag;
    const WholeAttention in_turn =
        RunScheme(ranks, c, Ring(c, RingMode::kInTurn));
    EXPECT_TRUE(SameBits(in_turn, RunScheme(ranks, c, Ring(c))));
    EXPECT_TRUE(SameBits(
        in_turn, RunScheme(ranks, c, Ring(c, RingMode::kMessageThread))));
  }
}

TEST(RingAttention, AllocatesNothingInTheSteadyState) {
  ShardedAttentionConfig c = Small();
  c.tokens = 256;
  for (const RingMode mode :
       {RingMode::kInTurn, RingMode::kOverlapped, RingMode::kMessageThread}) {
    std::atomic<int64_t> asked = 0;
    const WholeAttention whole(c);
    const auto runs = RunsOfRanks(c.LayoutOver(2));
    const Status ran = RunThreads(2, [&](const Communicator& comm) -> Status {
      SP_ASSIGN_OR_RETURN(const RingAttention ring,
                          RingAttention::Create(comm, c, mode));
      RankAttention mine(c, whole, runs[static_cast<size_t>(comm.rank())]);
      SP_RETURN_IF_ERROR(ring.Forward(mine.Forward()));
      SP_RETURN_IF_ERROR(ring.Backward(mine.Backward()));
      SP_RETURN_IF_ERROR(comm.Barrier());
      const int64_t before = LargeAllocations();
      SP_RETURN_IF_ERROR(comm.Barrier());
      SP_RETURN_IF_ERROR(ring.Forward(mine.Forward()));
      SP_RETURN_IF_ERROR(ring.Backward(mine.Backward()));
      SP_RETURN_IF_ERROR(comm.Barrier());
      asked += LargeAllocations() - before;
      return comm.Barrier();
    });
    EXPECT_TRUE(ran.ok()) << ran.ToString();
    EXPECT_EQ(asked, 0);
  }
}

// Of a rank: twice the tokens are at most twice the memory, once tiles are full.
TEST(RingAttention, MemoryIsLinearInTheSequence) {
  std::vector<int64_t> bytes;
  for (const int64_t tokens : {4096, 8192, 16384}) {
    ShardedAttentionConfig c = Small();
    c.tokens = tokens;
    const Status ran = RunThreads(2, [&](const Communicator& comm) -> Status {
      SP_ASSIGN_OR_RETURN(const RingAttention ring,
                          RingAttention::Create(comm, c));
      if (comm.rank() == 0) bytes.push_back(ring.working_bytes());
      return OkStatus();
    });
    ASSERT_TRUE(ran.ok()) << ran.ToString();
  }
  EXPECT_LE(bytes[1], 2 * bytes[0]);
  EXPECT_LE(bytes[2], 2 * bytes[1]);
}

TEST(RingAttention, MemoryIsThatOfTheFormula) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int ranks : {1, 3}) {
      ShardedAttentionConfig c = Small();
      c.tokens = 48;
      c.layout = SequenceLayout::kZigzag;
      c.dtype = dtype;
      const RotationConfig rotation =
          RotationOver(ranks, c, RingMode::kOverlapped);
      FlashShape shape = rotation.shape;
      shape.queries = shape.keys = 48 / (2 * ranks);
      const auto kernel = FlashAttention::Create(shape);
      ASSERT_TRUE(kernel.ok());
      const Status ran =
          RunThreads(ranks, [&](const Communicator& comm) -> Status {
            SP_ASSIGN_OR_RETURN(const RingAttention ring,
                                RingAttention::Create(comm, c));
            EXPECT_EQ(ring.working_bytes() - (*kernel)->working_bytes(),
                      RotationBytes(rotation, comm.rank()));
            return OkStatus();
          });
      ASSERT_TRUE(ran.ok()) << ran.ToString();
    }
  }
}

}  // namespace
}  // namespace shardproof
