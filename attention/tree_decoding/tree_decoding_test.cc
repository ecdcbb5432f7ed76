// What the case cannot say: refusals, a cache that grows, tokens that nobody
// sees, what a rank works in, what it sends, and that the steady state asks for
// no memory.
#include "attention/tree_decoding/tree_decoding.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "attention/sharded/partial_attention.h"
#include "collectives/backend/thread/thread_world.h"
#include "layers/testing/allocations.h"
#include "reference/flash_attention.h"
#include "reference/tensor.h"

namespace shardproof {
namespace {

using Floats = std::vector<float>;
using Config = ShardedAttentionConfig;
constexpr TreeCombine kCombines[] = {TreeCombine::kDoubling,
                                     TreeCombine::kAllReduce};

Config Small() {
  return {.sequences = 2,
          .tokens = 11,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 8,
          .layout = SequenceLayout::kStriped,
          .visibility = {.causal = true},
          .backward = false};
}

void OnRanks(int ranks, const std::function<Status(const Communicator&)>& f) {
  const Status ran = RunThreads(ranks, f);
  EXPECT_TRUE(ran.ok()) << ran.ToString();
}

// What a rank asks for.
struct Request {
  Config config = Small();
  int64_t queries = 1;
  TreeCombine combine = TreeCombine::kDoubling;
  AttentionKernels kernels = {};
};

// What each of three ranks is told, which is the same.
Status Refusal(const std::function<Request(int rank)>& request) {
  std::vector<Status> all(3);
  OnRanks(3, [&](const Communicator& comm) {
    const Request r = request(comm.rank());
    all[static_cast<size_t>(comm.rank())] =
        TreeDecoding::Create(comm, r.config, r.queries, r.combine,
                             kAutoCollectives, r.kernels)
            .status();
    return OkStatus();
  });
  for (const Status& status : all) {
    EXPECT_EQ(status.code(), all[0].code());
    EXPECT_EQ(status.message(), all[0].message());
  }
  return all[0];
}

Status RefusalOf(const std::function<void(Request&)>& change) {
  return Refusal([&](int /*rank*/) {
    Request request;
    change(request);
    return request;
  });
}

TEST(TreeDecoding, RefusesOnEveryRankAlike) {
  EXPECT_TRUE(RefusalOf([](Request&) {}).ok());
  EXPECT_EQ(RefusalOf([](Request& r) { r.config.tokens = -1; }).code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(RefusalOf([](Request& r) { r.config.kv_heads = 3; }).code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(RefusalOf([](Request& r) {
              r.config.layout = SequenceLayout::kZigzag;
            }).code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(RefusalOf([](Request& r) { r.config.dtype = DType::kI32; }).code(),
            StatusCode::kUnsupported);
}

TEST(TreeDecoding, RefusesAPassBackward) {
  const Status status = RefusalOf([](Request& r) { r.config.backward = true; });
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_NE(status.message().find("no backward pass"), std::string::npos)
      << status.message();
}

TEST(TreeDecoding, RefusesQueriesThatAreNotAmongTheTokens) {
  EXPECT_TRUE(RefusalOf([](Request& r) { r.queries = 11; }).ok());
  for (const int64_t queries : {-1, 12}) {
    EXPECT_EQ(RefusalOf([&](Request& r) { r.queries = queries; }).code(),
              StatusCode::kInvalidArgument);
  }
  OnRanks(2, [](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(const TreeDecoding decoding,
                        TreeDecoding::Create(comm, Small(), 3));
    for (const int64_t position : {-1, 9}) {
      EXPECT_EQ(decoding.Forward({}, position).code(),
                StatusCode::kInvalidArgument);
    }
    return OkStatus();
  });
}

TEST(TreeDecoding, RefusesRanksThatDiffer) {
  const std::function<void(Request&)> changes[] = {
      [](Request& r) { r.config.head_dim = 16; },
      [](Request& r) { r.queries = 2; },
      [](Request& r) { r.combine = TreeCombine::kAllReduce; }};
  for (const auto& change : changes) {
    const Status status = Refusal([&](int rank) {
      Request request;
      if (rank == 2) change(request);
      return request;
    });
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_NE(status.message().find("ranks 0 and 2"), std::string::npos)
        << status.message();
  }
}

TEST(TreeDecoding, TellsAllRanksWhatOneRankLacks) {
  const Status status = Refusal([](int rank) {
    Request request;
    if (rank != 1) return request;
    request.kernels.flash =
        [](const FlashShape&) -> StatusOr<std::unique_ptr<FlashAttention>> {
      return OutOfMemory("no room for tiles");
    };
    return request;
  });
  EXPECT_EQ(status.code(), StatusCode::kOutOfMemory);
  EXPECT_EQ(status.message(), "rank 1: no room for tiles");
}

// Numbers of their places, at most 1.
Tensor Filled(const Shape& shape, int64_t step) {
  Tensor x(DType::kF32, shape);
  for (int64_t i = 0; i < x.num_elements(); ++i) {
    x.data<float>()[i] = static_cast<float>(i * step % 17 - 8) / 8;
  }
  return x;
}

// A rank's tokens of [sequences, tokens, width], and NaN where a token is not
// before `end`: not yet in the cache.
Floats Cached(const Tensor& all, const Config& config,
              const std::vector<TokenRun>& runs, int64_t end) {
  const int64_t width = all.shape()[1];
  Floats mine;
  for (int64_t s = 0; s < config.sequences; ++s) {
    for (const int64_t token : Positions(runs)) {
      for (int64_t e = 0; e < width; ++e) {
        mine.push_back(
            token < end
                ? all.data<float>()[(s * config.tokens + token) * width + e]
                : std::numeric_limits<float>::quiet_NaN());
      }
    }
  }
  return mine;
}

void ExpectWithin(const Floats& actual, const Matrix& expected) {
  ASSERT_EQ(actual.size(), expected.values.size());
  for (size_t i = 0; i < actual.size(); ++i) {
    const Bounded& x = expected.values[i];
    EXPECT_LE(std::abs(actual[i] - x.value), x.worst) << "element " << i;
  }
}

// Token by token, keys behind the query being no numbers, over ranks of which
// some have no key at first.
TEST(TreeDecoding, DecodesFromACacheThatGrows) {
  const Config config = Small();
  const int64_t queries = 2, s = config.sequences;
  const Tensor k = Filled({s * config.tokens, 16}, 29);
  const Tensor v = Filled({s * config.tokens, 16}, 31);
  const Tensor q = Filled({s * queries, 32}, 37);
  for (const TreeCombine combine : kCombines) {
    for (const int ranks : {1, 3, 4}) {
      for (const int64_t position : {0, 1, 5, 9}) {
        FlashInputs inputs = {.sequences = s,
                              .heads = 4,
                              .kv_heads = 2,
                              .heads_per_kv = 2,
                              .head_dim = 8,
                              .scale = config.Scale(),
                              .q = q.view(),
                              .k = k.view(),
                              .v = v.view()};
        for (int64_t i = 0; i < queries; ++i) {
          inputs.seen.emplace_back(static_cast<size_t>(position + i + 1));
          std::iota(inputs.seen.back().begin(), inputs.seen.back().end(), 0);
        }
        FlashArithmetic arithmetic = FlashArithmetic::For(DType::kF32);
        arithmetic.exp_error = 4 * UnitRoundoff(DType::kF32);
        arithmetic.merges = TreeDecodingMerges(ranks, config);
        const FlashResult expected = FlashReference(inputs, arithmetic);
        OnRanks(ranks, [&](const Communicator& comm) -> Status {
          SP_ASSIGN_OR_RETURN(
              const TreeDecoding decoding,
              TreeDecoding::Create(comm, config, queries, combine));
          SP_ASSIGN_OR_RETURN(const std::vector<TokenRun> runs,
                              RunsOf(config.LayoutOver(ranks), comm.rank()));
          EXPECT_EQ(decoding.local_tokens(), CountTokens(runs));
          const Floats keys = Cached(k, config, runs, position + queries);
          const Floats values = Cached(v, config, runs, position + queries);
          Floats o(static_cast<size_t>(s * queries * 32)), lse(o.size() / 8);
          SP_RETURN_IF_ERROR(decoding.Forward(
              {q.raw(), keys.data(), values.data(), o.data(), lse.data()},
              position));
          ExpectWithin(o, expected.o);
          ExpectWithin(lse, expected.lse);
          return OkStatus();
        });
      }
    }
  }
}

TEST(TreeDecoding, GivesZeroWhereNothingIsSeen) {
  Config config = Small();
  config.visibility.cu_seqlens = {0, 1};
  for (const TreeCombine combine : kCombines) {
    OnRanks(3, [&](const Communicator& comm) -> Status {
      SP_ASSIGN_OR_RETURN(const TreeDecoding decoding,
                          TreeDecoding::Create(comm, config, 2, combine));
      const Floats q(128, 1);
      const Floats k(static_cast<size_t>(decoding.local_tokens() * 32), 1);
      Floats o(128, -7), lse(16, -7);
      SP_RETURN_IF_ERROR(decoding.Forward(
          {q.data(), k.data(), k.data(), o.data(), lse.data()}, 9));
      EXPECT_EQ(o, Floats(128));
      EXPECT_EQ(lse, Floats(16, -std::numeric_limits<float>::infinity()));
      return OkStatus();
    });
  }
}

TEST(TreeDecoding, WorksInTwoBlocks) {
  for (const TreeCombine combine : kCombines) {
    for (const int ranks : {1, 3}) {
      Config config = Small();
      config.dtype = DType::kBF16;
      OnRanks(ranks, [&](const Communicator& comm) -> Status {
        SP_ASSIGN_OR_RETURN(const TreeDecoding decoding,
                            TreeDecoding::Create(comm, config, 3, combine));
        SP_ASSIGN_OR_RETURN(const PartialAttention local,
                            PartialAttention::Create(
                                {.sequences = 2,
                                 .queries = 3,
                                 .keys = ranks == 1 ? 11 : 4,
                                 .heads = 4,
                                 .kv_heads = 2,
                                 .heads_per_kv = 2,
                                 .head_dim = 8,
                                 .dtype = DType::kBF16,
                                 .backward = false},
                                config.visibility, {TokenRun{.count = 3}}));
        const int64_t lse = 2 * 3 * 4 * 4, block = 9 * lse;
        int64_t bytes = local.working_bytes() + block;
        if (ranks > 1) bytes += combine == TreeCombine::kDoubling ? block : lse;
        EXPECT_EQ(decoding.working_bytes(), bytes);
        return OkStatus();
      });
    }
  }
}

// As the header says.
TEST(TreeDecoding, SendsWhatDoesNotGrowWithTheKeys) {
  Config config = Small();
  config.tokens = 1 << 20;
  const int64_t numbers = 2 * 1 * 4, block = numbers * 9 * 4;
  const Cost doubling =
      TreeDecodingCost(8, config, 1, TreeCombine::kDoubling, kRingCollectives);
  EXPECT_EQ(doubling.total.messages, 8 * 3);
  EXPECT_EQ(doubling.total.bytes, 8 * 3 * block);
  EXPECT_EQ(doubling.alpha_count, 3);
  const Cost ring =
      TreeDecodingCost(8, config, 1, TreeCombine::kAllReduce, kRingCollectives);
  EXPECT_EQ(ring.total.messages, 8 * 4 * 7);
  EXPECT_EQ(ring.total.bytes, 2 * 7 * (block + numbers * 4));
  // Two fold away and get the result.
  const Cost six =
      TreeDecodingCost(6, config, 1, TreeCombine::kDoubling, kRingCollectives);
  EXPECT_EQ(six.total.messages, 4 * 2 + 2 * 2);
}

TEST(TreeDecoding, AsksForNoMemoryTheSecondTime) {
  // Of short messages the transport keeps copies, for which it may ask for memory
  // at any time: blocks are long, and an all_reduce sends none.
  Config config = Small();
  config.tokens = 96;
  config.head_dim = 128;
  config.dtype = DType::kF32;
  for (const TreeCombine combine : kCombines) {
    OnRanks(3, [&](const Communicator& comm) -> Status {
      SP_ASSIGN_OR_RETURN(
          const TreeDecoding decoding,
          TreeDecoding::Create(comm, config, 4, combine, kDirectCollectives));
      const Floats q(4096, 0.5f);
      const Floats k(static_cast<size_t>(decoding.local_tokens() * 512), 0.5f);
      Floats o(4096), lse(32);
      const auto at = [&](int64_t position) {
        return decoding.Forward(
            {q.data(), k.data(), k.data(), o.data(), lse.data()}, position);
      };
      SP_RETURN_IF_ERROR(at(70));
      SP_RETURN_IF_ERROR(comm.Barrier());
      const int64_t before = LargeAllocations();
      SP_RETURN_IF_ERROR(comm.Barrier());
      SP_RETURN_IF_ERROR(at(71));
      SP_RETURN_IF_ERROR(comm.Barrier());
      EXPECT_EQ(LargeAllocations(), before);
      return OkStatus();
    });
  }
}

}  // namespace
}  // namespace shardproof
