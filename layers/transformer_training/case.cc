// The pairing of transformer_training: two blocks of a transformer are trained
// for up to 20 steps under every form of data parallelism, and on one device.
//
// One case, in bounds that come of probes (reference/trained_transformer.h):
// attention, norms and activations have no exact tier. 20 steps to the bit are
// those of linear layers, in training_steps_exact and zero_sgd.
#include "tools/harness/case.h"

#include <cmath>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "collectives/chunks.h"
#include "layers/pairing/layer_case.h"
#include "layers/transformer_training/case_bugs.h"
#include "layers/transformer_training/case_setup.h"

namespace shardproof::transformer_training {
namespace {

// --- The forms ---------------------------------------------------------------

struct Form {
  int zero_stage = 0;
  int replicas = 1;
  bool overlap = false;
  bool bucket_per_block = false;
};
constexpr Form kOneBucket = {};
constexpr Form kBuckets = {.bucket_per_block = true};
constexpr Form kOverlapped = {.overlap = true, .bucket_per_block = true};
constexpr Form kStage1 = {.zero_stage = 1};
constexpr Form kStage2 = {.zero_stage = 2, .overlap = true};
constexpr Form kStage3 = {.zero_stage = 3};
constexpr Form kPrefetching = {.zero_stage = 3, .overlap = true};
constexpr Form kHybrid1 = {.zero_stage = 1, .replicas = 2};
constexpr Form kHybrid3 = {.zero_stage = 3, .replicas = 2, .overlap = true};

ShardedTrainerConfig ConfigOf(const P& p, const Form& form) {
  const int64_t block = BlockSize(BlockOf(p));
  const int64_t bytes = block * SizeOf(p.dtype);
  return {.zero_stage = form.zero_stage,
          .replicas = form.replicas,
          .overlap = form.overlap,
          .bucket_bytes = form.bucket_per_block ? bytes : kLayers * bytes,
          .blocks = std::vector<int64_t>(kLayers, block),
          .micro_batches = p.micro_batches,
          .optimizer = {.settings = SettingsOf(p),
                        .dtype = p.dtype,
                        .gradient_dtype = p.dtype}};
}

// A model around another, of which it spoils something.
using Around = std::unique_ptr<ZeroModel> (*)(const P&, ZeroModel&);

// What a planted bug changes.
struct Changes {
  OptimizerKernels kernels = {};
  Around around = nullptr;
  std::function<void(OptimizerSettings&)> settings = {};
  // Of this rank alone.
  std::function<void(const P&, int rank, CollectiveFamily&)> family = {};
  // What dy of a micro-batch is multiplied by.
  std::function<double(const P&, int rank, int micro)> scale = {};
};

// What an operation keeps.
struct Run {
  P p;
  RankContext* context = nullptr;
  Changes changes;
  std::optional<TransformerStack> model;
  std::optional<ShardedTrainer> trainer;
  std::vector<BlockParameter> parameters;
  std::vector<Tensor> blocks;  // The first parameters, whole.
  Tensor scaled;               // dy of a step, where a bug scales it.
  std::vector<int64_t> tokens;

  void CopyInitial() {
    for (size_t l = 0; l < blocks.size(); ++l) {
      for (const BlockParameter& w : parameters) {
        const ConstTensorView from =
            context->in(NameOf(static_cast<int>(l), w));
        std::memcpy(At(blocks[l].raw(), p.dtype, w.begin), from.data,
                    static_cast<size_t>(from.num_bytes()));
      }
    }
  }

  const void* Scaled(const void* dy) {
    if (!changes.scale) return dy;
    int64_t at = 0;
    for (int m = 0; m < p.micro_batches; ++m) {
      const int64_t n = tokens[static_cast<size_t>(m)] * p.hidden;
      std::vector<double> values(static_cast<size_t>(n));
      ToDouble(p.dtype, At(dy, p.dtype, at), n, values.data());
      for (double& v : values) {
        v *= changes.scale(p, context->comm().rank(), m);
      }
      FromDouble(p.dtype, values.data(), n, At(scaled.raw(), p.dtype, at));
      at += n;
    }
    return scaled.raw();
  }

