// The pairing of column_parallel_linear: axes, reference, variants, planted
// bugs.
#include "tools/harness/case.h"

#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "collectives/chunks.h"
#include "layers/column_parallel_linear/column_parallel_linear.h"
#include "layers/kernels/gemm.h"
#include "layers/pairing/layer_case.h"
#include "reference/linear.h"

namespace shardproof {
namespace {

struct P {
  DType dtype = DType::kF32;
  bool sequence_parallel = false;
  bool bias = false;
  bool gather_output = false;
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
          .gather_output = p.gather_output};
}

// Inputs in the order in which they are used, then outputs.
Tensors TensorsOf(const P& p) {
  const ExactLinearInputs exact =
      *ExactLinear(p.dtype, p.dtype, p.tokens, p.in, p.out);
  const Sharding tokens = p.sequence_parallel ? Shard(0) : Replicated();
  const Sharding features = p.gather_output ? Replicated() : Shard(1);
  Tensors tensors = {
      Input("x", p.dtype, {p.tokens, p.in}, tokens).Data({.exact = exact.x}),
      Input("w", p.dtype, {p.out, p.in}, Shard(0)).Data({.exact = exact.w})};
  if (p.bias) {
    tensors.push_back(
        Input("b", p.dtype, {p.out}, Shard(0)).Data({.exact = exact.b}));
  }
  tensors.push_back(Input("dy", p.dtype, {p.tokens, p.out}, features)
                        .Data({.exact = exact.dy}));
  tensors.push_back(
      Output("y", p.dtype, {p.tokens, p.out}, features).SampleDimension(0));
  tensors.push_back(Output("dx", p.dtype, {p.tokens, p.in}, tokens)
                        .Gradient()
                        .SampleDimension(0));
  tensors.push_back(Output("dw", p.dtype, {p.out, p.in}, Shard(0))
                        .Gradient()
                        .SampleDimension(0));
  if (p.bias) {
    tensors.push_back(Output("db", p.dtype, {p.out}, Shard(0)).Gradient());
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
  out["y"] = LinearForward({x, w, b}, local, RowsOf(sample, "y")).values;
  out["dx"] = LinearInputGrad(dy, w, summed, RowsOf(sample, "dx")).values;
  out["dw"] = LinearWeightGrad(dy, x, local, RowsOf(sample, "dw")).values;
  if (p.bias) out["db"] = LinearBiasGrad(dy, local).values;
  return out;
}

// Forward, then backward.
Status RunBoth(const ColumnParallelLinear& layer, bool bias,
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
      ColumnParallelLinear made,
      ColumnParallelLinear::Create(context.comm(), ConfigOf(p), collectives));
  const auto layer = std::make_shared<ColumnParallelLinear>(std::move(made));
  return Operation([layer, bias = p.bias, &context] {
    return RunBoth(*layer, bias, context);
  });
}

Cost CostOf(const P& p, const CollectiveFamily& collectives) {
  return ColumnParallelLinearForwardCost(p.ranks, ConfigOf(p), collectives) +
         ColumnParallelLinearBackwardCost(p.ranks, ConfigOf(p), collectives);
}

// --- Planted bugs ------------------------------------------------------------

// The backward pass forgets to gather the input: the weight's gradient is of
// the rank's own tokens.
Status WeightGradientOfOwnTokens(const P& p, const RankContext& c) {
  const Chunk own = BalancedChunk(p.tokens, p.ranks, c.comm().rank());
  ConstTensorView dy = c.in("dy");
  dy.data = At(dy.data, p.dtype, own.begin * dy.shape[1]);
  dy.shape[0] = own.count;
  return Gemm(c.stream(),
              {.a = dy, .transpose_a = true, .b = c.in("x"), .c = c.out("dw")});
}

// Every rank divides by the ranks what was never summed over them.
Status BiasGradientDivided(const P& p, const RankContext& c) {
  return Scale(c.out("db"), 1.0 / p.ranks);
}

// The blocks of all ranks one after another are taken for whole rows.
Status BlocksTakenForRows(const P& p, const RankContext& c) {
  const TensorView y = c.out("y");
  std::vector<std::byte> rows(static_cast<size_t>(y.num_bytes()));
  std::memcpy(rows.data(), y.data, rows.size());
  int64_t next = 0;
  for (int r = 0; r < p.ranks; ++r) {
    const Chunk features = BalancedChunk(p.out, p.ranks, r);
    for (int64_t t = 0; t < p.tokens; ++t) {
      std::memcpy(At(y.data, p.dtype, next),
                  At(rows.data(), p.dtype, t * p.out + features.begin),
                  static_cast<size_t>(features.count * SizeOf(p.dtype)));
      next += features.count;
    }
  }
  return OkStatus();
}

// The gradient of what was gathered is summed over the ranks, as if each had
// used the result for itself.
Status GradientOfGatheredSummed(const P& p, const RankContext& c) {
  for (const char* const gradient : {"dw", "dx"}) {
    SP_RETURN_IF_ERROR(Scale(c.out(gradient), p.ranks));
  }
  return OkStatus();
}

bool Several(const P& p) { return p.ranks >= 2; }
bool Gathered(const P& p) { return p.ranks >= 2 && p.gather_output; }
std::optional<std::string> Skip(const P& p) {
  if (!p.gather_output) return std::nullopt;
  if (p.sequence_parallel) return "the output is not gathered";
  if (!p.bias) return "tested with a bias";
  return std::nullopt;
}
bool SequenceParallel(const P& p) {
  return p.ranks >= 2 && p.sequence_parallel;
}

// A model's projection to queries, keys and values. (Its other one, to the
// feed-forward width, is measured as part of layers/mlp.)
std::vector<P> WorkloadOf(const Workload& workload, int ranks) {
  const auto dtype = TypeOf(workload);
  P p{.sequence_parallel = FactOf(workload, "sequence_parallel") == "true",
      .bias = FactOf(workload, "bias") == "true",
      .tokens = ShapeOf(workload, "tokens"),
      .in = ShapeOf(workload, "hidden"),
      .out = (ShapeOf(workload, "heads") + 2 * ShapeOf(workload, "kv_heads")) *
             ShapeOf(workload, "head_dim"),
      .ranks = ranks};
  if (!dtype.ok() || p.tokens * p.in * p.out == 0) return {};
  p.dtype = *dtype;
  return {p};
}

double Flops(const P& p) {
  return 6.0 * static_cast<double>(p.tokens) * static_cast<double>(p.in) *
         static_cast<double>(p.out);
}

const RegisterCase kColumnParallelLinear(Case<P>{
    .name = "layers/column_parallel_linear",
    .what = "y = x w^T + b with w cut by output: sums dx over ranks backward; "
            "sequence-parallel gathers x, gathers it again, scatters dx; "
            "gather_output gathers y",
    .axes =
        {Axis("dtype", &P::dtype,
              {DType::kF32, DType::kBF16, DType::kF16, DType::kF64})
             .Bench({DType::kF32, DType::kBF16}),
         Axis("sequence_parallel", &P::sequence_parallel, {false, true})
             .Smoke({false, true}),
         Axis("bias", &P::bias, {true, false}).Bench({true}),
         Axis("gather_output", &P::gather_output, {false, true}).Bench({false}),
         Axis("tokens", &P::tokens, {33, 2}).Bench({512}),
         Axis("in", &P::in, {40}).Bench({1024}),
         Axis("out", &P::out, {50, 3}).Bench({4096})},
    .skip = Skip,
    .tensors = TensorsOf,
    .reference = DenseReference<P>(Expected),
    .variants = OverCollectives<P>(Bind, CostOf),
    .mutants = {Planted<P>("input_gradient_left_partial", Bind,
                           kWithoutReduction, Several),
                Planted<P>("input_gradient_averaged", Bind, kAveraging,
                           Several),
                Planted<P>("input_not_gathered", Bind, kGatheringNothing,
                           SequenceParallel),
                Planted<P>("input_gathered_backwards", Bind,
                           kGatheringBackwards, SequenceParallel),
                Spoiled<P>("weight_gradient_of_own_tokens", Bind,
                           WeightGradientOfOwnTokens, SequenceParallel),
                Planted<P>("output_not_gathered", Bind, kGatheringNothing,
                           Gathered),
                Planted<P>("output_gathered_backwards", Bind,
                           kGatheringBackwards, Gathered),
                Spoiled<P>("gathered_blocks_taken_for_rows", Bind,
                           BlocksTakenForRows, Gathered),
                Spoiled<P>("gradient_of_gathered_output_summed", Bind,
                           GradientOfGatheredSummed, Gathered),
                Spoiled<P>("bias_gradient_divided", Bind, BiasGradientDivided,
                           [](const P& p) { return p.ranks >= 2 && p.bias; })},
    .flops = Flops,
    .floor = [](const P& p) { return Floor{.flops = Flops(p) / p.ranks}; },
    .workload = WorkloadOf});

}  // namespace
}  // namespace shardproof
