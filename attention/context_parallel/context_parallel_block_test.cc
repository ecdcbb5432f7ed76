// An attention block whose core is sharded over context-parallel ranks equals
// the block on one device: y, dx, and the gradients of its weights summed over
// the ranks; beside tensor parallelism too.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "attention/context_parallel/context_parallel_core.h"
#include "attention/ring/ring.h"
#include "collectives/backend/thread/thread_world.h"
#include "collectives/mesh.h"
#include "layers/attention_block/attention_block.h"
#include "reference/attention.h"
#include "reference/compare.h"
#include "reference/random.h"
#include "reference/tensor.h"

namespace shardproof {
namespace {

// In f64, so that nothing that is wrong is within a bound.
constexpr DType kType = DType::kF64;
constexpr int64_t kSequences = 2, kHidden = 10, kHeads = 6, kHeadDim = 4;

constexpr ContextScheme kSchemes[] = {
    ContextScheme::kRing, ContextScheme::kAllGatherKv, ContextScheme::kUlysses};

struct Shards {
  int cp = 1;
  int tp = 1;
};

ParallelAttentionConfig ConfigOf(int64_t kv_heads, int64_t length) {
  return {.sequences = kSequences,
          .length = length,
          .hidden = kHidden,
          .heads = kHeads,
          .kv_heads = kv_heads,
          .head_dim = kHeadDim,
          .rope_theta = 10000,
          .dtype = kType,
          .bias = true};
}

Tensor Random(const Shape& shape, const char* name, double scale) {
  Tensor t(kType, shape);
  Fill(Uniform(kType, scale), {.seed = 5, .tensor = TensorId(name)}, 0,
       t.num_elements(), t.raw());
  return t;
}

Tensor Poisoned(const Shape& shape) {
  Tensor t(kType, shape);
  Poison(kType, t.raw(), t.num_elements());
  return t;
}

// Inputs of the whole block. Weights make scores that tell keys apart.
struct Whole {
  Whole(int64_t kv, int64_t n)
      : kv_heads(kv),
        tokens(n),
        x(Random({kSequences * n, kHidden}, "x", 1)),
        dy(Random({kSequences * n, kHidden}, "dy", 1)),
        w_qkv(Random({fused(), kHidden}, "w_qkv", 1)),
        b_qkv(Random({1, fused()}, "b_qkv", 1)),
        w_out(Random({kHidden, kHeads * kHeadDim}, "w_out", 0.6)),
        b_out(Random({1, kHidden}, "b_out", 1)) {}

  int64_t fused() const { return (kHeads + 2 * kv_heads) * kHeadDim; }