  Status Go() {
    CopyInitial();
    const TensorView trained = context->out("trained");
    std::vector<const void*> begins;
    std::vector<void*> ends;
    for (size_t l = 0; l < blocks.size(); ++l) {
      begins.push_back(blocks[l].raw());
      ends.push_back(At(trained.data, p.dtype,
                        static_cast<int64_t>(l) * trained.shape[1]));
    }
    SP_RETURN_IF_ERROR(trainer->Load(begins));
    std::unique_ptr<ZeroModel> around;
    if (changes.around != nullptr) around = changes.around(p, *model);
    const ConstTensorView x = context->in("x"), dy = context->in("dy");
    const int64_t n = x.shape[1] * x.shape[2];
    for (int64_t k = 0; k < p.steps; ++k) {
      model->SetBatch(At(x.data, p.dtype, k * n),
                      Scaled(At(dy.data, p.dtype, k * n)));
      SP_RETURN_IF_ERROR(
          trainer->Step(around ? *around : *model, tokens, TokensOfAll(p)));
      context->out("norm").as<double>()[k] = trainer->optimizer().report().norm;
    }
    return trainer->Collect(ends);
  }
};

StatusOr<Operation> BindChanged(const P& p, RankContext& context,
                                const Form& form, CollectiveFamily collectives,
                                const Changes& changes) {
  const Communicator& comm = context.comm();
  const int rank = comm.rank();
  SP_ASSIGN_OR_RETURN(const Communicator alone, comm.Split(rank, 0));
  const TransformerStackConfig stack = StackOf(p, rank);
  SP_ASSIGN_OR_RETURN(TransformerStack model,
                      TransformerStack::Create(alone, stack));
  ShardedTrainerConfig config = ConfigOf(p, form);
  if (changes.settings) changes.settings(config.optimizer.settings);
  if (changes.family) changes.family(p, rank, collectives);
  SP_ASSIGN_OR_RETURN(
      ShardedTrainer trainer,
      ShardedTrainer::Create(comm, config, collectives, changes.kernels));
  // What is held is what the formula says, on every rank in every instance.
  const int64_t held = trainer.memory().Model();
  const int64_t formula = ShardedTrainerModelBytes(comm.size(), rank, config);
  if (held != formula) {
    return Internal("{} bytes are held, not {}", held, formula);
  }
  auto run = std::make_shared<Run>();
  run->p = p;
  run->context = &context;
  run->changes = changes;
  run->model.emplace(std::move(model));
  run->trainer.emplace(std::move(trainer));
  run->parameters = BlockParametersOf(stack.block);
  for (const int64_t count : config.blocks) {
    run->blocks.emplace_back(p.dtype, Shape{count});
  }
  run->scaled = Tensor(p.dtype, {TokensOf(p, rank), p.hidden});
  for (int m = 0; m < p.micro_batches; ++m) {
    run->tokens.push_back(stack.TokensOf(m));
  }
  return Operation([run] { return run->Go(); });
}

Variant<P> Of(const char* name, const Form& form,
              const CollectiveFamily& collectives, std::string note) {
  Variant<P> variant;
  variant.name = name;
  variant.note = std::move(note);
  variant.needs = std::string_view(collectives.name) == kRingCollectives.name
                      ? kAnywhere
                      : kSharedMemory;
  variant.refuses = [form](const P& p) -> std::optional<std::string> {
    if (p.ranks % form.replicas == 0) return std::nullopt;
    return "an odd number of ranks does not make two replicas";
  };
  variant.bind = [form, collectives](const P& p, RankContext& context) {
    return BindChanged(p, context, form, collectives, {});
  };
  variant.cost = [form, collectives](const P& p) {
    const ShardedTrainerConfig config = ConfigOf(p, form);
    const Cost step = ShardedTrainerStepCost(p.ranks, config, collectives);
    Cost cost = ShardedTrainerCollectCost(p.ranks, config, collectives);
    for (int64_t k = 0; k < p.steps; ++k) cost += step;
    return cost;
  };
  // The same for all: how a sum is cut is of no consequence to its bound
  // (trained_transformer.h), and one evaluation of the reference serves them.
  variant.arithmetic = [](const P& p) {
    return Arithmetic::For(p.dtype, p.ranks);
  };
  return variant;
}

std::vector<Variant<P>> Variants() {
  return {
      Of("data_parallel", kOneBucket, kDirectCollectives,
         "a rank holds all parameters, gradients and states; all gradients are "
         "all_reduced at once, when the last micro-batch's backward pass is "
         "over"),
      Of("data_parallel_bucketed", kBuckets, kRingCollectives,
         "as data_parallel, but each block's gradients are all_reduced as soon "
         "as they are made in the last micro-batch, the last block's first; "
         "the pass waits"),
      Of("data_parallel_overlapped", kOverlapped, kDirectCollectives,
         "as data_parallel_bucketed, but the pass goes on meanwhile"),
      Of("zero_1", kStage1, kDirectCollectives,
         "a rank holds all parameters and gradients, and the states of its "
         "part of each block; gradients are reduce_scattered in the last "
         "micro-batch, and parameters all_gathered after the step"),
      Of("zero_2", kStage2, kRingCollectives,
         "a rank holds all parameters, and gradients and states of its part; "
         "each block's gradients are reduce_scattered in every micro-batch, "
         "while the pass goes on, and parameters all_gathered after the step"),
      Of("zero_3", kPrefetching, kDirectCollectives,
         "a rank holds its part of everything; each block is all_gathered "
         "before its forward and its backward pass in every micro-batch, while "
         "the block before it computes, and gradients are reduce_scattered; "
         "parameters are collected once, at the end. What a rank holds is "
         "checked at every set-up, here and in each form: in f32 with AdamW 16 "
         "bytes per parameter, over g ranks 8 + 8/g, 4 + 12/g and 16/g in "
         "stages 1 to 3"),
      Of("zero_3_without_prefetch", kStage3, kRingCollectives,
         "as zero_3, but nothing is sent while a block computes"),
      Of("hybrid_zero_1", kHybrid1, kDirectCollectives,
         "as zero_1 within each half of the ranks; besides, a rank's own part "
         "of the gradients is all_reduced with the other half's, once a step"),
      Of("hybrid_zero_3", kHybrid3, kRingCollectives,
         "as zero_3 within each half of the ranks; besides, a rank's own part "
         "of the gradients is all_reduced with the other half's, once a "
         "step")};
}

// --- Planted bugs ------------------------------------------------------------

bool Several(const P& p) { return p.ranks >= 2; }
// Halves with several parts each.
bool Halved(const P& p) { return p.ranks >= 4 && p.ranks % 2 == 0; }

Mutant<P> Bug(std::string name, const Form& form, const Changes& changes,
              std::function<bool(const P&)> applies = Several) {
  Mutant<P> mutant;
  mutant.name = std::move(name);
  mutant.bind = [form, changes](const P& p, RankContext& context) {
    return BindChanged(p, context, form, kAutoCollectives, changes);
  };
  mutant.applies = std::move(applies);
  return mutant;
}

// A mean of the ranks' means of their micro-batches' means.
double MeanOfMeans(const P& p, int rank, int micro) {
  const TransformerStackConfig stack = StackOf(p, rank);
  int used = 0;
  for (int m = 0; m < p.micro_batches; ++m) used += stack.TokensOf(m) > 0;
  return static_cast<double>(TokensOfAll(p)) / p.ranks / used /
         static_cast<double>(stack.TokensOf(micro));
}

template <auto Member, auto Function>
void Replace(const P&, int, CollectiveFamily& family) {
  family.*Member = Function;
}

// Ranks with the first part of each block, of which there is one in each half.
void LeaveFirstPartOfHalves(const P& p, int rank, CollectiveFamily& family) {
  if (rank % (p.ranks / 2) == 0) {
    family.all_reduce = kWithoutReduction.all_reduce;
  }
}

std::vector<Mutant<P>> Mutants() {
  using F = CollectiveFamily;
  return {
      Bug("mean_of_means", kOverlapped, {.scale = MeanOfMeans}),
      Bug("mean_of_means_sharded", kStage2, {.scale = MeanOfMeans}),
      Bug("clipped_by_own_norm", kStage1,
          {.family = Replace<&F::all_gather, GatherAllButNorms>}),
      Bug("not_clipped", kBuckets,
          {.settings = [](OptimizerSettings& s) { s.max_norm = HUGE_VAL; }}),
      Bug("moments_of_a_part_stale", kStage2,
          {.kernels = {.sgd = KeepHalfOfTheMoments<SgdArgs, SgdStep>,
                       .adam = KeepHalfOfTheMoments<AdamArgs, AdamStep>}},
          [](const P& p) { return Several(p) && p.steps > 1; }),
      Bug("prefetched_before_the_step", kPrefetching,
          {.around = MakeAround<FetchedTooEarly>},
          [](const P& p) { return Several(p) && p.steps > 1; }),
      Bug("parameters_not_gathered_after_the_step", kStage1,
          {.family = Replace<&F::all_gather, GatherNormsOnly>}),
      Bug("accumulated_gradients_lost", kStage1,
          {.around = MakeAround<NotAccumulated>},
          [](const P& p) { return Several(p) && p.micro_batches > 1; }),
      Bug("one_block_not_reduced", kStage3,
          {.family = Replace<&F::reduce_scatter, ReduceScatterOneOfTwo>}),
      Bug("one_bucket_reduced_twice", kBuckets,
          {.family = Replace<&F::all_reduce, AllReduceOneOfTwoAgain>}),
      Bug("one_part_not_reduced_among_replicas", kHybrid3,
          {.family = LeaveFirstPartOfHalves}, Halved),
      Bug("bias_correction_one_step_late", kOneBucket,
          {.kernels = {.adam = CorrectedOneStepLate}},
          [](const P& p) { return Several(p) && Adam(p.rule); }),
      Bug("weights_do_not_decay", kPrefetching,
          {.settings = [](OptimizerSettings& s) { s.weight_decay = 0; }})};
}

// --- The case ----------------------------------------------------------------

// Every product forward, and two more backward, of all parameters.
double Flops(const P& p) {
  return 6.0 * static_cast<double>(p.steps * TokensOfAll(p)) * kLayers *
         static_cast<double>(BlockSize(BlockOf(p)));
}

// The reference evaluates every step many times, so that many steps are few
// instances.
std::optional<std::string> Skip(const P& p) {
  if ((p.steps == 1) != (p.micro_batches == 1)) {
    return "one step has one micro-batch, and only that";
  }
  const bool f32 = p.dtype == DType::kF32, llama = p.style == Style::kLlama;
  if (llama == f32 && Adam(p.rule) == llama) {
    if (p.ranks > 4 && p.steps != 2) return "more than 4 ranks take 2 steps";
    if (p.steps > 2 && p.ranks != 4 && !(p.ranks == 2 && llama)) {
      return "20 steps are taken by 4 ranks, and in f32 by 2";
    }
    return std::nullopt;
  }
  if (!f32) return "in f64 sgd trains gpt2";
  if (p.steps > 2) return "in 20 steps adamw trains llama";
  if (p.ranks > 4) return "of more than 4 ranks, adamw trains llama";
  return std::nullopt;
}

const RegisterCase kTransformerTraining(Case<P>{
    .name = "layers/transformer_training",
    .what = "20 clipped steps of training two blocks of a transformer, by data "
            "parallelism and ZeRO in every form: parameters as on one device",
    .axes = {Axis("dtype", &P::dtype, {DType::kF32, DType::kF64})
                 .Bench({DType::kF32}),
             Axis("style", &P::style, {Style::kLlama, Style::kGpt2}),
             Axis("rule", &P::rule,
                  {OptimizerRule::kAdamW, OptimizerRule::kSgd}),
             Axis("micro_batches", &P::micro_batches, {1, 2}).Bench({2}),
             Axis("hidden", &P::hidden, {8}),
             Axis("steps", &P::steps, {1, 2, 20}).Bench({2})},
    .skip = Skip,
    .tensors = TensorsOf,
    .reference = DenseReference<P>(Expected),
    .variants = Variants(),
    .mutants = Mutants(),
    // Deviations in these types are so small that few probes, which know them
    // badly, are enough: a bound is about 150 deviations in f32, and 1000 in f64.
    .probes = [](const P& p) { return p.dtype == DType::kF64 ? 4 : 6; },
    .exact = false,
    .bytes =
        [](const P& p) {
          return kLayers * BlockSize(BlockOf(p)) * SizeOf(p.dtype);
        },
    .flops = Flops,
    .floor = [](const P& p) { return Floor{.flops = Flops(p) / p.ranks}; }});

}  // namespace
}  // namespace shardproof::transformer_training
