// The pairing of pipelines: a stack of linear layers, cut into the stages of every
// schedule, does one step, whose output and gradients must be those of one device.
#include "tools/harness/case.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "layers/pairing/layer_case.h"
#include "pipeline/execution/case_setup.h"
#include "pipeline/registry.h"

namespace shardproof::pipeline_execution {
namespace {

// --- The variants ------------------------------------------------------------

// Every schedule that is registered: the registry is not complete yet when this
// file's case is, so they are named here, and each run compares the two.
struct NamedSchedule {
  std::string_view name;
  std::string_view note;
};
constexpr NamedSchedule kSchedules[] = {
    {"breadth_first",
     "looping stages, chunk after chunk of all micro-batches; Lamy-Poirier, "
     "arXiv:2211.05953"},
    {"chimera",
     "two 1F1Bs in opposite directions, with a copy of the weights each; Li "
     "and "
     "Hoefler, arXiv:2107.06925"},
    {"dualpipe",
     "forward and backward in pairs from both ends, with two copies of the "
     "weights; DeepSeek, arXiv:2412.19437"},
    {"dualpipe_v",
     "down the ranks and back up, forward and backward in pairs; DeepSeek, "
     "arXiv:2412.19437"},
    {"eager_1f1b",
     "1F1B with twice the warm-up; Zhuang et al., arXiv:2211.05322"},
    {"gpipe", "all forward, then all backward; Huang et al., arXiv:1811.06965"},
    {"interleaved",
     "1F1B over looping stages; Narayanan et al., arXiv:2104.04473"},
    {"naive", "one micro-batch at a time"},
    {"one_f_one_b",
     "a forward, a backward pass in turn; Fan et al., arXiv:2007.01045"},
    {"zb_auto",
     "the best found with split backward passes within a memory limit; Qi et "
     "al., arXiv:2401.10241"},
    {"zb_h1",
     "1F1B with split backward passes and its memory; Qi et al., "
     "arXiv:2401.10241"},
    {"zb_h2", "the same with twice the warm-up, hence no bubble"},
    {"zb_v",
     "down the ranks and back up with split backward passes; Qi et al., "
     "arXiv:2405.15362"}};

Status CheckAllAreNamed() {
  for (const ScheduleInfo& info : Schedules()) {
    if (std::none_of(
            std::begin(kSchedules), std::end(kSchedules),
            [&](const NamedSchedule& s) { return s.name == info.name; })) {
      return Internal("schedule {} is no variant", info.name);
    }
  }
  return OkStatus();
}

BuildFor Named(std::string name) {
  return [name = std::move(name)](const P& p) -> StatusOr<Schedule> {
    SP_RETURN_IF_ERROR(CheckAllAreNamed());
    if (FindSchedule(name) == nullptr) {
      return Internal("variant {} is no schedule", name);
    }
    return BuildSchedule(name, {.ranks = p.ranks,
                                .micro_batches = p.micro_batches(),
                                .chunks = p.chunks});
  };
}
// Of these there is but one chunk in each pipeline.
BuildFor Unchunked(StatusOr<Schedule> (*build)(const P&)) {
  return [build](const P& p) -> StatusOr<Schedule> {
    if (p.chunks > 1) return InvalidArgument("one chunk in each pipeline");
    return build(p);
  };
}

Variant<P> Of(std::string name, std::string note, const BuildFor& build) {
  Variant<P> variant;
  variant.name = std::move(name);
  variant.note = std::move(note);
  variant.refuses = [build](const P& p) -> std::optional<std::string> {
    const StatusOr<Schedule> schedule = build(p);
    // A defect is no refusal.
    if (schedule.ok() || schedule.status().code() == StatusCode::kInternal) {
      return std::nullopt;
    }
    return std::string(schedule.status().message());
  };
  variant.bind = [build](const P& p, RankContext& context) {
    return Bind(p, context, {.build = build});
  };
  variant.cost = [build](const P& p) { return CostOf(p, build); };
  variant.arithmetic = [](const P& p) { return Arithmetic::For(p.dtype); };
  return variant;
}

std::vector<Variant<P>> Variants() {
  std::vector<Variant<P>> variants;
  for (const NamedSchedule& s : kSchedules) {
    variants.push_back(Of(std::string(s.name), std::string(s.note),
                          Named(std::string(s.name))));
  }
  variants.push_back(Of("both_ways",
                        "two pipelines in opposite directions, with a copy of "
                        "the weights each, as GPipe",
                        Unchunked(BothWays)));
  variants.push_back(Of("opposite_order",
                        "GPipe, odd ranks from the last micro-batch to the "
                        "first: messages overtake one another",
                        Unchunked(OppositeOrder)));
  return variants;
}

// --- Planted bugs ------------------------------------------------------------

// A stage that does what another does, but for what is overridden.
class Around : public PipelineStage {
 public:
  Around(const P& p, LinearStage& stage) : p_(p), stage_(stage) {}

