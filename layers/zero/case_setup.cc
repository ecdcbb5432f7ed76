#include "layers/zero/case_setup.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <span>
#include <utility>

#include "collectives/chunks.h"
#include "layers/pairing/layer_case.h"
#include "layers/zero/block_stack.h"
#include "reference/trained_stack.h"

namespace shardproof::zero_case {

// A funnel, its last block smaller than most numbers of ranks; or equal blocks.
std::vector<int64_t> WidthsOf(const P& p) {
  if (p.hidden == kSmall) return {kSmall, kSmall, kSmall};
  if (p.hidden < 64) return {p.hidden - 3, p.hidden, 2, 1};
  return std::vector<int64_t>(7, p.hidden);
}

static std::vector<int64_t> BlocksOf(const P& p) {
  return BlockStack(WidthsOf(p), p.dtype).blocks();
}
int64_t Parameters(const P& p) {
  int64_t n = 0;
  for (const int64_t b : BlocksOf(p)) n += b;
  return n;
}

// Unequal, and none at all on some ranks where there are few.
std::vector<int64_t> TokensOf(const P& p) {
  std::vector<int64_t> sizes;
  int64_t weights = 0, left = p.tokens;
  const auto weight = [](int r) { return 1 + r * 3 % 4; };
  for (int r = 0; r < p.ranks; ++r) weights += weight(r);
  for (int r = 0; r < p.ranks; ++r) {
    sizes.push_back(r + 1 == p.ranks ? left : p.tokens * weight(r) / weights);
    left -= sizes.back();
  }
  return sizes;
}

double FactorOf(const P& p) {
  return p.linear ? 1 : 1 / static_cast<double>(p.tokens);
}

ZeroConfig ConfigOf(const P& p) {
  ParallelOptimizerConfig optimizer = {
      .settings = {.rule = p.adam ? OptimizerRule::kAdamW : OptimizerRule::kSgd,
                   .learning_rate = p.linear ? 0.25
                                    : p.adam ? 0.05
                                             : 0.5,
                   .momentum = 0.5,
                   .beta1 = 0.9,
                   .beta2 = 0.95,
                   .epsilon = 1e-2},
      .dtype = p.dtype,
      .gradient_dtype = p.dtype};
  if (!p.linear) optimizer.settings.max_norm = 0.5;
  if (Long(p) && p.linear) {
    optimizer.settings.learning_rate = 1;
    optimizer.settings.momentum = 0;
  } else if (Long(p)) {
    // Epsilon is large on purpose: it bounds by rate / epsilon how much Adam
    // magnifies the error of a gradient that is next to nothing, and with it
    // how bounds grow from step to step.
    optimizer.settings.learning_rate = 1.0 / 64;
    optimizer.settings.epsilon = 0.5;
    optimizer.settings.weight_decay = 0.125;
  }
  return {.stage = p.stage,
          .blocks = BlocksOf(p),
          .micro_batches = p.micro_batches,
          .optimizer = optimizer};
}

// Which of all parameters a rank owns: a piece of every block.
static Sharding OwnParts(const P& p) {
  return ShardBy("own part of each block", [p](const Shape&, int rank, int) {
    std::vector<Interval> ranges;
    int64_t begin = 0;
    for (const int64_t n : BlocksOf(p)) {
      const Chunk own = BalancedChunk(n, Shards(p), rank % Shards(p));
      if (own.count > 0) {
        ranges.push_back({begin + own.begin, begin + own.begin + own.count});
      }
      begin += n;
    }
    return MakeBlock({ranges});
  });
}

bool Narrow(const P& p) { return Accumulator(p.dtype) != p.dtype; }
bool HasFirst(const P& p) {
  return ConfigOf(p).optimizer.settings.HasFirstMoment();
}
bool HasLastPasses(const P& p) { return !(Long(p) && p.linear); }

// Exactly: all numbers are +-1, and few of a weight matrix are not 0. From 6 to 9
// to 2 to 1 x_l is then at most 1, 3, 16 and 33, dy_l 3, 1, 1 and 1, and a
// gradient 16 times the tokens: below 2^8 for 15 of them. In a second step (f64
// only) weights are multiples of 1/4 below 2^6 and dense: far below 2^53.
//
// In 20 steps (rate 1, no momentum) tokens are sparse as well: of the 16 tokens
// of a step each feature has at most one, and each token one feature. With a, c,
// m the largest of |w0|, |b0|, |w1|, a step makes a + c at most a + c + 7 m, and
// m at most m + a + c: the larger of (a + c) / sqrt(7) and m becomes at most 1 +
// sqrt(7) times as large, below 2^38 at the end. (Steps of 3 tokens may lie in
// two tiles: 2 tokens to a feature, a + c + 5 m and m + 2 (a + c), below 2^42.)
// The outputs y and dx, products of two such numbers, are left out there.
Tensors TensorsOf(const P& p) {
  const std::vector<int64_t> widths = WidthsOf(p);
  const Distribution ones = {.kind = Distribution::Kind::kInteger,
                             .dtype = p.dtype};
  Distribution batch = ones;
  if (Long(p)) {
    batch.columns = kSmall;
    batch.tile = 16;
  }
  const Sharding tokens = ShardSizes(1, TokensOf(p));
  Tensors tensors = {
      Input("x", p.dtype, {p.steps, p.tokens, widths.front()}, tokens)
          .Data({.exact = batch}),
      Input("dy", p.dtype, {p.steps, p.tokens, widths.back()}, tokens)
          .Data({.exact = batch})};
  for (size_t l = 0; l + 1 < widths.size(); ++l) {
    const int64_t in = widths[l], out = widths[l + 1];
    Distribution sparse = ones;
    sparse.columns = in;
    sparse.tile = static_cast<int64_t>(
        std::bit_floor(static_cast<uint64_t>(std::min(in, out))));
    tensors.push_back(
        Input(fmt::format("w{}", l), p.dtype, {out, in}, Replicated())
            .Data({.exact = sparse,
                   .bounded = Uniform(
                       p.dtype, 2 / std::sqrt(static_cast<double>(in)))}));
    tensors.push_back(Input(fmt::format("b{}", l), p.dtype, {out}, Replicated())
                          .Data({.exact = ones}));
  }
  const Sharding own = OwnParts(p);
  const DType computed = Accumulator(p.dtype);
  const Shape all = {Parameters(p)};
  const Sharding last_tokens = ShardSizes(0, TokensOf(p));
  if (HasLastPasses(p)) {
    tensors.push_back(
        Output("y", p.dtype, {p.tokens, widths.back()}, last_tokens));
    tensors.push_back(
        Output("dx", p.dtype, {p.tokens, widths.front()}, last_tokens)
            .Gradient());
  }
  tensors.push_back(Output("gradient", p.dtype, all, own).Gradient());
  tensors.push_back(
      Output("parameter", p.dtype, all, p.stage == 3 ? own : Replicated()));
  if (Narrow(p)) tensors.push_back(Output("master", computed, all, own));
  if (HasFirst(p)) {
    tensors.push_back(Output("first", computed, all, own).Gradient());
  }
  if (p.adam) {
    tensors.push_back(Output("second", computed, all, own).Gradient());
  }
  if (!p.linear) {
    tensors.push_back(Output("norm", DType::kF64, {p.steps}, Replicated()));
  }
  return tensors;
}

// --- The reference -----------------------------------------------------------

StatusOr<DenseOutputs> Expected(const P& p, const Arithmetic& summed,
                                const Inputs& in, const Sample& /*sample*/) {
  const std::vector<int64_t> widths = WidthsOf(p);
  std::vector<double> initial;
  for (size_t l = 0; l + 1 < widths.size(); ++l) {
    for (const char* const kind : {"w", "b"}) {
      const std::vector<double> part = in.All(fmt::format("{}{}", kind, l));
      initial.insert(initial.end(), part.begin(), part.end());
    }
  }
  TrainedStackReference reference(widths, p.dtype,
                                  ConfigOf(p).optimizer.settings, initial);
  // Each micro-batch of each rank is one term; it is rounded as it is added to
  // those before it, on its way through the group, and among replicas.
  TrainedStackReference::Parts parts;
  for (const int64_t tokens : TokensOf(p)) {
    for (int m = 0; m < p.micro_batches; ++m) {
      parts.tokens.push_back(BalancedChunk(tokens, p.micro_batches, m).count);
    }
  }
  parts.roundings =
      p.micro_batches - 1 + summed.WireRoundings() + (p.replicas > 1 ? 1 : 0);
  // Where products add to what there is, that may go through all additions.
  if (p.stage == 1) {
    parts.roundings +=
        (p.micro_batches - 1) * static_cast<int>(*std::max_element(
                                    parts.tokens.begin(), parts.tokens.end()));
  }
  const std::vector<double> x = in.All("x"), dy = in.All("dy");
  const size_t x_step = x.size() / static_cast<size_t>(p.steps);
  const size_t dy_step = dy.size() / static_cast<size_t>(p.steps);
  DenseOutputs out;
  for (size_t k = 0; k < static_cast<size_t>(p.steps); ++k) {
    reference.Step(std::span(x).subspan(k * x_step, x_step),
                   std::span(dy).subspan(k * dy_step, dy_step), parts,
                   FactorOf(p));
    out["norm"].push_back(reference.optimizer().norm());
  }
  out["y"] = reference.y();
  out["dx"] = reference.dx();
  out["gradient"] = reference.gradient();
  out["parameter"] = reference.optimizer().parameters();
  out["master"] = reference.optimizer().weights();
  out["first"] = reference.optimizer().first();
  out["second"] = reference.optimizer().second();
  return out;
}

}  // namespace shardproof::zero_case
