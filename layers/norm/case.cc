// The pairing of norm: axes, reference, variants, planted bugs.
#include "tools/harness/case.h"

#include <cmath>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "layers/kernels/activation.h"
#include "layers/norm/norm.h"
#include "layers/pairing/layer_case.h"
#include "reference/norm.h"

namespace shardproof {

// For the axis, found by argument-dependent lookup.
static std::string FormatAxisValue(NormKind kind) {
  return std::string(Name(kind));
}
static Status ParseAxisValue(std::string_view text, NormKind* kind) {
  for (const NormKind k : {NormKind::kLayerNorm, NormKind::kRmsNorm}) {
    if (text != Name(k)) continue;
    *kind = k;
    return OkStatus();
  }
  return InvalidArgument("\"{}\" is neither layer_norm nor rms_norm", text);
}

namespace {

struct P {
  DType dtype = DType::kF32;
  NormKind kind = NormKind::kLayerNorm;
  bool sequence_parallel = false;
  bool bias = false;
  bool residual = false;
  int64_t tokens = 0;
  int64_t hidden = 0;
  // Large beside a variance of about 1/3, so that it shows where it goes.
  double epsilon = 0.125;
  int ranks = 1;
  Memory memory = Memory::kShared;
};

ParallelNormConfig ConfigOf(const P& p) {
  return {.kind = p.kind,
          .tokens = p.tokens,
          .hidden = p.hidden,
          .epsilon = p.epsilon,
          .dtype = p.dtype,
          .bias = p.bias,
          .residual = p.residual,
          .sequence_parallel = p.sequence_parallel};
}

// Inputs in the order in which they are used, then outputs.
Tensors TensorsOf(const P& p) {
  const Sharding tokens = p.sequence_parallel ? Shard(0) : Replicated();
  const Shape all = {p.tokens, p.hidden}, one = {p.hidden};
  Tensors t = {Input("x", p.dtype, all, tokens)};
  if (p.residual) t.push_back(Input("residual", p.dtype, all, tokens));
  t.push_back(Input("w", p.dtype, one, Replicated()));
  if (p.bias) t.push_back(Input("b", p.dtype, one, Replicated()));
  t.push_back(Input("dy", p.dtype, all, tokens));
  if (p.residual) {
    t.push_back(Input("dz", p.dtype, all, tokens));
    t.push_back(Output("z", p.dtype, all, tokens).SampleDimension(0));
  }
  t.push_back(Output("y", p.dtype, all, tokens).SampleDimension(0));
  t.push_back(Output("dx", p.dtype, all, tokens).Gradient().SampleDimension(0));
  t.push_back(Output("dw", p.dtype, one, Replicated()).Gradient());
  if (p.bias) {
    t.push_back(Output("db", p.dtype, one, Replicated()).Gradient());
  }
  return t;
}

StatusOr<DenseOutputs> Expected(const P& p, const Arithmetic& summed,
                                const Inputs& in, const Sample& sample) {
  NormInputs inputs = {.kind = p.kind,
                       .epsilon = p.epsilon,
                       .x = in.Global("x"),
                       .weight = in.Global("w"),
                       .dy = in.Global("dy")};
  if (p.bias) inputs.bias = in.Global("b");
  if (p.residual) {
    inputs.residual = in.Global("residual");
    inputs.dz = in.Global("dz");
  }
  // All outputs by token are equally large, and so are their samples.
  NormResult result = NormReference(
      inputs, ParallelNormArithmetic(ConfigOf(p), summed), RowsOf(sample, "y"));
  DenseOutputs out;
  if (p.residual) out["z"] = std::move(result.z.values);
  out["y"] = std::move(result.y.values);
  out["dx"] = std::move(result.dx.values);
  out["dw"] = std::move(result.dw.values);
  if (p.bias) out["db"] = std::move(result.db.values);
  return out;
}

// Forward, then backward.
Status RunBoth(ParallelNorm& norm, const P& p, const RankContext& c) {
  ParallelNorm::ForwardArgs f = {
      .x = c.in("x").data, .weight = c.in("w").data, .y = c.out("y").data};
  ParallelNorm::BackwardArgs b = {.z = f.x,
                                  .weight = f.weight,
                                  .dy = c.in("dy").data,
                                  .dx = c.out("dx").data,
                                  .dweight = c.out("dw").data};
  if (p.residual) {
    f.residual = c.in("residual").data;
    b.z = f.z = c.out("z").data;
    b.dz = c.in("dz").data;
  }
  if (p.bias) {
    f.bias = c.in("b").data;
    b.dbias = c.out("db").data;
  }
  SP_RETURN_IF_ERROR(norm.Forward(f, c.stream()));
  return norm.Backward(b, c.stream());
}

StatusOr<Operation> Bind(const P& p, RankContext& context,
                         const CollectiveFamily& collectives) {
  SP_ASSIGN_OR_RETURN(
      ParallelNorm made,
      ParallelNorm::Create(context.comm(), ConfigOf(p), collectives));
  const auto norm = std::make_shared<ParallelNorm>(std::move(made));
  return Operation([norm, p, &context] { return RunBoth(*norm, p, context); });
}

Cost CostOf(const P& p, const CollectiveFamily& collectives) {
  return ParallelNormBackwardCost(p.ranks, ConfigOf(p), collectives);
}

// --- Planted bugs ------------------------------------------------------------

// The gradient of a weight that every rank has, divided by the ranks or
// multiplied by them where it should not be.
Status GradientsTimesRanks(const P& p, const RankContext& c) {
  if (p.bias) SP_RETURN_IF_ERROR(Scale(c.out("db"), p.ranks));
  return Scale(c.out("dw"), p.ranks);
}

// The bias' gradient is forgotten where that of the weight is summed.
Status BiasGradientOfOwnTokens(const P& p, const RankContext& c) {
  const ConstTensorView dy = c.in("dy");
  return ColumnSum(c.stream(), p.dtype, dy.shape[0], dy.shape[1], dy.data,
                   c.out("db").data);
}

// Ways to get the formula wrong.
struct Flaw {
  bool epsilon_outside_root = false;
  bool unbiased_variance = false;
  bool mean_kept = false;         // Of LayerNorm, in y.
  bool mean_term_lost = false;    // Of LayerNorm, in dx.
  bool normal_term_lost = false;  // In dx.
  bool residual_lost = false;     // In dx.
};

std::vector<double> Doubles(const ConstTensorView& v) {
  std::vector<double> out(static_cast<size_t>(v.num_elements()));
  ToDouble(v.dtype, v.data, v.num_elements(), out.data());
  return out;
}

// y and dx once more, in double and with a flaw.
Status Recompute(const P& p, const RankContext& c, const Flaw& flaw) {
  const auto x = Doubles(p.residual ? c.out("z") : c.in("x"));
  const auto w = Doubles(c.in("w")), dy = Doubles(c.in("dy"));
  const auto b = p.bias ? Doubles(c.in("b")) : std::vector<double>(w.size());
  const auto dz = p.residual ? Doubles(c.in("dz")) : std::vector<double>();
  std::vector<double> y(x.size()), dx(x.size());
  const size_t h = w.size();
  const auto n = static_cast<double>(h);
  for (size_t row = 0; row < x.size(); row += h) {
    double mean = 0, variance = 0, g_sum = 0, gn_sum = 0;
    for (size_t i = 0; i < h; ++i) mean += x[row + i] / n;
    if (p.kind == NormKind::kRmsNorm) mean = 0;
    for (size_t i = 0; i < h; ++i) variance += std::pow(x[row + i] - mean, 2);
    variance /= flaw.unbiased_variance ? n - 1 : n;
    const double r = flaw.epsilon_outside_root
                         ? 1 / (std::sqrt(variance) + p.epsilon)
                         : 1 / std::sqrt(variance + p.epsilon);
    for (size_t i = 0; i < h; ++i) {
      const double normal = (x[row + i] - mean) * r;
      y[row + i] = (flaw.mean_kept ? x[row + i] * r : normal) * w[i] + b[i];
      g_sum += dy[row + i] * w[i] / n;
      gn_sum += dy[row + i] * w[i] * normal / n;
    }
    if (p.kind == NormKind::kRmsNorm || flaw.mean_term_lost) g_sum = 0;
    if (flaw.normal_term_lost) gn_sum = 0;
    for (size_t i = 0; i < h; ++i) {
      const double normal = (x[row + i] - mean) * r;
      dx[row + i] = r * (dy[row + i] * w[i] - g_sum - normal * gn_sum);
      if (p.residual && !flaw.residual_lost) dx[row + i] += dz[row + i];
    }
  }
  const TensorView ys = c.out("y"), dxs = c.out("dx");
  FromDouble(ys.dtype, y.data(), ys.num_elements(), ys.data);
  FromDouble(dxs.dtype, dx.data(), dxs.num_elements(), dxs.data);
  return OkStatus();
}

bool Any(const P&) { return true; }
bool SequenceParallel(const P& p) {
  return p.ranks >= 2 && p.sequence_parallel;
}
bool Plain(const P& p) { return p.ranks >= 2 && !p.sequence_parallel; }
bool Centred(const P& p) { return p.kind == NormKind::kLayerNorm; }

Mutant<P> Flawed(const std::string& name, const Flaw& flaw,
                 bool (*applies)(const P&)) {
  return Spoiled<P>(
      name, Bind,
      [flaw](const P& p, const RankContext& c) {
        return Recompute(p, c, flaw);
      },
      applies);
}

// --- The case ----------------------------------------------------------------

// The norms of a model, behind the sum with the residual.
std::vector<P> WorkloadOf(const Workload& workload, int ranks) {
  const auto dtype = TypeOf(workload);
  P p{.kind = FactOf(workload, "norm") == Name(NormKind::kLayerNorm)
                  ? NormKind::kLayerNorm
                  : NormKind::kRmsNorm,
      .sequence_parallel = FactOf(workload, "sequence_parallel") == "true",
      .residual = true,
      .tokens = ShapeOf(workload, "tokens"),
      .hidden = ShapeOf(workload, "hidden"),
      .epsilon = 1e-5,
      .ranks = ranks};
  if (!dtype.ok() || p.tokens * p.hidden == 0) return {};
  p.dtype = *dtype;
  p.bias = p.kind == NormKind::kLayerNorm;
  return {p};
}

// What one rank reads and writes: x and y, z and dy and dx; with a residual it
// also reads that and dz and writes z.
int64_t Bytes(const P& p) {
  const int64_t tokens =
      p.sequence_parallel ? (p.tokens + p.ranks - 1) / p.ranks : p.tokens;
  return (p.residual ? 8 : 5) * tokens * p.hidden * SizeOf(p.dtype);
}

const RegisterCase kNorm(Case<P>{
    .name = "layers/norm",
    .what = "LayerNorm and RMSNorm, with the sum with a residual: sends "
            "nothing; sequence-parallel sums the gradients of the weights",
    .axes = {Axis("dtype", &P::dtype,
                  {DType::kF32, DType::kBF16, DType::kF16, DType::kF64})
                 .Bench({DType::kF32, DType::kBF16}),
             Axis("kind", &P::kind, {NormKind::kLayerNorm, NormKind::kRmsNorm}),
             Axis("sequence_parallel", &P::sequence_parallel, {false, true})
                 .Smoke({false, true}),
             Axis("bias", &P::bias, {true, false}),
             Axis("residual", &P::residual, {true, false}),
             Axis("tokens", &P::tokens, {33, 2}).Bench({512}),
             Axis("hidden", &P::hidden, {40, 3}).Bench({4096})},
    .skip = [](const P& p) -> std::optional<std::string> {
      if (p.bias == (p.kind == NormKind::kRmsNorm)) {
        return "a LayerNorm has a bias here, an RMSNorm has none";
      }
      return std::nullopt;
    },
    .tensors = TensorsOf,
    .reference = DenseReference<P>(Expected),
    .variants = OverCollectives<P>(Bind, CostOf),
    .mutants =
        {Planted<P>("gradients_left_partial", Bind, kWithoutReduction,
                    SequenceParallel),
         Planted<P>("gradients_averaged", Bind, kAveraging, SequenceParallel),
         Spoiled<P>("gradients_of_replicas_summed", Bind, GradientsTimesRanks,
                    Plain),
         Spoiled<P>("bias_gradient_of_own_tokens", Bind,
                    BiasGradientOfOwnTokens,
                    [](const P& p) { return SequenceParallel(p) && p.bias; }),
         Flawed("epsilon_outside_the_root", {.epsilon_outside_root = true},
                Any),
         Flawed("variance_unbiased", {.unbiased_variance = true}, Any),
         Flawed("mean_not_subtracted", {.mean_kept = true}, Centred),
         Flawed("gradient_without_mean_term", {.mean_term_lost = true},
                Centred),
         Flawed("gradient_without_normal_term", {.normal_term_lost = true},
                Any),
         Flawed("residual_gradient_lost", {.residual_lost = true},
                [](const P& p) { return p.residual; })},
    .exact = false,  // Not linear.
    .bytes = Bytes,
    // Both passes of a LayerNorm, in round numbers.
    .flops =
        [](const P& p) {
          return 20.0 * static_cast<double>(p.tokens) *
                 static_cast<double>(p.hidden);
        },
    .floor =
        [](const P& p) {
          return Floor{.copy_bytes = static_cast<double>(Bytes(p))};
        },
    .workload = WorkloadOf});

}  // namespace
}  // namespace shardproof
