// What the case cannot say: refusals, what a rank works in, tokens that nobody
// sees, gradients that holders of a KV head have alike, and that the steady
// state asks for no memory.
#include "attention/head_parallel/head_parallel.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include "attention/sharded/partial_attention.h"
#include "collectives/backend/thread/thread_world.h"
#include "layers/testing/allocations.h"

namespace shardproof {
namespace {

using Floats = std::vector<float>;
using Config = ShardedAttentionConfig;

// Three ranks have 2, 1 and 1 heads, and the last two share the second KV head.
Config Small() {
  return {.sequences = 2,
          .tokens = 7,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 8,
          .visibility = {.causal = true}};
}

void OnRanks(int ranks, const std::function<Status(const Communicator&)>& f) {
  const Status ran = RunThreads(ranks, f);
  EXPECT_TRUE(ran.ok()) << ran.ToString();
}

// What each of three ranks is told, which is the same.
Status Refusal(const std::function<Config(int rank)>& config,
               const AttentionKernels& of_rank_1 = {}) {
  std::vector<Status> all(3);
  OnRanks(3, [&](const Communicator& comm) {
    all[static_cast<size_t>(comm.rank())] =
        HeadParallelAttention::Create(
            comm, config(comm.rank()), kAutoCollectives,
            comm.rank() == 1 ? of_rank_1 : AttentionKernels())
            .status();
    return OkStatus();
  });
  for (const Status& status : all) {
    EXPECT_EQ(status.code(), all[0].code());
    EXPECT_EQ(status.message(), all[0].message());
  }
  return all[0];
}

Status RefusalOf(const std::function<void(Config&)>& change) {
  return Refusal([&](int /*rank*/) {
    Config config = Small();
    change(config);
    return config;
  });
}

TEST(HeadParallel, RefusesOnEveryRankAlike) {
  EXPECT_TRUE(RefusalOf([](Config&) {}).ok());
  EXPECT_EQ(RefusalOf([](Config& c) { c.tokens = -1; }).code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(RefusalOf([](Config& c) { c.kv_heads = 3; }).code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(RefusalOf([](Config& c) { c.visibility.window = -1; }).code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(RefusalOf([](Config& c) { c.dtype = DType::kI32; }).code(),
            StatusCode::kUnsupported);
}

TEST(HeadParallel, RefusesToCutAHead) {
  const Status status = RefusalOf([](Config& c) { c.heads = 2; });
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("there are 3 ranks; use at most as many as "
                                  "heads"),
            std::string::npos)
      << status.message();
  const Status none = RefusalOf([](Config& c) { c.heads = c.kv_heads = 0; });
  EXPECT_EQ(none.code(), StatusCode::kInvalidArgument);
}

TEST(HeadParallel, RefusesTokensThatAreDealt) {
  for (const SequenceLayout layout :
       {SequenceLayout::kStriped, SequenceLayout::kZigzag}) {
    const Status status = RefusalOf([layout](Config& c) { c.layout = layout; });
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  }
}

TEST(HeadParallel, RefusesRanksThatDiffer) {
  const Status status = Refusal([](int rank) {
    Config config = Small();
    if (rank == 2) config.head_dim = 16;
    return config;
  });
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("ranks 0 and 2"), std::string::npos)
      << status.message();
}

TEST(HeadParallel, TellsAllRanksWhatOneRankLacks) {
  const AttentionKernels kernels = {
      .flash =
          [](const FlashShape&) -> StatusOr<std::unique_ptr<FlashAttention>> {
        return OutOfMemory("no room for tiles");
      }};
  const Status status = Refusal([](int /*rank*/) { return Small(); }, kernels);
  EXPECT_EQ(status.code(), StatusCode::kOutOfMemory);
  EXPECT_EQ(status.message(), "rank 1: no room for tiles");
}

// Gradients of its KV heads in f32, and what of a shared one travels.
TEST(HeadParallel, WorksInTheKeysOfItsHeads) {
  for (const bool backward : {false, true}) {
    Config config = Small();
    config.dtype = DType::kBF16;
    config.backward = backward;
    OnRanks(3, [&](const Communicator& comm) -> Status {
      SP_ASSIGN_OR_RETURN(const HeadParallelAttention attention,
                          HeadParallelAttention::Create(comm, config));
      const int64_t heads = comm.rank() == 0 ? 2 : 1;
      EXPECT_EQ(attention.share().heads.count, heads);
      EXPECT_EQ(attention.share().kv_heads.count, 1);
      SP_ASSIGN_OR_RETURN(
          const PartialAttention local,
          PartialAttention::Create({.sequences = 2,
                                    .queries = 7,
                                    .keys = 7,
                                    .heads = heads,
                                    .kv_heads = 1,
                                    .heads_per_kv = 2,
                                    .head_dim = 8,
                                    .dtype = DType::kBF16,
                                    .backward = backward},
                                   config.visibility, {TokenRun{.count = 7}}));
      const int64_t both = 2 * 2 * 7 * 8 * 4;
      int64_t bytes = local.working_bytes();
      if (backward) bytes += comm.rank() == 0 ? both : 2 * both;
      EXPECT_EQ(attention.working_bytes(), bytes);
      return OkStatus();
    });
  }
}

// A rank's tensors, filled with numbers of their places.
struct Local {
  Local(const Config& config, const HeadShare& share)
      : q(Filled(config, share.heads.count)),
        k(Filled(config, share.kv_heads.count)),
        v(k),
        o(q.size(), -7),
        d_o(q),
        dq(q),
        dk(k),
        dv(k),
        lse(q.size() / static_cast<size_t>(config.head_dim), -7) {}
  static Floats Filled(const Config& config, int64_t heads) {
    Floats x(static_cast<size_t>(config.sequences * config.tokens * heads *
                                 config.head_dim));
    for (size_t i = 0; i < x.size(); ++i) {
      x[i] = static_cast<float>(static_cast<int>(i * 29 % 17) - 8) / 8;
    }
    return x;
  }
  AttentionForwardArgs forward() {
    return {q.data(), k.data(), v.data(), o.data(), lse.data()};
  }
  AttentionBackwardArgs backward() {
    return {q.data(),   k.data(),  v.data(),  o.data(), lse.data(),
            d_o.data(), dq.data(), dk.data(), dv.data()};
  }

  Floats q, k, v, o, d_o, dq, dk, dv, lse;
};

Status Both(const HeadParallelAttention& attention, Local& x) {
  SP_RETURN_IF_ERROR(attention.Forward(x.forward()));
  return attention.Backward(x.backward());
}

TEST(HeadParallel, HoldersOfAKvHeadHaveTheSameGradients) {
  std::vector<Floats> dk(3), dv(3);
  OnRanks(3, [&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(const HeadParallelAttention attention,
                        HeadParallelAttention::Create(comm, Small()));
    Local x(Small(), attention.share());
    // The query heads of the last two ranks differ.
    if (comm.rank() == 2) {
      for (float& number : x.q) number = -number;
    }
    SP_RETURN_IF_ERROR(Both(attention, x));
    dk[static_cast<size_t>(comm.rank())] = x.dk;
    dv[static_cast<size_t>(comm.rank())] = x.dv;
    return OkStatus();
  });
  EXPECT_EQ(dk[1], dk[2]);
  EXPECT_EQ(dv[1], dv[2]);
}

// Documents end with the first token: every other one sees nothing.
TEST(HeadParallel, GivesZeroWhereNothingIsSeen) {
  for (const int64_t tokens : {0, 1, 5}) {
    Config config = Small();
    config.tokens = tokens;
    if (tokens > 0) config.visibility.cu_seqlens = {0, 1};
    OnRanks(2, [&](const Communicator& comm) -> Status {
      SP_ASSIGN_OR_RETURN(const HeadParallelAttention attention,
                          HeadParallelAttention::Create(comm, config));
      Local x(config, attention.share());
      SP_RETURN_IF_ERROR(Both(attention, x));
      for (size_t i = 0; i < x.o.size(); ++i) {
        const int64_t row = static_cast<int64_t>(i) / 16;
        // The first token has its value, on both query heads.
        const bool first = row % tokens == 0;
        EXPECT_EQ(x.o[i],
                  first ? x.v[static_cast<size_t>(row) * 8 + i % 8] : 0.0f);
        EXPECT_EQ(x.dq[i], 0);
      }
      for (size_t i = 0; i < x.lse.size(); ++i) {
        const bool first = static_cast<int64_t>(i) % tokens == 0;
        EXPECT_EQ(std::isfinite(x.lse[i]), first);
        EXPECT_FALSE(x.lse[i] > std::numeric_limits<float>::max());
      }
      for (size_t i = 0; i < x.dv.size(); ++i) {
        EXPECT_EQ(x.dk[i], 0);
        if (static_cast<int64_t>(i) / 8 % tokens != 0) {
          EXPECT_EQ(x.dv[i], 0);
        }
      }
      return OkStatus();
    });
  }
}

TEST(HeadParallel, AsksForNoMemoryTheSecondTime) {
  Config config = Small();
  config.tokens = 96;
  config.head_dim = 32;
  config.kv_heads = 1;
  OnRanks(2, [&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(
        const HeadParallelAttention attention,
        HeadParallelAttention::Create(comm, config, kRingCollectives));
    Local x(config, attention.share());
    SP_RETURN_IF_ERROR(Both(attention, x));
    SP_RETURN_IF_ERROR(comm.Barrier());
    const int64_t before = LargeAllocations();
    SP_RETURN_IF_ERROR(comm.Barrier());
    SP_RETURN_IF_ERROR(Both(attention, x));
    SP_RETURN_IF_ERROR(comm.Barrier());
    EXPECT_EQ(LargeAllocations(), before);
    return OkStatus();
  });
}

}  // namespace
}  // namespace shardproof
