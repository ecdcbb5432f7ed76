// The pairing of optimizer: axes, reference, variants, planted bugs. Two cases:
// every rule on random numbers, and gradient descent, which is linear, exactly.
#include "tools/harness/case.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "collectives/chunks.h"
#include "layers/optimizer/optimizer.h"
#include "layers/pairing/broken_steps.h"
#include "layers/pairing/layer_case.h"
#include "reference/optimizer.h"

namespace shardproof {

// For the axis, found by argument-dependent lookup.
static std::string FormatAxisValue(OptimizerRule rule) {
  return std::string(Name(rule));
}
static Status ParseAxisValue(std::string_view text, OptimizerRule* rule) {
  for (const OptimizerRule r :
       {OptimizerRule::kSgd, OptimizerRule::kAdam, OptimizerRule::kAdamW}) {
    if (text != Name(r)) continue;
    *rule = r;
    return OkStatus();
  }
  return InvalidArgument("\"{}\" is neither sgd, adam nor adamw", text);
}

namespace {

struct P {
  DType dtype = DType::kF32;
  bool wide_gradients = false;  // In the type of the master weights.
  OptimizerRule rule = OptimizerRule::kAdamW;
  // Powers of two for everything, and no clipping: sums of integers are exact.
  bool linear = false;
  double max_norm = 0.25;
  // Scaled losses, and a gradient that overflows on one rank in one step.
  bool overflow = false;
  int64_t sharded = 0;
  int64_t replicated = 0;
  int64_t steps = 4;
  int ranks = 1;
  Memory memory = Memory::kShared;
};

constexpr double kRate = 0.01, kDecay = 0.1;
constexpr double kScale = 1024;
constexpr int64_t kOverflowStep = 1;

DType GradientType(const P& p) {
  return p.wide_gradients ? Accumulator(p.dtype) : p.dtype;
}
bool Narrow(const P& p) { return Accumulator(p.dtype) != p.dtype; }
bool Adaptive(const P& p) { return p.rule != OptimizerRule::kSgd; }

// 1 / tokens, say.
double FactorOf(const P& p) { return p.linear ? 1 : 1.0 / 3; }

// An epsilon and rates of decay whose place in the formula shows.
ParallelOptimizerConfig ConfigOf(const P& p) {
  ParallelOptimizerConfig config = {
      .settings = {.rule = p.rule,
                   .learning_rate = p.linear ? 0.25 : kRate,
                   .momentum = p.linear ? 0.5 : 0.9,
                   .beta1 = 0.9,
                   .beta2 = 0.95,
                   .epsilon = 1e-3,
                   .weight_decay = p.linear ? 0.25 : kDecay,
                   .max_norm = p.linear
                                   ? std::numeric_limits<double>::infinity()
                                   : p.max_norm},
      .dtype = p.dtype,
      .gradient_dtype = GradientType(p)};
  if (p.overflow) {
    config.settings.loss_scaling =
        LossScaling{.initial = kScale, .growth_interval = 2};
  }
  return config;
}

// Bits of the exact tier: a step divides weights by 4, decay the result by 4,
// momentum by 2, so that four steps from integers below 32 end in multiples of
// 2^-16 below 2^8.
Tensors TensorsOf(const P& p) {
  const DType computed = Accumulator(p.dtype), gradient = GradientType(p);
  const int64_t n = p.sharded, m = p.replicated, steps = p.steps;
  TensorData data = {.terms = 1 << (SignificandBits(DType::kBF16) - 5),
                     .exact_in = DType::kBF16};
  Tensors tensors = {
      Input("w_sharded", p.dtype, {n}, Shard(0)).Data(data),
      Input("w_replicated", p.dtype, {m}, Replicated()).Data(data),
      Input("g_sharded", gradient, {steps, n}, Shard(1)).Data(data),
      Input("g_replicated", gradient, {steps, m}, Replicated()).Data(data)};
  const auto out = [&](const std::string& name, DType dtype) {
    tensors.push_back(
        Output(name + "_sharded", dtype, {n}, Shard(0)).SampleDimension(0));
    tensors.push_back(Output(name + "_replicated", dtype, {m}, Replicated())
                          .SampleDimension(0));
  };
  out("parameter", p.dtype);
  // Of narrow ones, the masters' gain is checked instead.
  for (TensorSpec& t : std::span(tensors).last(2)) t.gain_checked = !Narrow(p);
  if (Narrow(p)) out("master", computed);
  for (const char* const moment : {"first", "second"}) {
    if (moment[0] == 's' && !Adaptive(p)) continue;
    out(moment, computed);
    tensors[tensors.size() - 2].Gradient();
    tensors[tensors.size() - 1].Gradient();
  }
  tensors.push_back(Output("norm", DType::kF64, {steps}, Replicated()));
  tensors.push_back(Output("loss_scale", DType::kF64, {steps}, Replicated()));
  return tensors;
}

// The rank whose gradient overflows: the last one that has any.
int OverflowRank(const P& p) {
  return static_cast<int>(std::min<int64_t>(p.ranks, p.sharded)) - 1;
}

StatusOr<DenseOutputs> Expected(const P& p, const Arithmetic& /*summed*/,
                                const Inputs& in, const Sample& sample) {
  std::vector<double> w = in.All("w_sharded");
  const std::vector<double> w_replicated = in.All("w_replicated");
  const std::vector<double> g_sharded = in.All("g_sharded");
  const std::vector<double> g_replicated = in.All("g_replicated");
  const auto n = static_cast<size_t>(p.sharded), m = w_replicated.size();
  w.insert(w.end(), w_replicated.begin(), w_replicated.end());
  OptimizerReference reference(ConfigOf(p).settings, p.dtype, w);
  DenseOutputs out;
  for (int64_t k = 0; k < p.steps; ++k) {
    std::vector<Bounded> g(n + m);
    const auto at = static_cast<size_t>(k);
    for (size_t i = 0; i < n; ++i) g[i].value = g_sharded[at * n + i];
    for (size_t i = 0; i < m; ++i) g[n + i].value = g_replicated[at * m + i];
    for (Bounded& x : g) x.value *= reference.loss_scale();
    if (p.overflow && k == kOverflowStep && n > 0) {
      const int64_t first =
          BalancedChunk(p.sharded, p.ranks, OverflowRank(p)).begin;
      g[static_cast<size_t>(first)].value = HUGE_VAL;
    }
    reference.Step(g, FactorOf(p));
    out["norm"].push_back(reference.norm());
    out["loss_scale"].push_back({.value = reference.loss_scale()});
  }
  const auto put = [&](const std::string& name,
                       const std::vector<Bounded>& values) {
    for (const bool sharded : {true, false}) {
      const std::string full = name + (sharded ? "_sharded" : "_replicated");
      std::vector<Bounded>& to = out[full];
      const Rows rows = RowsOf(sample, full);
      const size_t begin = sharded ? 0 : n, size = sharded ? n : m;
      for (size_t i = 0; i < (rows.empty() ? size : rows.size()); ++i) {
        to.push_back(
            values[begin + (rows.empty() ? i : static_cast<size_t>(rows[i]))]);
      }
    }
  };
  put("parameter", reference.parameters());
  if (Narrow(p)) put("master", reference.weights());
  put("first", reference.first());
  if (Adaptive(p)) put("second", reference.second());
  return out;
}

// --- The variants ------------------------------------------------------------

void CopyTensor(const TensorView& to, const void* from) {
  if (to.num_elements() == 0) return;
  std::memcpy(to.data, from, static_cast<size_t>(to.num_bytes()));
}

// Row `row` of `g`, times `scale`.
void ScaleRow(const ConstTensorView& g, int64_t row, double scale,
              Tensor& out) {
  const int64_t n = g.shape[1];
  std::vector<double> values(static_cast<size_t>(n));
  ToDouble(g.dtype, At(g.data, g.dtype, row * n), n, values.data());
  for (double& v : values) v *= scale;
  FromDouble(g.dtype, values.data(), n, out.raw());
}

// What an operation keeps.
struct Run {
  P p;
  RankContext* context = nullptr;
  std::optional<ParallelOptimizer> optimizer;
  Tensor g_sharded, g_replicated;  // A step's gradients with the loss scale.

