#include "pipeline/train_step/train_step.h"

#include <algorithm>
#include <utility>

#include "layers/tensor_parallel/agree.h"
#include "layers/tensor_parallel/parallel_region.h"
#include "pipeline/registry.h"

namespace shardproof {
namespace {

StatusOr<Schedule> ScheduleOf(const TrainStepConfig& config) {
  return BuildSchedule(config.schedule, {.ranks = config.mesh.pp(),
                                         .micro_batches = config.micro_batches,
                                         .chunks = config.chunks});
}

std::string Describe(const TrainStepConfig& config) {
  const LanguageModelConfig& m = config.model;
  return fmt::format(
      "training step on {} of {} blocks of {}, {} heads, {} KV heads of {}, "
      "width {}, vocabulary {}, {} of {} experts, {} {} {} {} {}{}{}{}; {} "
      "sequences of {} in {} "
      "micro-batches, {} with {} chunks, ZeRO {}{}{}, {} {}, recompute {}",
      Describe(config.mesh), m.blocks, m.hidden, m.heads, m.kv_heads,
      m.head_dim, m.intermediate, m.vocabulary, m.top_k, m.experts,
      Name(m.dtype), Name(m.norm), m.epsilon, static_cast<int>(m.activation),
      m.rope_theta, m.bias ? ", bias" : "", m.tied ? ", tied" : "",
      m.learned_positions ? ", positions" : "", config.sequences, m.length,
      config.micro_batches, config.schedule, config.chunks, config.zero_stage,
      config.overlap ? " overlapping" : "",
      config.sequence_parallel ? ", sequence-parallel" : "",
      Name(config.scheme), Name(config.layout),
      static_cast<int>(config.recompute));
}

// Of a micro-batch of a rank with sequences of its own.
Chunk SequencesOf(const TrainStepConfig& config, int data_rank, int micro) {
  const Chunk own =
      BalancedChunk(config.sequences, config.mesh.data_ranks(), data_rank);
  Chunk part = BalancedChunk(own.count, config.micro_batches, micro);
  part.begin += own.begin;
  return part;
}

}  // namespace

StatusOr<ModelGroups> TrainGroups(const Mesh& mesh) {
  SP_ASSIGN_OR_RETURN(Communicator dense, mesh.Along({"cp", "ep", "dp"}));
  SP_ASSIGN_OR_RETURN(Communicator experts, mesh.Along({"cp", "dp"}));
  return ModelGroups{.world = mesh.world(),
                     .dense = std::move(dense),
                     .experts = std::move(experts),
                     .pipeline = mesh.Along("pp"),
                     .norm = mesh.world()};
}

double MeanFactor(const TrainStepConfig& /*config*/, int64_t counted) {
  return counted > 0 ? 1 / static_cast<double>(counted) : 0;
}

bool ReportsLosses(const Mesh& mesh) { return mesh.Coordinate("tp") == 0; }

Status CheckTrainStep(const TrainStepConfig& config, int ranks) {
  const TrainMesh& mesh = config.mesh;
  const LanguageModelConfig& m = config.model;
  if (mesh.ranks() != ranks) {
    return InvalidArgument("the mesh {} is of {} ranks, and there are {}",
                           Describe(mesh), mesh.ranks(), ranks);
  }
  if (config.micro_batches < 1) {
    return InvalidArgument("a step has at least one micro-batch");
  }
  if (m.vocabulary < 1) {
    return InvalidArgument("a vocabulary of {}", m.vocabulary);
  }
  // Before a schedule of them is built.
  if (mesh.pp() > m.blocks) {
    return InvalidArgument("{} stages of a model of {} blocks", mesh.pp(),
                           m.blocks);
  }
  SP_ASSIGN_OR_RETURN(const Schedule schedule, ScheduleOf(config));
  if (schedule.stages() > m.blocks) {
    return InvalidArgument("{} stages of a model of {} blocks",
                           schedule.stages(), m.blocks);
  }
  if (m.heads < mesh.tp()) {
    return InvalidArgument("{} heads for {} ranks along tp", m.heads,
                           mesh.tp());
  }
  const int64_t least = int64_t{mesh.data_ranks()} * config.micro_batches;
  if (config.sequences < least) {
    return InvalidArgument(
        "{} sequences for {} micro-batches on each of {} ranks along dp and ep",
        config.sequences, config.micro_batches, mesh.data_ranks());
  }
  if (mesh.ep() > 1 && m.experts < mesh.ep()) {
    return InvalidArgument("{} experts for {} ranks along ep", m.experts,
                           mesh.ep());
  }
  const int64_t heads = m.heads / mesh.tp();
  if (config.scheme == ContextScheme::kUlysses && heads < mesh.cp()) {
    return InvalidArgument(
        "Ulysses: {} heads on a rank of tp for {} ranks along cp", heads,
        mesh.cp());
  }
  if (config.zero_stage < 0 || config.zero_stage > 3) {
    return InvalidArgument("ZeRO has stages 0 to 3, not {}", config.zero_stage);
  }
  return CheckLayout(
      {.layout = config.layout, .tokens = m.length, .ranks = mesh.cp()});
}

StatusOr<TrainStep> TrainStep::Create(const Communicator& world,
                                      const TrainStepConfig& config,
                                      const CollectiveFamily& collectives,
                                      const TrainStepParts& parts) {
  const std::string text = Describe(config);
  SP_RETURN_IF_ERROR(AgreeOnLayer(world, text));
  SP_RETURN_IF_ERROR(CheckTrainStep(config, world.size()).WithContext(text));
  TrainStep step(world, config, collectives, parts);
  SP_RETURN_IF_ERROR(AgreeOnStatus(world, step.SetUp()));
  return step;
}

Status TrainStep::SetUp() {
  SP_ASSIGN_OR_RETURN(const Mesh mesh,
                      Mesh::Create(world_, config_.mesh.dimensions));
  SP_ASSIGN_OR_RETURN(schedule_, ScheduleOf(config_));
  stage_ = mesh.Coordinate("pp");
  data_rank_ =
      mesh.Coordinate("dp") * config_.mesh.ep() + mesh.Coordinate("ep");
  reports_ = parts_.reports(mesh);
  // Each waits for other stages: none goes on alone.
  SP_RETURN_IF_ERROR(AgreeOnStatus(world_, SetUpChunks(mesh)));
  SP_RETURN_IF_ERROR(AgreeOnStatus(world_, SetUpMemory(mesh)));
  PipelineExecutorConfig executor = {.schedule = schedule_,
                                     .message_bytes = {}};
  for (int m = 0; m < config_.micro_batches; ++m) {
    executor.message_bytes.push_back(chunks_[0]->ActivationCount(m) *
                                     SizeOf(config_.model.dtype));
  }
  SP_ASSIGN_OR_RETURN(PipelineExecutor made,
                      PipelineExecutor::Create(mesh.Along("pp"), executor));
  executor_.emplace(std::move(made));
  SP_ASSIGN_OR_RETURN(
      losses_,
      world_.Allocate(sizeof(double) * static_cast<size_t>(world_.size() + 1)));
  return OkStatus();
}

Status TrainStep::SetUpChunks(const Mesh& mesh) {
  const ChunkGroups groups = {.tensor = mesh.Along("tp"),
                              .context = mesh.Along("cp"),
                              .experts = mesh.Along("ep")};
  const LayoutShape layout = {.layout = config_.layout,
                              .tokens = config_.model.length,
                              .ranks = config_.mesh.cp()};
  SP_ASSIGN_OR_RETURN(positions_,
                      LocalPositions(layout, mesh.Coordinate("cp")));
  SP_ASSIGN_OR_RETURN(const std::vector<int64_t> embedded,
                      parts_.positions(layout, mesh.Coordinate("cp")));
  const int first_of_experts = data_rank_ - mesh.Coordinate("ep");
  std::vector<std::vector<int64_t>> sequences;
  for (int m = 0; m < config_.micro_batches; ++m) {
    std::vector<int64_t>& counts = sequences.emplace_back();
    for (int e = 0; e < config_.mesh.ep(); ++e) {
      counts.push_back(SequencesOf(config_, first_of_experts + e, m).count);
    }
  }
  const std::vector<int> slots = SlotsOfChunks(schedule_, stage_);
  const int stages = schedule_.stages();
  chunk_configs_.resize(slots.size());
  for (const std::vector<Place>& pipeline : schedule_.pipelines) {
    for (int s = 0; s < stages; ++s) {
      const Place& place = pipeline[static_cast<size_t>(s)];
      if (place.rank != stage_) continue;
      const auto c = static_cast<size_t>(place.chunk);
      chunk_configs_[c] = {
          .model = config_.model,
          .first = s == 0,
          .last = s + 1 == stages,
          .layers = BalancedChunk(config_.model.blocks, stages, s),
          .slots = slots[c],
          .sequences = sequences,
          .positions = embedded,
          .scheme = config_.scheme,
          .layout = config_.layout,
          .sequence_parallel = config_.sequence_parallel,
          .recompute = config_.recompute};
    }
  }
  for (const ModelChunkConfig& config : chunk_configs_) {
    SP_ASSIGN_OR_RETURN(std::unique_ptr<ModelChunk> chunk,
                        ModelChunk::Create(groups, config, collectives_));
    stages_.push_back(chunk.get());
    chunks_.push_back(std::move(chunk));
  }
  return OkStatus();
}

Status TrainStep::SetUpMemory(const Mesh& mesh) {
  ModelMemoryConfig memory = {
      .stage = config_.zero_stage,
      .overlap = config_.overlap,
      .optimizer = {.settings = config_.model.optimizer,
                    .dtype = config_.model.dtype,
                    .gradient_dtype = config_.model.dtype}};
  std::vector<std::string> here;
  for (const ModelChunkConfig& chunk : chunk_configs_) {
    for (std::string& name : BlocksOfChunk(chunk)) {
      here.push_back(std::move(name));
    }
  }
  for (ModelBlock& block :
       parts_.blocks(config_.model, {.tp = config_.mesh.tp(),
                                    .tp_rank = mesh.Coordinate("tp"),
                                    .ep = config_.mesh.ep(),
                                    .ep_rank = mesh.Coordinate("ep")})) {
    memory.all_names.push_back(block.name);
    if (std::find(here.begin(), here.end(), block.name) == here.end()) continue;
    memory.blocks.push_back(std::move(block));
  }
  for (const Action& action : schedule_.actions[static_cast<size_t>(stage_)]) {
    for (const NamedUse& use : UsesOf(
             chunk_configs_[static_cast<size_t>(action.chunk)], action.kind)) {
      const auto at = std::find_if(
          memory.blocks.begin(), memory.blocks.end(),
          [&](const ModelBlock& b) { return b.name == use.block; });
      memory.uses.push_back(
          {.block = static_cast<size_t>(at - memory.blocks.begin()),
           .reads = use.reads,
           .gradient = use.gradient});
    }
  }
  SP_ASSIGN_OR_RETURN(const ModelGroups groups, parts_.groups(mesh));
  SP_ASSIGN_OR_RETURN(
      ModelMemory made,
      ModelMemory::Create(groups, memory,
                          parts_.gradients.value_or(collectives_)));
  memory_ = std::make_unique<ModelMemory>(std::move(made));
  for (const std::unique_ptr<ModelChunk>& chunk : chunks_) {
    SP_RETURN_IF_ERROR(chunk->SetMemory(*memory_));
  }
  return OkStatus();
}

Status TrainStep::Load(const void* parameters) {
  return memory_->Load(parameters);
}

Status TrainStep::CheckBatch(std::span<const int64_t> ids,
                             std::span<const int64_t> targets) const {
  const int64_t length = config_.model.length;
  const auto tokens = static_cast<size_t>(config_.sequences * length);
  if (ids.size() != tokens || targets.size() != tokens) {
    return InvalidArgument("{} ids and {} targets for {} sequences of {}",
                           ids.size(), targets.size(), config_.sequences,
                           length);
  }
  const auto known = [&](int64_t id) {
    return id >= 0 && id < config_.model.vocabulary;
  };
  for (size_t i = 0; i < tokens; ++i) {
    const bool bad_id = !known(ids[i]);
    if (!bad_id && (known(targets[i]) || targets[i] == kIgnoredTarget)) {
      continue;
    }
    const auto at = static_cast<int64_t>(i);
    return InvalidArgument(
        "{} {} at token {} of sequence {}, of a vocabulary "
        "of {}",
        bad_id ? "id" : "target", bad_id ? ids[i] : targets[i], at % length,
        at / length, config_.model.vocabulary);
  }
  return OkStatus();
}

std::vector<int64_t> TrainStep::Local(std::span<const int64_t> tokens) const {
  std::vector<int64_t> local;
  for (int m = 0; m < config_.micro_batches; ++m) {
    const Chunk sequences = SequencesOf(config_, data_rank_, m);
    for (int64_t s = 0; s < sequences.count; ++s) {
      for (const int64_t position : positions_) {
        local.push_back(tokens[static_cast<size_t>(
            (sequences.begin + s) * config_.model.length + position)]);
      }
    }
  }
  return local;
}

Status TrainStep::Step(std::span<const int64_t> ids,
                       std::span<const int64_t> targets) {
  SP_RETURN_IF_ERROR(CheckBatch(ids, targets));
  ids_ = Local(ids);
  targets_ = Local(targets);
  for (const std::unique_ptr<ModelChunk>& chunk : chunks_) {
    chunk->SetBatch(ids_.data(), targets_.data());
  }
  const int64_t ignored =
      std::count(targets.begin(), targets.end(), kIgnoredTarget);
  const int64_t counted = static_cast<int64_t>(targets.size()) - ignored;
  SP_RETURN_IF_ERROR(
      memory_->Step(executor_->Step(stages_), parts_.factor(config_, counted)));
  return SumLosses(counted);
}

// In the order of ranks: the same bits on each.
Status TrainStep::SumLosses(int64_t counted) {
  auto* const all = reinterpret_cast<double*>(losses_.data());
  double* const mine = all + world_.size();
  *mine = 0;
  for (const std::unique_ptr<ModelChunk>& chunk : chunks_) {
    if (reports_) *mine += chunk->loss();
  }
  const std::vector<int64_t> counts(static_cast<size_t>(world_.size()), 1);
  SP_RETURN_IF_ERROR(collectives_.all_gather(
      world_,
      {.send = mine, .recv = all, .counts = counts, .dtype = DType::kF64}));
  loss_ = 0;
  for (int r = 0; r < world_.size(); ++r) loss_ += all[r];
  if (counted > 0) loss_ /= static_cast<double>(counted);
  return OkStatus();
}

}  // namespace shardproof
