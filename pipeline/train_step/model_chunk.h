// A chunk of a language model as a stage of a pipeline: some of its blocks, with
// the embedding before the first and the loss behind the last.
//
// Contract: the functions of reference/trained_language_model.h on this rank's
// part of each micro-batch, tensor-, context- and expert-parallel. What goes
// between stages is x_l [local tokens, hidden]: the tokens of the rank's
// sequences that are its own along cp and, sequence-parallel, along tp.
//
//     BackwardInput    everything that Backward does, but gradients of weights
//                      stay with the micro-batch
//     BackwardWeight   adds them to the others
//
// Layers here make both gradients in one pass, so that W is an addition only: a
// schedule that fills its bubble with W has the right result and not the speed.
//
//     SP_ASSIGN_OR_RETURN(std::unique_ptr<ModelChunk> chunk, ModelChunk::Create(
//         groups, {.model = config, .first = true, .layers = {0, 4}, ...}));
//     chunk->SetMemory(memory);
//     chunk->SetBatch(ids, targets);
#ifndef SHARDPROOF_PIPELINE_TRAIN_STEP_MODEL_CHUNK_H_
#define SHARDPROOF_PIPELINE_TRAIN_STEP_MODEL_CHUNK_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "attention/context_parallel/context_parallel_core.h"
#include "collectives/chunks.h"
#include "collectives/communicator.h"
#include "layers/norm/norm.h"
#include "layers/tensor_parallel/collective_family.h"
#include "layers/transformer_block/transformer_block.h"
#include "layers/transformer_training/transformer_stack.h"
#include "layers/vocab_parallel_cross_entropy/vocab_parallel_cross_entropy.h"
#include "layers/vocab_parallel_embedding/vocab_parallel_embedding.h"
#include "layers/zero/sharded_parameters.h"
#include "pipeline/execution/pipeline_stage.h"
#include "pipeline/schedule.h"
#include "pipeline/train_step/learned_positions.h"
#include "pipeline/train_step/mixture_block.h"
#include "pipeline/train_step/model_chunk_config.h"
#include "pipeline/train_step/model_memory.h"
#include "reference/status.h"
#include "reference/trained_language_model.h"

namespace shardproof {

struct ChunkGroups {
  Communicator tensor;
  Communicator context;
  Communicator experts;  // Along ep.
};

class ModelChunk : public PipelineStage {
 public:
  // Collective over all groups. Errors are those of the layers. All memory but
  // that of parameters is asked for here.
  static StatusOr<std::unique_ptr<ModelChunk>> Create(
      const ChunkGroups& groups, const ModelChunkConfig& config,
      const CollectiveFamily& collectives = kAutoCollectives);
  ~ModelChunk() override;

  // Whose blocks it uses; it must outlive this.
  Status SetMemory(ModelMemory& memory);
  // Of the next step: this rank's tokens of every micro-batch, one after the
  // other. Begins a new sum of losses.
  void SetBatch(const int64_t* ids, const int64_t* targets);
  // The sum of this rank's losses in the last step; 0 where it is not the last.
  double loss() const { return loss_; }
  int64_t local_length() const { return length_; }
  // Elements of x_l of a micro-batch on this rank.
  int64_t ActivationCount(int micro) const;

  Status Forward(const StageVisit& visit, const void* x, void* y) override;
  Status Backward(const StageVisit& visit, const void* x, const void* dy,
                  void* dx) override;
  Status BackwardInput(const StageVisit& visit, const void* x, const void* dy,
                       void* dx) override;
  Status BackwardWeight(const StageVisit& visit, const void* x,
                        const void* dy) override;

 private:
  struct Kept;  // What a visit keeps.
  struct Slot;
  enum class Pass : uint8_t { kWhole, kInput };
  // Makes a block's gradients of its parameters, where they are read.
  using Maker = std::function<Status(const void* parameters, void* gradients)>;

  ModelChunk(const ChunkGroups& groups, const ModelChunkConfig& config,
             const CollectiveFamily& collectives);
  Status SetUp();
  Status MakeKept(const std::vector<int64_t>& sequences, Kept& kept);
  Kept& KeptOf(const StageVisit& visit);
  TokenPositions Positions(const Kept& kept) const;

  Status Embed(Kept& kept, int micro, void* y);
  Status EmbedBackward(Slot& slot, Pass pass, Kept& kept, int micro,
                       const void* dy);
  Status Loss(Kept& kept, int micro, const void* h);
  Status LossBackward(Slot& slot, Pass pass, Kept& kept, int micro,
                      const void* h, void* dh);
  Status LayerForward(Kept& kept, size_t layer, const void* x, void* y);
  Status LayerBackward(Slot& slot, Pass pass, Kept& kept, size_t layer,
                       const void* x, const void* dy, void* dx);
  Status RunBackward(const StageVisit& visit, Pass pass, const void* x,
                     const void* dy, void* dx);
  // A use of a block in which its gradient is made.
  Status MakeGradient(Slot& slot, Pass pass, size_t block, bool reads,
                      const Maker& make);
  Status Read(size_t block, const std::function<Status(const void*)>& use);
  Status AddTo(size_t block, const void* from,
               const ShardedParameters::Use& use) const;

  ChunkGroups groups_;
  ModelChunkConfig config_;
  CollectiveFamily collectives_;
  DType dtype_;
  int64_t length_ = 0;                       // Of a sequence, on this rank.
  std::vector<std::vector<int64_t>> kinds_;  // Different `sequences`.
  std::vector<size_t> kind_of_;              // Of each micro-batch.
  std::vector<int64_t> first_token_;         // The same.
  std::vector<Slot> slots_;
  Buffer scratch_[2], aside_, position_gradient_;
  ModelMemory* memory_ = nullptr;
  size_t table_ = 0, position_block_ = 0, norm_ = 0, head_ = 0;
  std::vector<size_t> dense_, experts_;  // Of each layer.
  std::vector<std::vector<BlockParameter>> dense_parts_;
  const int64_t* ids_ = nullptr;
  const int64_t* targets_ = nullptr;
  double loss_ = 0;
};

}  // namespace shardproof

#endif  // SHARDPROOF_PIPELINE_TRAIN_STEP_MODEL_CHUNK_H_
