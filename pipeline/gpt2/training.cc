#include "pipeline/gpt2/training.h"

#include <algorithm>
#include <charconv>
#include <chrono>
#include <cmath>
#include <memory>

#include "collectives/backend/thread/thread_world.h"
#include "reference/random.h"

namespace shardproof::gpt2 {
namespace {

constexpr uint64_t kSeed = 124;

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

// The deviation of a parameter at the start; those of none are `constant`.
struct Start {
  double deviation = 0;
  float constant = 0;
};

Start StartOf(const LanguageModelParameter& parameter) {
  if (parameter.name == "positions") return {.deviation = 0.01};
  if (parameter.shape.rank() >= 2) return {.deviation = 0.02};
  const bool norm = parameter.name.find("norm") != std::string::npos;
  return {.constant = norm && parameter.name.ends_with("_w") ? 1.0F : 0.0F};
}

}  // namespace

LanguageModelConfig ModelOf(const TrainingOptions& options) {
  LanguageModelConfig m;
  m.blocks = options.blocks;
  m.vocabulary = options.vocabulary;
  m.length = options.length;
  m.hidden = options.hidden;
  m.heads = m.kv_heads = options.heads;
  m.head_dim = options.hidden / options.heads;
  m.intermediate = 4 * options.hidden;
  m.bias = m.tied = m.learned_positions = true;
  m.dtype = DType::kF32;
  m.optimizer = {.rule = OptimizerRule::kAdamW,
                 .learning_rate = 3e-4,
                 .beta1 = 0.9,
                 .beta2 = 0.95,
                 .epsilon = 1e-8,
                 .weight_decay = 0.1,
                 .max_norm = 1.0};
  return m;
}

StatusOr<Layout> ParseLayout(std::string_view text) {
  constexpr std::string_view kZero = "zero=";
  Layout layout;
  std::string mesh;
  for (size_t begin = 0; begin <= text.size();) {
    const size_t end = std::min(text.find(',', begin), text.size());
    const std::string_view part = text.substr(begin, end - begin);
    begin = end + 1;
    if (!part.starts_with(kZero)) {
      mesh += fmt::format("{}{}", mesh.empty() ? "" : ",", part);
      continue;
    }
    const std::string_view stage = part.substr(kZero.size());
    const auto [rest, error] =
        std::from_chars(stage.data(), stage.data() + stage.size(), layout.zero);
    if (error != std::errc() || rest != stage.data() + stage.size() ||
        layout.zero < 0 || layout.zero > 3) {
      return InvalidArgument("\"{}\" in \"{}\": ZeRO has stages 0 to 3", part,
                             text);
    }
  }
  SP_ASSIGN_OR_RETURN(layout.mesh, ParseTrainMesh(mesh));
  return layout;
}

std::string Describe(const Layout& layout) {
  std::string text = Describe(layout.mesh);
  if (layout.zero > 0) text += fmt::format(",zero={}", layout.zero);
  return text;
}

TrainStepConfig ConfigOf(const TrainingOptions& options, const Layout& layout) {
  TrainStepConfig config = {.model = ModelOf(options),
                            .mesh = layout.mesh,
                            .sequences = options.sequences,
                            .zero_stage = layout.zero};
  if (layout.mesh.pp() > 1) {
    config.micro_batches = static_cast<int>(
        std::max<int64_t>(1, options.sequences / layout.mesh.data_ranks()));
  }
  return config;
}

std::vector<float> InitialParameters(const TrainingOptions& options) {
  const LanguageModelConfig model = ModelOf(options);
  std::vector<float> all(static_cast<size_t>(LanguageModelSize(model)));
  for (const LanguageModelParameter& parameter :
       LanguageModelParameters(model)) {
    const Start start = StartOf(parameter);
    float* const to = &all[static_cast<size_t>(parameter.begin)];
    const int64_t count = parameter.shape.NumElements();
    if (start.deviation == 0) {
      std::fill_n(to, count, start.constant);
      continue;
    }
    // Normal(scale) is a sum of four uniforms in [-scale / 4, scale / 4), of
    // variance scale^2 / 48 each.
    Fill(Normal(DType::kF32, std::sqrt(12.0) * start.deviation),
         {.seed = kSeed, .tensor = TensorId(parameter.name)}, 0, count, to);
  }
  return all;
}

void MoveToNeighbours(uint64_t seed, std::span<float> parameters) {
  const StreamKey key = {.seed = seed, .tensor = TensorId("neighbours")};
  uint64_t bits = 0;
  for (size_t i = 0; i < parameters.size(); ++i) {
    bits = i % 64 == 0 ? RandomBits(key, i / 64) : bits >> 1;
    if (parameters[i] == 0) continue;
    const float towards = (bits & 1) != 0 ? HUGE_VALF : -HUGE_VALF;
    parameters[i] = std::nextafter(parameters[i], towards);
  }
}

Batch BatchOf(const TrainingOptions& options, int step) {
  const std::string_view text = SampleText();
  const auto places = static_cast<int64_t>(text.size()) - options.length;
  Batch batch;
  for (int64_t s = 0; s < options.sequences; ++s) {
    const int64_t begin =
        (step * options.sequences + s) * options.length % places;
    for (int64_t i = begin; i < begin + options.length; ++i) {
      const auto at = static_cast<size_t>(i);
      batch.ids.push_back(static_cast<unsigned char>(text[at]));
      batch.targets.push_back(static_cast<unsigned char>(text[at + 1]));
    }
  }
  return batch;
}

StatusOr<Curve> Train(const TrainingOptions& options, const Layout& layout,
                      std::span<const float> initial,
                      const CollectiveFamily& collectives) {
  const auto letters = static_cast<int64_t>(SampleText().size());
  if (options.length >= letters) {
    return InvalidArgument("a sequence of {} bytes of a text of {}",
                           options.length, letters);
  }
  const TrainStepConfig config = ConfigOf(options, layout);
  Curve curve;
  SP_ASSIGN_OR_RETURN(const std::unique_ptr<ThreadWorld> world,
                      ThreadWorld::Create({.ranks = layout.mesh.ranks()}));
  SP_RETURN_IF_ERROR(world->Run([&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(TrainStep step,
                        TrainStep::Create(comm, config, collectives));
    SP_RETURN_IF_ERROR(step.Load(initial.data()));
    Clock::time_point begin;
    for (int k = 0; k < options.steps; ++k) {
      if (k == 1) begin = Clock::now();
      const Batch batch = BatchOf(options, k);
      SP_RETURN_IF_ERROR(step.Step(batch.ids, batch.targets));
      if (comm.rank() != 0) continue;
      curve.losses.push_back(step.loss());
      curve.norms.push_back(step.norm());
    }
    if (comm.rank() == 0 && options.steps > 1) {
      const auto tokens = static_cast<double>(
          (options.steps - 1) * options.sequences * options.length);
      curve.tokens_per_second = tokens / Seconds(Clock::now() - begin).count();
    }
    return OkStatus();
  }));
  return curve;
}

}  // namespace shardproof::gpt2
