// For the unit tests of schemes: a rank's tensors, cut out of whole ones by its
// runs, and results put together again.
#ifndef SHARDPROOF_ATTENTION_TESTING_SCHEME_TESTING_H_
#define SHARDPROOF_ATTENTION_TESTING_SCHEME_TESTING_H_

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <mutex>
#include <span>
#include <string>
#include <vector>

#include "attention/sharded/sharded_attention.h"
#include "collectives/backend/thread/thread_world.h"
#include "reference/compare.h"
#include "reference/random.h"
#include "reference/tensor.h"

namespace shardproof {

// Of one sequence, f32.
struct WholeAttention {
  explicit WholeAttention(const ShardedAttentionConfig& c)
      : q(Random({c.tokens, c.heads * c.head_dim}, "q")),
        k(Random({c.tokens, c.kv_heads * c.head_dim}, "k")),
        v(Random({c.tokens, c.kv_heads * c.head_dim}, "v")),
        d_o(Random({c.tokens, c.heads * c.head_dim}, "do")),
        o(DType::kF32, q.shape()),
        dq(DType::kF32, q.shape()),
        dk(DType::kF32, k.shape()),
        dv(DType::kF32, k.shape()),
        lse(DType::kF32, {c.heads, c.tokens}) {}

  static Tensor Random(const Shape& shape, const char* name) {
    Tensor t(DType::kF32, shape);
    Fill(Uniform(DType::kF32, 1.5), {.seed = 3, .tensor = TensorId(name)}, 0,
         t.num_elements(), t.raw());
    return t;
  }

  Tensor q, k, v, d_o;
  Tensor o, dq, dk, dv, lse;
};

// What `rank` has of a whole attention, results poisoned.
struct RankAttention {
  RankAttention(const ShardedAttentionConfig& c, const WholeAttention& whole,
                std::vector<TokenRun> of)
      : runs(std::move(of)),
        q(Rows(whole.q)),
        k(Rows(whole.k)),
        v(Rows(whole.v)),
        d_o(Rows(whole.d_o)),
        o(Poisoned(q.shape())),
        dq(Poisoned(q.shape())),
        dk(Poisoned(k.shape())),
        dv(Poisoned(k.shape())),
        lse(Poisoned({c.heads, CountTokens(runs)})) {}

  Tensor Rows(const Tensor& all) const {
    Tensor mine(DType::kF32, {CountTokens(runs), all.shape()[1]});
    EXPECT_TRUE(ShardRows(runs, all.view(), mine.view()).ok());
    return mine;
  }
  static Tensor Poisoned(const Shape& shape) {
    Tensor t(DType::kF32, shape);
    Poison(DType::kF32, t.raw(), t.num_elements());
    return t;
  }
  AttentionForwardArgs Forward() {
    return {q.raw(), k.raw(), v.raw(), o.raw(), lse.raw()};
  }
  AttentionBackwardArgs Backward() {
    return {q.raw(),   k.raw(),  v.raw(),  o.raw(), lse.raw(),
            d_o.raw(), dq.raw(), dk.raw(), dv.raw()};
  }
  // Results, where they belong; of one rank at a time.
  void PutInto(WholeAttention& whole) const {
    EXPECT_TRUE(UnshardRows(runs, o.view(), whole.o.view()).ok());
    EXPECT_TRUE(UnshardRows(runs, dq.view(), whole.dq.view()).ok());
    EXPECT_TRUE(UnshardRows(runs, dk.view(), whole.dk.view()).ok());
    EXPECT_TRUE(UnshardRows(runs, dv.view(), whole.dv.view()).ok());
    const std::vector<int64_t> at = Positions(runs);
    const int64_t heads = lse.shape()[0], mine = lse.shape()[1];
    for (int64_t h = 0; h < heads; ++h) {
      for (int64_t i = 0; i < mine; ++i) {
        whole.lse.data<float>()[h * whole.lse.shape()[1] +
                                at[static_cast<size_t>(i)]] =
            lse.data<float>()[h * mine + i];
      }
    }
  }

  std::vector<TokenRun> runs;
  Tensor q, k, v, d_o;
  Tensor o, dq, dk, dv, lse;
};

// Both passes of a scheme, whose ranks have the tokens of `runs`. `make`(comm)
// gives the scheme.
template <class Make>
WholeAttention RunSchemeOver(const std::vector<std::vector<TokenRun>>& runs,
                             const ShardedAttentionConfig& config,
                             const Make& make) {
  WholeAttention whole(config);
  std::mutex mutex;
  const auto ranks = static_cast<int>(runs.size());
  const Status ran = RunThreads(ranks, [&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(auto scheme, make(comm));
    RankAttention mine(config, whole, runs[static_cast<size_t>(comm.rank())]);
    SP_RETURN_IF_ERROR(scheme.Forward(mine.Forward()));
    if (config.backward) {
      SP_RETURN_IF_ERROR(scheme.Backward(mine.Backward()));
    }
    const std::lock_guard lock(mutex);
    mine.PutInto(whole);
    return OkStatus();
  });
  EXPECT_TRUE(ran.ok()) << ran.ToString();
  return whole;
}

// The same with those of the config's layout over all ranks.
template <class Make>
WholeAttention RunScheme(int ranks, const ShardedAttentionConfig& config,
                         const Make& make) {
  return RunSchemeOver(RunsOfRanks(config.LayoutOver(ranks)), config, make);
}

// What every rank is told by `make`(comm), which must be the same.
template <class Make>
std::string RefusalOnEveryRank(int ranks, StatusCode code, const Make& make) {
  std::vector<Status> told(static_cast<size_t>(ranks));
  const Status ran = RunThreads(ranks, [&](const Communicator& comm) {
    told[static_cast<size_t>(comm.rank())] = make(comm).status();
    return OkStatus();
  });
  EXPECT_TRUE(ran.ok()) << ran.ToString();
  for (const Status& status : told) {
    EXPECT_EQ(status.code(), code) << status.ToString();
    EXPECT_EQ(status.message(), told[0].message());
  }
  return std::string(told[0].message());
}

// The largest difference of two results; infinite where one is not finite and
// the other differs from it.
inline double Difference(const Tensor& a, const Tensor& b) {
  EXPECT_EQ(a.num_elements(), b.num_elements());
  double most = 0;
  for (int64_t i = 0; i < a.num_elements(); ++i) {
    const double x = a.data<float>()[i], y = b.data<float>()[i];
    if (x == y) continue;
    const double d = std::abs(x - y);
    most = std::isnan(d) ? std::numeric_limits<double>::infinity()
                         : std::max(most, d);
  }
  return most;
}

inline bool SameBits(const WholeAttention& a, const WholeAttention& b) {
  return Difference(a.o, b.o) == 0 && Difference(a.lse, b.lse) == 0 &&
         Difference(a.dq, b.dq) == 0 && Difference(a.dk, b.dk) == 0 &&
         Difference(a.dv, b.dv) == 0;
}

}  // namespace shardproof

#endif  // SHARDPROOF_ATTENTION_TESTING_SCHEME_TESTING_H_
