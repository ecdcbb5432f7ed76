// The pairing of transformer_block: axes, reference, variants, planted bugs.
#include "tools/harness/case.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "layers/kernels/activation.h"
#include "layers/pairing/broken_attention.h"
#include "layers/pairing/head_sharding.h"
#include "layers/pairing/layer_case.h"
#include "layers/pairing/sampling.h"
#include "layers/transformer_block/transformer_block.h"
#include "reference/transformer_block.h"

namespace shardproof {

// LayerNorm, GELU and biases; or RMSNorm, SwiGLU, rotary embeddings and half as
// many KV heads as heads.
enum class Style : uint8_t { kGpt2, kLlama };

// For the axes, found by argument-dependent lookup.
static std::string FormatAxisValue(Style style) {
  return style == Style::kGpt2 ? "gpt2" : "llama";
}
static Status ParseAxisValue(std::string_view text, Style* style) {
  for (const Style s : {Style::kGpt2, Style::kLlama}) {
    if (text != FormatAxisValue(s)) continue;
    *style = s;
    return OkStatus();
  }
  return InvalidArgument("\"{}\" is neither gpt2 nor llama", text);
}
static std::string FormatAxisValue(Recomputation recompute) {
  switch (recompute) {
    case Recomputation::kNone:
      return "none";
    case Recomputation::kSelective:
      return "selective";
    case Recomputation::kFull:
      return "full";
  }
  return "unknown";
}
static Status ParseAxisValue(std::string_view text, Recomputation* recompute) {
  for (const Recomputation r : {Recomputation::kNone, Recomputation::kSelective,
                                Recomputation::kFull}) {
    if (text != FormatAxisValue(r)) continue;
    *recompute = r;
    return OkStatus();
  }
  return InvalidArgument("\"{}\" is not none, selective or full", text);
}

namespace {

struct P {
  DType dtype = DType::kF32;
  Style style = Style::kGpt2;
  bool sequence_parallel = false;
  Recomputation recompute = Recomputation::kNone;
  int64_t length = 0;
  int64_t hidden = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;  // 0: as the style has it.
  int64_t head_dim = 0;
  int64_t intermediate = 0;
  int64_t sequences = 2;
  int ranks = 1;
  Memory memory = Memory::kShared;
};

bool Llama(const P& p) { return p.style == Style::kLlama; }

TransformerBlockConfig ConfigOf(const P& p) {
  int64_t kv_heads = p.kv_heads;
  if (kv_heads == 0) kv_heads = Llama(p) ? p.heads / 2 : p.heads;
  return {.sequences = p.sequences,
          .length = p.length,
          .hidden = p.hidden,
          .heads = p.heads,
          .kv_heads = kv_heads,
          .head_dim = p.head_dim,
          .intermediate = p.intermediate,
          .norm = Llama(p) ? NormKind::kRmsNorm : NormKind::kLayerNorm,
          .activation = Llama(p) ? Activation::kSwiGlu : Activation::kGeluTanh,
          .rope_theta = Llama(p) ? 10000. : 0.,
          .dtype = p.dtype,
          .bias = !Llama(p),
          .sequence_parallel = p.sequence_parallel,
          .recompute = p.recompute};
}

std::optional<std::string> Skip(const P& p) {
  if (p.ranks > p.heads) return "fewer heads than ranks";
  if (p.recompute != Recomputation::kNone && p.dtype != DType::kF32) {
    return "recomputation is tested in f32";
  }
  if (p.dtype == DType::kF16 && p.sequence_parallel) {
    return "f16 is tested without sequence parallelism";
  }
  // Their references are probed, which takes time.
  if (p.dtype == DType::kBF16 &&
      p.sequence_parallel !=
          ((p.ranks % 2 == 0) == (p.style == Style::kLlama))) {
    return "bf16 is sequence-parallel over even ranks as Llama, else as GPT-2";
  }
  return std::nullopt;
}

// A weight of the block: its name, shape and sharding, how many terms its
// products have, and which dimension of its gradient is sampled.
struct Weight {
  std::string name;
  Shape shape;
  Sharding by = Replicated();
  int64_t terms = 0;  // 0: no product.
  int sampled = -1;
};

// In the order in which they are used.
std::vector<Weight> WeightsOf(const P& p) {
  const TransformerBlockConfig c = ConfigOf(p);
  const int64_t h = c.hidden, w = c.heads * c.head_dim, f = c.intermediate;
  const int64_t fused = (c.heads + 2 * c.kv_heads) * c.head_dim;
  const Sharding by_head = ByHead(c.heads, c.kv_heads, c.head_dim);
  const Sharding by_query = ByQueryHead(c.heads, c.kv_heads, c.head_dim);
  const bool centred = c.norm == NormKind::kLayerNorm;
  std::vector<Weight> all;
  all.push_back({.name = "norm1_w", .shape = {h}});
  if (centred) all.push_back({.name = "norm1_b", .shape = {h}});
  all.push_back({.name = "w_qkv",
                 .shape = {fused, h},
                 .by = by_head,
                 .terms = h,
                 .sampled = 0});
  if (c.bias) all.push_back({.name = "b_qkv", .shape = {fused}, .by = by_head});
  all.push_back({.name = "w_out",
                 .shape = {h, w},
                 .by = by_query,
                 .terms = w,
                 .sampled = 0});
  if (c.bias) all.push_back({.name = "b_out", .shape = {h}});
  all.push_back({.name = "norm2_w", .shape = {h}});
  if (centred) all.push_back({.name = "norm2_b", .shape = {h}});
  if (Llama(p)) {
    all.push_back({.name = "w_gate",
                   .shape = {f, h},
                   .by = Shard(0),
                   .terms = h,
                   .sampled = 0});
  }
  all.push_back({.name = "w_up",
                 .shape = {f, h},
                 .by = Shard(0),
                 .terms = h,
                 .sampled = 0});
  if (c.bias) all.push_back({.name = "b_up", .shape = {f}, .by = Shard(0)});
  all.push_back({.name = "w_down",
                 .shape = {h, f},
                 .by = Shard(1),
                 .terms = f,
                 .sampled = 1});
  if (c.bias) all.push_back({.name = "b_down", .shape = {h}});
  return all;
}

Tensors TensorsOf(const P& p) {
  const Sharding tokens = p.sequence_parallel ? Shard(0) : Replicated();
  const Shape stream = {p.sequences * p.length, p.hidden};
  Tensors tensors = {Input("x", p.dtype, stream, tokens)};
  const std::vector<Weight> weights = WeightsOf(p);
  for (const Weight& w : weights) {
    TensorData data;
    // Products with a deviation of about 1, as in the parts' own cases.
    if (w.terms > 0) {
      data.bounded =
          Uniform(p.dtype, 3 / std::sqrt(static_cast<double>(w.terms)));
    }
    tensors.push_back(Input(w.name, p.dtype, w.shape, w.by).Data(data));
  }
  tensors.push_back(Input("dy", p.dtype, stream, tokens));
  tensors.push_back(Output("y", p.dtype, stream, tokens).SampleDimension(0));
  tensors.push_back(
      Output("dx", p.dtype, stream, tokens).Gradient().SampleDimension(0));
  for (const Weight& w : weights) {
    tensors.push_back(Output("d" + w.name, p.dtype, w.shape, w.by)
                          .Gradient()
                          .SampleDimension(w.sampled));
  }
  return tensors;
}

TransformerBlockInputs InputsOf(const P& p, const Inputs& in) {
  const TransformerBlockConfig c = ConfigOf(p);
  const auto get = [&](const char* name) { return in.Global(name); };
  TransformerBlockInputs inputs{.x = get("x"), .dy = get("dy")};
  inputs.norm1 = {c.norm, c.epsilon, get("norm1_w")};
  inputs.norm2 = {c.norm, c.epsilon, get("norm2_w")};
  inputs.attention = {.sequences = c.sequences,
                      .heads = c.heads,
                      .kv_heads = c.kv_heads,
                      .head_dim = c.head_dim,
                      .rope_theta = c.rope_theta,
                      .x = {},
                      .w_qkv = get("w_qkv"),
                      .w_out = get("w_out")};
  inputs.mlp = {.activation = c.activation,
                .x = {},
                .w_up = get("w_up"),
                .w_down = get("w_down")};
  if (c.norm == NormKind::kLayerNorm) {
    inputs.norm1.bias = get("norm1_b");
    inputs.norm2.bias = get("norm2_b");
  }
  if (Llama(p)) inputs.mlp.w_gate = get("w_gate");
  if (c.bias) {
    inputs.attention.b_qkv = get("b_qkv");
    inputs.attention.b_out = get("b_out");
    inputs.mlp.b_up = get("b_up");
    inputs.mlp.b_down = get("b_down");
  }
  return inputs;
}

StatusOr<DenseOutputs> Expected(const P& p, const Arithmetic& summed,
                                const Inputs& in, const Sample& sample) {
  const TransformerBlockConfig c = ConfigOf(p);
  Rows features = Llama(p) ? Together(sample, {"dw_up", "dw_down", "dw_gate"})
                           : Together(sample, {"dw_up", "dw_down"});
  // Biases are not sampled, so nothing that shares their evaluation is.
  Rows qkv = Together(sample, {"dw_qkv"});
  if (c.bias) features = qkv = {};
  const TransformerBlockResult r = TransformerBlockReference(
      InputsOf(p, in), ArithmeticOf(c, summed),
      {.qkv = qkv, .out = Together(sample, {"dw_out"}), .features = features});
  const auto places = [&](const char* output, const Rows& rows, int64_t all) {
    return Places(sample, output, rows, all);
  };
  const int64_t tokens = c.tokens(), f = c.intermediate;
  const int64_t fused = (c.heads + 2 * c.kv_heads) * c.head_dim;
  DenseOutputs out;
  out["y"] = RowsAt(r.y, places("y", {}, tokens));
  out["dx"] = RowsAt(r.dx, places("dx", {}, tokens));
  out["dnorm1_w"] = r.norm1.dw.values;
  out["dnorm1_b"] = r.norm1.db.values;
  out["dw_qkv"] = RowsAt(r.attention.dw_qkv, places("dw_qkv", qkv, fused));
  out["db_qkv"] = r.attention.db_qkv.values;
  out["dw_out"] = r.attention.dw_out.values;
  out["db_out"] = r.attention.db_out.values;
  out["dnorm2_w"] = r.norm2.dw.values;
  out["dnorm2_b"] = r.norm2.db.values;
  if (Llama(p)) {
    out["dw_gate"] = RowsAt(r.mlp.dw_gate, places("dw_gate", features, f));
  }
  out["dw_up"] = RowsAt(r.mlp.dw_up, places("dw_up", features, f));
  out["dw_down"] = Transposed(r.mlp.dw_down_t, places("dw_down", features, f));
  out["db_up"] = r.mlp.db_up.values;
  out["db_down"] = r.mlp.db_down.values;
  return out;
}

// --- The variants ------------------------------------------------------------

// Every part that the block has, by `part(name)`; null for the rest.
template <class Void, class Part>
TransformerBlockParts<Void> PartsOf(const P& p, Part part) {
  const TransformerBlockConfig c = ConfigOf(p);
  const bool centred = c.norm == NormKind::kLayerNorm;
  const auto optional = [&](bool has, const char* name) -> Void* {
    return has ? part(name) : nullptr;
  };
  return {.norm1_weight = part("norm1_w"),
          .norm1_bias = optional(centred, "norm1_b"),
          .attention = {.w_qkv = part("w_qkv"),
                        .b_qkv = optional(c.bias, "b_qkv"),
                        .w_out = part("w_out"),
                        .b_out = optional(c.bias, "b_out")},
          .norm2_weight = part("norm2_w"),
          .norm2_bias = optional(centred, "norm2_b"),
          .mlp = {.w_gate = optional(Llama(p), "w_gate"),
                  .w_up = part("w_up"),
                  .w_down = part("w_down"),
                  .b_up = optional(c.bias, "b_up"),
                  .b_down = optional(c.bias, "b_down")}};
}

StatusOr<Operation> BindConfig(const P& p, const TransformerBlockConfig& config,
                               RankContext& context,
                               const CollectiveFamily& collectives,
                               const AttentionCoreFactory& core) {
  SP_ASSIGN_OR_RETURN(
      TransformerBlock made,
      TransformerBlock::Create(context.comm(), config, collectives, core));
  const auto block = std::make_shared<TransformerBlock>(std::move(made));
  return Operation([block, p, &context]() -> Status {
    const RankContext& c = context;
    const auto weights = PartsOf<const void>(
        p, [&](const char* name) { return c.in(name).data; });
    const auto gradients = PartsOf<void>(p, [&](const char* name) {
      return c.out("d" + std::string(name)).data;
    });
    SP_RETURN_IF_ERROR(
        block->Forward(c.in("x").data, weights, c.out("y").data, c.stream()));
    return block->Backward(c.in("x").data, weights, c.in("dy").data,
                           c.out("dx").data, gradients, c.stream());
  });
}

StatusOr<Operation> Bind(const P& p, RankContext& context,
                         const CollectiveFamily& collectives) {
  return BindConfig(p, ConfigOf(p), context, collectives, CreatePlainAttention);
}

Cost CostOf(const P& p, const CollectiveFamily& collectives) {
  return TransformerBlockForwardCost(p.ranks, ConfigOf(p), collectives) +
         TransformerBlockBackwardCost(p.ranks, ConfigOf(p), collectives);
}

// --- Planted bugs ------------------------------------------------------------

Mutant<P> WithCore(std::string name, const AttentionCoreFactory& core) {
  return {.name = std::move(name),
          .bind =
              [core](const P& p, RankContext& context) {
                return BindConfig(p, ConfigOf(p), context, kAutoCollectives,
                                  core);
              },
          .applies = [](const P& p) { return p.ranks >= 2; }};
}

// What is taken from the residual stream: from `of`, `what`.
Status Subtract(const TensorView& of, const ConstTensorView& what) {
  const int64_t n = of.num_elements();
  std::vector<double> a(static_cast<size_t>(n)), b(a.size());
  ToDouble(of.dtype, of.data, n, a.data());
  ToDouble(what.dtype, what.data, n, b.data());
  for (size_t i = 0; i < a.size(); ++i) a[i] -= b[i];
  FromDouble(of.dtype, a.data(), n, of.data);
  return OkStatus();
}
Status LoseResidual(const P&, const RankContext& c) {
  return Subtract(c.out("y"), c.in("x"));
}
Status LoseResidualGradient(const P&, const RankContext& c) {
  return Subtract(c.out("dx"), c.in("dy"));
}

Status AverageNormGradients(const P& p, const RankContext& c) {
  SP_RETURN_IF_ERROR(Scale(c.out("dnorm1_w"), 1.0 / p.ranks));
  return Scale(c.out("dnorm2_w"), 1.0 / p.ranks);
}

StatusOr<Operation> BindNothingShared(const P& p, RankContext& context) {
  TransformerBlockConfig config = ConfigOf(p);
  config.sum_shared = false;
  return BindConfig(p, config, context, kAutoCollectives, CreatePlainAttention);
}

// The block's activations are those of another x: what recomputation that reads
// the wrong checkpoint does.
StatusOr<Operation> BindStale(const P& p, RankContext& context) {
  SP_ASSIGN_OR_RETURN(const Operation good, Bind(p, context, kAutoCollectives));
  TransformerBlockConfig config = ConfigOf(p);
  config.recompute = Recomputation::kNone;
  SP_ASSIGN_OR_RETURN(TransformerBlock made,
                      TransformerBlock::Create(context.comm(), config));
  const auto block = std::make_shared<TransformerBlock>(std::move(made));
  return Operation([=, &context]() -> Status {
    const RankContext& c = context;
    const auto weights = PartsOf<const void>(
        p, [&](const char* name) { return c.in(name).data; });
    const auto gradients = PartsOf<void>(p, [&](const char* name) {
      return c.out("d" + std::string(name)).data;
    });
    SP_RETURN_IF_ERROR(good());
    // dy in the place of x; its y is overwritten.
    SP_RETURN_IF_ERROR(
        block->Forward(c.in("dy").data, weights, c.out("dx").data, c.stream()));
    return block->Backward(c.in("x").data, weights, c.in("dy").data,
                           c.out("dx").data, gradients, c.stream());
  });
}

bool Several(const P& p) { return p.ranks >= 2; }
bool SequenceParallel(const P& p) {
  return p.ranks >= 2 && p.sequence_parallel;
}
bool Sharing(const P& p) {
  const TransformerBlockConfig c = ConfigOf(p);
  return !SharedKvHeads(c.heads, c.kv_heads, p.ranks).empty();
}

// --- The case ----------------------------------------------------------------

// A model's width makes the bounds infinite in f32 too; there the deviations are
// so small that 8 probes are enough.
int ProbesOf(const P& p) {
  constexpr int64_t kWide = 1024;
  if (p.dtype == DType::kF32 && p.hidden >= kWide) return 8;
  return ProbesOfChain(p);
}

// A model's block on one sequence, of 8 tokens at most: the reference
// evaluates all of it, nine times.
std::vector<P> WorkloadOf(const Workload& workload, int ranks) {
  const auto dtype = TypeOf(workload);
  P p{.style =
          FactOf(workload, "norm") == "rms_norm" ? Style::kLlama : Style::kGpt2,
      .sequence_parallel = FactOf(workload, "sequence_parallel") == "true",
      .length = std::min<int64_t>(8, ShapeOf(workload, "tokens")),
      .hidden = ShapeOf(workload, "hidden"),
      .heads = ShapeOf(workload, "heads"),
      .kv_heads = ShapeOf(workload, "kv_heads"),
      .head_dim = ShapeOf(workload, "head_dim"),
      .intermediate = ShapeOf(workload, "intermediate"),
      .sequences = 1,
      .ranks = ranks};
  if (!dtype.ok() || p.length * p.hidden * p.intermediate == 0 ||
      p.heads * p.head_dim * p.kv_heads == 0 || p.heads < ranks ||
      ShapeOf(workload, "experts") > 0 ||
      FactOf(workload, "latent_attention") == "true") {
    return {};
  }
  // In 16 bits the reference would be probed, for minutes: f32 instead.
  p.dtype = SizeOf(*dtype) < SizeOf(DType::kF32) ? DType::kF32 : *dtype;
  return {p};
}

// Every product forward, and two more backward; of the core, all scores.
double Flops(const P& p) {
  const TransformerBlockConfig c = ConfigOf(p);
  const auto tokens = static_cast<double>(c.tokens());
  const auto width = static_cast<double>(c.heads * c.head_dim);
  const auto kv = static_cast<double>(c.kv_heads * c.head_dim);
  const double features =
      (Llama(p) ? 3 : 2) * static_cast<double>(c.intermediate);
  return 6 * tokens * static_cast<double>(c.hidden) *
             (2 * width + 2 * kv + features) +
         12 * tokens * static_cast<double>(c.length) * width;
}

const RegisterCase kTransformerBlock(Case<P>{
    .name = "layers/transformer_block",
    .what = "attention and mlp, each behind a norm and beside a residual: sums "
            "twice over ranks each way; with recomputation",
    // Not measured in bf16: at those sizes probes of the reference take minutes.
    .axes = {Axis("dtype", &P::dtype,
                  {DType::kF32, DType::kBF16, DType::kF16, DType::kF64})
                 .Bench({DType::kF32}),
             Axis("style", &P::style, {Style::kLlama, Style::kGpt2}),
             Axis("sequence_parallel", &P::sequence_parallel, {false, true})
                 .Smoke({false, true}),
             Axis("recompute", &P::recompute,
                  {Recomputation::kNone, Recomputation::kSelective,
                   Recomputation::kFull})
                 .Bench({Recomputation::kNone}),
             Axis("length", &P::length, {5}).Bench({128}),
             Axis("hidden", &P::hidden, {24}).Bench({512}),
             Axis("heads", &P::heads, {8}),
             Axis("head_dim", &P::head_dim, {4}).Bench({64}),
             Axis("intermediate", &P::intermediate, {20}).Bench({1792})},
    .skip = Skip,
    .tensors = TensorsOf,
    .reference = DenseReference<P>(Expected),
    .variants = OverCollectives<P>(Bind, CostOf),
    .mutants = {Planted<P>("sums_left_partial", Bind, kWithoutReduction,
                           Several),
                Planted<P>("sums_averaged", Bind, kAveraging, Several),
                Planted<P>("tokens_not_gathered", Bind, kGatheringNothing,
                           SequenceParallel),
                Planted<P>("tokens_gathered_backwards", Bind,
                           kGatheringBackwards, SequenceParallel),
                Spoiled<P>("residual_lost", Bind, LoseResidual, Several),
                Spoiled<P>("residual_gradient_lost", Bind, LoseResidualGradient,
                           Several),
                Spoiled<P>("norm_gradients_averaged", Bind,
                           AverageNormGradients, SequenceParallel),
                {.name = "shared_kv_gradients_not_summed",
                 .bind = BindNothingShared,
                 .applies = Sharing},
                WithCore("sees_the_next_token", SeesTheNextToken),
                WithCore("sequences_run_together", RunsSequencesTogether),
                {.name = "activations_of_another_x",
                 .bind = BindStale,
                 .applies = Several}},
    .probes = ProbesOf,
    .exact = false,  // Not linear; the products are, and have cases.
    .flops = Flops,
    .floor = [](const P& p) { return Floor{.flops = Flops(p) / p.ranks}; },
    .workload = WorkloadOf});

}  // namespace
}  // namespace shardproof
