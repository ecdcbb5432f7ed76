// The pairing of train_step: steps of training a small GPT, Llama and Mixtral on
// every mesh, in every schedule and with every stage of ZeRO, and on one device.
//
// In bounds that come of probes (reference/trained_language_model.h): attention,
// norms and activations have no exact tier. Gradients to the bit are those of
// linear layers, in pipeline/execution.
#include "tools/harness/case.h"

#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "collectives/chunks.h"
#include "pipeline/train_step/case_bugs.h"
#include "pipeline/train_step/case_setup.h"

namespace shardproof::train_step {
namespace {

struct Run {
  P p;
  RankContext* context = nullptr;
  std::optional<TrainStep> step;
  Tensor initial, whole;
  std::vector<int64_t> targets;

  void CopyInitial() {
    for (const LanguageModelParameter& w :
         LanguageModelParameters(ModelOf(p))) {
      const ConstTensorView from = context->in(w.name);
      std::memcpy(At(initial.raw(), p.dtype, w.begin), from.data,
                  static_cast<size_t>(from.num_bytes()));
    }
  }

  Status Go() {
    CopyInitial();
    SP_RETURN_IF_ERROR(step->Load(initial.raw()));
    const ConstTensorView ids = context->in("ids");
    const ConstTensorView drawn = context->in("targets");
    const int64_t n = ids.num_elements() / p.steps;
    const auto size = static_cast<size_t>(n);
    targets.resize(size);
    for (int64_t k = 0; k < p.steps; ++k) {
      for (int64_t i = 0; i < n; ++i) {
        targets[static_cast<size_t>(i)] =
            TargetOf(p, drawn.as<int64_t>()[k * n + i]);
      }
      SP_RETURN_IF_ERROR(
          step->Step(std::span(ids.as<int64_t>() + k * n, size), targets));
      const double loss = step->loss();
      const DType lane = Accumulator(p.dtype);
      FromDouble(lane, &loss, 1, At(context->out("loss").data, lane, k));
      context->out("norm").as<double>()[k] = step->norm();
      if (k == 0) SP_RETURN_IF_ERROR(Show(0));
      if (k + 1 == p.steps) SP_RETURN_IF_ERROR(Show(1));
    }
    return OkStatus();
  }

  Status Show(int64_t row) {
    const int64_t n = initial.num_elements();
    SP_RETURN_IF_ERROR(step->CollectGradients(
        At(context->out("gradients").data, p.dtype, row * n)));
    return step->CollectParameters(
        At(context->out("trained").data, p.dtype, row * n));
  }
};

StatusOr<Operation> BindMade(const P& p, RankContext& context,
                             const TrainStepParts& parts) {
  SP_ASSIGN_OR_RETURN(
      TrainStep step,
      TrainStep::Create(context.comm(), ConfigOf(p), kAutoCollectives, parts));
  auto run = std::make_shared<Run>();
  run->p = p;
  run->context = &context;
  run->step.emplace(std::move(step));
  run->initial = Tensor::Zeros(p.dtype, {LanguageModelSize(ModelOf(p))});
  return Operation([run] { return run->Go(); });
}

StatusOr<Operation> Bind(const P& p, RankContext& context) {
  return BindMade(p, context, {});
}

std::vector<Mutant<P>> MutantsOf(Model model) {
  std::vector<Mutant<P>> mutants;
  for (PlantedBug& bug : BugsOf(model)) {
    Mutant<P> mutant;
    mutant.name = std::move(bug.name);
    mutant.applies = std::move(bug.applies);
    mutant.bind = [parts = bug.parts](const P& p, RankContext& context) {
      return BindMade(p, context, parts);
    };
    mutants.push_back(std::move(mutant));
  }
  return mutants;
}

// Of each of these every rank has the same, to the bit or within bounds: what a
// rank computes with itself is what it shows.
Tensors Shown(const P& p) {
  Tensors tensors = TensorsOf(p);
  for (TensorSpec& t : tensors) {
    if (t.name == "gradients" || t.name == "trained") t.check_replicas = false;
  }
  return tensors;
}

double Flops(const P& p) {
  const TrainStepConfig c = ConfigOf(p);
  return 6.0 * static_cast<double>(p.steps * c.sequences * c.model.length) *
         static_cast<double>(LanguageModelSize(c.model));
}

AxisOf<P> Values(AxisOf<P> axis, std::vector<std::string> verify,
                 std::vector<std::string> bench,
                 std::vector<std::string> smoke) {
  axis.info.verify = std::move(verify);
  axis.info.smoke = std::move(smoke);
  axis.info.bench = std::move(bench);
  return axis;
}

Case<P> CaseOf(Model model) {
  return {
      .name = "pipeline/train_step_" + FormatAxisValue(model),
      .what =
          "clipped steps of training a small GPT, Llama or Mixtral on a mesh "
          "of tensor, context, expert, pipeline and data parallelism with "
          "ZeRO: losses, gradients and parameters as on one device",
      .axes = {Axis("dtype", &P::dtype, {DType::kF32, DType::kF64})
                   .Bench({DType::kF32}),
               Axis("model", &P::model, {model}),
               Values(Axis("mesh", &P::mesh, {}), MeshValues(),
                      {"tp1", "tp2", "pp2", "dp2", "tp2xpp2", "tp2xpp2xdp2"},
                      {"tp1", "tp2", "dp3", "tp2xpp2", "dp5", "dp7",
                       "tp2xpp2xdp2"}),
               Values(Axis("schedule", &P::schedule, {}), ScheduleValues(),
                      {"one_f_one_b"}, {"one_f_one_b"}),
               Axis("zero", &P::zero, {0, 1, 2, 3}).Bench({1}).Smoke({1}),
               Axis("sequence_parallel", &P::sequence_parallel, {false, true})
                   .Bench({false}),
               Axis("steps", &P::steps, {5}).Bench({1}).Smoke({1}),
               Axis("matrix", &P::matrix, {Matrix::kSample})
                   .Bench({Matrix::kAll})
                   .Smoke({Matrix::kAll})},
      .skip = Skip,
      .tensors = Shown,
      .reference = DenseReference<P>(Expected),
      .variants = {{.name = "mesh",
                    .bind = Bind,
                    .arithmetic =
                        [](const P& p) {
                          return Arithmetic::For(p.dtype, p.ranks);
                        },
                    .note =
                        "each rank holds its part of the parameters, by heads, "
                        "features, experts and stages, sharded again as ZeRO "
                        "says; activations go from stage to stage, and "
                        "gradients are summed where several ranks made them"}},
      .mutants = MutantsOf(model),
      .probes = [](const P& p) { return p.dtype == DType::kF64 ? 4 : 5; },
      .exact = false,
      .bytes =
          [](const P& p) {
            return LanguageModelSize(ModelOf(p)) * SizeOf(p.dtype);
          },
      .flops = Flops,
      .floor = [](const P& p) { return Floor{.flops = Flops(p) / p.ranks}; }};
}

const RegisterCase kGpt(CaseOf(Model::kGpt));
const RegisterCase kLlama(CaseOf(Model::kLlama));
const RegisterCase kMixtral(CaseOf(Model::kMixtral));

}  // namespace
}  // namespace shardproof::train_step
