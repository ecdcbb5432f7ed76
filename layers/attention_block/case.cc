// The pairing of attention_block: axes, reference, variants, planted bugs.
#include "tools/harness/case.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "collectives/chunks.h"
#include "layers/attention_block/attention_block.h"
#include "layers/kernels/activation.h"
#include "layers/pairing/broken_attention.h"
#include "layers/pairing/head_sharding.h"
#include "layers/pairing/layer_case.h"
#include "layers/pairing/sampling.h"
#include "reference/attention.h"

namespace shardproof {
namespace {

struct P {
  DType dtype = DType::kF32;
  int64_t kv_heads = 0;
  bool sequence_parallel = false;
  bool bias = false;
  double rope_theta = 0;
  bool causal = true;
  int64_t sequences = 0;
  int64_t length = 0;
  int64_t hidden = 0;
  int64_t heads = 0;
  int64_t head_dim = 0;
  int ranks = 1;
  Memory memory = Memory::kShared;

  int64_t tokens() const { return sequences * length; }
  int64_t fused() const { return (heads + 2 * kv_heads) * head_dim; }
};

ParallelAttentionConfig ConfigOf(const P& p) {
  return {.sequences = p.sequences,
          .length = p.length,
          .hidden = p.hidden,
          .heads = p.heads,
          .kv_heads = p.kv_heads,
          .head_dim = p.head_dim,
          .causal = p.causal,
          .rope_theta = p.rope_theta,
          .dtype = p.dtype,
          .bias = p.bias,
          .sequence_parallel = p.sequence_parallel};
}

HeadShare ShareOf(const P& p, int rank) {
  return HeadShare::Of(p.heads, p.kv_heads, p.ranks, rank);
}

// Every combination would be many that catch nothing new.
std::optional<std::string> Skip(const P& p) {
  if (p.ranks > p.heads) return "fewer heads than ranks";
  if (p.bias && p.rope_theta == 0) return "a bias is tested with RoPE";
  const bool plain = p.dtype == DType::kF32 && !p.bias;
  if (!p.causal && !(plain && p.rope_theta == 0)) {
    return "the whole mask is tested in f32, without RoPE";
  }
  if (p.length == 1 && !(plain && p.causal && p.kv_heads == 1)) {
    return "single tokens are tested in f32, with one KV head";
  }
  if (p.dtype == DType::kF64 && p.kv_heads != 4) {
    return "f64 is tested with grouped queries";
  }
  // The references of 16-bit types are probed, which takes time.
  if (SizeOf(p.dtype) >= SizeOf(DType::kF32)) return std::nullopt;
  if (p.kv_heads != 4 && !p.bias) {
    return "16-bit types are tested with grouped queries, or with a bias";
  }
  if (p.dtype == DType::kF16 && !(p.kv_heads == 4 && p.bias)) {
    return "f16 is tested with grouped queries and a bias";
  }
  // With sequence parallelism over the odd numbers of ranks and without it over
  // the even ones, or the other way round.
  const bool common = p.dtype == DType::kBF16 && p.kv_heads == 4 && p.bias;
  const bool odd = p.ranks % 2 != 0;
  const bool turn = p.kv_heads == 8 || (p.kv_heads == 4 && p.rope_theta != 0);
  if (!common && p.sequence_parallel != (odd == turn)) {
    return "16-bit types are tested with sequence parallelism over every "
           "second number of ranks";
  }
  return std::nullopt;
}

// Weights such that sums of `terms` products with uniform numbers have a
// deviation of about 1: scores that tell keys apart.
TensorData Weight(DType dtype, int64_t terms) {
  return {.bounded = Uniform(dtype, 3 / std::sqrt(static_cast<double>(terms)))};
}

// Inputs in the order in which they are used, then outputs.
Tensors TensorsOf(const P& p) {
  const int64_t h = p.hidden, w = p.heads * p.head_dim;
  const Sharding tokens = p.sequence_parallel ? Shard(0) : Replicated();
  const Sharding by_head = ByHead(p.heads, p.kv_heads, p.head_dim);
  const Sharding by_query = ByQueryHead(p.heads, p.kv_heads, p.head_dim);
  Tensors tensors;
  const auto in = [&](std::string name, const Shape& shape, const Sharding& by,
                      const TensorData& data = {}) {
    tensors.push_back(Input(std::move(name), p.dtype, shape, by).Data(data));
  };
  const auto gradient = [&](std::string name, const Shape& shape,
                            const Sharding& by, int sampled) {
    tensors.push_back(Output(std::move(name), p.dtype, shape, by)
                          .Gradient()
                          .SampleDimension(sampled));
  };
  in("x", {p.tokens(), h}, tokens);
  in("w_qkv", {p.fused(), h}, by_head, Weight(p.dtype, h));
  if (p.bias) in("b_qkv", {p.fused()}, by_head);
  in("w_out", {h, w}, by_query, Weight(p.dtype, w));
  if (p.bias) in("b_out", {h}, Replicated());
  in("dy", {p.tokens(), h}, tokens);
  tensors.push_back(
      Output("y", p.dtype, {p.tokens(), h}, tokens).SampleDimension(0));
  gradient("dx", {p.tokens(), h}, tokens, 0);
  gradient("dw_qkv", {p.fused(), h}, by_head, 0);
  if (p.bias) gradient("db_qkv", {p.fused()}, by_head, 0);
  gradient("dw_out", {h, w}, by_query, 0);
  if (p.bias) gradient("db_out", {h}, Replicated(), -1);
  return tensors;
}

StatusOr<DenseOutputs> Expected(const P& p, const Arithmetic& summed,
                                const Inputs& in, const Sample& sample) {
  AttentionInputs inputs = {.sequences = p.sequences,
                            .heads = p.heads,
                            .kv_heads = p.kv_heads,
                            .head_dim = p.head_dim,
                            .causal = p.causal,
                            .rope_theta = p.rope_theta,
                            .x = in.Global("x"),
                            .w_qkv = in.Global("w_qkv"),
                            .w_out = in.Global("w_out"),
                            .dy = in.Global("dy")};
  if (p.bias) {
    inputs.b_qkv = in.Global("b_qkv");
    inputs.b_out = in.Global("b_out");
  }
  const Rows tokens = Together(sample, {"y", "dx"});
  const Rows qkv = p.bias ? Together(sample, {"dw_qkv", "db_qkv"})
                          : Together(sample, {"dw_qkv"});
  const AttentionResult r = AttentionReference(
      inputs, ParallelAttentionArithmetic(ConfigOf(p), summed),
      {.tokens = tokens, .qkv = qkv, .out = Together(sample, {"dw_out"})});
  DenseOutputs out;
  out["y"] = RowsAt(r.y, Places(sample, "y", tokens, p.tokens()));
  out["dx"] = RowsAt(r.dx, Places(sample, "dx", tokens, p.tokens()));
  out["dw_qkv"] = RowsAt(r.dw_qkv, Places(sample, "dw_qkv", qkv, p.fused()));
  out["dw_out"] = r.dw_out.values;
  if (p.bias) {
    out["db_qkv"] =
        ColumnsAt(r.db_qkv, Places(sample, "db_qkv", qkv, p.fused()));
    out["db_out"] = r.db_out.values;
  }
  return out;
}

// --- The variants ------------------------------------------------------------

AttentionWeights WeightsOf(const P& p, const RankContext& c) {
  AttentionWeights weights{.w_qkv = c.in("w_qkv").data,
                           .w_out = c.in("w_out").data};
  if (p.bias) {
    weights.b_qkv = c.in("b_qkv").data;
    weights.b_out = c.in("b_out").data;
  }
  return weights;
}

AttentionGradients GradientsOf(const P& p, const RankContext& c) {
  AttentionGradients gradients{.w_qkv = c.out("dw_qkv").data,
                               .w_out = c.out("dw_out").data};
  if (p.bias) {
    gradients.b_qkv = c.out("db_qkv").data;
    gradients.b_out = c.out("db_out").data;
  }
  return gradients;
}

// Forward, then backward, with weights that may differ in a mutant.
Status RunBoth(ParallelAttention& attention, const P& p, const RankContext& c,
               const AttentionWeights& weights) {
  SP_RETURN_IF_ERROR(
      attention.Forward(c.in("x").data, weights, c.out("y").data, c.stream()));
  return attention.Backward(c.in("x").data, weights, c.in("dy").data,
                            c.out("dx").data, GradientsOf(p, c), c.stream());
}

StatusOr<std::shared_ptr<ParallelAttention>> Make(
    const ParallelAttentionConfig& config, const RankContext& context,
    const CollectiveFamily& collectives,
    const AttentionCoreFactory& core = CreatePlainAttention) {
  SP_ASSIGN_OR_RETURN(
      ParallelAttention made,
      ParallelAttention::Create(context.comm(), config, collectives, core));
  return std::make_shared<ParallelAttention>(std::move(made));
}

StatusOr<Operation> Bind(const P& p, RankContext& context,
                         const CollectiveFamily& collectives) {
  SP_ASSIGN_OR_RETURN(const auto attention,
                      Make(ConfigOf(p), context, collectives));
  return Operation([attention, p, &context] {
    return RunBoth(*attention, p, context, WeightsOf(p, context));
  });
}

Cost CostOf(const P& p, const CollectiveFamily& collectives) {
  return ParallelAttentionForwardCost(p.ranks, ConfigOf(p), collectives) +
         ParallelAttentionBackwardCost(p.ranks, ConfigOf(p), collectives);
}

// --- Planted bugs ------------------------------------------------------------

// The layer as another config makes it, or with another core.
Mutant<P> Misconfigured(
    std::string name,
    const std::function<void(const P&, ParallelAttentionConfig&)>& change,
    std::function<bool(const P&)> applies) {
  return {.name = std::move(name),
          .bind = [change](const P& p,
                           RankContext& context) -> StatusOr<Operation> {
            ParallelAttentionConfig config = ConfigOf(p);
            change(p, config);
            SP_ASSIGN_OR_RETURN(const auto attention,
                                Make(config, context, kAutoCollectives));
            return Operation([attention, p, &context] {
              return RunBoth(*attention, p, context, WeightsOf(p, context));
            });
          },
          .applies = std::move(applies)};
}

Mutant<P> WithCore(std::string name, const AttentionCoreFactory& core,
                   std::function<bool(const P&)> applies) {
  return {
      .name = std::move(name),
      .bind = [core](const P& p, RankContext& context) -> StatusOr<Operation> {
        SP_ASSIGN_OR_RETURN(const auto attention,
                            Make(ConfigOf(p), context, kAutoCollectives, core));
        return Operation([attention, p, &context] {
          return RunBoth(*attention, p, context, WeightsOf(p, context));
        });
      },
      .applies = std::move(applies)};
}

void MissScale(const P&, ParallelAttentionConfig& config) { config.scale = 1; }

// Each rank counts its own tokens from 0.
bool SomeRankBeginsWithinASequence(const P& p) {
  for (int r = 0; r < p.ranks; ++r) {
    if (BalancedChunk(p.tokens(), p.ranks, r).begin % p.length != 0)
      return true;
  }
  return false;
}
void RestartPositions(const P& p, ParallelAttentionConfig& config) {
  for (int r = 0; r < p.ranks; ++r) {
    const int64_t count = BalancedChunk(p.tokens(), p.ranks, r).count;
    for (int64_t i = 0; i < count; ++i) config.positions.push_back(i);
  }
}

// Nothing is summed over those who share a KV head, or weights only.
StatusOr<Operation> BindUnsummed(const P& p, RankContext& context,
                                 bool weights_summed) {
  ParallelAttentionConfig config = ConfigOf(p);
  config.sum_shared = false;
  SP_ASSIGN_OR_RETURN(const auto attention,
                      Make(config, context, kAutoCollectives));
  SP_ASSIGN_OR_RETURN(
      Buffer allocated,
      context.comm().Allocate(static_cast<size_t>(
          attention->share().FusedHeads() * p.head_dim * SizeOf(p.dtype))));
  const auto elsewhere = std::make_shared<Buffer>(std::move(allocated));
  std::fill_n(elsewhere->data(), elsewhere->bytes(), std::byte{0});
  return Operation([=, &context]() -> Status {
    SP_RETURN_IF_ERROR(RunBoth(*attention, p, context, WeightsOf(p, context)));
    if (!weights_summed) return OkStatus();
    AttentionGradients gradients = GradientsOf(p, context);
    gradients.b_qkv = elsewhere->data();
    return attention->SumSharedGradients(gradients, context.stream());
  });
}
StatusOr<Operation> BindNothingSummed(const P& p, RankContext& context) {
  return BindUnsummed(p, context, false);
}
StatusOr<Operation> BindBiasNotSummed(const P& p, RankContext& context) {
  return BindUnsummed(p, context, true);
}

// The fused weight as it lies in a checkpoint, [Q K V] over all heads, cut like
// any other: into contiguous parts.
StatusOr<Operation> BindCutInOnePiece(const P& p, RankContext& context) {
  SP_ASSIGN_OR_RETURN(const auto attention,
                      Make(ConfigOf(p), context, kAutoCollectives));
  const int64_t head = p.head_dim * p.hidden;
  std::vector<int64_t> counts;
  int64_t total = 0;
  for (int r = 0; r < p.ranks; ++r) {
    counts.push_back(ShareOf(p, r).FusedHeads() * head);
    total += counts.back();
  }
  const auto gathered = std::make_shared<Tensor>(p.dtype, Shape{total});
  const auto fused =
      std::make_shared<Tensor>(p.dtype, Shape{p.fused(), p.hidden});
  return Operation([=, &context]() -> Status {
    AttentionWeights weights = WeightsOf(p, context);
    SP_RETURN_IF_ERROR(AllGatherV(context.comm(), {.send = weights.w_qkv,
                                                   .recv = gathered->raw(),
                                                   .counts = counts,
                                                   .dtype = p.dtype}));
    const std::byte* from = gathered->bytes().data();
    const auto place = [&](int64_t begin, const Chunk& heads) {
      const auto bytes =
          static_cast<size_t>(heads.count * head * SizeOf(p.dtype));
      std::copy_n(from, bytes,
                  At(fused->raw(), p.dtype, (begin + heads.begin) * head));
      from += bytes;
    };
    for (int r = 0; r < p.ranks; ++r) {
      const HeadShare share = ShareOf(p, r);
      place(0, share.heads);
      place(p.heads, share.kv_heads);
      place(p.heads + p.kv_heads, share.kv_heads);
    }
    const int64_t all = p.heads + 2 * p.kv_heads;
    const int64_t own = attention->share().FusedHeads();
    const int64_t begin = std::min(
        BalancedChunk(all, p.ranks, context.comm().rank()).begin, all - own);
    weights.w_qkv = At(fused->raw(), p.dtype, begin * head);
    return RunBoth(*attention, p, context, weights);
  });
}

Status BiasAddedByEveryRank(const P& p, const RankContext& c) {
  const TensorView y = c.out("y");
  for (int r = 1; r < p.ranks; ++r) {
    SP_RETURN_IF_ERROR(AddBias(c.stream(), p.dtype, y.shape[0], y.shape[1],
                               c.in("b_out").data, y.data));
  }
  return OkStatus();
}

Status BiasGradientDivided(const P& p, const RankContext& c) {
  return Scale(c.out("db_out"), 1.0 / p.ranks);
}

Status BiasGradientOfOwnTokens(const P& p, const RankContext& c) {
  const ConstTensorView dy = c.in("dy");
  return ColumnSum(c.stream(), p.dtype, dy.shape[0], dy.shape[1], dy.data,
                   c.out("db_out").data);
}

bool Several(const P& p) { return p.ranks >= 2; }
bool SequenceParallel(const P& p) {
  return p.ranks >= 2 && p.sequence_parallel;
}
bool Biased(const P& p) { return p.ranks >= 2 && p.bias; }
bool Sharing(const P& p) {
  return !SharedKvHeads(p.heads, p.kv_heads, p.ranks).empty();
}
bool LongCausal(const P& p) { return p.length > 1 && p.causal; }
// Some rank has two KV heads, and more query heads.
bool HasGroups(const P& p) {
  for (int r = 0; r < p.ranks; ++r) {
    const HeadShare own = ShareOf(p, r);
    if (own.kv_heads.count > 1 && own.heads.count > own.kv_heads.count) {
      return p.length > 1;
    }
  }
  return false;
}

// --- The case ----------------------------------------------------------------

// At a model's width the bounds of f32 would let a dropped chunk pass; its
// deviations are so small that 8 probes are enough.
int ProbesOf(const P& p) {
  constexpr int64_t kWide = 1024;
  if (p.dtype == DType::kF32 && p.hidden >= kWide) return 8;
  return ProbesOfChain(p);
}

// A model's attention on 32 tokens at most: the reference is evaluated 9 times.
std::vector<P> WorkloadOf(const Workload& workload, int ranks) {
  const auto dtype = TypeOf(workload);
  P p{.kv_heads = ShapeOf(workload, "kv_heads"),
      .sequence_parallel = FactOf(workload, "sequence_parallel") == "true",
      .bias = FactOf(workload, "bias") == "true",
      .rope_theta =
          std::strtod(FactOf(workload, "rope_theta").c_str(), nullptr),
      .sequences = 1,
      .length = std::min<int64_t>(32, ShapeOf(workload, "tokens")),
      .hidden = ShapeOf(workload, "hidden"),
      .heads = ShapeOf(workload, "heads"),
      .head_dim = ShapeOf(workload, "head_dim"),
      .ranks = ranks};
  if (!dtype.ok() || p.length * p.hidden * p.heads * p.head_dim == 0 ||
      p.kv_heads == 0 || p.heads < ranks ||
      FactOf(workload, "latent_attention") == "true") {
    return {};
  }
  // In 16 bits the reference would be probed, for minutes: f32 instead.
  p.dtype = SizeOf(*dtype) < SizeOf(DType::kF32) ? DType::kF32 : *dtype;
  return {p};
}

// Every product forward, and two more backward; of the core, all scores.
double Flops(const P& p) {
  const auto tokens = static_cast<double>(p.tokens());
  const auto width = static_cast<double>(p.heads * p.head_dim);
  return 6 * tokens * static_cast<double>(p.hidden) *
             (static_cast<double>(p.fused()) + width) +
         12 * tokens * static_cast<double>(p.length) * width;
}

const RegisterCase kAttentionBlock(Case<P>{
    .name = "layers/attention_block",
    .what = "attention, cut by heads between a column- and a row-parallel "
            "projection: sums y over ranks forward, dx backward, and the "
            "gradients of KV heads over those that share them",
    // Not measured in bf16: at those sizes probes of the reference take minutes.
    .axes = {Axis("dtype", &P::dtype,
                  {DType::kF32, DType::kBF16, DType::kF16, DType::kF64})
                 .Bench({DType::kF32}),
             Axis("kv_heads", &P::kv_heads, {4, 8, 1}).Bench({4}),
             Axis("sequence_parallel", &P::sequence_parallel, {false, true})
                 .Smoke({false, true}),
             Axis("bias", &P::bias, {true, false}).Bench({false}),
             Axis("rope_theta", &P::rope_theta, {10000, 0}).Bench({10000}),
             Axis("causal", &P::causal, {true, false}).Bench({true}),
             Axis("sequences", &P::sequences, {2}).Bench({1}),
             Axis("length", &P::length, {9, 1}).Bench({512}),
             Axis("hidden", &P::hidden, {24}).Bench({1024}),
             Axis("heads", &P::heads, {8}).Bench({16}),
             Axis("head_dim", &P::head_dim, {6}).Bench({64})},
    .skip = Skip,
    .tensors = TensorsOf,
    .reference = DenseReference<P>(Expected),
    .variants = OverCollectives<P>(Bind, CostOf),
    .mutants =
        {Planted<P>("sums_left_partial", Bind, kWithoutReduction, Several),
         Planted<P>("sums_averaged", Bind, kAveraging, Several),
         Planted<P>("tokens_not_gathered", Bind, kGatheringNothing,
                    SequenceParallel),
         Planted<P>("tokens_gathered_backwards", Bind, kGatheringBackwards,
                    SequenceParallel),
         Spoiled<P>("bias_added_by_every_rank", Bind, BiasAddedByEveryRank,
                    Biased),
         Spoiled<P>("bias_gradient_divided", Bind, BiasGradientDivided, Biased),
         Spoiled<P>("bias_gradient_of_own_tokens", Bind,
                    BiasGradientOfOwnTokens,
                    [](const P& p) { return SequenceParallel(p) && p.bias; }),
         {.name = "qkv_cut_in_one_piece",
          .bind = BindCutInOnePiece,
          .applies = Several},
         {.name = "shared_kv_gradients_not_summed",
          .bind = BindNothingSummed,
          .applies = Sharing},
         {.name = "shared_kv_bias_gradients_not_summed",
          .bind = BindBiasNotSummed,
          .applies = [](const P& p) { return Sharing(p) && p.bias; }},
         WithCore("kv_heads_interleaved", InterleavesKvHeads, HasGroups),
         WithCore("sees_the_next_token", SeesTheNextToken, LongCausal),
         WithCore("does_not_see_itself", DoesNotSeeItself, LongCausal),
         WithCore("sequences_run_together", RunsSequencesTogether,
                  [](const P& p) { return p.sequences > 1; }),
         Misconfigured("scale_missing", MissScale,
                       [](const P& p) { return p.length > 1; }),
         WithCore("gradients_left_turned", LeavesGradientsTurned,
                  [](const P& p) {
                    return p.rope_theta == 10000 && p.length > 1;
                  }),
         Misconfigured("positions_restart_on_every_rank", RestartPositions,
                       [](const P& p) {
                         return SequenceParallel(p) && p.rope_theta != 0 &&
                                SomeRankBeginsWithinASequence(p);
                       })},
    .probes = ProbesOf,
    .exact = false,  // Not linear; the products are, and have cases.
    .flops = Flops,
    .floor = [](const P& p) { return Floor{.flops = Flops(p) / p.ranks}; },
    .workload = WorkloadOf});

}  // namespace
}  // namespace shardproof
