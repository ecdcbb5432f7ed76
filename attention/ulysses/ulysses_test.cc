// What the case cannot say: refusals, memory, what is kept between the passes,
// the traffic as a formula, and that the number of ranks changes no bit.
#include "attention/ulysses/ulysses.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <limits>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "attention/kernels/flash.h"
#include "attention/testing/scheme_testing.h"
#include "collectives/chunks.h"
#include "layers/attention_block/head_share.h"
#include "layers/testing/allocations.h"

namespace shardproof {
namespace {

constexpr SequenceLayout kLayouts[] = {SequenceLayout::kContiguous,
                                       SequenceLayout::kStriped,
                                       SequenceLayout::kZigzag};

ShardedAttentionConfig Small() {
  return {.tokens = 12,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 8,
          .visibility = {.causal = true}};
}

auto Ulysses(const ShardedAttentionConfig& config,
             const AttentionKernels& kernels = {}) {
  return [config, kernels](const Communicator& comm) {
    return UlyssesAttention::Create(comm, config, kAutoCollectives, kernels);
  };
}

WholeAttention Attend(int ranks, const ShardedAttentionConfig& config) {
  return RunScheme(ranks, config, Ulysses(config));
}

std::string Refusal(int ranks, const ShardedAttentionConfig& config,
                    StatusCode code = StatusCode::kInvalidArgument,
                    const AttentionKernels& kernels = {}) {
  return RefusalOnEveryRank(ranks, code, Ulysses(config, kernels));
}

// --- Results -----------------------------------------------------------------

// A head is computed by one rank with all keys, as on one device.
TEST(UlyssesAttention, RanksChangeNoBit) {
  ShardedAttentionConfig config = Small();
  config.kv_heads = config.heads;
  const WholeAttention one = Attend(1, config);
  for (const SequenceLayout layout : kLayouts) {
    config.layout = layout;
    for (const int ranks : {2, 3}) {
      EXPECT_TRUE(SameBits(Attend(ranks, config), one))
          << Name(layout) << " " << ranks;
    }
  }
}

// O is v, and lse the one score: 8 products of at most 1.5^2, which take 8
// roundings and 8 more for the sum, the scale, exp and ln.
TEST(UlyssesAttention, OneToken) {
  constexpr double kBound = 16 * 0x1p-24 * 8 * 1.5 * 1.5;
  ShardedAttentionConfig config = Small();
  config.tokens = 1;
  config.kv_heads = config.heads;
  const auto at = [](const Tensor& t, int64_t i) {
    return static_cast<double>(t.data<float>()[i]);
  };
  for (const int ranks : {1, 2, 4}) {
    const WholeAttention w = Attend(ranks, config);
    EXPECT_EQ(Difference(w.o, w.v), 0);
    for (int64_t h = 0; h < config.heads; ++h) {
      double score = 0;
      for (int64_t i = h * 8; i < (h + 1) * 8; ++i) {
        score += at(w.q, i) * at(w.k, i);
      }
      EXPECT_NEAR(at(w.lse, h), score * config.Scale(), kBound);
    }
    // The weight exp(score - lse) is 1 but for both errors and that of exp.
    EXPECT_LE(Difference(w.dv, w.d_o), 3 * kBound * 1.5);
  }
}

TEST(UlyssesAttention, WhatSeesNothingIsZero) {
  ShardedAttentionConfig config = Small();
  config.visibility.cu_seqlens = {0, 1};
  for (const SequenceLayout layout : kLayouts) {
    config.layout = layout;
    const WholeAttention w = Attend(3, config);
    const int64_t q = config.heads * 8, k = config.kv_heads * 8;
    for (int64_t i = q; i < config.tokens * q; ++i) {
      ASSERT_EQ(w.o.data<float>()[i], 0);
      ASSERT_EQ(w.dq.data<float>()[i], 0);
    }
    for (int64_t i = k; i < config.tokens * k; ++i) {
      ASSERT_EQ(w.dk.data<float>()[i], 0);
      ASSERT_EQ(w.dv.data<float>()[i], 0);
    }
    for (int64_t i = 0; i < config.tokens * config.heads; ++i) {
      const bool nothing = i % config.tokens != 0;
      ASSERT_EQ(
          w.lse.data<float>()[i] == -std::numeric_limits<float>::infinity(),
          nothing);
    }
    EXPECT_NE(w.o.data<float>()[0], 0);
  }
}

TEST(UlyssesAttention, NoTokens) {
  ShardedAttentionConfig config = Small();
  config.tokens = 0;
  EXPECT_EQ(Attend(2, config).o.num_elements(), 0);
}

// Backward goes with what the last Forward kept, and leaves it as it is.
TEST(UlyssesAttention, GradientsAreThoseOfTheLastForward) {
  const ShardedAttentionConfig config = Small();
  const WholeAttention expected = Attend(2, config);
  WholeAttention others(config), whole(config);
  std::swap(others.q, others.d_o);
  std::swap(others.k, others.v);
  std::mutex mutex;
  const auto runs = RunsOfRanks(config.LayoutOver(2));
  const Status ran = RunThreads(2, [&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(const UlyssesAttention attention,
                        UlyssesAttention::Create(comm, config));
    const std::vector<TokenRun>& own = runs[static_cast<size_t>(comm.rank())];
    RankAttention before(config, others, own), mine(config, whole, own);
    SP_RETURN_IF_ERROR(attention.Forward(before.Forward()));
    SP_RETURN_IF_ERROR(attention.Forward(mine.Forward()));
    AttentionBackwardArgs args = mine.Backward();
    args.q = args.k = args.v = args.o = args.lse = nullptr;
    for (int i = 0; i < 2; ++i) SP_RETURN_IF_ERROR(attention.Backward(args));
    const std::lock_guard lock(mutex);
    mine.PutInto(whole);
    return OkStatus();
  });
  ASSERT_TRUE(ran.ok()) << ran.ToString();
  EXPECT_TRUE(SameBits(whole, expected));
}

// --- Refusals ----------------------------------------------------------------

constexpr char kSmall[] =
    "ulysses attention of 1 x 12 tokens, contiguous, 4 heads, 2 KV heads of 8, "
    "scale 0, f32, causal";

TEST(UlyssesAttention, RefusesMoreRanksThanHeads) {
  EXPECT_EQ(Refusal(5, Small()),
            std::string(kSmall) +
                ": a head is computed by one rank, and there are 5 ranks; use "
                "at most as many as heads, or a ring of groups of them");
}

TEST(UlyssesAttention, RefusesRanksThatDiffer) {
  const std::string told = RefusalOnEveryRank(
      3, StatusCode::kInvalidArgument, [](const Communicator& comm) {
        ShardedAttentionConfig config = Small();
        if (comm.rank() == 2) config.tokens = 13;
        return UlyssesAttention::Create(comm, config);
      });
  EXPECT_NE(told.find("ranks 0 and 2 make different layers"),
            std::string::npos);
}

TEST(UlyssesAttention, RefusesALayoutThatDoesNotFit) {
  ShardedAttentionConfig config = Small();
  config.layout = SequenceLayout::kZigzag;
  EXPECT_NE(Refusal(4, config).find("pad them to 16"), std::string::npos);
}

// The rank with one head of three.
TEST(UlyssesAttention, RefusesOnEveryRankWhatOneRankRefuses) {
  const AttentionKernels kernels = {
      .flash = [](const FlashShape& shape)
          -> StatusOr<std::unique_ptr<FlashAttention>> {
        if (shape.heads == 1) return OutOfMemory("no room for a kernel");
        return FlashAttention::Create(shape);
      }};
  ShardedAttentionConfig config = Small();
  config.heads = 3;
  config.kv_heads = 1;
  EXPECT_EQ(Refusal(2, config, StatusCode::kOutOfMemory, kernels),
            "rank 1: no room for a kernel");
}

TEST(UlyssesAttention, ForwardOnlyGoesForwardOnly) {
  ShardedAttentionConfig config = Small();
  config.backward = false;
  const Status ran = RunThreads(2, [&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(const UlyssesAttention attention,
                        UlyssesAttention::Create(comm, config));
    return attention.Backward({});
  });
  EXPECT_EQ(ran.code(), StatusCode::kInvalidArgument);
  const WholeAttention forward = Attend(2, config);
  EXPECT_EQ(Difference(forward.o, Attend(2, Small()).o), 0);
}

// --- Memory and traffic ------------------------------------------------------

// What head_exchange.h and ulysses.h say is kept and worked in.
int64_t ExpectedBytes(int ranks, int rank, const ShardedAttentionConfig& c) {
  const HeadShare own = HeadShare::Of(c.heads, c.kv_heads, ranks, rank);
  const int64_t e = SizeOf(c.dtype), a = SizeOf(Accumulator(c.dtype));
  const int64_t h = own.heads.count, g = own.kv_heads.count, d = c.head_dim;
  const int64_t tokens = c.sequences * c.tokens;
  const auto flash = FlashAttention::Create(
      {.sequences = c.sequences,
       .queries = c.tokens,
       .keys = c.tokens,
       .heads = h,
       .kv_heads = g,
       .heads_per_kv = c.heads_per_kv(),
       .first_in_group = own.heads.begin % c.heads_per_kv(),
       .head_dim = d,
       .dtype = c.dtype});
  EXPECT_TRUE(flash.ok());
  // dk, dv, dq and delta.
  int64_t bytes =
      (*flash)->working_bytes() + tokens * a * (2 * g * d + h * d + h);
  if (ranks == 1) return bytes;
  bytes += tokens * (e * (2 * h + 2 * g) * d + a * h);  // Kept.
  bytes += tokens * e * h * d;                          // dO, then dq.
  // The largest message each way, of blocks that are whole cache lines.
  int64_t sent[4] = {}, received[4] = {};
  const auto lines = [](int64_t n) { return (n + 63) / 64 * 64; };
  const int64_t mine = c.sequences * BalancedChunk(c.tokens, ranks, rank).count;
  for (int r = 0; r < ranks; ++r) {
    const HeadShare s = HeadShare::Of(c.heads, c.kv_heads, ranks, r);
    const int64_t theirs =
        c.sequences * BalancedChunk(c.tokens, ranks, r).count;
    const int64_t hs = s.heads.count, gs = s.kv_heads.count;
    sent[0] += lines(mine * e * d * (hs + 2 * gs));
    received[0] += lines(theirs * e * d * (h + 2 * g));
    sent[1] += lines(theirs * h * (e * d + a));
    received[1] += lines(mine * hs * (e * d + a));
    sent[2] += lines(mine * e * d * hs);
    received[2] += lines(theirs * e * d * h);
    sent[3] += lines(theirs * d * (e * h + 2 * a * g));
    received[3] += lines(mine * d * (e * hs + 2 * a * gs));
  }
  return bytes + *std::max_element(sent, sent + 4) +
         *std::max_element(received, received + 4);
}

TEST(UlyssesAttention, WorksInWhatItSays) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const int ranks : {1, 2, 3, 4}) {
      ShardedAttentionConfig config = Small();
      config.tokens = 13;
      config.dtype = dtype;
      const Status ran =
          RunThreads(ranks, [&](const Communicator& comm) -> Status {
            SP_ASSIGN_OR_RETURN(const UlyssesAttention attention,
                                UlyssesAttention::Create(comm, config));
            EXPECT_EQ(attention.working_bytes(),
                      ExpectedBytes(ranks, comm.rank(), config));
            EXPECT_EQ(attention.local_tokens(),
                      BalancedChunk(13, ranks, comm.rank()).count);
            return OkStatus();
          });
      ASSERT_TRUE(ran.ok()) << ran.ToString();
    }
  }
}

