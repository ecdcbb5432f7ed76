// The parameters and gradients of a rank of a mesh: its blocks (model_shards.h),
// each sharded as ZeRO does over the ranks that hold the same of it.
//
//     dense blocks    over cp, ep and dp
//     experts         over cp and dp: along ep are other experts
//
// A block that several ranks of a pipeline hold (a tied table, and both copies of
// what goes both ways) has its gradient summed over these besides, each with its
// own part.
//
//     SP_ASSIGN_OR_RETURN(ModelMemory memory, ModelMemory::Create(groups,
//         {.blocks = blocks, .uses = uses, .stage = 1}));
//     memory.Begin(block) .. memory.End(block)     as ShardedParameters
#ifndef SHARDPROOF_PIPELINE_TRAIN_STEP_MODEL_MEMORY_H_
#define SHARDPROOF_PIPELINE_TRAIN_STEP_MODEL_MEMORY_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "collectives/communicator.h"
#include "layers/optimizer/optimizer.h"
#include "layers/tensor_parallel/collective_family.h"
#include "layers/zero/sharded_parameters.h"
#include "pipeline/train_step/model_shards.h"
#include "reference/status.h"

namespace shardproof {

struct ModelGroups {
  Communicator world;
  Communicator dense;     // Along cp, ep and dp.
  Communicator experts;   // Along cp and dp.
  Communicator pipeline;  // Along pp.
  Communicator norm;      // Whose squares make the norm: all ranks.
};

// Equal on all ranks but for `blocks` and `uses`.
struct ModelMemoryConfig {
  std::vector<ModelBlock> blocks =
      {};  // Of this rank, in the order of the model.
  std::vector<std::string> all_names = {};  // Of all blocks of the model.
  // Of a step, `block` being the number of one of `blocks`.
  std::vector<ParameterUse> uses = {};
  int stage = 0;  // 0 to 3.
  bool overlap = false;
  ParallelOptimizerConfig optimizer = {};
};

class ModelMemory {
 public:
  // Collective over the world. Errors are those of ShardedParameters and
  // ParallelOptimizer.
  static StatusOr<ModelMemory> Create(
      const ModelGroups& groups, const ModelMemoryConfig& config,
      const CollectiveFamily& collectives = kAutoCollectives);

  // Of this rank.
  const std::vector<ModelBlock>& blocks() const { return config_.blocks; }
  // The number of a block; it must be there.
  size_t BlockOf(std::string_view name) const;

  // From all parameters of the model; no moments, no steps. Local.
  Status Load(const void* model);
  // The next use of a block, which must be the one that `uses` say.
  StatusOr<ShardedParameters::Use> Begin(size_t block);
  Status End(size_t block);
  // Collective. What follows the passes, of which `passes` came: gradients are
  // summed where several ranks of a pipeline hold them, and the optimizer's step
  // is done with `factor`.
  Status Step(const Status& passes, double factor);

  // Collective. All parameters of the model, or the sums of all gradients of the
  // last step, to `to`: what this rank holds itself from here, and the rest from
  // the first rank that has it. Not counted as traffic.
  Status CollectParameters(void* to);
  Status CollectGradients(void* to);

  const ParallelOptimizer& optimizer() const { return *optimizer_; }
  int64_t parameter_bytes() const;
  int64_t gradient_bytes() const;

 private:
  struct Place {
    bool experts = false;
    size_t index = 0;  // Among those.
  };

  ModelMemory(const ModelGroups& groups, const ModelMemoryConfig& config,
              const CollectiveFamily& collectives)
      : groups_(groups), config_(config), collectives_(collectives) {}
  Status SetUp();
  Status ShareAmongStages();
  Status SetUpOptimizer();
  ShardedParameters& SetOf(size_t block) {
    return places_[block].experts ? *experts_ : *dense_;
  }
  const ShardedParameters& SetOf(size_t block) const {
    return places_[block].experts ? *experts_ : *dense_;
  }
  const Chunk& Own(size_t block) const {
    return SetOf(block).own(places_[block].index);
  }
  void* OwnParameters(size_t block) const {
    return SetOf(block).own_parameters(places_[block].index);
  }
  void* OwnGradients(size_t block) const {
    return SetOf(block).own_gradients(places_[block].index);
  }
  Status Collect(bool gradients, void* to);

  ModelGroups groups_;
  ModelMemoryConfig config_;
  CollectiveFamily collectives_;
  std::vector<Place> places_;  // Of each block.
  std::unique_ptr<ShardedParameters> dense_, experts_;
  // Of each block, those stages of its pipeline that hold it, where they are
  // several; else invalid.
  std::vector<Communicator> holders_;
  std::unique_ptr<ParallelOptimizer> optimizer_;
  std::vector<OptimizerMemory> step_memory_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_PIPELINE_TRAIN_STEP_MODEL_MEMORY_H_
