// The pairing of training_steps: a stack of two linear layers is trained for 20
// steps on data-parallel replicas and on one device. Two cases: gradient
// descent on integers, to the bit; and every rule with clipping, in bounds that
// the reference carries from step to step.
#include "tools/harness/case.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "collectives/chunks.h"
#include "layers/pairing/layer_case.h"
#include "layers/pairing/stack_case.h"
#include "layers/training_steps/training_steps.h"
#include "reference/linear_stack.h"
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

// Bounds hold from step to step although errors then depend on one another:
// sums of at most kFewRoundings terms add likely errors linearly, and the norm,
// the one sum of more, has 90 terms, of which ten times the root of the sum of
// squares (kMostLambda in reference/optimizer.cc) is at least the sum.
constexpr int kWidth = 6;
constexpr int kLayers = 2;
constexpr int kTile = 8;

struct P {
  DType dtype = DType::kF64;
  OptimizerRule rule = OptimizerRule::kSgd;
  bool linear = false;  // Integers, no clipping, no prefix.
  int64_t tokens = 12;  // Of each step.
  int64_t steps = 20;
  int micro_batches = 2;
  int ranks = 1;
  Memory memory = Memory::kShared;
};

// The tokens of a step, as data_parallel's case cuts and counts them.
StackCase BatchOf(const P& p) {
  return {.dtype = p.dtype,
          .micro_batches = p.micro_batches,
          .tokens = p.tokens,
          .width = kWidth,
          .layers = kLayers,
          .ranks = p.ranks};
}

int64_t PrefixedIn(const P& p) { return p.linear ? 0 : Prefixed(BatchOf(p)); }

int64_t CountedIn(const P& p) { return CountIn(BatchOf(p), {0, p.tokens}); }

// Epsilon is large on purpose: it bounds by rate / epsilon how much Adam
// magnifies the error of a gradient that is next to nothing, and with it how
// bounds grow from step to step.
ReplicaTrainerConfig ConfigOf(const P& p, int rank) {
  ReplicaTrainerConfig config;
  config.stack = StackOf(BatchOf(p), rank);
  config.bucket_bytes = kWidth * (kWidth + 1) * SizeOf(p.dtype);
  OptimizerSettings& s = config.optimizer;
  s.rule = p.rule;
  if (p.linear) {
    // Undoes the division: steps are sums of integers.
    s.learning_rate = static_cast<double>(CountedIn(p));
    return config;
  }
  s.learning_rate = 1.0 / 64;
  s.momentum = p.rule == OptimizerRule::kSgd ? 0.5 : 0;
  s.beta2 = 0.95;
  s.epsilon = 0.5;
  s.weight_decay = 0.125;
  s.max_norm = 1;
  return config;
}

// Of every 8 tokens and 8 features at most one each: a step makes no weight more
// than 5.5 times as large (2 tokens to a feature, 8 to the bias, so that the
// layers feed one another with at most sqrt(2 (2 + 8))), and 20 steps stay below
// 2^53.
Distribution Exact(const P& p) {
  return {.kind = Distribution::Kind::kInteger,
          .dtype = p.dtype,
          .columns = kWidth,
          .tile = kTile};
}

Tensors TensorsOf(const P& p) {
  const LinearStackConfig stack = WholeStack(BatchOf(p));
  const TensorData data = {.exact = Exact(p)};
  const Shape tokens = {p.steps * p.tokens, kWidth};
  Tensors tensors = {Input("x", p.dtype, tokens, Replicated()).Data(data),
                     Input("dy", p.dtype, tokens, Replicated()).Data(data)};
  for (int i = 0; i < stack.parameters(); ++i) {
    tensors.push_back(
        Input(NameOf(i), p.dtype, stack.ShapeOf(i), Replicated()).Data(data));
  }
  for (int i = 0; i < stack.parameters(); ++i) {
    tensors.push_back(
        Output("trained_" + NameOf(i), p.dtype, stack.ShapeOf(i), Replicated())
            .Gradient());
  }
  return tensors;
}

// --- The reference -----------------------------------------------------------