  // The gradients of one step.
  std::pair<const void*, const void*> Gradients(int64_t step) {
    const ConstTensorView sharded = context->in("g_sharded");
    const ConstTensorView replicated = context->in("g_replicated");
    if (!p.overflow) {
      return {At(sharded.data, sharded.dtype, step * sharded.shape[1]),
              At(replicated.data, replicated.dtype, step * p.replicated)};
    }
    ScaleRow(sharded, step, optimizer->loss_scale(), g_sharded);
    ScaleRow(replicated, step, optimizer->loss_scale(), g_replicated);
    if (step == kOverflowStep && context->comm().rank() == OverflowRank(p)) {
      FromDouble(sharded.dtype, &kInfinity, 1, g_sharded.raw());
    }
    return {g_sharded.raw(), g_replicated.raw()};
  }

  Status Go() {
    const TensorView w[] = {context->out("parameter_sharded"),
                            context->out("parameter_replicated")};
    CopyTensor(w[0], context->in("w_sharded").data);
    CopyTensor(w[1], context->in("w_replicated").data);
    const void* const parameters[] = {w[0].data, w[1].data};
    SP_RETURN_IF_ERROR(optimizer->Load(parameters));
    for (int64_t k = 0; k < p.steps; ++k) {
      const auto [sharded, replicated] = Gradients(k);
      const OptimizerMemory memory[] = {{w[0].data, sharded},
                                        {w[1].data, replicated}};
      SP_RETURN_IF_ERROR(optimizer->Step(memory, FactorOf(p)));
      context->out("norm").as<double>()[k] = optimizer->report().norm;
      context->out("loss_scale").as<double>()[k] = optimizer->loss_scale();
    }
    for (const size_t i : {0, 1}) {
      const std::string where = i == 0 ? "_sharded" : "_replicated";
      if (Narrow(p)) {
        CopyTensor(context->out("master" + where), optimizer->master(i));
      }
      CopyTensor(context->out("first" + where), optimizer->first(i));
      if (!Adaptive(p)) continue;
      CopyTensor(context->out("second" + where), optimizer->second(i));
    }
    return OkStatus();
  }