  int64_t kv_heads, tokens;  // Of each sequence.
  Tensor x, dy, w_qkv, b_qkv, w_out, b_out;
};

double At(const Tensor& t, int64_t i, int64_t j) {
  return t.data<double>()[i * t.shape()[1] + j];
}

// The rows, or columns, of a matrix that are listed.
Tensor Chosen(const Tensor& all, const Rows& rows, const Rows& columns) {
  Tensor some(all.dtype(), {static_cast<int64_t>(rows.size()),
                            static_cast<int64_t>(columns.size())});
  double* to = some.data<double>();
  for (const int64_t i : rows) {
    for (const int64_t j : columns) *to++ = At(all, i, j);
  }
  return some;
}

Rows Range(int64_t begin, int64_t count) {
  Rows rows;
  for (int64_t i = 0; i < count; ++i) rows.push_back(begin + i);
  return rows;
}

// The rows of w_qkv that a tensor-parallel rank has, and the columns of w_out.
struct Features {
  Features(int64_t kv_heads, int tp, int rank) {
    const HeadShare own = HeadShare::Of(kHeads, kv_heads, tp, rank);
    const auto add = [&](int64_t begin, const Chunk& heads) {
      for (const int64_t i :
           Range((begin + heads.begin) * kHeadDim, heads.count * kHeadDim)) {
        qkv.push_back(i);
      }
    };
    add(0, own.heads);
    out = qkv;
    add(kHeads, own.kv_heads);
    add(kHeads + kv_heads, own.kv_heads);
  }
  Rows qkv, out;
};

// The tokens of a context-parallel rank, of every sequence.
Rows TokensOf(const std::vector<int64_t>& positions, int64_t length) {
  Rows rows;
  for (int64_t s = 0; s < kSequences; ++s) {
    for (const int64_t p : positions) rows.push_back(s * length + p);
  }
  return rows;
}

// --- Bounds ------------------------------------------------------------------

// A bound of every score, and of the sum of its absolute terms: a rotary
// embedding changes no length.
double LargestScore(const Whole& whole) {
  double q = 0, k = 0;
  for (int64_t t = 0; t < whole.x.shape()[0]; ++t) {
    for (int64_t h = 0; h < kHeads + whole.kv_heads; ++h) {
      double squares = 0;
      for (int64_t e = 0; e < kHeadDim; ++e) {
        double sum = At(whole.b_qkv, 0, h * kHeadDim + e);
        for (int64_t i = 0; i < kHidden; ++i) {
          sum += At(whole.x, t, i) * At(whole.w_qkv, h * kHeadDim + e, i);
        }
        squares += sum * sum;
      }
      double& largest = h < kHeads ? q : k;
      largest = std::max(largest, std::sqrt(squares));
    }
  }
  return std::ceil(q * k / std::sqrt(static_cast<double>(kHeadDim)));
}

// A plain core that errs at least as much as a sharded one with m merges, in
// roundoffs u. Let no score be above X, n be the keys, d a head's elements, and
// l = X + ln n, which no lse is above.
//
// The log of a weight errs, in one part, by d X of the product, 2 X for each of
// x - max and the factor lg(e) scale, e + 3 of exp and of rescaling it, n + 4 of
// the sum; the part's lse by that and by its own size when it is rounded, and
// subtracted: s in all. A merge moves the log of a weight by the errors of both
// lse and their size, and 10 roundings (reference/flash_attention.h). So every
// weight is, relatively, within
//
//     r = s + m (2 s + 2 l + 10)
//
// of what it is, as with an exp that errs by r; and in the backward pass, where
// it is exp(x - lse), as well, since that has the error of the merged lse and of
// one score, at most 2 s + m (l + 6), and a plain core's probability is allowed
// twice r.
//
// delta is dO O, where a plain core has the sum of p dP: O errs by 2 r + 2 (n +
// 4) of p |v|, and so delta by that of p |dO||v|, which a plain core's dP errs by
// d of. With a roundoff of c u it errs by c d of that, for which c is as below.
// The rest is for sums: over g heads of a group and m parts, at once, where a
// plain core sums n.
CoreArithmetic ShardedCore(const Whole& whole, int64_t merges) {
  const double u = UnitRoundoff(kType), exp_error = 4;
  const double score = LargestScore(whole), d = kHeadDim;
  const auto n = static_cast<double>(whole.tokens);
  const auto m = static_cast<double>(merges);
  const double lse = score + std::log(n);
  const double s = (d + 4) * score + exp_error + 3 + n + 4 + 2 * lse;
  const double r = s + m * (2 * s + 2 * lse + 10);
  const double group = kHeads / static_cast<double>(whole.kv_heads);
  const double c = std::ceil(1 + (2 * r + 2 * (n + 4)) / d) + 2 * group + m + 4;
  CoreArithmetic core = CoreArithmetic::For(kType);
  core.local.u_accumulate = c * u;
  core.local.function_ulps = r / c;
  return core;
}

AttentionResult Expected(const Whole& whole, int tp, int64_t merges) {
  AttentionArithmetic a = ParallelAttentionArithmetic(
      ConfigOf(whole.kv_heads, whole.tokens), Arithmetic::For(kType, tp));
  if (merges > 0) a.core = ShardedCore(whole, merges);
  return AttentionReference({.sequences = kSequences,
                             .heads = kHeads,
                             .kv_heads = whole.kv_heads,
                             .head_dim = kHeadDim,
                             .rope_theta = 10000,
                             .x = whole.x.view(),
                             .w_qkv = whole.w_qkv.view(),
                             .w_out = whole.w_out.view(),
                             .b_qkv = whole.b_qkv.view(),
                             .b_out = whole.b_out.view(),
                             .dy = whole.dy.view()},
                            a);
}

// How many elements are further from what they should be than bounds allow.
int64_t Wrong(const Tensor& got, const Matrix& want) {
  EXPECT_EQ(got.num_elements(), std::ssize(want.values));
  int64_t wrong = 0;
  for (int64_t i = 0; i < got.num_elements(); ++i) {
    const Bounded& b = want.values[static_cast<size_t>(i)];
    wrong += !(std::abs(got.data<double>()[i] - b.value) <= b.worst) ? 1 : 0;
  }
  return wrong;
}

// --- The block ---------------------------------------------------------------

// One block on a rank, with what it reads and writes.
class RankBlock {
 public:
  RankBlock(const Whole& whole, const Rows& tokens, const Features& own)
      : x_(Chosen(whole.x, tokens, Range(0, kHidden))),
        dy_(Chosen(whole.dy, tokens, Range(0, kHidden))),
        w_qkv_(Chosen(whole.w_qkv, own.qkv, Range(0, kHidden))),
        b_qkv_(Chosen(whole.b_qkv, {0}, own.qkv)),
        w_out_(Chosen(whole.w_out, Range(0, kHidden), own.out)),
        b_out_(Chosen(whole.b_out, {0}, Range(0, kHidden))),
        y(Poisoned(x_.shape())),
        dx(Poisoned(x_.shape())) {
    for (const Tensor* w : {&w_qkv_, &b_qkv_, &w_out_, &b_out_}) {
      gradients.push_back(Poisoned(w->shape()));
    }
  }

