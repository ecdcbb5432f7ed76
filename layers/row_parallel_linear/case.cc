// The pairing of row_parallel_linear: axes, reference, variants, planted bugs.
#include "tools/harness/case.h"

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "collectives/chunks.h"
#include "layers/kernels/activation.h"
#include "layers/planted/broken_collectives.h"
#include "layers/row_parallel_linear/row_parallel_linear.h"
#include "reference/linear.h"

namespace shardproof {
namespace {

struct P {
  DType dtype = DType::kF32;
  bool sequence_parallel = false;
  bool bias = false;
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
          .sequence_parallel = p.sequence_parallel};
}

// Inputs in the order in which they are used, then outputs.
Tensors TensorsOf(const P& p) {
  const ExactLinearInputs exact =
      *ExactLinear(p.dtype, p.dtype, p.tokens, p.in, p.out);
  const Sharding tokens = p.sequence_parallel ? Shard(0) : Replicated();
  Tensors tensors = {
      Input("x", p.dtype, {p.tokens, p.in}, Shard(1)).Data({.exact = exact.x}),
      Input("w", p.dtype, {p.out, p.in}, Shard(1)).Data({.exact = exact.w})};
  if (p.bias) {
    tensors.push_back(
        Input("b", p.dtype, {p.out}, Replicated()).Data({.exact = exact.b}));
  }
  tensors.push_back(Input("dy", p.dtype, {p.tokens, p.out}, tokens)
                        .Data({.exact = exact.dy}));
  tensors.push_back(
      Output("y", p.dtype, {p.tokens, p.out}, tokens).SampleDimension(0));
  tensors.push_back(Output("dx", p.dtype, {p.tokens, p.in}, Shard(1))
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

// Of an output that is not sampled: all.
Rows RowsOf(const Sample& sample, std::string_view output) {
  const auto found = sample.find(output);
  return found == sample.end() ? Rows{} : found->second;
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

Variant<P> Over(const CollectiveFamily& collectives, unsigned needs,
                std::string note) {
  Variant<P> variant;
  variant.name = collectives.name;
  variant.needs = needs;
  variant.note = std::move(note);
  variant.bind = [collectives](const P& p, RankContext& context) {
    return Bind(p, context, collectives);
  };
  if (collectives.has_cost()) {
    variant.cost = [collectives](const P& p) {
      CollectiveFamily placed = collectives;
      placed.memory = p.memory;
      return RowParallelLinearForwardCost(p.ranks, ConfigOf(p), placed) +
             RowParallelLinearBackwardCost(p.ranks, ConfigOf(p), placed);
    };
  }
  variant.arithmetic = [collectives](const P& p) {
    return collectives.summed(p.ranks, p.dtype);
  };
  return variant;
}

// --- Planted bugs ------------------------------------------------------------

Mutant<P> Planted(std::string name, const CollectiveFamily& broken,
                  std::function<bool(const P&)> applies) {
  Mutant<P> mutant;
  mutant.name = std::move(name);
  mutant.bind = [broken](const P& p, RankContext& context) {
    return Bind(p, context, broken);
  };
  mutant.applies = std::move(applies);
  return mutant;
}

// The layer as it should be, and then `spoil`.
Mutant<P> Spoiled(std::string name,
                  Status (*spoil)(const P&, const RankContext&),
                  std::function<bool(const P&)> applies) {
  Mutant<P> mutant;
  mutant.name = std::move(name);
  mutant.bind = [spoil](const P& p,
                        RankContext& context) -> StatusOr<Operation> {
    SP_ASSIGN_OR_RETURN(const Operation good,
                        Bind(p, context, kAutoCollectives));
    return Operation([good, spoil, p, &context]() -> Status {
      SP_RETURN_IF_ERROR(good());
      return spoil(p, context);
    });
  };
  mutant.applies = std::move(applies);
  return mutant;
}

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
  const TensorView db = c.out("db");
  std::vector<double> values(static_cast<size_t>(db.num_elements()));
  ToDouble(p.dtype, db.data, db.num_elements(), values.data());
  for (double& v : values) v /= p.ranks;
  FromDouble(p.dtype, values.data(), db.num_elements(), db.data);
  return OkStatus();
}

// The bias' gradient of the rank's own tokens, not summed over the ranks.
Status BiasGradientOfOwnTokens(const P& p, const RankContext& c) {
  const ConstTensorView dy = c.in("dy");
  return ColumnSum(c.stream(), p.dtype, dy.shape[0], dy.shape[1], dy.data,
                   c.out("db").data);
}

bool Several(const P& p) { return p.ranks >= 2; }
bool SequenceParallel(const P& p) {
  return p.ranks >= 2 && p.sequence_parallel;
}
bool Biased(const P& p) { return p.ranks >= 2 && p.bias; }

// A model's projection of the attention output. (Its other one, from the
// feed-forward width, is measured as part of layers/mlp.)
std::vector<P> WorkloadOf(const Workload& workload, int ranks) {
  const auto size = [&](const char* name) {
    const auto found = workload.shape.find(name);
    return found == workload.shape.end() ? int64_t{0} : found->second;
  };
  const auto fact = [&](const char* name) {
    const auto found = workload.facts.find(name);
    return found == workload.facts.end() ? std::string() : found->second;
  };
  const auto dtype = ParseDType(fact("dtype"));
  P p{.sequence_parallel = fact("sequence_parallel") == "true",
      .bias = fact("bias") == "true",
      .tokens = size("tokens"),
      .in = size("heads") * size("head_dim"),
      .out = size("hidden"),
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
            "sequence-parallel scatters y, gathers dy",
    .axes = {Axis("dtype", &P::dtype, {DType::kF32, DType::kBF16, DType::kF64})
                 .Bench({DType::kF32, DType::kBF16}),
             Axis("sequence_parallel", &P::sequence_parallel, {false, true})
                 .Smoke({false, true}),
             Axis("bias", &P::bias, {true, false}).Bench({true}),
             Axis("tokens", &P::tokens, {33, 2}).Bench({512}),
             Axis("in", &P::in, {50, 3}).Bench({4096}),
             Axis("out", &P::out, {40}).Bench({1024})},
    .tensors = TensorsOf,
    .reference = DenseReference<P>(Expected),
    .variants = {Over(kAutoCollectives, kAnywhere,
                      "sends by what is fastest here for the size"),
                 Over(kDirectCollectives, kSharedMemory,
                      "sends by loads and stores in shared memory"),
                 Over(kRingCollectives, kAnywhere,
                      "sends messages around a ring")},
    .mutants =
        {Planted("output_left_partial", kWithoutReduction, Several),
         Planted("output_averaged", kAveraging, Several),
         Planted("gradient_not_gathered", kGatheringNothing, SequenceParallel),
         Planted("gradient_gathered_backwards", kGatheringBackwards,
                 SequenceParallel),
         Spoiled("bias_added_by_every_rank", BiasAddedByEveryRank, Biased),
         Spoiled("bias_gradient_divided", BiasGradientDivided, Biased),
         Spoiled("bias_gradient_of_own_tokens", BiasGradientOfOwnTokens,
                 [](const P& p) { return SequenceParallel(p) && p.bias; })},
    .flops = Flops,
    .floor = [](const P& p) { return Floor{.flops = Flops(p) / p.ranks}; },
    .workload = WorkloadOf});

}  // namespace
}  // namespace shardproof
