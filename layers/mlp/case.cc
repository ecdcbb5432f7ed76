// The pairing of mlp: axes, reference, variants, planted bugs.
#include "tools/harness/case.h"

#include <cmath>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "collectives/chunks.h"
#include "layers/kernels/activation.h"
#include "layers/mlp/mlp.h"
#include "layers/pairing/layer_case.h"
#include "layers/pairing/sampling.h"
#include "reference/mlp.h"

namespace shardproof {

// For the axis, found by argument-dependent lookup.
static std::string FormatAxisValue(Activation activation) {
  return activation == Activation::kSwiGlu ? "swiglu" : "gelu";
}
static Status ParseAxisValue(std::string_view text, Activation* activation) {
  for (const Activation a : {Activation::kGeluTanh, Activation::kSwiGlu}) {
    if (text != FormatAxisValue(a)) continue;
    *activation = a;
    return OkStatus();
  }
  return InvalidArgument("\"{}\" is neither gelu nor swiglu", text);
}

namespace {

struct P {
  DType dtype = DType::kF32;
  Activation activation = Activation::kGeluTanh;
  bool sequence_parallel = false;
  bool bias = false;
  int64_t tokens = 0;
  int64_t hidden = 0;
  int64_t intermediate = 0;
  int ranks = 1;
  Memory memory = Memory::kShared;
};

bool Gated(const P& p) { return p.activation == Activation::kSwiGlu; }

ParallelMlpConfig ConfigOf(const P& p) {
  return {.tokens = p.tokens,
          .hidden = p.hidden,
          .intermediate = p.intermediate,
          .activation = p.activation,
          .dtype = p.dtype,
          .bias = p.bias,
          .sequence_parallel = p.sequence_parallel};
}

// Weights such that sums of `terms` products with uniform numbers have a
// deviation of about 1: where activations are curved.
TensorData Weight(DType dtype, int64_t terms) {
  return {.bounded = Uniform(dtype, 3 / std::sqrt(static_cast<double>(terms)))};
}

// Inputs in the order in which they are used, then outputs.
Tensors TensorsOf(const P& p) {
  const int64_t h = p.hidden, f = p.intermediate;
  const Sharding tokens = p.sequence_parallel ? Shard(0) : Replicated();
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
  in("x", {p.tokens, h}, tokens);
  if (Gated(p)) in("w_gate", {f, h}, Shard(0), Weight(p.dtype, h));
  if (Gated(p) && p.bias) in("b_gate", {f}, Shard(0));
  in("w_up", {f, h}, Shard(0), Weight(p.dtype, h));
  if (p.bias) in("b_up", {f}, Shard(0));
  in("w_down", {h, f}, Shard(1), Weight(p.dtype, f));
  if (p.bias) in("b_down", {h}, Replicated());
  in("dy", {p.tokens, h}, tokens);
  tensors.push_back(
      Output("y", p.dtype, {p.tokens, h}, tokens).SampleDimension(0));
  gradient("dx", {p.tokens, h}, tokens, 0);
  if (Gated(p)) gradient("dw_gate", {f, h}, Shard(0), 0);
  if (Gated(p) && p.bias) gradient("db_gate", {f}, Shard(0), 0);
  gradient("dw_up", {f, h}, Shard(0), 0);
  if (p.bias) gradient("db_up", {f}, Shard(0), 0);
  gradient("dw_down", {h, f}, Shard(1), 1);
  if (p.bias) gradient("db_down", {h}, Replicated(), -1);
  return tensors;
}

// --- The reference -----------------------------------------------------------

StatusOr<DenseOutputs> Expected(const P& p, const Arithmetic& summed,
                                const Inputs& in, const Sample& sample) {
  MlpInputs inputs = {.activation = p.activation,
                      .x = in.Global("x"),
                      .w_up = in.Global("w_up"),
                      .w_down = in.Global("w_down"),
                      .dy = in.Global("dy")};
  if (Gated(p)) inputs.w_gate = in.Global("w_gate");
  if (p.bias) {
    inputs.b_up = in.Global("b_up");
    inputs.b_down = in.Global("b_down");
    if (Gated(p)) inputs.b_gate = in.Global("b_gate");
  }
  const Rows tokens = Together(sample, {"y", "dx"});
  Rows features = Together(sample, {"dw_up", "dw_down"});
  if (!features.empty() && Gated(p)) {
    features = Together(sample, {"dw_up", "dw_down", "dw_gate"});
  }
  if (!features.empty() && p.bias) {
    features = Gated(p) ? Together(sample, {"dw_up", "dw_down", "dw_gate",
                                            "db_up", "db_gate"})
                        : Together(sample, {"dw_up", "dw_down", "db_up"});
  }
  const MlpResult result =
      MlpReference(inputs, ParallelMlpArithmetic(ConfigOf(p), summed),
                   {.tokens = tokens, .features = features});
  const auto token_places = [&](std::string_view output) {
    return Places(sample, output, tokens, p.tokens);
  };
  const auto feature_places = [&](std::string_view output) {
    return Places(sample, output, features, p.intermediate);
  };
  DenseOutputs out;
  out["y"] = RowsAt(result.y, token_places("y"));
  out["dx"] = RowsAt(result.dx, token_places("dx"));
  out["dw_up"] = RowsAt(result.dw_up, feature_places("dw_up"));
  out["dw_down"] = Transposed(result.dw_down_t, feature_places("dw_down"));
  if (Gated(p)) {
    out["dw_gate"] = RowsAt(result.dw_gate, feature_places("dw_gate"));
  }
  if (p.bias) {
    out["db_up"] = ColumnsAt(result.db_up, feature_places("db_up"));
    out["db_down"] = result.db_down.values;
  }
  if (p.bias && Gated(p)) {
    out["db_gate"] = ColumnsAt(result.db_gate, feature_places("db_gate"));
  }
  return out;
}

// --- The variants ------------------------------------------------------------

MlpWeights WeightsOf(const P& p, const RankContext& c) {
  MlpWeights weights{.w_up = c.in("w_up").data, .w_down = c.in("w_down").data};
  if (Gated(p)) weights.w_gate = c.in("w_gate").data;
  if (p.bias) {
    weights.b_up = c.in("b_up").data;
    weights.b_down = c.in("b_down").data;
    if (Gated(p)) weights.b_gate = c.in("b_gate").data;
  }
  return weights;
}

MlpGradients GradientsOf(const P& p, const RankContext& c) {
  MlpGradients gradients{.w_up = c.out("dw_up").data,
                         .w_down = c.out("dw_down").data};
  if (Gated(p)) gradients.w_gate = c.out("dw_gate").data;
  if (p.bias) {
    gradients.b_up = c.out("db_up").data;
    gradients.b_down = c.out("db_down").data;
    if (Gated(p)) gradients.b_gate = c.out("db_gate").data;
  }
  return gradients;
}

// Forward, then backward, with weights that may differ in a mutant.
Status RunBoth(ParallelMlp& mlp, const P& p, const RankContext& c,
               const MlpWeights& forward, const MlpWeights& backward) {
  SP_RETURN_IF_ERROR(
      mlp.Forward(c.in("x").data, forward, c.out("y").data, c.stream()));
  return mlp.Backward(c.in("x").data, backward, c.in("dy").data,
                      c.out("dx").data, GradientsOf(p, c), c.stream());
}

StatusOr<std::shared_ptr<ParallelMlp>> Make(
    const P& p, const RankContext& context,
    const CollectiveFamily& collectives) {
  SP_ASSIGN_OR_RETURN(
      ParallelMlp made,
      ParallelMlp::Create(context.comm(), ConfigOf(p), collectives));
  return std::make_shared<ParallelMlp>(std::move(made));
}

StatusOr<Operation> Bind(const P& p, RankContext& context,
                         const CollectiveFamily& collectives) {
  SP_ASSIGN_OR_RETURN(const auto mlp, Make(p, context, collectives));
  return Operation([mlp, p, &context] {
    const MlpWeights weights = WeightsOf(p, context);
    return RunBoth(*mlp, p, context, weights, weights);
  });
}

Cost CostOf(const P& p, const CollectiveFamily& collectives) {
  return ParallelMlpForwardCost(p.ranks, ConfigOf(p), collectives) +
         ParallelMlpBackwardCost(p.ranks, ConfigOf(p), collectives);
}

// --- Planted bugs ------------------------------------------------------------

Status BiasAddedByEveryRank(const P& p, const RankContext& c) {
  const TensorView y = c.out("y");
  for (int r = 1; r < p.ranks; ++r) {
    SP_RETURN_IF_ERROR(AddBias(c.stream(), p.dtype, y.shape[0], y.shape[1],
                               c.in("b_down").data, y.data));
  }
  return OkStatus();
}

// The gradient of a bias of which every rank added its share.
Status BiasGradientDivided(const P& p, const RankContext& c) {
  return Scale(c.out("db_down"), 1.0 / p.ranks);
}

Status BiasGradientOfOwnTokens(const P& p, const RankContext& c) {
  const ConstTensorView dy = c.in("dy");
  return ColumnSum(c.stream(), p.dtype, dy.shape[0], dy.shape[1], dy.data,
                   c.out("db_down").data);
}

// A fused weight, gate over up, that is cut like any other: into contiguous
// parts. One rank holds gates only, another none, and each takes the first half
// of its rows for the gate.
StatusOr<Operation> BindCutInOnePiece(const P& p, RankContext& context) {
  SP_ASSIGN_OR_RETURN(const auto mlp, Make(p, context, kAutoCollectives));
  std::vector<int64_t> counts;
  for (int r = 0; r < p.ranks; ++r) {
    counts.push_back(BalancedChunk(p.intermediate, p.ranks, r).count *
                     p.hidden);
  }
  const auto fused =
      std::make_shared<Tensor>(p.dtype, Shape{2 * p.intermediate, p.hidden});
  return Operation([=, &context]() -> Status {
    MlpWeights weights = WeightsOf(p, context);
    int64_t half = 0;
    for (const void* part : {weights.w_gate, weights.w_up}) {
      SP_RETURN_IF_ERROR(
          AllGatherV(context.comm(), {.send = part,
                                      .recv = At(fused->raw(), p.dtype, half),
                                      .counts = counts,
                                      .dtype = p.dtype}));
      half += p.intermediate * p.hidden;
    }
    const Chunk own =
        BalancedChunk(p.intermediate, p.ranks, context.comm().rank());
    weights.w_gate = At(fused->raw(), p.dtype, 2 * own.begin * p.hidden);
    weights.w_up =
        At(fused->raw(), p.dtype, (2 * own.begin + own.count) * p.hidden);
    return RunBoth(*mlp, p, context, weights, weights);
  });
}

// The gate's way back to the input is forgotten.
StatusOr<Operation> BindGateGradientLost(const P& p, RankContext& context) {
  SP_ASSIGN_OR_RETURN(const auto mlp, Make(p, context, kAutoCollectives));
  const auto zeros = std::make_shared<Tensor>(
      Tensor::Zeros(p.dtype, {mlp->local_features(), p.hidden}));
  return Operation([=, &context] {
    const MlpWeights weights = WeightsOf(p, context);
    MlpWeights without = weights;
    without.w_gate = zeros->raw();
    return RunBoth(*mlp, p, context, weights, without);
  });
}

bool Several(const P& p) { return p.ranks >= 2; }
bool SequenceParallel(const P& p) {
  return p.ranks >= 2 && p.sequence_parallel;
}
bool Biased(const P& p) { return p.ranks >= 2 && p.bias; }
bool SeveralGated(const P& p) { return p.ranks >= 2 && Gated(p); }

// --- The case ----------------------------------------------------------------

// The feed-forward block of a model.
std::vector<P> WorkloadOf(const Workload& workload, int ranks) {
  const auto dtype = TypeOf(workload);
  P p{.activation = FactOf(workload, "activation") == "swiglu"
                        ? Activation::kSwiGlu
                        : Activation::kGeluTanh,
      .sequence_parallel = FactOf(workload, "sequence_parallel") == "true",
      .bias = FactOf(workload, "bias") == "true",
      .tokens = ShapeOf(workload, "tokens"),
      .hidden = ShapeOf(workload, "hidden"),
      .intermediate = ShapeOf(workload, "intermediate"),
      .ranks = ranks};
  if (!dtype.ok() || p.tokens * p.hidden * p.intermediate == 0) return {};
  p.dtype = *dtype;
  return {p};
}

// Half of all combinations of bf16, whose references are probed, which takes
// time, and of f64, such that any four of the other axes meet in every way.
// What is measured is larger.
std::optional<std::string> Skip(const P& p) {
  if (p.dtype == DType::kF32 || p.tokens > 33) return std::nullopt;
  const bool even = Gated(p) == (p.sequence_parallel == p.bias);
  if (even != ((p.tokens == 33) == (p.intermediate == 50))) {
    return "the other half of the combinations is tested in this type";
  }
  return std::nullopt;
}

// Every product forward, and two more backward.
double Flops(const P& p) {
  return (Gated(p) ? 3 : 2) * 6.0 * static_cast<double>(p.tokens) *
         static_cast<double>(p.hidden) * static_cast<double>(p.intermediate);
}

const RegisterCase kMlp(Case<P>{
    .name = "layers/mlp",
    .what = "feed-forward block, column- then row-parallel: sums y over ranks "
            "forward, dx backward; sequence-parallel gathers x, scatters y, "
            "gathers dy and x, scatters dx",
    .axes = {Axis("dtype", &P::dtype,
                  {DType::kF32, DType::kBF16, DType::kF16, DType::kF64})
                 .Bench({DType::kF32, DType::kBF16}),
             Axis("activation", &P::activation,
                  {Activation::kSwiGlu, Activation::kGeluTanh}),
             Axis("sequence_parallel", &P::sequence_parallel, {false, true})
                 .Smoke({false, true}),
             Axis("bias", &P::bias, {true, false}).Bench({true}),
             Axis("tokens", &P::tokens, {33, 2}).Bench({512}),
             Axis("hidden", &P::hidden, {40}).Bench({1024}),
             Axis("intermediate", &P::intermediate, {50, 3}).Bench({3584})},
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
         {.name = "gate_and_up_cut_in_one_piece",
          .bind = BindCutInOnePiece,
          .applies = SeveralGated},
         {.name = "gate_gradient_lost",
          .bind = BindGateGradientLost,
          .applies = SeveralGated}},
    .exact = false,  // Not linear; the products are, and have cases.
    .flops = Flops,
    .floor = [](const P& p) { return Floor{.flops = Flops(p) / p.ranks}; },
    .workload = WorkloadOf});

}  // namespace
}  // namespace shardproof