  Status Forward(ParallelAttention& block) {
    return block.Forward(x_.raw(), Weights(), y.raw());
  }
  Status Backward(ParallelAttention& block) {
    return block.Backward(x_.raw(), Weights(), dy_.raw(), dx.raw(),
                          {gradients[0].raw(), gradients[1].raw(),
                           gradients[2].raw(), gradients[3].raw()});
  }

 private:
  AttentionWeights Weights() const {
    return {w_qkv_.raw(), b_qkv_.raw(), w_out_.raw(), b_out_.raw()};
  }
  Tensor x_, dy_, w_qkv_, b_qkv_, w_out_, b_out_;

 public:
  Tensor y, dx;
  std::vector<Tensor> gradients;  // As AttentionParts has them.
};

// What the ranks of one tensor-parallel coordinate have together: rows of tokens
// where they belong, gradients summed.
struct Together {
  Together(const Whole& whole, const Features& own)
      : y(Poisoned(whole.x.shape())), dx(Poisoned(whole.x.shape())) {
    const auto qkv = static_cast<int64_t>(own.qkv.size());
    const auto out = static_cast<int64_t>(own.out.size());
    for (const Shape& shape : {Shape{qkv, kHidden}, Shape{1, qkv},
                               Shape{kHidden, out}, Shape{1, kHidden}}) {
      gradients.push_back(Tensor::Zeros(kType, shape));
    }
  }
  void Add(const Rows& tokens, const RankBlock& block) {
    for (size_t t = 0; t < tokens.size(); ++t) {
      const auto from = static_cast<int64_t>(t) * kHidden;
      const int64_t to = tokens[t] * kHidden;
      std::copy_n(block.y.data<double>() + from, kHidden,
                  y.data<double>() + to);
      std::copy_n(block.dx.data<double>() + from, kHidden,
                  dx.data<double>() + to);
    }
    for (size_t g = 0; g < gradients.size(); ++g) {
      for (int64_t i = 0; i < gradients[g].num_elements(); ++i) {
        gradients[g].data<double>()[i] += block.gradients[g].data<double>()[i];
      }
    }
  }

