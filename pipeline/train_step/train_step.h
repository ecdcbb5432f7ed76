// One step of training a language model on a mesh: tensor, context, expert and
// data parallelism, a pipeline, and ZeRO, all at once.
//
// Contract: after any number of steps the parameters, and after each the loss and
// the norm of the gradient, are those of one device that took the same steps with
// the whole batches (reference/trained_language_model.h):
//
//     G    = gradient of the sum of the losses of all tokens that count
//     W    = optimizer(W, G / tokens that count)
//
// whatever the mesh, the schedule, the stage of ZeRO, and how sequences are dealt
// to ranks and micro-batches: by BalancedChunk to the ranks along dp and ep, dp
// outermost, and from there to micro-batches.
//
// What is summed where, per step:
//
//     tp          in the layers; gradients of what is not cut are the same on
//                 every rank, or are summed there (sequence-parallel)
//     cp ep dp    gradients of everything but experts, as ZeRO's stage says
//     cp dp       those of experts
//     pp          those of what several stages hold: a tied table, and both
//                 copies of a model that goes both ways
//     all         the squares of the norm, each element once; the losses
//
// The one division, by the tokens that count, is the optimizer's factor.
//
//     SP_ASSIGN_OR_RETURN(TrainStep step, TrainStep::Create(world,
//         {.model = model, .mesh = mesh, .schedule = "one_f_one_b",
//          .micro_batches = 8, .sequences = 16, .zero_stage = 1}));
//     SP_RETURN_IF_ERROR(step.Load(parameters));
//     SP_RETURN_IF_ERROR(step.Step(ids, targets));
//     step.loss(); step.norm();
//
// Sources: Narayanan et al., arXiv:2104.04473; Grattafiori et al.,
// arXiv:2407.21783, section 3.3.2; Rajbhandari et al., arXiv:1910.02054.
#ifndef SHARDPROOF_PIPELINE_TRAIN_STEP_TRAIN_STEP_H_
#define SHARDPROOF_PIPELINE_TRAIN_STEP_TRAIN_STEP_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "attention/context_parallel/context_parallel_core.h"
#include "collectives/communicator.h"
#include "collectives/mesh.h"
#include "layers/tensor_parallel/collective_family.h"
#include "layers/transformer_block/transformer_block.h"
#include "pipeline/execution/pipeline_executor.h"
#include "pipeline/schedule.h"
#include "pipeline/train_step/model_chunk.h"
#include "pipeline/train_step/model_memory.h"
#include "pipeline/train_step/train_mesh.h"
#include "reference/status.h"
#include "reference/trained_language_model.h"

namespace shardproof {

// Equal on all ranks.
struct TrainStepConfig {
  LanguageModelConfig model;
  TrainMesh mesh;
  std::string schedule = "one_f_one_b";  // pipeline/registry.h.
  int chunks = 1;         // Of each rank, where the schedule takes several.
  int micro_batches = 1;  // Of each rank along dp and ep.
  int64_t sequences = 0;  // Of a batch.
  int zero_stage = 0;     // 0 to 3.
  bool overlap = false;   // What ZeRO sends, with what is computed.
  bool sequence_parallel = false;
  ContextScheme scheme = ContextScheme::kRing;  // Of attention along cp.
  SequenceLayout layout = SequenceLayout::kZigzag;
  Recomputation recompute = Recomputation::kNone;
};

// The groups in which parameters and gradients are shared, as above.
StatusOr<ModelGroups> TrainGroups(const Mesh& mesh);
// 1 / tokens that count, 0 without any.
double MeanFactor(const TrainStepConfig& config, int64_t counted);
// Of ranks of tp, which have the same losses, the first.
bool ReportsLosses(const Mesh& mesh);

// What a step is made of: others than these have bugs, which are planted.
struct TrainStepParts {
  StatusOr<ModelGroups> (*groups)(const Mesh&) = TrainGroups;
  std::vector<ModelBlock> (*blocks)(const LanguageModelConfig&,
                                    const ShardPlace&) = ModelBlocks;
  // For embeddings of positions, learned or rotary.
  StatusOr<std::vector<int64_t>> (*positions)(const LayoutShape&,
                                              int64_t rank) = LocalPositions;
  double (*factor)(const TrainStepConfig&, int64_t counted) = MeanFactor;
  bool (*reports)(const Mesh&) = ReportsLosses;
  // What sums gradients outside of layers; unset: as everything else.
  std::optional<CollectiveFamily> gradients = std::nullopt;
};

// Local: kInvalidArgument for a mesh of another number of ranks, more stages than
// blocks, fewer heads than ranks of tp, fewer sequences than micro-batches,
// experts' ranks without experts, or what the schedule or the layout refuses.
Status CheckTrainStep(const TrainStepConfig& config, int ranks);

class TrainStep {
 public:
  // Collective; the same error on every rank: kInvalidArgument where ranks differ
  // and what CheckTrainStep refuses, before anything is sent; those of layers.
  static StatusOr<TrainStep> Create(
      const Communicator& world, const TrainStepConfig& config,
      const CollectiveFamily& collectives = kAutoCollectives,
      const TrainStepParts& parts = {});

  // From all parameters, in the order of LanguageModelParameters. Local.
  Status Load(const void* parameters);
  // Collective. ids and targets [sequences, length], the same on every rank;
  // kIgnoredTarget does not count. kInvalidArgument for an id or a target outside
  // of the vocabulary, on every rank alike and before anything is done.
  Status Step(std::span<const int64_t> ids, std::span<const int64_t> targets);

  // Of the last step: the mean of the losses that count, and the norm before
  // clipping. The same bits on every rank.
  double loss() const { return loss_; }
  double norm() const { return memory_->optimizer().report().norm; }
  // Collective; all parameters, or the gradient of the sum of losses.
  Status CollectParameters(void* to) { return memory_->CollectParameters(to); }
  Status CollectGradients(void* to) { return memory_->CollectGradients(to); }

  const Schedule& schedule() const { return schedule_; }
  const PipelineExecutor& executor() const { return *executor_; }
  const ModelMemory& memory() const { return *memory_; }

 private:
  TrainStep(const Communicator& world, const TrainStepConfig& config,
            const CollectiveFamily& collectives, const TrainStepParts& parts)
      : world_(world),
        config_(config),
        collectives_(collectives),
        parts_(parts) {}
  Status SetUp();
  Status SetUpChunks(const Mesh& mesh);
  Status SetUpMemory(const Mesh& mesh);
  Status CheckBatch(std::span<const int64_t> ids,
                    std::span<const int64_t> targets) const;
  // This rank's tokens, of every micro-batch.
  std::vector<int64_t> Local(std::span<const int64_t> tokens) const;
  Status SumLosses(int64_t counted);

  Communicator world_;
  TrainStepConfig config_;
  CollectiveFamily collectives_;
  TrainStepParts parts_;
  Schedule schedule_;
  int stage_ = 0;  // This rank along pp.
  int data_rank_ = 0;
  bool reports_ = false;  // Its losses count.
  std::vector<int64_t> positions_;
  std::vector<ModelChunkConfig> chunk_configs_;
  std::vector<std::unique_ptr<ModelChunk>> chunks_;
  std::vector<PipelineStage*> stages_;
  std::unique_ptr<ModelMemory> memory_;
  std::optional<PipelineExecutor> executor_;
  std::vector<int64_t> ids_, targets_;
  Buffer losses_;
  double loss_ = 0;
};

}  // namespace shardproof

#endif  // SHARDPROOF_PIPELINE_TRAIN_STEP_TRAIN_STEP_H_