// As linear errors: an element's error is in everything that comes after it.
std::vector<Bounded> Dependent(std::span<const Bounded> values) {
  std::vector<Bounded> out;
  for (const Bounded& v : values) {
    out.push_back({v.value, v.worst, v.Likely(10), 0});
  }
  return out;
}

// All parameters one after the other, and back.
LinearStackWeights Cut(const P& p, std::span<const Bounded> all) {
  const LinearStackConfig stack = WholeStack(BatchOf(p));
  LinearStackWeights weights;
  size_t at = 0;
  for (int i = 0; i < stack.parameters(); ++i) {
    const Shape shape = stack.ShapeOf(i);
    const auto n = static_cast<size_t>(shape.NumElements());
    Matrix m;
    m.cols = shape[shape.rank() - 1];
    for (int64_t r = 0; r < shape.NumElements() / m.cols; ++r) {
      m.rows.push_back(r);
    }
    m.values = Dependent(all.subspan(at, n));
    at += n;
    const bool weight = shape.rank() == 2;
    if (i == LinearStackConfig::kPrefix) {
      weights.prefix = std::move(m);
    } else {
      (weight ? weights.w : weights.b).push_back(std::move(m));
    }
  }
  return weights;
}

std::vector<Bounded> Joined(const LinearStackGradients& g) {
  std::vector<Bounded> all = g.prefix.values;
  for (size_t l = 0; l < g.dw.size(); ++l) {
    all.insert(all.end(), g.dw[l].values.begin(), g.dw[l].values.end());
    all.insert(all.end(), g.db[l].values.begin(), g.db[l].values.end());
  }
  return Dependent(all);
}

StatusOr<DenseOutputs> Expected(const P& p, const Arithmetic& summed,
                                const Inputs& in, const Sample& /*sample*/) {
  const LinearStackConfig stack = WholeStack(BatchOf(p));
  std::vector<double> initial;
  for (int i = 0; i < stack.parameters(); ++i) {
    const std::vector<double> w = in.All(NameOf(i));
    initial.insert(initial.end(), w.begin(), w.end());
  }
  OptimizerReference optimizer(ConfigOf(p, 0).optimizer, p.dtype, initial);
  const ConstTensorView x = in.Global("x"), dy = in.Global("dy");
  const Shape batch = {p.tokens, kWidth};
  for (int64_t s = 0; s < p.steps; ++s) {
    const int64_t at = s * p.tokens * kWidth;
    const Tensor masked = MaskedGradient(
        BatchOf(p), {p.dtype, batch, At(dy.data, p.dtype, at)}, 0);
    LinearStackInputs inputs;
    inputs.x = {p.dtype, batch, At(x.data, p.dtype, at)};
    inputs.prefixed = PrefixedIn(p);
    inputs.dy = masked.view();
    optimizer.Step(Joined(LinearStackReference(
        inputs, Cut(p, optimizer.weights()), PartsOf(BatchOf(p)), summed,
        static_cast<double>(CountedIn(p)))));
  }
  DenseOutputs out;
  const std::vector<Bounded> all = optimizer.parameters();
  size_t at = 0;
  for (int i = 0; i < stack.parameters(); ++i) {
    const auto n = static_cast<size_t>(stack.ShapeOf(i).NumElements());
    out["trained_" + NameOf(i)].assign(all.begin() + at, all.begin() + at + n);
    at += n;
  }
  return out;
}

// --- The variants ------------------------------------------------------------

// The second half is for planted bugs.
struct Plan {
  CollectiveFamily collectives = kAutoCollectives;
  bool overlap = false;

  CountsInNorm counts = [](int rank) { return rank == 0; };
  double (*factor)(const P&) = nullptr;
  GradientSink (*sink)(const GradientSink&) = nullptr;
  bool reload_every_step = false;  // Moments and step count are lost.
  bool starts_differ = false;
  bool first_batch_only = false;
};

class Worker {
 public:
  static StatusOr<std::shared_ptr<Worker>> Create(const P& p,
                                                  RankContext& context,
                                                  const Plan& plan) {
    ReplicaTrainerConfig config = ConfigOf(p, context.comm().rank());
    config.overlap = plan.overlap;
    SP_ASSIGN_OR_RETURN(ReplicaTrainer trainer,
                        ReplicaTrainer::Create(context.comm(), config,
                                               plan.collectives, plan.counts));
    return std::shared_ptr<Worker>(
        new Worker(p, context, plan, std::move(trainer)));
  }