  Tensor y, dx;
  std::vector<Tensor> gradients;
};

struct Bugs {
  bool restart_positions = false;
  AttentionKernels kernels = {};
};

// Both passes on cp x tp ranks.
std::vector<Together> Run(const Whole& whole, const Shards& shards,
                          const ContextParallelConfig& context,
                          const Bugs& bugs = {}) {
  std::vector<Together> results;
  for (int r = 0; r < shards.tp; ++r) {
    results.emplace_back(whole, Features(whole.kv_heads, shards.tp, r));
  }
  std::mutex mutex;
  const Status ran = RunThreads(
      shards.cp * shards.tp, [&](const Communicator& world) -> Status {
        SP_ASSIGN_OR_RETURN(
            const Mesh mesh,
            Mesh::Create(world, {{"tp", shards.tp}, {"cp", shards.cp}}));
        const Communicator &tp = mesh.Along("tp"), &cp = mesh.Along("cp");
        SP_ASSIGN_OR_RETURN(
            const std::vector<int64_t> positions,
            LocalPositions(context.LayoutOver(cp.size()), cp.rank()));
        ParallelAttentionConfig config =
            ConfigOf(whole.kv_heads, std::ssize(positions));
        if (!bugs.restart_positions) config.positions = positions;
        SP_ASSIGN_OR_RETURN(
            ParallelAttention block,
            ParallelAttention::Create(
                tp, config, kAutoCollectives,
                ContextParallelCore(cp, context, bugs.kernels)));
        const Rows tokens = TokensOf(positions, whole.tokens);
        RankBlock mine(whole, tokens,
                       Features(whole.kv_heads, tp.size(), tp.rank()));
        SP_RETURN_IF_ERROR(mine.Forward(block));
        SP_RETURN_IF_ERROR(mine.Backward(block));
        const std::lock_guard lock(mutex);
        results[static_cast<size_t>(tp.rank())].Add(tokens, mine);
        return OkStatus();
      });
  EXPECT_TRUE(ran.ok()) << ran.ToString();
  return results;
}

struct Counts {
  int64_t y = 0, dx = 0, dw_qkv = 0, db_qkv = 0, dw_out = 0, db_out = 0;
};

Matrix Cut(const Matrix& all, const Rows& rows, const Rows& columns) {
  Matrix some{.rows = rows, .cols = std::ssize(columns), .values = {}};
  for (const int64_t i : rows) {
    for (const int64_t j : columns) some.values.push_back(all.at(i, j));
  }
  return some;
}

Counts CountWrong(const std::vector<Together>& got, const Whole& whole,
                  const AttentionResult& want) {
  Counts wrong;
  const auto tp = static_cast<int>(got.size());
  for (int r = 0; r < tp; ++r) {
    const Features own(whole.kv_heads, tp, r);
    const Together& of = got[static_cast<size_t>(r)];
    wrong.y += Wrong(of.y, want.y);
    wrong.dx += Wrong(of.dx, want.dx);
    wrong.dw_qkv +=
        Wrong(of.gradients[0], Cut(want.dw_qkv, own.qkv, Range(0, kHidden)));
    wrong.db_qkv += Wrong(of.gradients[1], Cut(want.db_qkv, {0}, own.qkv));
    wrong.dw_out +=
        Wrong(of.gradients[2], Cut(want.dw_out, Range(0, kHidden), own.out));
    wrong.db_out += Wrong(of.gradients[3], want.db_out);
  }
  return wrong;
}

void ExpectRight(const Counts& wrong) {
  EXPECT_EQ(wrong.y, 0);
  EXPECT_EQ(wrong.dx, 0);
  EXPECT_EQ(wrong.dw_qkv, 0);
  EXPECT_EQ(wrong.db_qkv, 0);
  EXPECT_EQ(wrong.dw_out, 0);
  EXPECT_EQ(wrong.db_out, 0);
}

// With every scheme and layout. A zigzag takes multiples of twice the ranks;
// the others are given a number that nothing divides.
void ExpectRightOn(const Shards& shards, int64_t kv_heads,
                   int64_t uneven = 13) {
  for (const SequenceLayout layout :
       {SequenceLayout::kContiguous, SequenceLayout::kStriped,
        SequenceLayout::kZigzag}) {
    const LayoutShape shape = {
        .layout = layout, .tokens = uneven, .ranks = shards.cp};
    const Whole whole(kv_heads, layout == SequenceLayout::kZigzag
                                    ? PaddedLength(shape)
                                    : uneven);
    // A part of each rank, two of a zigzag's.
    const AttentionResult want =
        Expected(whole, shards.tp,
                 shards.cp * (layout == SequenceLayout::kZigzag ? 2 : 1));
    for (const ContextScheme scheme : kSchemes) {
      SCOPED_TRACE(std::string(Name(scheme)) + " " + std::string(Name(layout)));
      ExpectRight(CountWrong(
          Run(whole, shards,
              {.scheme = scheme, .layout = layout, .tokens = whole.tokens}),
          whole, want));
    }
  }
}

// --- Tests -------------------------------------------------------------------

// What the others are compared with is what the block on one rank gives.
TEST(ContextParallelBlock, ReferenceIsThatOfThePlainCore) {
  const Whole whole(2, 13);
  std::vector<Together> got;
  const Status ran = RunThreads(1, [&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(
        ParallelAttention block,
        ParallelAttention::Create(comm, ConfigOf(2, 13), kAutoCollectives,
                                  CreatePlainAttention));
    const Features own(2, 1, 0);
    const Rows tokens = Range(0, kSequences * 13);
    RankBlock mine(whole, tokens, own);
    SP_RETURN_IF_ERROR(mine.Forward(block));
    SP_RETURN_IF_ERROR(mine.Backward(block));
    got.emplace_back(whole, own).Add(tokens, mine);
    return OkStatus();
  });
  ASSERT_TRUE(ran.ok()) << ran.ToString();
  ExpectRight(CountWrong(got, whole, Expected(whole, 1, 0)));
}

TEST(ContextParallelBlock, EqualsTheWholeOnOneRank) {
  ExpectRightOn({.cp = 1}, 2);
}
TEST(ContextParallelBlock, EqualsTheWholeOnTwoRanks) {
  ExpectRightOn({.cp = 2}, 2);
}
TEST(ContextParallelBlock, EqualsTheWholeOnThreeRanks) {
  ExpectRightOn({.cp = 3}, 3);
}
TEST(ContextParallelBlock, EqualsTheWholeOnFourRanks) {
  ExpectRightOn({.cp = 4}, 2);
}
// Some ranks have no token of a sequence; a zigzag is padded to 8.
TEST(ContextParallelBlock, EqualsTheWholeWithFewerTokensThanRanks) {
  ExpectRightOn({.cp = 4}, 2, 2);
}
// Whole groups on each tensor-parallel rank.
TEST(ContextParallelBlock, EqualsTheWholeBesideTensorParallelism) {
  ExpectRightOn({.cp = 2, .tp = 2}, 2);
}
// Half of the only group on each: both hold its KV head.
TEST(ContextParallelBlock, EqualsTheWholeWithASharedKvHead) {
  ExpectRightOn({.cp = 2, .tp = 2}, 1);
}

// --- What would not pass -----------------------------------------------------

constexpr int64_t kTokens = 12;

Counts WithBugs(const Bugs& bugs, ContextScheme scheme) {
  const Whole whole(2, kTokens);
  const ContextParallelConfig context = {
      .scheme = scheme, .layout = SequenceLayout::kZigzag, .tokens = kTokens};
  return CountWrong(Run(whole, {.cp = 3}, context, bugs), whole,
                    Expected(whole, 1, 6));
}

TEST(ContextParallelBlock, SeesPositionsThatRestartOnEachRank) {
  for (const ContextScheme scheme : kSchemes) {
    const Counts wrong = WithBugs({.restart_positions = true}, scheme);
    EXPECT_GT(wrong.y, 0);
    EXPECT_GT(wrong.dx, 0);
    EXPECT_GT(wrong.dw_qkv, 0);
    EXPECT_GT(wrong.dw_out, 0);
    // Which no score has a part in.
    EXPECT_EQ(wrong.db_out, 0);
  }
}

// Parts are merged, and the lse stays that of the first.
TEST(ContextParallelBlock, SeesTheLseOfTheFirstBlock) {
  const AttentionKernels kernels = {
      .merge = [](const Stream& stream, const MergeArgs& args) {
        const int64_t n = args.sequences * args.heads * args.lse.stride;
        const auto* const lse = static_cast<const double*>(args.lse.data);
        const std::vector<double> first(
            lse, lse + n - args.lse.stride + args.queries);
        const Status merged = MergeAttention(stream, args);
        for (size_t i = 0; i < first.size(); ++i) {
          if (!std::isinf(first[i])) {
            static_cast<double*>(args.lse.data)[i] = first[i];
          }
        }
        return merged;
      }};
  const Counts wrong = WithBugs({.kernels = kernels}, ContextScheme::kRing);
  EXPECT_GT(wrong.y, 0);
  EXPECT_GT(wrong.dx, 0);
  EXPECT_GT(wrong.dw_qkv, 0);
}

}  // namespace
}  // namespace shardproof
