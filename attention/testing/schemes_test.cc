// Every scheme equals every other: the same queries, keys and values, shared out
// among ranks in every way, give the same results within twice what either may
// err.
#include <gtest/gtest.h>

#include <cmath>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "attention/all_gather_kv/all_gather_kv.h"
#include "attention/double_ring/double_ring.h"
#include "attention/head_parallel/head_parallel.h"
#include "attention/hybrid/hybrid.h"
#include "attention/ring/ring.h"
#include "attention/testing/scheme_testing.h"
#include "attention/tree_decoding/tree_decoding.h"
#include "attention/ulysses/ulysses.h"
#include "layers/attention_block/head_share.h"
#include "reference/flash_attention.h"

namespace shardproof {
namespace {

constexpr int kRanks = 4;

ShardedAttentionConfig Config(SequenceLayout layout,
                              const Visibility& visibility) {
  return {.tokens = 32,
          .heads = 6,
          .kv_heads = 2,
          .head_dim = 16,
          .layout = layout,
          .visibility = visibility};
}

// Columns [first, first + count) of rows of `width`.
Tensor Columns(const Tensor& all, int64_t first, int64_t count) {
  const int64_t rows = all.shape()[0], width = all.shape()[1];
  Tensor some(DType::kF32, {rows, count});
  for (int64_t i = 0; i < rows; ++i) {
    std::copy_n(all.data<float>() + i * width + first, count,
                some.data<float>() + i * count);
  }
  return some;
}
void PutColumns(const Tensor& some, int64_t first, Tensor& all) {
  const int64_t rows = all.shape()[0], width = all.shape()[1];
  const int64_t count = some.shape()[1];
  for (int64_t i = 0; i < rows; ++i) {
    std::copy_n(some.data<float>() + i * count, count,
                all.data<float>() + i * width + first);
  }
}

// Heads, not tokens, are shared out.
WholeAttention RunHeadParallel(const ShardedAttentionConfig& c) {
  WholeAttention whole(c);
  std::mutex mutex;
  const Status ran =
      RunThreads(kRanks, [&](const Communicator& comm) -> Status {
        SP_ASSIGN_OR_RETURN(const HeadParallelAttention scheme,
                            HeadParallelAttention::Create(comm, c));
        const HeadShare own =
            HeadShare::Of(c.heads, c.kv_heads, kRanks, comm.rank());
        const int64_t d = c.head_dim;
        const int64_t h0 = own.heads.begin * d, h = own.heads.count * d;
        const int64_t g0 = own.kv_heads.begin * d, g = own.kv_heads.count * d;
        const Tensor q = Columns(whole.q, h0, h),
                     d_o = Columns(whole.d_o, h0, h);
        const Tensor k = Columns(whole.k, g0, g), v = Columns(whole.v, g0, g);
        Tensor o(DType::kF32, q.shape()), dq(DType::kF32, q.shape());
        Tensor dk(DType::kF32, k.shape()), dv(DType::kF32, k.shape());
        Tensor lse(DType::kF32, {own.heads.count, c.tokens});
        SP_RETURN_IF_ERROR(
            scheme.Forward({q.raw(), k.raw(), v.raw(), o.raw(), lse.raw()}));
        SP_RETURN_IF_ERROR(
            scheme.Backward({q.raw(), k.raw(), v.raw(), o.raw(), lse.raw(),
                             d_o.raw(), dq.raw(), dk.raw(), dv.raw()}));
        const std::lock_guard lock(mutex);
        PutColumns(o, h0, whole.o);
        PutColumns(dq, h0, whole.dq);
        PutColumns(dk, g0, whole.dk);
        PutColumns(dv, g0, whole.dv);
        std::copy_n(lse.data<float>(), lse.num_elements(),
                    whole.lse.data<float>() + own.heads.begin * c.tokens);
        return OkStatus();
      });
  EXPECT_TRUE(ran.ok()) << ran.ToString();
  return whole;
}

using Results = std::vector<std::pair<std::string, WholeAttention>>;

Results EveryScheme(const Visibility& visibility) {
  Results results;
  for (const SequenceLayout layout :
       {SequenceLayout::kContiguous, SequenceLayout::kStriped,
        SequenceLayout::kZigzag}) {
    const ShardedAttentionConfig c = Config(layout, visibility);
    const auto add = [&](const std::string& name, const auto& make) {
      results.emplace_back(name + " " + std::string(Name(layout)),
                           RunScheme(kRanks, c, make));
    };
    add("ring", [&](const Communicator& comm) {
      return RingAttention::Create(comm, c);
    });
    add("double ring", [&](const Communicator& comm) {
      return DoubleRingAttention::Create(comm, {.attention = c, .inner = 2});
    });
    add("ulysses", [&](const Communicator& comm) {
      return UlyssesAttention::Create(comm, c);
    });
    add("all_gather_kv", [&](const Communicator& comm) {
      return AllGatherKvAttention::Create(comm, c);
    });
    const HybridConfig hybrid = {.attention = c, .ulysses = 2};
    std::vector<std::vector<TokenRun>> runs;
    for (int r = 0; r < kRanks; ++r) {
      runs.push_back(*HybridRunsOf(hybrid, kRanks, r));
    }
    results.emplace_back("hybrid " + std::string(Name(layout)),
                         RunSchemeOver(runs, c, [&](const Communicator& comm) {
                           return HybridAttention::Create(comm, hybrid);
                         }));
  }
  results.emplace_back(
      "head_parallel",
      RunHeadParallel(Config(SequenceLayout::kContiguous, visibility)));
  return results;
}

// The O of the query at `position`, as tree decoding has it.
Tensor Decoded(ShardedAttentionConfig c, int64_t position) {
  c.backward = false;
  const WholeAttention whole(c);
  const auto runs = RunsOfRanks(c.LayoutOver(kRanks));
  const TokenRun one = {.offset = position, .count = 1};
  Tensor q(DType::kF32, {1, whole.q.shape()[1]});
  EXPECT_TRUE(ShardRows({&one, 1}, whole.q.view(), q.view()).ok());
  Tensor decoded(DType::kF32, q.shape());
  const Status ran =
      RunThreads(kRanks, [&](const Communicator& comm) -> Status {
        SP_ASSIGN_OR_RETURN(const TreeDecoding scheme,
                            TreeDecoding::Create(comm, c, 1));
        const RankAttention mine(c, whole,
                                 runs[static_cast<size_t>(comm.rank())]);
        Tensor o(DType::kF32, q.shape()), lse(DType::kF32, {c.heads, 1});
        SP_RETURN_IF_ERROR(scheme.Forward(
            {q.raw(), mine.k.raw(), mine.v.raw(), o.raw(), lse.raw()},
            position));
        if (comm.rank() == 0) decoded = std::move(o);
        return OkStatus();
      });
  EXPECT_TRUE(ran.ok()) << ran.ToString();
  return decoded;
}

FlashResult Reference(const Visibility& visibility) {
  const ShardedAttentionConfig c =
      Config(SequenceLayout::kContiguous, visibility);
  const WholeAttention whole(c);
  FlashInputs in = {.heads = c.heads,
                    .kv_heads = c.kv_heads,
                    .heads_per_kv = c.heads_per_kv(),
                    .head_dim = c.head_dim,
                    .scale = c.Scale(),
                    .q = whole.q.view(),
                    .k = whole.k.view(),
                    .v = whole.v.view(),
                    .d_o = whole.d_o.view()};
  const TokenRun all = {.count = c.tokens};
  for (int64_t i = 0; i < c.tokens; ++i) {
    const IndexRange seen = KeysSeen(visibility, i, all);
    std::vector<int64_t>& list = in.seen.emplace_back();
    for (int64_t j = seen.first; j < seen.last; ++j) list.push_back(j);
  }
  FlashArithmetic a = FlashArithmetic::For(DType::kF32);
  a.exp_error = 4 * UnitRoundoff(DType::kF32);
  a.merges = 2 * kRanks;  // Of a zigzag ring, which has most.
  return FlashReference(in, a);
}

// Each element of both within twice the bound of the other.
void ExpectEqual(const Tensor& a, const Tensor& b, const Matrix& bounds) {
  ASSERT_EQ(a.num_elements(), std::ssize(bounds.values));
  int64_t different = 0;
  for (int64_t i = 0; i < a.num_elements(); ++i) {
    const double x = a.data<float>()[i], y = b.data<float>()[i];
    const double most = 2 * bounds.values[static_cast<size_t>(i)].worst;
    different += x == y || std::abs(x - y) <= most ? 0 : 1;
  }
  EXPECT_EQ(different, 0);
}

TEST(Schemes, EveryOneEqualsEveryOther) {
  const Visibility masks[] = {{},
                              {.causal = true},
                              {.causal = true, .window = 7},
                              {.causal = true, .cu_seqlens = {0, 1, 19, 30}}};
  for (const Visibility& mask : masks) {
    const FlashResult want = Reference(mask);
    const Results results = EveryScheme(mask);
    for (size_t i = 0; i < results.size(); ++i) {
      for (size_t j = 0; j < i; ++j) {
        SCOPED_TRACE(results[i].first + " and " + results[j].first);
        const WholeAttention& a = results[i].second;
        const WholeAttention& b = results[j].second;
        ExpectEqual(a.o, b.o, want.o);
        ExpectEqual(a.lse, b.lse, want.lse);
        ExpectEqual(a.dq, b.dq, want.dq);
        ExpectEqual(a.dk, b.dk, want.dk);
        ExpectEqual(a.dv, b.dv, want.dv);
      }
    }
  }
}

TEST(Schemes, DecodingEqualsTheOthersTokenByToken) {
  const Visibility causal = {.causal = true};
  const Matrix bounds = Reference(causal).o;
  for (const SequenceLayout layout :
       {SequenceLayout::kContiguous, SequenceLayout::kStriped,
        SequenceLayout::kZigzag}) {
    const ShardedAttentionConfig c = Config(layout, causal);
    const WholeAttention ring =
        RunScheme(kRanks, c, [&](const Communicator& comm) {
          return RingAttention::Create(comm, c);
        });
    for (const int64_t position : {int64_t{0}, int64_t{13}, c.tokens - 1}) {
      const Tensor decoded = Decoded(c, position);
      int64_t different = 0;
      for (int64_t e = 0; e < decoded.num_elements(); ++e) {
        const double x = decoded.data<float>()[e];
        const int64_t at = position * decoded.num_elements() + e;
        const double y = ring.o.data<float>()[at];
        const double most = 2 * bounds.at(position, e).worst;
        different += std::abs(x - y) <= most ? 0 : 1;
      }
      EXPECT_EQ(different, 0) << Name(layout) << " " << position;
    }
  }
}

}  // namespace
}  // namespace shardproof