  Status Run() {
    SP_RETURN_IF_ERROR(Load());
    for (int64_t s = 0; s < p_.steps; ++s) SP_RETURN_IF_ERROR(Step(s));
    for (int i = 0; i < parameters(); ++i) {
      const TensorView out = context_.out("trained_" + NameOf(i));
      std::memcpy(out.data, trainer_.parameter(i).raw(),
                  static_cast<size_t>(out.num_bytes()));
    }
    return OkStatus();
  }

 private:
  Worker(const P& p, RankContext& context, Plan plan, ReplicaTrainer trainer)
      : p_(p),
        context_(context),
        plan_(std::move(plan)),
        trainer_(std::move(trainer)) {}

  int parameters() const { return WholeStack(BatchOf(p_)).parameters(); }

  Status Load() {
    std::vector<const void*> initial;
    for (int i = 0; i < parameters(); ++i) {
      initial.push_back(context_.in(NameOf(i)).data);
    }
    // The second layer in place of the first.
    if (plan_.starts_differ && context_.comm().rank() == 1) {
      initial[LinearStackConfig::Weight(0)] =
          initial[LinearStackConfig::Weight(1)];
    }
    return trainer_.Load(initial);
  }

  Status Step(int64_t s) {
    if (plan_.first_batch_only) s = 0;
    const int64_t at = s * p_.tokens * kWidth;
    const Tensor dy = MaskedGradient(BatchOf(p_),
                                     {p_.dtype,
                                      {p_.tokens, kWidth},
                                      At(context_.in("dy").data, p_.dtype, at)},
                                     0);
    const TokenParts parts = PartsOf(BatchOf(p_));
    std::vector<TrainingBatch> batches;
    for (const TokenRange& t :
         parts[static_cast<size_t>(context_.comm().rank())]) {
      const int64_t first = t.begin * kWidth, n = t.end - t.begin;
      batches.push_back(
          {.batch = {.x = At(context_.in("x").data, p_.dtype, at + first),
                     .tokens = n,
                     .prefixed =
                         std::clamp<int64_t>(PrefixedIn(p_) - t.begin, 0, n)},
           .dy = At(dy.raw(), p_.dtype, first),
           .counted = CountIn(BatchOf(p_), t)});
    }
    if (plan_.reload_every_step && s > 0) {
      std::vector<Tensor> now;
      std::vector<const void*> addresses;
      for (int i = 0; i < parameters(); ++i) {
        const Tensor& w = trainer_.parameter(i);
        now.emplace_back(w.dtype(), w.shape());
        std::memcpy(now.back().raw(), w.raw(),
                    static_cast<size_t>(w.num_bytes()));
        addresses.push_back(now.back().raw());
      }
      SP_RETURN_IF_ERROR(trainer_.Load(addresses));
    }
    std::function<GradientSink(GradientSink)> sink;
    if (plan_.sink != nullptr) sink = plan_.sink;
    return trainer_.Step(batches, plan_.factor ? plan_.factor(p_) : 1, sink);
  }

  P p_;
  RankContext& context_;
  Plan plan_;
  ReplicaTrainer trainer_;
};

StatusOr<Operation> Bind(const P& p, RankContext& context, const Plan& plan) {
  SP_ASSIGN_OR_RETURN(const auto worker, Worker::Create(p, context, plan));
  return Operation([worker] { return worker->Run(); });
}

Variant<P> Of(const char* name, const char* note, unsigned needs,
              const Plan& plan) {
  Variant<P> variant;
  variant.name = name;
  variant.note = note;
  variant.needs = needs;
  variant.bind = [plan](const P& p, RankContext& context) {
    return Bind(p, context, plan);
  };
  variant.cost = [plan](const P& p) {
    CollectiveFamily placed = plan.collectives;
    placed.memory = p.memory;
    const Cost step = ReplicaTrainerCost(p.ranks, ConfigOf(p, 0), placed);
    Cost cost;
    for (int64_t s = 0; s < p.steps; ++s) cost += step;
    return cost;
  };
  variant.arithmetic = [plan](const P& p) {
    return plan.collectives.summed(p.ranks, p.dtype);
  };
  return variant;
}