TEST(UlyssesAttention, AllocatesNothingLargeAgain) {
  ShardedAttentionConfig config = Small();
  config.tokens = 96;
  const WholeAttention whole(config);
  const Status ran = RunThreads(2, [&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(const UlyssesAttention attention,
                        UlyssesAttention::Create(comm, config));
    RankAttention mine(
        config, whole,
        RunsOfRanks(config.LayoutOver(2))[static_cast<size_t>(comm.rank())]);
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

// The formula of ulysses.h, over all ranks.
TEST(UlyssesAttention, CostsWhatItSays) {
  ShardedAttentionConfig config = Small();
  config.sequences = 2;
  config.heads = 8;
  config.kv_heads = 4;
  config.dtype = DType::kBF16;
  const int64_t s = 2, n = 12, d = 8, h = 8, g = 4, e = 2, a = 4;
  for (const int ranks : {1, 2, 4}) {
    const int64_t tokens = s * n * (ranks - 1) / ranks;  // S (n / P) (P - 1).
    const Cost forward = UlyssesForwardCost(ranks, config, kRingCollectives);
    EXPECT_EQ(forward.total.bytes, tokens * (d * (2 * h + 2 * g) * e + h * a));
    EXPECT_EQ(forward.total.messages, 2 * ranks * (ranks - 1));
    const Cost backward = UlyssesBackwardCost(ranks, config, kRingCollectives);
    EXPECT_EQ(backward.total.bytes, tokens * d * (2 * h * e + 2 * g * a));
    EXPECT_EQ(backward.total.messages, 2 * ranks * (ranks - 1));
  }
  // Fewer KV heads than ranks: each rank gets the one that it needs.
  config.kv_heads = 1;
  EXPECT_EQ(UlyssesForwardCost(4, config, kRingCollectives).total.bytes,
            s * n * 3 / 4 * (d * (2 * h + 2 * 4) * e + h * a));
}

}  // namespace
}  // namespace shardproof
