// What the case cannot say: refusals, what a rank works in, tokens that nobody
// sees, and that the steady state asks for no memory.
#include "attention/all_gather_kv/all_gather_kv.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "attention/sharded/partial_attention.h"
#include "collectives/backend/thread/thread_world.h"
#include "layers/testing/allocations.h"

namespace shardproof {
namespace {

using Floats = std::vector<float>;
using Config = ShardedAttentionConfig;

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
        AllGatherKvAttention::Create(
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

TEST(AllGatherKv, RefusesOnEveryRankAlike) {
  EXPECT_TRUE(RefusalOf([](Config&) {}).ok());
  EXPECT_EQ(RefusalOf([](Config& c) { c.tokens = -1; }).code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(RefusalOf([](Config& c) { c.kv_heads = 3; }).code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(RefusalOf([](Config& c) { c.scale = -1; }).code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(RefusalOf([](Config& c) { c.visibility.window = -1; }).code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(RefusalOf([](Config& c) {
              c.visibility.cu_seqlens = {0, 9};
            }).code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(RefusalOf([](Config& c) { c.dtype = DType::kI32; }).code(),
            StatusCode::kUnsupported);
  const Status zigzag =
      RefusalOf([](Config& c) { c.layout = SequenceLayout::kZigzag; });
  EXPECT_EQ(zigzag.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(zigzag.message().find("12"), std::string::npos)
      << "the length to pad to: " << zigzag.message();
}

TEST(AllGatherKv, RefusesRanksThatDiffer) {
  const Status status = Refusal([](int rank) {
    Config config = Small();
    if (rank == 2) config.head_dim = 16;
    return config;
  });
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("ranks 0 and 2"), std::string::npos)
      << status.message();
}

TEST(AllGatherKv, TellsAllRanksWhatOneRankLacks) {
  const AttentionKernels kernels = {
      .flash =
          [](const FlashShape&) -> StatusOr<std::unique_ptr<FlashAttention>> {
        return OutOfMemory("no room for tiles");
      }};
  const Status status = Refusal([](int /*rank*/) { return Small(); }, kernels);
  EXPECT_EQ(status.code(), StatusCode::kOutOfMemory);
  EXPECT_EQ(status.message(), "rank 1: no room for tiles");
}

TEST(AllGatherKv, WorksInTheKeysOfAllTokens) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    for (const bool backward : {false, true}) {
      for (const int ranks : {1, 3}) {
        Config config = Small();
        config.dtype = dtype;
        config.backward = backward;
        OnRanks(ranks, [&](const Communicator& comm) -> Status {
          SP_ASSIGN_OR_RETURN(const AllGatherKvAttention attention,
                              AllGatherKvAttention::Create(comm, config));
          SP_ASSIGN_OR_RETURN(const std::vector<TokenRun> mine,
                              RunsOf(config.LayoutOver(ranks), comm.rank()));
          const auto runs = RunsOfRanks(config.LayoutOver(ranks));
          SP_ASSIGN_OR_RETURN(
              const PartialAttention local,
              PartialAttention::Create({.sequences = 2,
                                        .queries = LongestRun(runs),
                                        .keys = 7,
                                        .heads = 4,
                                        .kv_heads = 2,
                                        .heads_per_kv = 2,
                                        .head_dim = 8,
                                        .dtype = dtype,
                                        .backward = backward},
                                       config.visibility, mine));
          EXPECT_EQ(attention.local_tokens(), CountTokens(mine));
          // K and V of all tokens, their gradients in f32, and what travels.
          const int64_t both = 2 * 2 * 7 * 2 * 8, e = SizeOf(dtype);
          int64_t bytes = local.working_bytes();
          if (backward) bytes += both * 4;
          if (ranks > 1) bytes += both * e + both * (backward ? 4 : e);
          EXPECT_EQ(attention.working_bytes(), bytes)
              << Name(dtype) << " over " << ranks;
          return OkStatus();
        });
      }
    }
  }
}

// A rank's tensors, filled with numbers of their places.
struct Local {
  Local(const Config& config, int64_t tokens)
      : q(Filled(config.sequences * tokens * config.heads * config.head_dim)),
        k(Filled(config.sequences * tokens * config.kv_heads *
                 config.head_dim)),
        v(k),
        o(q.size(), -7),
        d_o(q),
        dq(q),
        dk(k),
        dv(k),
        lse(static_cast<size_t>(config.sequences * config.heads * tokens), -7) {
  }
  static Floats Filled(int64_t count) {
    Floats x(static_cast<size_t>(count));
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

// Documents end with the first token: every other one sees nothing. Of more
// ranks than tokens, some have none.
TEST(AllGatherKv, GivesZeroWhereNothingIsSeen) {
  for (const int64_t tokens : {1, 5}) {
    Config config = Small();
    config.tokens = tokens;
    config.visibility.cu_seqlens = {0, 1};
    OnRanks(3, [&](const Communicator& comm) -> Status {
      SP_ASSIGN_OR_RETURN(const AllGatherKvAttention attention,
                          AllGatherKvAttention::Create(comm, config));
      const int64_t mine = attention.local_tokens();
      Local x(config, mine);
      SP_RETURN_IF_ERROR(attention.Forward(x.forward()));
      SP_RETURN_IF_ERROR(attention.Backward(x.backward()));
      const bool first = comm.rank() == 0;
      const int64_t row = config.heads * config.head_dim;
      for (size_t i = 0; i < x.o.size(); ++i) {
        const auto at = static_cast<int64_t>(i);
        const int64_t token = at / row % mine;
        // A query that sees itself has its value.
        const int64_t head = at % row / config.head_dim / 2;
        const size_t value =
            static_cast<size_t>(at / row * 2 * config.head_dim +
                                head * config.head_dim + at % config.head_dim);
        EXPECT_EQ(x.o[i], first && token == 0 ? x.v[value] : 0.0f);
        EXPECT_EQ(x.dq[i], 0);
      }
      for (size_t i = 0; i < x.lse.size(); ++i) {
        const bool seen = first && static_cast<int64_t>(i) % mine == 0;
        EXPECT_EQ(std::isfinite(x.lse[i]), seen);
        EXPECT_FALSE(x.lse[i] > std::numeric_limits<float>::max());
      }
      for (size_t i = 0; i < x.dv.size(); ++i) {
        const int64_t token = static_cast<int64_t>(i) / 16 % mine;
        EXPECT_EQ(x.dk[i], 0);
        if (!first || token > 0) {
          EXPECT_EQ(x.dv[i], 0);
        }
      }
      return OkStatus();
    });
  }
}

TEST(AllGatherKv, AsksForNoMemoryTheSecondTime) {
  Config config = Small();
  config.tokens = 96;
  config.head_dim = 32;
  config.layout = SequenceLayout::kStriped;
  OnRanks(2, [&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(
        const AllGatherKvAttention attention,
        AllGatherKvAttention::Create(comm, config, kRingCollectives));
    Local x(config, attention.local_tokens());
    const auto both = [&]() -> Status {
      SP_RETURN_IF_ERROR(attention.Forward(x.forward()));
      return attention.Backward(x.backward());
    };
    SP_RETURN_IF_ERROR(both());
    SP_RETURN_IF_ERROR(comm.Barrier());
    const int64_t before = LargeAllocations();
    SP_RETURN_IF_ERROR(comm.Barrier());
    SP_RETURN_IF_ERROR(both());
    SP_RETURN_IF_ERROR(comm.Barrier());
    EXPECT_EQ(LargeAllocations(), before);
    return OkStatus();
  });
}

}  // namespace
}  // namespace shardproof
