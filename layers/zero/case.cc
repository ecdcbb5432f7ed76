// The pairing of zero: axes, variants, planted bugs. Two cases: random
// numbers over several steps, and gradient descent on integers, bit for bit.
#include "tools/harness/case.h"

#include <algorithm>
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
#include "layers/zero/case_setup.h"
#include "layers/zero/zero.h"

namespace shardproof::zero_case {
namespace {

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
// Two blocks have a buffer each and are equally long. Of three one has to make
// room, and the last is the smallest.
bool HasThird(const P& p) { return Several(p) && WidthsOf(p).size() > 3; }
bool GathersThird(const P& p) { return HasThird(p) && p.stage == 3; }

std::vector<Mutant<P>> Mutants() {
  return {
      Planted<P>("gradients_left_partial", Bind, kWithoutReduction, Several),
      Planted<P>("gradients_averaged", Bind, kAveraging, Several),
      Changed("one_reduce_scatter_missing",
              {.collectives = With([](CollectiveFamily& f) {
                 f.reduce_scatter = ReduceAllButTheSmallest;
               })},
              HasThird),
      Changed("replicas_not_reduced",
              {.collectives = With([](CollectiveFamily& f) {
                 f.all_reduce = kWithoutReduction.all_reduce;
               })},
              Hybrid),
      // Parts of a block may differ by an element: what both have is summed.
      Changed("replicas_reduced_over_the_shards",
              {.collectives = With([](CollectiveFamily& f) {
                 f.all_reduce = ReduceCommonPart;
               }),
               .replicas_are_shards = true},
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
              {.model = Made<KeepsForwardAddresses>}, GathersThird),
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

// Half of all combinations, such that any three of the other axes meet in every
// way (of f32, where this is measured by descent, all). Over numbers of ranks
// that are odd, where there is one replica, any two.
bool InOtherHalf(const P& p) {
  if (p.linear ? p.dtype == DType::kF32 : p.micro_batches == 1) return false;
  const auto sum = p.stage + p.replicas + p.micro_batches / 2 + p.steps +
                   (p.adam ? 1 : 0) + (p.tokens == 3 ? 1 : 0) +
                   (p.dtype == DType::kF16 ? 1 : 0);
  return sum % 2 == 0;
}

std::optional<std::string> Skip(const P& p) {
  if (p.ranks % p.replicas != 0) return "ranks are not a multiple of replicas";
  if (Long(p) != (p.hidden == kSmall)) {
    return "many steps are of blocks of width 6, and only those";
  }
  // Why: TensorsOf.
  if (p.linear && p.tokens == (Long(p) ? 15 : 16)) {
    return "a step of many has 16 or 3 tokens, one of few 15 or 3";
  }
  // Too many digits for an exact one, or too many roundings to see much.
  if (Long(p) && p.dtype != DType::kF64) return "many steps are in f64";
  if (p.steps == 2 && p.dtype != (p.linear ? DType::kF64 : DType::kF32)) {
    return "this type takes one step";
  }
  if (!p.linear && p.dtype == DType::kF64 && !Long(p)) {
    return "few steps are in f32";
  }
  if (InOtherHalf(p)) return "the other half of the combinations is tested";
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
            Axis("tokens", &P::tokens, {15, 16, 3}).Bench({15}),
            Axis("steps", &P::steps, {1, 2, 20}).Bench({1})};
  c.bounded = false;
  return c;
}

const RegisterCase kTrained(Trained());
const RegisterCase kDescent(Descent());

}  // namespace
}  // namespace shardproof::zero_case