std::vector<Variant<P>> Variants() {
  return {
      Of("bucketed_direct", "reduces each bucket when it is full",
         kSharedMemory, {.collectives = kDirectCollectives}),
      Of("overlapped_direct", "reduces while backward goes on", kSharedMemory,
         {.collectives = kDirectCollectives, .overlap = true}),
      Of("overlapped_ring", "reduces while backward goes on", kAnywhere,
         {.collectives = kRingCollectives, .overlap = true})};
}

// --- Planted bugs ------------------------------------------------------------

Mutant<P> Bug(const char* name, const Plan& plan,
              std::function<bool(const P&)> applies) {
  Mutant<P> mutant;
  mutant.name = name;
  mutant.bind = [plan](const P& p, RankContext& context) {
    return Bind(p, context, plan);
  };
  mutant.applies = std::move(applies);
  return mutant;
}

// On top of the gradients of the step before.
GradientSink NeverZeroed(const GradientSink& sink) {
  return {.open = [sink](int i) -> StatusOr<DataParallel::Target> {
            SP_ASSIGN_OR_RETURN(const DataParallel::Target to, sink.open(i));
            return DataParallel::Target{to.data, true};
          },
          .close = sink.close};
}

bool Any(const P&) { return true; }
bool Several(const P& p) { return p.ranks >= 2; }

// What integers show as well.
std::vector<Mutant<P>> LinearMutants() {
  return {
      Bug("gradients_not_zeroed_between_steps", {.sink = NeverZeroed}, Any),
      Bug("gradients_not_reduced", {.collectives = kWithoutReduction}, Several),
      Bug("divided_by_ranks_too",
          {.factor = [](const P& p) { return 1.0 / p.ranks; }}, Several),
      Bug("replicas_start_from_other_parameters", {.starts_differ = true},
          Several),
      Bug("one_batch_again_and_again", {.first_batch_only = true}, Any)};
}

std::vector<Mutant<P>> Mutants() {
  std::vector<Mutant<P>> mutants = LinearMutants();
  mutants.push_back(Bug("every_replica_counts_in_the_norm",
                        {.counts = [](int) { return true; }}, Several));
  mutants.push_back(
      Bug("moments_lost_between_steps", {.reload_every_step = true}, Any));
  return mutants;
}

// --- The cases ---------------------------------------------------------------

Case<P> Common(std::string name, std::string what) {
  Case<P> c;
  c.name = std::move(name);
  c.what = std::move(what);
  c.tensors = TensorsOf;
  c.reference = DenseReference<P>(Expected);
  c.variants = Variants();
  c.flops = [](const P& p) {
    return 6.0 * static_cast<double>(p.steps * p.tokens) * kLayers * kWidth *
           kWidth;
  };
  return c;
}

Case<P> Bounds() {
  Case<P> c = Common("layers/training_steps",
                     "20 steps of data-parallel training, clipped: parameters "
                     "as on one device");
  c.exact = false;
  c.mutants = Mutants();
  c.axes = {
      Axis("dtype", &P::dtype, {DType::kF64, DType::kF32}).Bench({DType::kF32}),
      Axis("rule", &P::rule, {OptimizerRule::kSgd, OptimizerRule::kAdamW}),
      Axis("tokens", &P::tokens, {12, 3}).Bench({12}),
      Axis("steps", &P::steps, {20})};
  return c;
}

Case<P> Exactly() {
  Case<P> c = Common("layers/training_steps_exact",
                     "20 steps of gradient descent on integers: parameters as "
                     "on one device, to the bit");
  c.bounded = false;
  c.mutants = LinearMutants();
  c.axes = {Axis("dtype", &P::dtype, {DType::kF64}),
            Axis("linear", &P::linear, {true}),
            Axis("tokens", &P::tokens, {12, 3}).Bench({12}),
            Axis("steps", &P::steps, {20})};
  return c;
}

const RegisterCase kBounds(Bounds());
const RegisterCase kExactly(Exactly());

}  // namespace
}  // namespace shardproof
