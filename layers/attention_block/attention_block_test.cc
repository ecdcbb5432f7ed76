// What the case cannot say: refusals, who has which heads, and that parts that
// are the same are.
#include "layers/attention_block/attention_block.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "collectives/backend/thread/thread_world.h"

namespace shardproof {
namespace {

using Floats = std::vector<float>;

constexpr ParallelAttentionConfig Small() {
  return {.sequences = 1,
          .length = 5,
          .hidden = 6,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 4};
}

TEST(HeadShare, EveryHeadIsHeldAndHasItsKvHead) {
  for (const int64_t heads : {1, 2, 6, 8, 12}) {
    for (int64_t kv = 1; kv <= heads; ++kv) {
      if (heads % kv != 0) continue;
      for (int64_t ranks = 1; ranks <= heads; ++ranks) {
        int64_t next = 0;
        std::vector<int64_t> holders(static_cast<size_t>(kv));
        for (int64_t r = 0; r < ranks; ++r) {
          const HeadShare s = HeadShare::Of(heads, kv, ranks, r);
          EXPECT_EQ(s.heads.begin, next);
          EXPECT_GE(s.heads.count, 1);
          next += s.heads.count;
          for (int64_t g = 0; g < kv; ++g) {
            // Held exactly where one of its query heads is.
            const int64_t first = g * (heads / kv), last = first + heads / kv;
            const bool used =
                first < s.heads.begin + s.heads.count && last > s.heads.begin;
            EXPECT_EQ(s.Holds(g), used);
            if (used) ++holders[static_cast<size_t>(g)];
          }
        }
        EXPECT_EQ(next, heads);
        std::vector<int64_t> shared(static_cast<size_t>(kv), 1);
        for (const SharedKvHead& s : SharedKvHeads(heads, kv, ranks)) {
          shared[static_cast<size_t>(s.kv_head)] = s.ranks.count;
        }
        EXPECT_EQ(shared, holders);
      }
    }
  }
}

// What every rank of three is told where `config` is each rank's.
template <class ConfigOf>
std::vector<Status> Refusals(int ranks, ConfigOf config) {
  std::vector<Status> refusals(static_cast<size_t>(ranks));
  const Status ran = RunThreads(ranks, [&](const Communicator& comm) {
    refusals[static_cast<size_t>(comm.rank())] =
        ParallelAttention::Create(comm, config(comm.rank())).status();
    return OkStatus();
  });
  EXPECT_TRUE(ran.ok()) << ran.ToString();
  return refusals;
}

TEST(ParallelAttention, RefusesOnEveryRankAlike) {
  for (const Status& refusal : Refusals(3, [](int rank) {
         ParallelAttentionConfig config = Small();
         if (rank == 2) config.rope_theta = 10000;
         return config;
       })) {
    EXPECT_EQ(refusal.code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(
        refusal.message(),
        "ranks 0 and 2 make different layers: \"attention of 1 x 5 tokens "
        "of 6, 4 heads of 4, 2 KV heads, f32, causal\" and \"attention of "
        "1 x 5 tokens of 6, 4 heads of 4, 2 KV heads, f32, causal, rope "
        "10000\"");
  }
}

// The rank with one head of three has no core, and both hold the KV head.
TEST(ParallelAttention, RefusesOnEveryRankWhatOneRankRefuses) {
  const AttentionCoreFactory core = [](const AttentionShape& shape)
      -> StatusOr<std::unique_ptr<AttentionCore>> {
    if (shape.heads == 1) return OutOfMemory("no room for a core");
    return CreatePlainAttention(shape);
  };
  std::vector<Status> refusals(2);
  const Status ran = RunThreads(2, [&](const Communicator& comm) {
    ParallelAttentionConfig config = Small();
    config.heads = 3;
    config.kv_heads = 1;
    refusals[static_cast<size_t>(comm.rank())] =
        ParallelAttention::Create(comm, config, kAutoCollectives, core)
            .status();
    return OkStatus();
  });
  ASSERT_TRUE(ran.ok()) << ran.ToString();
  for (const Status& refusal : refusals) {
    EXPECT_EQ(refusal.code(), StatusCode::kOutOfMemory);
    EXPECT_EQ(refusal.message(), "rank 1: no room for a core");
  }
}

TEST(ParallelAttention, RefusesOtherPositions) {
  for (const Status& refusal : Refusals(2, [](int rank) {
         ParallelAttentionConfig config = Small();
         config.rope_theta = 10000;
         config.positions = {0, 1, 2, 3, 4 + rank};
         return config;
       })) {
    EXPECT_EQ(refusal.code(), StatusCode::kInvalidArgument);
  }
}

TEST(ParallelAttention, RefusesMoreRanksThanHeads) {
  for (const Status& refusal :
       Refusals(5, [](int /*rank*/) { return Small(); })) {
    EXPECT_EQ(refusal.code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(refusal.message(),
              "attention of 1 x 5 tokens of 6, 4 heads of 4, 2 KV heads, f32, "
              "causal: attention is cut by whole heads, and there are 5 ranks; "
              "use at most as many as heads");
  }
}

TEST(ParallelAttention, RefusesWhatDoesNotFit) {
  const auto code = [](const ParallelAttentionConfig& config) {
    const std::vector<Status> all =
        Refusals(2, [&](int /*rank*/) { return config; });
    EXPECT_EQ(all[0].message(), all[1].message());
    return all[0].code();
  };
  ParallelAttentionConfig config = Small();
  EXPECT_EQ(code(config), StatusCode::kOk);
  config.kv_heads = 3;
  EXPECT_EQ(code(config), StatusCode::kInvalidArgument);
  config.kv_heads = 0;
  EXPECT_EQ(code(config), StatusCode::kInvalidArgument);
  config = Small();
  config.head_dim = 3;
  EXPECT_EQ(code(config), StatusCode::kOk);
  config.rope_theta = 10000;
  EXPECT_EQ(code(config), StatusCode::kInvalidArgument);
  config = Small();
  config.positions = {1, 2};
  EXPECT_EQ(code(config), StatusCode::kInvalidArgument);
  config = Small();
  config.length = -1;
  EXPECT_EQ(code(config), StatusCode::kInvalidArgument);
  config = Small();
  config.dtype = DType::kI32;
  EXPECT_EQ(code(config), StatusCode::kUnsupported);
}

// A rank's memory. Element i of a tensor depends on i, and not on the rank.
struct Memory {
  Memory(const ParallelAttention& layer, const ParallelAttentionConfig& c)
      : fused(layer.share().FusedHeads() * c.head_dim),
        x(Fill(layer.local_tokens() * c.hidden, 5)),
        dy(Fill(layer.local_tokens() * c.hidden, 7)),
        w_qkv(Fill(fused * c.hidden, 11)),
        b_qkv(Fill(fused, 13)),
        w_out(Fill(c.hidden * layer.share().heads.count * c.head_dim, 17)),
        b_out(Fill(c.hidden, 19)),
        y(x.size(), -1),
        dx(x.size(), -1),
        dw_qkv(w_qkv.size(), -1),
        db_qkv(b_qkv.size(), -1),
        dw_out(w_out.size(), -1),
        db_out(b_out.size(), -1) {}
  static Floats Fill(int64_t n, int64_t step) {
    Floats v;
    for (int64_t i = 0; i < n; ++i) {
      v.push_back(static_cast<float>(i * step % 23 - 11) / 16);
    }
    return v;
  }
  AttentionGradients Gradients() {
    return {dw_qkv.data(), db_qkv.data(), dw_out.data(), db_out.data()};
  }
  Status Run(ParallelAttention& layer) {
    const AttentionWeights weights = {w_qkv.data(), b_qkv.data(), w_out.data(),
                                      b_out.data()};
    SP_RETURN_IF_ERROR(layer.Forward(x.data(), weights, y.data()));
    return layer.Backward(x.data(), weights, dy.data(), dx.data(), Gradients());
  }
  bool SameAs(const Memory& o) const {
    return y == o.y && dx == o.dx && dw_qkv == o.dw_qkv && db_qkv == o.db_qkv &&
           dw_out == o.dw_out && db_out == o.db_out;
  }

  int64_t fused;
  Floats x, dy, w_qkv, b_qkv, w_out, b_out;
  Floats y, dx, dw_qkv, db_qkv, dw_out, db_out;
};

ParallelAttentionConfig Large(bool sequence_parallel) {
  return {.sequences = 2,
          .length = 17,
          .hidden = 24,
          .heads = 6,
          .kv_heads = 2,
          .head_dim = 8,
          .rope_theta = 10000,
          .bias = true,
          .sequence_parallel = sequence_parallel};
}

TEST(ParallelAttention, RecomputedCoreIsBitwiseTheSame) {
  for (const bool sequence_parallel : {false, true}) {
    const Status ran = RunThreads(4, [&](const Communicator& comm) -> Status {
      ParallelAttentionConfig config = Large(sequence_parallel);
      SP_ASSIGN_OR_RETURN(auto keeps, ParallelAttention::Create(comm, config));
      Memory kept(keeps, config);
      SP_RETURN_IF_ERROR(kept.Run(keeps));
      config.recompute_core = true;
      SP_ASSIGN_OR_RETURN(auto again, ParallelAttention::Create(comm, config));
      Memory recomputed(again, config);
      SP_RETURN_IF_ERROR(recomputed.Run(again));
      EXPECT_TRUE(recomputed.SameAs(kept));
      EXPECT_EQ(keeps.kept_bytes() - again.kept_bytes(),
                2 * keeps.share().heads.count * 17 * 17 * 4);
      return OkStatus();
    });
    EXPECT_TRUE(ran.ok()) << ran.ToString();
  }
}

// Those who share a KV head have the same gradient of it, to the bit.
TEST(ParallelAttention, SharersAgree) {
  std::vector<Floats> gradients(5), biases(5);
  const ParallelAttentionConfig config = Large(true);
  const Status ran = RunThreads(5, [&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(auto layer, ParallelAttention::Create(comm, config));
    Memory memory(layer, config);
    SP_RETURN_IF_ERROR(memory.Run(layer));
    gradients[static_cast<size_t>(comm.rank())] = memory.dw_qkv;
    biases[static_cast<size_t>(comm.rank())] = memory.db_qkv;
    return OkStatus();
  });
  ASSERT_TRUE(ran.ok()) << ran.ToString();
  // Ranks 0 to 4 have heads 2 1 1 1 1: KV head 0 on 0 and 1, head 1 on 2 to 4.
  for (const auto& [a, b] : {std::pair{0, 1}, {2, 3}, {2, 4}}) {
    const HeadShare left = HeadShare::Of(6, 2, 5, a);
    const HeadShare right = HeadShare::Of(6, 2, 5, b);
    ASSERT_EQ(left.kv_heads, right.kv_heads);
    const auto tail = [&](const std::vector<Floats>& of, int rank,
                          const HeadShare& share, int64_t width) {
      const Floats& all = of[static_cast<size_t>(rank)];
      return Floats(all.begin() + share.heads.count * 8 * width, all.end());
    };
    EXPECT_EQ(tail(gradients, a, left, 24), tail(gradients, b, right, 24));
    EXPECT_EQ(tail(biases, a, left, 1), tail(biases, b, right, 1));
  }
}

// To be summed later is the same, and nothing is summed before.
TEST(ParallelAttention, SharedGradientsMayBeSummedLater) {
  const Status ran = RunThreads(3, [&](const Communicator& comm) -> Status {
    ParallelAttentionConfig config = Large(false);
    SP_ASSIGN_OR_RETURN(auto at_once, ParallelAttention::Create(comm, config));
    Memory want(at_once, config);
    SP_RETURN_IF_ERROR(want.Run(at_once));
    config.sum_shared = false;
    SP_ASSIGN_OR_RETURN(auto later, ParallelAttention::Create(comm, config));
    Memory got(later, config);
    SP_RETURN_IF_ERROR(got.Run(later));
    // Rank 1 shares KV head 0 with rank 0, and head 1 with rank 2.
    EXPECT_FALSE(got.SameAs(want));
    SP_RETURN_IF_ERROR(later.SumSharedGradients(got.Gradients()));
    EXPECT_TRUE(got.SameAs(want));
    return OkStatus();
  });
  EXPECT_TRUE(ran.ok()) << ran.ToString();
}

TEST(ParallelAttention, WithoutTokensHasZeroGradients) {
  for (const bool sequence_parallel : {false, true}) {
    ParallelAttentionConfig config = Large(sequence_parallel);
    config.length = 0;
    const Status ran = RunThreads(3, [&](const Communicator& comm) -> Status {
      SP_ASSIGN_OR_RETURN(auto layer, ParallelAttention::Create(comm, config));
      Memory m(layer, config);
      SP_RETURN_IF_ERROR(m.Run(layer));
      EXPECT_EQ(m.dw_qkv, Floats(m.w_qkv.size(), 0));
      EXPECT_EQ(m.db_qkv, Floats(m.b_qkv.size(), 0));
      EXPECT_EQ(m.dw_out, Floats(m.w_out.size(), 0));
      EXPECT_EQ(m.db_out, Floats(m.b_out.size(), 0));
      return OkStatus();
    });
    EXPECT_TRUE(ran.ok()) << ran.ToString();
  }
}

}  // namespace
}  // namespace shardproof