  Status Forward(const StageVisit& visit, const void* x, void* y) override {
    return stage_.Forward(visit, x, y);
  }
  Status Backward(const StageVisit& visit, const void* x, const void* dy,
                  void* dx) override {
    SP_RETURN_IF_ERROR(BackwardInput(visit, x, dy, dx));
    return BackwardWeight(visit, x, dy);
  }
  Status BackwardInput(const StageVisit& visit, const void* x, const void* dy,
                       void* dx) override {
    return stage_.BackwardInput(visit, x, dy, dx);
  }
  Status BackwardWeight(const StageVisit& visit, const void* x,
                        const void* dy) override {
    return stage_.BackwardWeight(visit, x, dy);
  }

 protected:
  const P& p() const { return p_; }
  LinearStage& stage() { return stage_; }

 private:
  const P p_;
  LinearStage& stage_;
};

template <class Stage>
std::unique_ptr<PipelineStage> Make(const P& p, LinearStage& stage) {
  return std::make_unique<Stage>(p, stage);
}

struct CountsTwice : Around {
  using Around::Around;
  Status BackwardInput(const StageVisit& visit, const void* x, const void* dy,
                       void* dx) override {
    return stage().Backward(visit, x, dy, dx);
  }
};

struct WritesOver : Around {
  using Around::Around;
  Status BackwardWeight(const StageVisit& visit, const void* x,
                        const void* dy) override {
    stage().BeginStep();
    return stage().BackwardWeight(visit, x, dy);
  }
};

struct ForgetsTheLast : Around {
  using Around::Around;
  Status BackwardWeight(const StageVisit& visit, const void* x,
                        const void* dy) override {
    if (visit.micro_batch + 1 == p().micro_batches()) return OkStatus();
    return stage().BackwardWeight(visit, x, dy);
  }
};

struct PassesNothingOn : Around {
  using Around::Around;
  Status Forward(const StageVisit& visit, const void* x, void* y) override {
    if (stage().layers() > 0 || y == nullptr) {
      return stage().Forward(visit, x, y);
    }
    std::memset(y, 0,
                static_cast<size_t>(p().TokensIn(visit.micro_batch) *
                                    p().width * SizeOf(p().dtype)));
    return OkStatus();
  }
};

bool Writes(const PlannedAction& a) { return a.leaves >= 0; }

// One output for everything, and nobody waits.
void FreeOutputs(PipelinePlan& plan) {
  for (PlannedAction& a : plan.actions) {
    a.frees = -1;
    if (!Writes(a)) continue;
    (a.action.kind == ActionKind::kForward ? a.y : a.dx) = plan.slots;
    plan.sends[static_cast<size_t>(a.leaves)].buffer = plan.slots;
  }
}

// All activations are received where the first one was.
void ReuseReceives(PipelinePlan& plan) {
  int slot = -1;
  for (PlannedAction& a : plan.actions) {
    if (a.x < 0) continue;
    if (slot < 0) slot = a.x;
    a.x = slot;
    if (a.action.kind == ActionKind::kForward && a.arrives >= 0) {
      plan.receives[static_cast<size_t>(a.arrives)].buffer = slot;
    }
  }
}

void ForgetMicroBatchesInTags(PipelinePlan& plan) {
  for (auto* messages : {&plan.receives, &plan.sends}) {
    for (PipelineMessage& m : *messages) m.tag %= 2;
  }
}

// Backward actions use what the newest forward action has kept or received.
void UseNewest(PipelinePlan& plan, bool kept) {
  std::vector<const PlannedAction*> newest(plan.slots_of_chunks.size());
  for (PlannedAction& a : plan.actions) {
    const PlannedAction*& of_chunk =
        newest[static_cast<size_t>(a.action.chunk)];
    if (a.action.kind == ActionKind::kForward) {
      of_chunk = &a;
    } else {
      (kept ? a.slot : a.x) = kept ? of_chunk->slot : of_chunk->x;
    }
  }
}
void UseNewestSlot(PipelinePlan& plan) { UseNewest(plan, true); }
void UseNewestInput(PipelinePlan& plan) { UseNewest(plan, false); }

// W takes the gradient that the newest I had.
void UseNewestGradient(PipelinePlan& plan) {
  int dy = -1;
  for (PlannedAction& a : plan.actions) {
    if (a.action.kind == ActionKind::kInput) dy = a.dy;
    if (a.action.kind == ActionKind::kWeight) a.dy = dy;
  }
}

void LoseTail(std::vector<int64_t>& bytes) { bytes.back() /= 2; }

// As if the loss were the mean of the micro-batches' means.
double MeanOfMeans(const P& p, int m) {
  const int64_t n = std::max<int64_t>(1, p.TokensIn(m));
  return static_cast<double>(p.AllTokens()) /
         static_cast<double>(p.micro_batches() * n);
}
double OneOfBatches(const P& p) { return 1.0 / p.micro_batches(); }

bool Several(const P& p) { return p.ranks > 1 && p.chunks == 1; }
bool Any(const P& p) { return p.chunks == 1 && p.micro_batches() > 1; }
// So large that a message is not copied when it is sent.
bool Large(const P& p) {
  return Several(p) && p.tokens * p.width * SizeOf(p.dtype) > 4096;
}
bool UnevenLast(const P& p) {
  return Any(p) && p.uneven && p.TokensIn(p.micro_batches() - 1) > 0;
}
bool Tied(const P& p) { return p.chunks == 1 && p.tied; }
bool WithEmptyStages(const P& p) { return Several(p) && p.layers < p.ranks; }
bool ThreeRanks(const P& p) { return Several(p) && p.ranks > 2; }
// On a stage with several layers.
bool KeepsActivations(const P& p) {
  return Any(p) && !p.recompute && p.layers > p.ranks;
}
bool Recomputes(const P& p) { return Several(p) && p.recompute; }

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

std::vector<Mutant<P>> Mutants() {
  const BuildFor gpipe = Named("gpipe"), zb = Named("zb_h1");
  return {
      // Messages and buffers.
      Bug("output_written_again_before_its_send_ended",
          {.build = OppositeOrder, .plan = FreeOutputs}, Large),
      Bug("receive_buffer_used_again", {.build = gpipe, .plan = ReuseReceives},
          Several),
      Bug("tags_without_micro_batch",
          {.build = OppositeOrder, .plan = ForgetMicroBatchesInTags}, Several),
      Bug("tail_of_the_last_micro_batch_lost",
          {.build = gpipe, .message_bytes = LoseTail}, Several),
      // Which micro-batch.
      Bug("backward_of_the_newest_micro_batch",
          {.build = gpipe, .plan = UseNewestSlot}, KeepsActivations),
      Bug("recomputed_from_the_newest_micro_batch",
          {.build = gpipe, .plan = UseNewestInput}, Recomputes),
      Bug("weight_gradient_of_the_newest_upstream",
          {.build = zb, .plan = UseNewestGradient}, ThreeRanks),
      Bug("micro_batches_written_over",
          {.build = gpipe, .around = Make<WritesOver>}, Any),
      Bug("last_micro_batch_forgotten",
          {.build = gpipe, .around = Make<ForgetsTheLast>}, Any),
      // Scales.
      Bug("mean_of_the_micro_batches_means",
          {.build = gpipe, .scale = MeanOfMeans}, UnevenLast),
      Bug("gradients_divided_by_micro_batches",
          {.build = gpipe, .scale_gradients = OneOfBatches}, Any),
      Bug("weight_gradients_twice_when_split",
          {.build = zb, .around = Make<CountsTwice>}, Any),
      // Stages.
      Bug("tied_gradients_lost", {.build = gpipe, .sums_tied = false}, Tied),
      Bug("copies_not_summed", {.build = BothWays, .sums_copies = false}, Any),
      Bug("empty_stage_passes_nothing_on",
          {.build = gpipe, .around = Make<PassesNothingOn>}, WithEmptyStages)};
}

// --- The case ----------------------------------------------------------------

// Every value of every axis, and few of their products.
std::optional<std::string> Skip(const P& p) {
  const bool few_layers = p.layers == 2, large = p.tokens > 16;
  const int changed = (p.dtype != DType::kF32 ? 1 : 0) +
                      (p.batches_per_rank != 2 ? 1 : 0) + (large ? 1 : 0) +
                      (p.recompute ? 1 : 0) + (few_layers ? 1 : 0);
  if (changed > 1) return "tested one at a time";
  return std::nullopt;
}

double Flops(const P& p) {
  return (6.0 + (p.recompute ? 2.0 : 0.0)) *
         static_cast<double>(p.AllTokens()) * p.layers *
         static_cast<double>(p.width * p.width);
}

const RegisterCase kExecution(Case<P>{
    .name = "pipeline/execution",
    .what = "one step of a stack of linear layers that is cut into the stages "
            "of a pipeline: micro-batches go forward and back as the schedule "
            "says",
    .axes = {Axis("dtype", &P::dtype,
                  {DType::kF32, DType::kBF16, DType::kF16, DType::kF64})
                 .Bench({DType::kF32}),
             Axis("batches_per_rank", &P::batches_per_rank, {2, 3}).Bench({4}),
             Axis("uneven", &P::uneven, {true, false}).Bench({false}),
             Axis("chunks", &P::chunks, {1, 2}).Bench({1, 2}),
             Axis("recompute", &P::recompute, {false, true}).Bench({false}),
             Axis("tied", &P::tied, {false, true}).Bench({false}),
             Axis("layers", &P::layers, {5, 2}).Bench({16}),
             Axis("tokens", &P::tokens, {5, 150}).Bench({32}),
             Axis("width", &P::width, {8}).Bench({64})},
    .skip = Skip,
    .tensors = TensorsOf,
    .reference = DenseReference<P>(Expected),
    .variants = Variants(),
    .mutants = Mutants(),
    .probes = ProbesOfChain<P>,
    .flops = Flops,
    .floor = [](const P& p) { return Floor{.flops = Flops(p) / p.ranks}; }});

}  // namespace
}  // namespace shardproof::pipeline_execution
