// The pairing of linear_strategy: axes, reference, variants, planted bugs. The
// strategy is an axis, since it says how the weight is cut: a benchmark lists
// both, and what is chosen, for shapes on both sides of the crossover.
#include "tools/harness/case.h"

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "layers/linear_strategy/linear_strategy.h"
#include "layers/pairing/layer_case.h"
#include "reference/linear.h"

namespace shardproof {
namespace {

// What is asked for: one of the two, or the better.
enum class Asked : uint8_t { kGather, kScatter, kChosen };
constexpr const char* kNames[] = {"gather", "scatter", "chosen"};

std::string FormatAxisValue(Asked asked) {
  return kNames[static_cast<size_t>(asked)];
}
Status ParseAxisValue(std::string_view text, Asked* asked) {
  for (const Asked a : {Asked::kGather, Asked::kScatter, Asked::kChosen}) {
    if (text != FormatAxisValue(a)) continue;
    *asked = a;
    return OkStatus();
  }
  return InvalidArgument("\"{}\" is not gather, scatter or chosen", text);
}

struct P {
  DType dtype = DType::kF32;
  Asked strategy = Asked::kChosen;
  bool bias = true;
  int64_t tokens = 0;
  int64_t in = 0;
  int64_t out = 0;
  int ranks = 1;
  Memory memory = Memory::kShared;
};

StrategyLinearConfig ConfigOf(const P& p) {
  return {.tokens = p.tokens,
          .in = p.in,
          .out = p.out,
          .dtype = p.dtype,
          .bias = p.bias,
          .strategy = p.strategy == Asked::kGather ? LinearStrategy::kGather
                      : p.strategy == Asked::kScatter
                          ? LinearStrategy::kScatter
                          : ChooseLinearStrategy(p.in, p.out, {})};
}

bool Gathers(const P& p) {
  return ConfigOf(p).strategy == LinearStrategy::kGather;
}

Tensors TensorsOf(const P& p) {
  const ExactLinearInputs exact =
      *ExactLinear(p.dtype, p.dtype, p.tokens, p.in, p.out);
  const Sharding weight = Shard(Gathers(p) ? 0 : 1);
  Tensors tensors = {
      Input("x", p.dtype, {p.tokens, p.in}, Shard(1)).Data({.exact = exact.x}),
      Input("w", p.dtype, {p.out, p.in}, weight).Data({.exact = exact.w}),
      Input("dy", p.dtype, {p.tokens, p.out}, Shard(1))
          .Data({.exact = exact.dy}),
      Output("y", p.dtype, {p.tokens, p.out}, Shard(1)).SampleDimension(0),
      Output("dx", p.dtype, {p.tokens, p.in}, Shard(1))
          .Gradient()
          .SampleDimension(0),
      Output("dw", p.dtype, {p.out, p.in}, weight)
          .Gradient()
          .SampleDimension(0)};
  if (!p.bias) return tensors;
  tensors.push_back(
      Input("b", p.dtype, {p.out}, Shard(0)).Data({.exact = exact.b}));
  tensors.push_back(Output("db", p.dtype, {p.out}, Shard(0)).Gradient());
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
  out["y"] =
      LinearForward({x, w, b}, Gathers(p) ? local : summed, RowsOf(sample, "y"))
          .values;
  out["dx"] =
      LinearInputGrad(dy, w, Gathers(p) ? summed : local, RowsOf(sample, "dx"))
          .values;
  out["dw"] = LinearWeightGrad(dy, x, local, RowsOf(sample, "dw")).values;
  if (p.bias) out["db"] = LinearBiasGrad(dy, local).values;
  return out;
}

StatusOr<Operation> Bind(const P& p, RankContext& context,
                         const CollectiveFamily& collectives) {
  SP_ASSIGN_OR_RETURN(
      StrategyLinear made,
      StrategyLinear::Create(context.comm(), ConfigOf(p), collectives));
  const auto layer = std::make_shared<StrategyLinear>(std::move(made));
  return Operation([layer, bias = p.bias, &context]() -> Status {
    const RankContext& c = context;
    const void* const b = bias ? c.in("b").data : nullptr;
    void* const db = bias ? c.out("db").data : nullptr;
    SP_RETURN_IF_ERROR(layer->Forward(
        {c.in("x").data, c.in("w").data, b, c.out("y").data}, c.stream()));
    return layer->Backward({c.in("x").data, c.in("w").data, c.in("dy").data,
                            c.out("dx").data, c.out("dw").data, db},
                           c.stream());
  });
}

Cost CostOf(const P& p, const CollectiveFamily& collectives) {
  return StrategyLinearForwardCost(p.ranks, ConfigOf(p), collectives) +
         StrategyLinearBackwardCost(p.ranks, ConfigOf(p), collectives);
}

// The bias is added before the sum, by every rank.
Status BiasAddedByEveryRank(const P& p, const RankContext& c) {
  const TensorView y = c.out("y");
  std::vector<double> values(static_cast<size_t>(y.num_elements()));
  std::vector<double> b(static_cast<size_t>(y.shape[1]));
  ToDouble(p.dtype, y.data, y.num_elements(), values.data());
  ToDouble(p.dtype, c.in("b").data, y.shape[1], b.data());
  for (size_t i = 0; i < values.size(); ++i) {
    values[i] += (p.ranks - 1) * b[i % b.size()];
  }
  FromDouble(p.dtype, values.data(), y.num_elements(), y.data);
  return OkStatus();
}

bool Several(const P& p) { return p.ranks >= 2; }

double Flops(const P& p) {
  return 6.0 * static_cast<double>(p.tokens) * static_cast<double>(p.in) *
         static_cast<double>(p.out);
}

const RegisterCase kLinearStrategy(Case<P>{
    .name = "layers/linear_strategy",
    .what = "y = x w^T + b between tensors that are cut by feature: gathers x "
            "and scatters dx, or scatters y and gathers dy, which is chosen by "
            "the shapes",
    .axes = {Axis("dtype", &P::dtype,
                  {DType::kF32, DType::kBF16, DType::kF16, DType::kF64})
                 .Bench({DType::kF32}),
             Axis("strategy", &P::strategy, {Asked::kGather, Asked::kScatter})
                 .Bench({Asked::kGather, Asked::kScatter, Asked::kChosen}),
             Axis("bias", &P::bias, {true}),
             Axis("tokens", &P::tokens, {33}).Bench({512}),
             Axis("in", &P::in, {50, 3}).Bench({256, 1024, 4096}),
             Axis("out", &P::out, {40, 2}).Bench({1024})},
    .tensors = TensorsOf,
    .reference = DenseReference<P>(Expected),
    .variants = OverCollectives<P>(Bind, CostOf),
    .mutants = {Planted<P>("sums_left_partial", Bind, kWithoutReduction,
                           Several),
                Planted<P>("sums_averaged", Bind, kAveraging, Several),
                Planted<P>("not_gathered", Bind, kGatheringNothing, Several),
                Planted<P>("gathered_backwards", Bind, kGatheringBackwards,
                           Several),
                Spoiled<P>("bias_added_by_every_rank", Bind,
                           BiasAddedByEveryRank, Several)},
    .flops = Flops,
    .floor = [](const P& p) { return Floor{.flops = Flops(p) / p.ranks}; }});

}  // namespace
}  // namespace shardproof
