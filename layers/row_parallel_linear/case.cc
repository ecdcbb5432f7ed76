// The pairing of row_parallel_linear: axes, reference, variants, planted bugs.
#include "tools/harness/case.h"

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "collectives/chunks.h"
#include "layers/kernels/activation.h"
#include "layers/pairing/layer_case.h"
#include "layers/row_parallel_linear/row_parallel_linear.h"
#include "reference/linear.h"

namespace shardproof {
namespace {

struct P {
  DType dtype = DType::kF32;
  bool sequence_parallel = false;
  bool bias = false;
  bool input_is_parallel = true;
  int64_t tokens = 0;
  int64_t in = 0;
  int64_t out = 0;
  int ranks = 1;
  Memory memory = Memory::kShared;
};

ParallelLinearConfig ConfigOf(const P& p) {
  return {.tokens = p.tokens,
          .in = p.in,
          .out = p.out,
          .dtype = p.dtype,
          .bias = p.bias,
          .sequence_parallel = p.sequence_parallel,
          .input_is_parallel = p.input_is_parallel};
}

// Inputs in the order in which they are used, then outputs.
Tensors TensorsOf(const P& p) {
  const ExactLinearInputs exact =
      *ExactLinear(p.dtype, p.dtype, p.tokens, p.in, p.out);
  const Sharding tokens = p.sequence_parallel ? Shard(0) : Replicated();
  const Sharding features = p.input_is_parallel ? Shard(1) : Replicated();
  Tensors tensors = {
      Input("x", p.dtype, {p.tokens, p.in}, features).Data({.exact = exact.x}),
      Input("w", p.dtype, {p.out, p.in}, Shard(1)).Data({.exact = exact.w})};
  if (p.bias) {
    tensors.push_back(
        Input("b", p.dtype, {p.out}, Replicated()).Data({.exact = exact.b}));
  }
  tensors.push_back(Input("dy", p.dtype, {p.tokens, p.out}, tokens)
                        .Data({.exact = exact.dy}));
  tensors.push_back(
      Output("y", p.dtype, {p.tokens, p.out}, tokens).SampleDimension(0));
  tensors.push_back(Output("dx", p.dtype, {p.tokens, p.in}, features)
                        .Gradient()
                        .SampleDimension(0));
  tensors.push_back(Output("dw", p.dtype, {p.out, p.in}, Shard(1))
                        .Gradient()
                        .SampleDimension(0));
  if (p.bias) {
    tensors.push_back(Output("db", p.dtype, {p.out}, Replicated()).Gradient());
  }
  return tensors;
}

StatusOr<DenseOutputs> Expected(const P& p, const Arithmetic& summed,
                                const Inputs& in, const Sample& sample) {
  Arithmetic local = summed;
  local.partials = 1;
  const ConstTensorView x = in.Global("x"), w = in.Global("w"),
                        dy = in.Global("dy");
  std::optional<ConstTensorView> b;
  if (p.bias) b = in.Global("b");
  DenseOutputs out;
  out["y"] = LinearForward({x, w, b}, summed, RowsOf(sample, "y")).values;
  out["dx"] = LinearInputGrad(dy, w, local, RowsOf(sample, "dx")).values;
  out["dw"] = LinearWeightGrad(dy, x, local, RowsOf(sample, "dw")).values;
  if (p.bias) out["db"] = LinearBiasGrad(dy, local).values;
  return out;
}

// Forward, then backward.
Status RunBoth(const RowParallelLinear& layer, bool bias,
               const RankContext& c) {
  const void* const b = bias ? c.in("b").data : nullptr;
  void* const db = bias ? c.out("db").data : nullptr;
  SP_RETURN_IF_ERROR(layer.Forward(
      {c.in("x").data, c.in("w").data, b, c.out("y").data}, c.stream()));
  return layer.Backward({c.in("x").data, c.in("w").data, c.in("dy").data,
                         c.out("dx").data, c.out("dw").data, db},
                        c.stream());
}

StatusOr<Operation> Bind(const P& p, RankContext& context,
                         const CollectiveFamily& collectives) {
  SP_ASSIGN_OR_RETURN(
      RowParallelLinear made,
      RowParallelLinear::Create(context.comm(), ConfigOf(p), collectives));
  const auto layer = std::make_shared<RowParallelLinear>(std::move(made));
  return Operation([layer, bias = p.bias, &context] {
    return RunBoth(*layer, bias, context);
  });
}

Cost CostOf(const P& p, const CollectiveFamily& collectives) {
  return RowParallelLinearForwardCost(p.ranks, ConfigOf(p), collectives) +
         RowParallelLinearBackwardCost(p.ranks, ConfigOf(p), collectives);
}

// --- Planted bugs ------------------------------------------------------------

// Every rank adds the bias to its term of the sum.
Status BiasAddedByEveryRank(const P& p, const RankContext& c) {
  const TensorView y = c.out("y");
  for (int r = 1; r < p.ranks; ++r) {
    SP_RETURN_IF_ERROR(AddBias(c.stream(), p.dtype, y.shape[0], y.shape[1],
                               c.in("b").data, y.data));
  }
  return OkStatus();
}

// Every rank adds its share of the bias, so that the sum is right, and the
// gradient that comes back through the share is not.
Status BiasGradientDivided(const P& p, const RankContext& c) {
  return Scale(c.out("db"), 1.0 / p.ranks);
}

// The bias' gradient of the rank's own tokens, not summed over the ranks.
Status BiasGradientOfOwnTokens(const P& p, const RankContext& c) {
  const ConstTensorView dy = c.in("dy");
  return ColumnSum(c.stream(), p.dtype, dy.shape[0], dy.shape[1], dy.data,
                   c.out("db").data);
}

// Every rank's gradient is taken for a term of a sum.
Status InputGradientSummed(const P& p, const RankContext& c) {
  return Scale(c.out("dx"), p.ranks);
}

bool Several(const P& p) { return p.ranks >= 2; }
bool Whole(const P& p) { return p.ranks >= 2 && !p.input_is_parallel; }
std::optional<std::string> Skip(const P& p) {
  if (p.input_is_parallel) return std::nullopt;
  if (p.sequence_parallel) return "the input is cut";
  if (!p.bias) return "tested with a bias";
  return std::nullopt;
}
bool SequenceParallel(const P& p) {
  return p.ranks >= 2 && p.sequence_parallel;
}
bool Biased(const P& p) { return p.ranks >= 2 && p.bias; }

// A model's projection of the attention output. (Its other one, from the
// feed-forward width, is measured as part of layers/mlp.)
std::vector<P> WorkloadOf(const Workload& workload, int ranks) {
  const auto dtype = TypeOf(workload);
  P p{.sequence_parallel = FactOf(workload, "sequence_parallel") == "true",
      .bias = FactOf(workload, "bias") == "true",
      .tokens = ShapeOf(workload, "tokens"),
      .in = ShapeOf(workload, "heads") * ShapeOf(workload, "head_dim"),
      .out = ShapeOf(workload, "hidden"),
      .ranks = ranks};
  if (!dtype.ok() || p.tokens * p.in * p.out == 0) return {};
  p.dtype = *dtype;
  return {p};
}

double Flops(const P& p) {
  return 6.0 * static_cast<double>(p.tokens) * static_cast<double>(p.in) *
         static_cast<double>(p.out);
}

const RegisterCase kRowParallelLinear(Case<P>{
    .name = "layers/row_parallel_linear",
    .what = "y = x w^T + b with w cut by input: sums y over ranks forward; "
            "sequence-parallel scatters y, gathers dy; a whole input is split "
            "here and its gradient gathered",
    .axes = {Axis("dtype", &P::dtype,
                  {DType::kF32, DType::kBF16, DType::kF16, DType::kF64})
                 .Bench({DType::kF32, DType::kBF16}),
             Axis("sequence_parallel", &P::sequence_parallel, {false, true})
                 .Smoke({false, true}),
             Axis("bias", &P::bias, {true, false}).Bench({true}),
             Axis("input_is_parallel", &P::input_is_parallel, {true, false})
                 .Bench({true}),
             Axis("tokens", &P::tokens, {33, 2}).Bench({512}),
             Axis("in", &P::in, {50, 3}).Bench({4096}),
             Axis("out", &P::out, {40}).Bench({1024})},
    .skip = Skip,
    .tensors = TensorsOf,
    .reference = DenseReference<P>(Expected),
    .variants = OverCollectives<P>(Bind, CostOf),
    .mutants =
        {Planted<P>("output_left_partial", Bind, kWithoutReduction, Several),
         Planted<P>("output_averaged", Bind, kAveraging, Several),
         Planted<P>("gradient_not_gathered", Bind, kGatheringNothing,
                    SequenceParallel),
         Planted<P>("gradient_gathered_backwards", Bind, kGatheringBackwards,
                    SequenceParallel),
         Planted<P>("input_gradient_not_gathered", Bind, kGatheringNothing,
                    Whole),
         Planted<P>("input_gradient_gathered_backwards", Bind,
                    kGatheringBackwards, Whole),
         Spoiled<P>("input_gradient_summed", Bind, InputGradientSummed, Whole),
         Spoiled<P>("bias_added_by_every_rank", Bind, BiasAddedByEveryRank,
                    Biased),
         Spoiled<P>("bias_gradient_divided", Bind, BiasGradientDivided, Biased),
         Spoiled<P>("bias_gradient_of_own_tokens", Bind,
                    BiasGradientOfOwnTokens,
                    [](const P& p) { return SequenceParallel(p) && p.bias; })},
    .flops = Flops,
    .floor = [](const P& p) { return Floor{.flops = Flops(p) / p.ranks}; },
    .workload = WorkloadOf});

}  // namespace
}  // namespace shardproof
