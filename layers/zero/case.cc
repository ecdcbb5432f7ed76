// The pairing of zero: axes, reference, variants, planted bugs. Two cases: random
// numbers over several steps, and gradient descent on integers, bit for bit.
#include "tools/harness/case.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "collectives/chunks.h"
#include "collectives/mesh.h"
#include "layers/pairing/broken_zero.h"
#include "layers/pairing/layer_case.h"
#include "layers/zero/block_stack.h"
#include "layers/zero/zero.h"
#include "reference/trained_stack.h"

namespace shardproof {
namespace {

struct P {
  DType dtype = DType::kF32;
  int stage = 1;
  int replicas = 1;
  bool adam = false;
  bool linear = false;  // Powers of two: integers stay exact.
  int micro_batches = 1;
  int64_t hidden = 0;
  int64_t tokens = 0;  // Of all ranks, in a step.
  int64_t steps = 2;
  int ranks = 1;
  Memory memory = Memory::kShared;
};

// Training of many steps, of two small blocks.
constexpr int64_t kSmall = 6;
bool Long(const P& p) { return p.steps > 2; }

// A funnel, its last block smaller than most numbers of ranks; or equal blocks.
std::vector<int64_t> WidthsOf(const P& p) {
  if (p.hidden == kSmall) return {kSmall, kSmall, kSmall};
  if (p.hidden < 64) return {p.hidden - 3, p.hidden, 2, 1};
  return std::vector<int64_t>(7, p.hidden);
}

std::vector<int64_t> BlocksOf(const P& p) {
  return BlockStack(WidthsOf(p), p.dtype).blocks();
}
int64_t Parameters(const P& p) {
  int64_t n = 0;
  for (const int64_t b : BlocksOf(p)) n += b;
  return n;
}

int Shards(const P& p) { return p.ranks / p.replicas; }

// Unequal, and none at all on some ranks where there are few.
std::vector<int64_t> TokensOf(const P& p) {
  std::vector<int64_t> sizes;
  int64_t weights = 0, left = p.tokens;
  const auto weight = [](int r) { return 1 + r * 3 % 4; };
  for (int r = 0; r < p.ranks; ++r) weights += weight(r);
  for (int r = 0; r < p.ranks; ++r) {
    sizes.push_back(r + 1 == p.ranks ? left : p.tokens * weight(r) / weights);
    left -= sizes.back();
  }
  return sizes;
}

double FactorOf(const P& p) {
  return p.linear ? 1 : 1 / static_cast<double>(p.tokens);
}

ZeroConfig ConfigOf(const P& p) {
  ParallelOptimizerConfig optimizer = {
      .settings = {.rule = p.adam ? OptimizerRule::kAdamW : OptimizerRule::kSgd,
                   .learning_rate = p.linear ? 0.25
                                    : p.adam ? 0.05
                                             : 0.5,
                   .momentum = 0.5,
                   .beta1 = 0.9,
                   .beta2 = 0.95,
                   .epsilon = 1e-2},
      .dtype = p.dtype,
      .gradient_dtype = p.dtype};
  if (!p.linear) optimizer.settings.max_norm = 0.5;
  if (Long(p) && p.linear) {
    optimizer.settings.learning_rate = 1;
    optimizer.settings.momentum = 0;
  } else if (Long(p)) {
    // Epsilon is large on purpose: it bounds by rate / epsilon how much Adam
    // magnifies the error of a gradient that is next to nothing, and with it
    // how bounds grow from step to step.
    optimizer.settings.learning_rate = 1.0 / 64;
    optimizer.settings.epsilon = 0.5;
    optimizer.settings.weight_decay = 0.125;
  }
  return {.stage = p.stage,
          .blocks = BlocksOf(p),
          .micro_batches = p.micro_batches,
          .optimizer = optimizer};
}

// Which of all parameters a rank owns: a piece of every block.
Sharding OwnParts(const P& p) {
  return ShardBy("own part of each block", [p](const Shape&, int rank, int) {
    std::vector<Interval> ranges;
    int64_t begin = 0;
    for (const int64_t n : BlocksOf(p)) {
      const Chunk own = BalancedChunk(n, Shards(p), rank % Shards(p));
      if (own.count > 0) {
        ranges.push_back({begin + own.begin, begin + own.begin + own.count});
      }
      begin += n;
    }
    return MakeBlock({ranges});
  });
}

bool Narrow(const P& p) { return Accumulator(p.dtype) != p.dtype; }
bool HasFirst(const P& p) {
  return ConfigOf(p).optimizer.settings.HasFirstMoment();
}
// Whether y and dx of the last step are compared.
bool HasLastPasses(const P& p) { return !(Long(p) && p.linear); }

// Exactly: all numbers are +-1, and few of a weight matrix are not 0. From 6 to 9
// to 2 to 1 x_l is then at most 1, 3, 16 and 33, dy_l 3, 1, 1 and 1, and a
// gradient 16 times the tokens: below 2^8 for 15 of them. In a second step (f64
// only) weights are multiples of 1/4 below 2^6 and dense: far below 2^53.
//
// In 20 steps (rate 1, no momentum) tokens are sparse as well: of 16 tokens each
// feature has one, and each token one feature. With a, c, m the largest of |w0|,
// |b0|, |w1|, a step makes a + c at most a + c + 7 m, and m at most m + a + c:
// the larger of (a + c) / sqrt(7) and m becomes at most 1 + sqrt(7) times as
// large, below 2^38 at the end. The outputs y and dx, products of two such
// numbers, are left out there.
Tensors TensorsOf(const P& p) {
  const std::vector<int64_t> widths = WidthsOf(p);
  const Distribution ones = {.kind = Distribution::Kind::kInteger,
                             .dtype = p.dtype};
  Distribution batch = ones;
  if (Long(p)) {
    batch.columns = kSmall;
    batch.tile = 16;
  }
  const Sharding tokens = ShardSizes(1, TokensOf(p));
  Tensors tensors = {
      Input("x", p.dtype, {p.steps, p.tokens, widths.front()}, tokens)
          .Data({.exact = batch}),
      Input("dy", p.dtype, {p.steps, p.tokens, widths.back()}, tokens)
          .Data({.exact = batch})};
  for (size_t l = 0; l + 1 < widths.size(); ++l) {
    const int64_t in = widths[l], out = widths[l + 1];
    Distribution sparse = ones;
    sparse.columns = in;
    sparse.tile = static_cast<int64_t>(
        std::bit_floor(static_cast<uint64_t>(std::min(in, out))));
    tensors.push_back(
        Input(fmt::format("w{}", l), p.dtype, {out, in}, Replicated())
            .Data({.exact = sparse,
                   .bounded = Uniform(
                       p.dtype, 2 / std::sqrt(static_cast<double>(in)))}));
    tensors.push_back(Input(fmt::format("b{}", l), p.dtype, {out}, Replicated())
                          .Data({.exact = ones}));
  }
  const Sharding own = OwnParts(p);
  const DType computed = Accumulator(p.dtype);
  const Shape all = {Parameters(p)};
  const Sharding last_tokens = ShardSizes(0, TokensOf(p));
  if (HasLastPasses(p)) {
    tensors.push_back(
        Output("y", p.dtype, {p.tokens, widths.back()}, last_tokens));
    tensors.push_back(
        Output("dx", p.dtype, {p.tokens, widths.front()}, last_tokens)
            .Gradient());
  }
  tensors.push_back(Output("gradient", p.dtype, all, own).Gradient());
  tensors.push_back(
      Output("parameter", p.dtype, all, p.stage == 3 ? own : Replicated()));
  if (Narrow(p)) tensors.push_back(Output("master", computed, all, own));
  if (HasFirst(p)) {
    tensors.push_back(Output("first", computed, all, own).Gradient());
  }
  if (p.adam) {
    tensors.push_back(Output("second", computed, all, own).Gradient());
  }
  if (!p.linear) {
    tensors.push_back(Output("norm", DType::kF64, {p.steps}, Replicated()));
  }
  return tensors;
}

// --- The reference -----------------------------------------------------------

StatusOr<DenseOutputs> Expected(const P& p, const Arithmetic& summed,
                                const Inputs& in, const Sample& /*sample*/) {
  const std::vector<int64_t> widths = WidthsOf(p);
  std::vector<double> initial;
  for (size_t l = 0; l + 1 < widths.size(); ++l) {
    for (const char* const kind : {"w", "b"}) {
      const std::vector<double> part = in.All(fmt::format("{}{}", kind, l));
      initial.insert(initial.end(), part.begin(), part.end());
    }
  }
  TrainedStackReference reference(widths, p.dtype,
                                  ConfigOf(p).optimizer.settings, initial);
  // Each micro-batch of each rank is one term; it is rounded as it is added to
  // those before it, on its way through the group, and among replicas.
  TrainedStackReference::Parts parts;
  for (const int64_t tokens : TokensOf(p)) {
    for (int m = 0; m < p.micro_batches; ++m) {
      parts.tokens.push_back(BalancedChunk(tokens, p.micro_batches, m).count);
    }
  }
  parts.roundings =
      p.micro_batches - 1 + summed.WireRoundings() + (p.replicas > 1 ? 1 : 0);
  const std::vector<double> x = in.All("x"), dy = in.All("dy");
  const size_t x_step = x.size() / static_cast<size_t>(p.steps);
  const size_t dy_step = dy.size() / static_cast<size_t>(p.steps);
  DenseOutputs out;
  for (size_t k = 0; k < static_cast<size_t>(p.steps); ++k) {
    reference.Step(std::span(x).subspan(k * x_step, x_step),
                   std::span(dy).subspan(k * dy_step, dy_step), parts,
                   FactorOf(p));
    out["norm"].push_back(reference.optimizer().norm());
  }
  out["y"] = reference.y();
  out["dx"] = reference.dx();
  out["gradient"] = reference.gradient();
  out["parameter"] = reference.optimizer().parameters();
  out["master"] = reference.optimizer().weights();
  out["first"] = reference.optimizer().first();
  out["second"] = reference.optimizer().second();
  return out;
}

// --- The variants ------------------------------------------------------------

void CopyBytes(void* to, const void* from, int64_t bytes) {
  if (bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
}

// What a planted bug changes: how the model computes, which ranks belong
// together, what the step is multiplied by.
struct Changes {
  CollectiveFamily collectives = kAutoCollectives;
  bool overlap = true;
  std::unique_ptr<BlockStack> (*model)(const P&) = nullptr;
  bool replicas_are_shards = false;
  double (*factor)(const P&) = FactorOf;
};

// What an operation keeps.
struct Run {
  P p;
  RankContext* context = nullptr;
  double factor = 1;
  std::unique_ptr<BlockStack> model;
  std::optional<Zero> zero;
  std::vector<Tensor> blocks;  // The first parameters, whole.
  Tensor y, dx;                // Where they are not compared.

  Status Load() {
    std::vector<const void*> begins;
    for (size_t l = 0; l < blocks.size(); ++l) {
      const ConstTensorView w = context->in(fmt::format("w{}", l));
      const ConstTensorView b = context->in(fmt::format("b{}", l));
      CopyBytes(blocks[l].raw(), w.data, w.num_bytes());
      CopyBytes(At(blocks[l].raw(), p.dtype, w.num_elements()), b.data,
                b.num_bytes());
      begins.push_back(blocks[l].raw());
    }
    return zero->Load(begins);
  }

  // `data` of each block's own part, or of the whole block, one after another.
  template <class Data>
  void Collect(const char* output, bool whole, Data data) const {
    const TensorView to = context->out(output);
    int64_t at = 0;
    for (size_t l = 0; l < blocks.size(); ++l) {
      const int64_t n = whole ? blocks[l].num_elements() : zero->own(l).count;
      CopyBytes(At(to.data, to.dtype, at), data(l), n * SizeOf(to.dtype));
      at += n;
    }
  }

  Status Go() {
    SP_RETURN_IF_ERROR(Load());
    const ConstTensorView x = context->in("x"), dy = context->in("dy");
    const int64_t tokens = x.shape[1];
    for (int64_t k = 0; k < p.steps; ++k) {
      model->SetBatch(
          {.tokens = tokens,
           .x = At(x.data, p.dtype, k * tokens * x.shape[2]),
           .dy = At(dy.data, p.dtype, k * tokens * dy.shape[2]),
           .y = HasLastPasses(p) ? context->out("y").data : y.raw(),
           .dx = HasLastPasses(p) ? context->out("dx").data : dx.raw()},
          p.micro_batches);
      SP_RETURN_IF_ERROR(zero->Step(*model, factor));
      if (!p.linear) {
        context->out("norm").as<double>()[k] = zero->optimizer().report().norm;
      }
    }
    const ParallelOptimizer& optimizer = zero->optimizer();
    Collect("gradient", false,
            [&](size_t l) { return zero->own_gradients(l); });
    Collect("parameter", p.stage < 3, [&](size_t l) {
      return p.stage < 3 ? zero->parameters(l) : zero->own_parameters(l);
    });
    if (Narrow(p)) {
      Collect("master", false, [&](size_t l) { return optimizer.master(l); });
    }
    if (HasFirst(p)) {
      Collect("first", false, [&](size_t l) { return optimizer.first(l); });
    }
    if (p.adam) {
      Collect("second", false, [&](size_t l) { return optimizer.second(l); });
    }
    return OkStatus();
  }
};

StatusOr<Operation> BindChanged(const P& p, RankContext& context,
                                const Changes& changes) {
  SP_ASSIGN_OR_RETURN(const Mesh mesh,
                      Mesh::Create(context.comm(), {{"shard", Shards(p)},
                                                    {"replica", p.replicas}}));
  ZeroConfig config = ConfigOf(p);
  config.overlap = changes.overlap;
  const ZeroGroups groups = {
      .shard = mesh.Along("shard"),
      .replica = mesh.Along(changes.replicas_are_shards ? "shard" : "replica")};
  SP_ASSIGN_OR_RETURN(Zero zero,
                      Zero::Create(groups, config, changes.collectives));
  // What is held is what the formula says, on every rank in every instance.
  const int64_t held = zero.memory().Model();
  const int64_t formula =
      ZeroModelBytes(Shards(p), groups.shard.rank(), config);
  if (held != formula) {
    return Internal("{} bytes are held, not {}", held, formula);
  }
  auto run = std::make_shared<Run>();
  run->p = p;
  run->context = &context;
  run->factor = changes.factor(p);
  run->model = changes.model != nullptr
                   ? changes.model(p)
                   : std::make_unique<BlockStack>(WidthsOf(p), p.dtype);
  run->zero.emplace(std::move(zero));
  for (const int64_t n : config.blocks) {
    run->blocks.emplace_back(p.dtype, Shape{n});
  }
  const int64_t tokens =
      TokensOf(p)[static_cast<size_t>(context.comm().rank())];
  run->y = Tensor(p.dtype, {tokens, WidthsOf(p).back()});
  run->dx = Tensor(p.dtype, {tokens, WidthsOf(p).front()});
  return Operation([run] { return run->Go(); });
}

StatusOr<Operation> Bind(const P& p, RankContext& context,
                         const CollectiveFamily& collectives) {
  return BindChanged(p, context, {.collectives = collectives});
}

StatusOr<Operation> BindInTurn(const P& p, RankContext& context,
                               const CollectiveFamily& collectives) {
  return BindChanged(p, context,
                     {.collectives = collectives, .overlap = false});
}

Cost CostOf(const P& p, const CollectiveFamily& collectives) {
  const Cost step =
      ZeroStepCost(Shards(p), p.replicas, ConfigOf(p), collectives);
  Cost cost;
  for (int64_t k = 0; k < p.steps; ++k) cost += step;
  return cost;
}

// --- Planted bugs ------------------------------------------------------------

CollectiveFamily With(void (*change)(CollectiveFamily&)) {
  CollectiveFamily family = kAutoCollectives;
  change(family);
  return family;
}

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

template <class Model>
std::unique_ptr<BlockStack> Made(const P& p) {
  return std::make_unique<Model>(
      WidthsOf(p), p.dtype, BrokenBlockStack::Passes{p.steps, p.micro_batches});
}

// One division too many where there are replicas.
double DividedByReplicasToo(const P& p) { return FactorOf(p) / p.replicas; }

bool Several(const P& p) { return Shards(p) >= 2; }
bool Hybrid(const P& p) { return p.replicas >= 2 && Several(p); }
bool Square(const P& p) { return p.replicas >= 2 && Shards(p) == p.replicas; }
bool Gathers(const P& p) { return Several(p) && p.stage == 3; }

std::vector<Mutant<P>> Mutants() {
  return {
      Planted<P>("gradients_left_partial", Bind, kWithoutReduction, Several),
      Planted<P>("gradients_averaged", Bind, kAveraging, Several),
      Changed("one_reduce_scatter_missing",
              {.collectives = With([](CollectiveFamily& f) {
                 f.reduce_scatter = ReduceAllButTheSmallest;
               })},
              Several),
      Changed("replicas_not_reduced",
              {.collectives = With([](CollectiveFamily& f) {
                 f.all_reduce = kWithoutReduction.all_reduce;
               })},
              Hybrid),
      Changed("replicas_reduced_over_the_shards", {.replicas_are_shards = true},
              Square),
      Changed("divided_once_more_in_hybrid", {.factor = DividedByReplicasToo},
              Hybrid),
      Planted<P>("parameters_gathered_backwards", Bind, kGatheringBackwards,
                 Several),
      Changed("stale_shards_after_the_step",
              {.collectives =
                   With([](CollectiveFamily& f) { f.all_gather = KeepStale; })},
              [](const P& p) { return Several(p) && p.stage < 3; }),
      Changed("parameters_of_the_first_step",
              {.model = Made<KeepsFirstParameters>},
              [](const P& p) { return p.ranks >= 2 && p.steps >= 2; }),
      Changed("gathered_buffer_reused_too_early",
              {.model = Made<KeepsForwardAddresses>}, Gathers),
      Changed("gradient_buffer_reused_too_early",
              {.collectives = With(
                   [](CollectiveFamily& f) { f.reduce_scatter = ReduceLate; }),
               .model = Made<WritesTooEarly>},
              [](const P& p) { return Several(p) && p.stage >= 2; }),
      Changed("accumulated_gradients_lost", {.model = Made<LosesAccumulated>},
              [](const P& p) { return p.ranks >= 2 && p.micro_batches >= 2; })};
}

// --- The cases ---------------------------------------------------------------

double Flops(const P& p) {
  return 6.0 * static_cast<double>(p.steps * p.tokens) *
         static_cast<double>(Parameters(p));
}

std::optional<std::string> Skip(const P& p) {
  if (p.ranks % p.replicas != 0) return "ranks are not a multiple of replicas";
  if (Long(p) != (p.hidden == kSmall)) {
    return "many steps are of blocks of width 6, and only those";
  }
  // Too many digits for an exact one, or too many roundings to see much.
  if (Long(p) && p.dtype != DType::kF64) return "many steps are in f64";
  if (p.steps == 2 && p.dtype != (p.linear ? DType::kF64 : DType::kF32)) {
    return "this type takes one step";
  }
  if (!p.linear && p.dtype == DType::kF64 && !Long(p)) {
    return "few steps are in f32";
  }
  return std::nullopt;
}

std::vector<Variant<P>> Variants() {
  std::vector<Variant<P>> variants = OverCollectives<P>(Bind, CostOf);
  CollectiveFamily in_turn = kDirectCollectives;
  in_turn.name = "direct_without_prefetch";
  variants.push_back(OverCollective<P>(
      in_turn, kSharedMemory,
      "as direct, but nothing is gathered or reduced while a block is computed "
      "with. Bytes held per parameter, of bf16 with Adam over g ranks: 4 + "
      "12/g, 2 + 14/g, 16/g in stages 1 to 3, checked at every set-up",
      BindInTurn, CostOf));
  return variants;
}

Case<P> Common(std::string name, std::string what) {
  return {
      .name = std::move(name),
      .what = std::move(what),
      .skip = Skip,
      .tensors = TensorsOf,
      .reference = DenseReference<P>(Expected),
      .variants = Variants(),
      .mutants = Mutants(),
      .bytes = [](const P& p) { return Parameters(p) * SizeOf(p.dtype); },
      .flops = Flops,
      .floor = [](const P& p) { return Floor{.flops = Flops(p) / p.ranks}; }};
}

Case<P> Trained() {
  Case<P> c = Common(
      "layers/zero",
      "linear layers trained with states, gradients and parameters sharded "
      "(stages 1 to 3), within a group of ranks or all: gradients "
      "reduce_scattered, parameters all_gathered, the next block while this "
      "one "
      "is computed with");
  c.axes = {
      Axis("dtype", &P::dtype, {DType::kF32, DType::kF64}).Bench({DType::kF32}),
      Axis("stage", &P::stage, {1, 2, 3}).Smoke({1, 2, 3}),
      Axis("replicas", &P::replicas, {1, 2}).Bench({1}),
      Axis("adam", &P::adam, {true, false}).Bench({true}),
      Axis("micro_batches", &P::micro_batches, {3}).Bench({1}),
      Axis("hidden", &P::hidden, {9, kSmall}).Bench({256}).Smoke({9}),
      Axis("tokens", &P::tokens, {37}).Bench({64}).Smoke({37}),
      Axis("steps", &P::steps, {1, 2, 20}).Bench({1})};
  c.exact = false;
  return c;
}

Case<P> Descent() {
  Case<P> c = Common("layers/zero_sgd",
                     "the same by gradient descent on integers: every rank and "
                     "stage has the bits of one device with the whole batch");
  c.axes = {Axis("dtype", &P::dtype,
                 {DType::kF32, DType::kBF16, DType::kF16, DType::kF64})
                .Bench({DType::kF32}),
            Axis("stage", &P::stage, {1, 2, 3}),
            Axis("replicas", &P::replicas, {1, 2}).Bench({1}),
            Axis("linear", &P::linear, {true}),
            Axis("micro_batches", &P::micro_batches, {1, 3}).Bench({1}),
            Axis("hidden", &P::hidden, {9, kSmall}).Bench({9}),
            Axis("tokens", &P::tokens, {15, 3}).Bench({15}),
            Axis("steps", &P::steps, {1, 2, 20}).Bench({1})};
  c.bounded = false;
  return c;
}

const RegisterCase kTrained(Trained());
const RegisterCase kDescent(Descent());

}  // namespace
}  // namespace shardproof