  static constexpr double kInfinity = std::numeric_limits<double>::infinity();
};

// What a planted bug changes.
struct Changes {
  CollectiveFamily collectives = kAutoCollectives;
  OptimizerKernels kernels = {};
  bool replicated_counted_by_all = false;
  bool clip_on_first_rank_only = false;
};

StatusOr<std::shared_ptr<Run>> Make(const P& p, RankContext& context,
                                    const Changes& changes, bool clip) {
  ParallelOptimizerConfig config = ConfigOf(p);
  if (!clip) config.settings.max_norm = Run::kInfinity;
  const Communicator& comm = context.comm();
  const int64_t own = BalancedChunk(p.sharded, p.ranks, comm.rank()).count;
  SP_ASSIGN_OR_RETURN(
      ParallelOptimizer made,
      ParallelOptimizer::Create(
          comm, config,
          {{.count = own},
           {.count = p.replicated,
            .counted = comm.rank() == 0 || changes.replicated_counted_by_all}},
          changes.collectives, changes.kernels));
  auto run = std::make_shared<Run>();
  run->p = p;
  run->context = &context;
  run->optimizer.emplace(std::move(made));
  run->g_sharded = Tensor(GradientType(p), {own});
  run->g_replicated = Tensor(GradientType(p), {p.replicated});
  return run;
}

StatusOr<Operation> BindChanged(const P& p, RankContext& context,
                                const Changes& changes) {
  SP_ASSIGN_OR_RETURN(const auto run, Make(p, context, changes, true));
  if (!changes.clip_on_first_rank_only) {
    return Operation([run] { return run->Go(); });
  }
  SP_ASSIGN_OR_RETURN(const auto unclipped, Make(p, context, changes, false));
  return Operation([run, unclipped, first = context.comm().rank() == 0] {
    SP_RETURN_IF_ERROR(first ? unclipped->Go() : run->Go());
    return first ? run->Go() : unclipped->Go();
  });
}

StatusOr<Operation> Bind(const P& p, RankContext& context,
                         const CollectiveFamily& collectives) {
  return BindChanged(p, context, {.collectives = collectives});
}

Cost CostOf(const P& p, const CollectiveFamily& collectives) {
  Cost cost;
  for (int64_t k = 0; k < p.steps; ++k) {
    cost += ParallelOptimizerCost(p.ranks, ConfigOf(p).settings, collectives);
  }
  return cost;
}

// --- Planted bugs ------------------------------------------------------------

Mutant<P> Changed(std::string name, const Changes& changes,
                  std::function<bool(const P&)> applies) {
  Mutant<P> mutant;
  mutant.name = std::move(name);
  mutant.bind = [changes](const P& p, RankContext& context) {
    return BindChanged(p, context, changes);
  };
  mutant.applies = std::move(applies);
  return mutant;
}

// {squares, flag} of every rank, in the optimizer's own gather.
Status GatherMeanNorm(const Communicator& comm, const AllGatherVArgs& args) {
  SP_RETURN_IF_ERROR(AllGatherV(comm, args));
  auto* const all = static_cast<double*>(args.recv);
  const int p = comm.size();
  double norms = 0;
  for (int r = 0; r < p; ++r) norms += std::sqrt(all[2 * r]);
  for (int r = 0; r < p; ++r) all[2 * r] = norms * norms / p / p / p;
  return OkStatus();
}

Status GatherOwnFlag(const Communicator& comm, const AllGatherVArgs& args) {
  SP_RETURN_IF_ERROR(AllGatherV(comm, args));
  auto* const all = static_cast<double*>(args.recv);
  for (int r = 0; r < comm.size(); ++r) {
    if (r == comm.rank() || all[2 * r + 1] == 0) continue;
    all[2 * r] = all[2 * r + 1] = 0;
  }
  return OkStatus();
}

CollectiveFamily Gathering(Status (*gather)(const Communicator&,
                                            const AllGatherVArgs&)) {
  CollectiveFamily family = kAutoCollectives;
  family.all_gather = gather;
  return family;
}

Status AdamUncorrected(const Stream& stream, const AdamArgs& args) {
  AdamArgs wrong = args;
  wrong.step_size = kRate;
  wrong.second_scale = 1;
  return AdamStep(stream, wrong);
}

Status AdamDecayCoupled(const Stream& stream, const AdamArgs& args) {
  AdamArgs wrong = args;
  wrong.shrink = 1;
  wrong.coupled_decay = kDecay;
  return AdamStep(stream, wrong);
}

Status AdamClippedTwice(const Stream& stream, const AdamArgs& args) {
  AdamArgs wrong = args;
  wrong.gradient_scale *= 3 * args.gradient_scale;
  return AdamStep(stream, wrong);
}

Status SgdClippedTwice(const Stream& stream, const SgdArgs& args) {
  SgdArgs wrong = args;
  wrong.gradient_scale *= 3 * args.gradient_scale;
  return SgdStep(stream, wrong);
}

Status SgdStillScaled(const Stream& stream, const SgdArgs& args) {
  SgdArgs wrong = args;
  wrong.gradient_scale *= kScale;
  return SgdStep(stream, wrong);
}

bool Several(const P& p) { return p.ranks >= 2; }
bool Clips(const P& p) { return p.ranks >= 2 && !p.linear && p.max_norm < 1; }
bool Overflows(const P& p) { return p.ranks >= 2 && p.overflow; }
bool IsAdaptive(const P& p) { return p.ranks >= 2 && Adaptive(p); }
bool IsAdamW(const P& p) {
  return p.ranks >= 2 && p.rule == OptimizerRule::kAdamW;
}
bool ScaledSgd(const P& p) {
  return p.ranks >= 2 && p.overflow && !Adaptive(p);
}

// --- The cases ---------------------------------------------------------------

// Elements that one rank updates.
double LargestPart(const P& p) {
  return static_cast<double>(BalancedChunk(p.sharded, p.ranks, 0).count +
                             p.replicated);
}

// A step reads the gradient twice and the state once, and writes the state.
Floor FloorOf(const P& p) {
  const double computed = SizeOf(Accumulator(p.dtype)), own = SizeOf(p.dtype);
  const double state = (Adaptive(p) ? 3 : 2) * computed;
  return {.copy_bytes = static_cast<double>(p.steps) * LargestPart(p) *
                        (2 * SizeOf(GradientType(p)) + 2 * state +
                         (Narrow(p) ? own : 0))};
}

Case<P> Common(std::string name, std::string what) {
  return {.name = std::move(name),
          .what = std::move(what),
          .tensors = TensorsOf,
          .reference = DenseReference<P>(Expected),
          .variants = OverCollectives<P>(Bind, CostOf),
          .bytes =
              [](const P& p) {
                return (p.sharded + p.replicated) * SizeOf(p.dtype);
              },
          .floor = FloorOf};
}

std::optional<std::string> SameType(const P& p) {
  if (!p.wide_gradients || Narrow(p)) return std::nullopt;
  return "the gradients are no wider";
}

Case<P> Optimizer() {
  Case<P> c = Common(
      "layers/optimizer",
      "SGD, Adam and AdamW with master weights over sharded and replicated "
      "parameters: global norm and overflow flag agreed in one small gather");
  c.axes = {
      Axis("dtype", &P::dtype,
           {DType::kF32, DType::kBF16, DType::kF16, DType::kF64})
          .Bench({DType::kF32, DType::kBF16}),
      Axis("wide_gradients", &P::wide_gradients, {false, true}),
      Axis("rule", &P::rule,
           {OptimizerRule::kAdamW, OptimizerRule::kSgd, OptimizerRule::kAdam})
          .Bench({OptimizerRule::kAdamW, OptimizerRule::kSgd}),
      Axis("max_norm", &P::max_norm, {0.25, 100}).Bench({0.25}),
      Axis("overflow", &P::overflow, {false, true}).Bench({false}),
      Axis("sharded", &P::sharded, {37, 3}).Bench({1 << 22}).Smoke({1 << 12}),
      Axis("replicated", &P::replicated, {13}).Bench({1 << 12}),
      Axis("steps", &P::steps, {4}).Bench({1})};
  c.skip = SameType;
  c.exact = false;
  c.mutants = {
      Planted<P>("norm_of_own_shard", Bind, kGatheringNothing, Several),
      Changed("replicated_counted_by_all", {.replicated_counted_by_all = true},
              Several),
      Changed("norms_averaged", {.collectives = Gathering(GatherMeanNorm)},
              Several),
      Changed("clipped_on_rank_0_only", {.clip_on_first_rank_only = true},
              Clips),
      Changed("skipped_on_overflowing_rank_only",
              {.collectives = Gathering(GatherOwnFlag)}, Overflows),
      Changed("bias_correction_missing", {.kernels = {.adam = AdamUncorrected}},
              IsAdaptive),
      Changed("decay_coupled", {.kernels = {.adam = AdamDecayCoupled}},
              IsAdamW),
      Changed("epsilon_inside_root", {.kernels = {.adam = AdamEpsilonInRoot}},
              IsAdaptive),
      Changed("clipped_twice",
              {.kernels = {.sgd = SgdClippedTwice, .adam = AdamClippedTwice}},
              [](const P& p) { return Clips(p) && !p.overflow; }),
      Changed("master_weights_not_kept",
              {.kernels = {.sgd = FromRoundedWeights<SgdArgs, SgdStep>,
                           .adam = FromRoundedWeights<AdamArgs, AdamStep>}},
              [](const P& p) { return p.ranks >= 2 && Narrow(p); }),
      Changed("loss_scale_left_in", {.kernels = {.sgd = SgdStillScaled}},
              ScaledSgd)};
  return c;
}

Case<P> Descent() {
  Case<P> c = Common(
      "layers/optimizer_sgd",
      "SGD with momentum, decay and loss scaling by powers of two: weights, "
      "moments and norms bit for bit");
  c.axes = {Axis("dtype", &P::dtype,
                 {DType::kF32, DType::kBF16, DType::kF16, DType::kF64})
                .Bench({DType::kF32}),
            Axis("wide_gradients", &P::wide_gradients, {false, true}),
            Axis("rule", &P::rule, {OptimizerRule::kSgd}),
            Axis("linear", &P::linear, {true}),
            Axis("overflow", &P::overflow, {false, true}).Bench({false}),
            Axis("sharded", &P::sharded, {37, 3}).Bench({1 << 20}),
            Axis("replicated", &P::replicated, {13}),
            Axis("steps", &P::steps, {4}).Bench({1})};
  c.skip = SameType;
  c.mutants = {
      Planted<P>("norm_of_own_shard", Bind, kGatheringNothing, Several),
      Changed("replicated_counted_by_all", {.replicated_counted_by_all = true},
              Several),
      Changed("skipped_on_overflowing_rank_only",
              {.collectives = Gathering(GatherOwnFlag)}, Overflows),
      Changed("loss_scale_left_in", {.kernels = {.sgd = SgdStillScaled}},
              ScaledSgd)};
  return c;
}

const RegisterCase kOptimizer(Optimizer());
const RegisterCase kDescent(Descent());

}  // namespace
}  // namespace shardproof
