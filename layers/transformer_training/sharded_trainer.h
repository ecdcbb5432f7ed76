// Training of a model of blocks by data parallelism, in each of its forms: with
// whole replicas (layers/data_parallel and layers/optimizer) or with what ZeRO
// shards (layers/zero).
//
// Contract: after S steps on d ranks the parameters are those of one device
// that took S steps with the whole batches,
//
//     for s in 0..S-1:  G = gradient of the mean loss of batch s at W
//                       W = optimizer(W, G)
//
// whatever the form, the micro-batches and how many tokens each has; and ranks
// that hold the same have the same bits.
//
//     form        a rank holds                    a step sends
//     replicas    all W, all G, all states        in the last micro-batch the
//                                                 count of tokens, and G by
//                                                 buckets: all_reduces
//     stages 1-3  as layers/zero/zero.h says      as that says
//     each                                        the optimizer's two numbers
//
//     SP_ASSIGN_OR_RETURN(ShardedTrainer trainer, ShardedTrainer::Create(comm,
//         {.zero_stage = 3, .blocks = {n, n}, .micro_batches = 3,
//          .optimizer = {...}}));
//     SP_RETURN_IF_ERROR(trainer.Load(blocks));
//     for (each step) {
//       model.SetBatch(x, dy);
//       SP_RETURN_IF_ERROR(trainer.Step(model, tokens, tokens_of_all_ranks));
//     }
//     SP_RETURN_IF_ERROR(trainer.Collect(blocks));    // whole again
//
// Sources: Li et al., PyTorch Distributed, VLDB 2020 (replicas); Rajbhandari et
// al., ZeRO, arXiv:1910.02054; Zhao et al., PyTorch FSDP, arXiv:2304.11277
// (hybrid sharding).
#ifndef SHARDPROOF_LAYERS_TRANSFORMER_TRAINING_SHARDED_TRAINER_H_
#define SHARDPROOF_LAYERS_TRANSFORMER_TRAINING_SHARDED_TRAINER_H_

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "collectives/communicator.h"
#include "collectives/traffic.h"
#include "layers/data_parallel/data_parallel.h"
#include "layers/optimizer/optimizer.h"
#include "layers/tensor_parallel/collective_family.h"
#include "layers/zero/zero.h"
#include "reference/status.h"
#include "reference/tensor.h"

namespace shardproof {

// Equal on all ranks.
struct ShardedTrainerConfig {
  int zero_stage = 0;  // 0: replicas.
  // How many groups of ranks hold the same parts. Stages 1 to 3 only; divides
  // the ranks.
  int replicas = 1;
  bool overlap = false;  // What is sent, with what is computed.
  int64_t bucket_bytes = int64_t{25} << 20;  // Of replicas.
  std::vector<int64_t> blocks = {};          // Elements of each.
  int micro_batches = 1;                     // Per rank and step.
  ParallelOptimizerConfig optimizer = {};
};

class ShardedTrainer {
 public:
  // Collective; the same error on every rank: kInvalidArgument for replicas
  // that do not divide the ranks; those of DataParallel, ParallelOptimizer and
  // Zero.
  static StatusOr<ShardedTrainer> Create(
      const Communicator& comm, const ShardedTrainerConfig& config,
      const CollectiveFamily& collectives = kAutoCollectives,
      const OptimizerKernels& kernels = {});

  // From whole blocks; no moments, no steps. Local. kInvalidArgument for more
  // or fewer than there are.
  Status Load(std::span<const void* const> blocks);
  // Collective. `tokens` of each micro-batch of this rank, and of all ranks
  // together. `factor` multiplies the mean gradient.
  Status Step(ZeroModel& model, std::span<const int64_t> tokens,
              int64_t tokens_of_all, double factor = 1);
  // Whole blocks, on every rank. Collective in stage 3, which gathers them;
  // else local.
  Status Collect(std::span<void* const> blocks);

  const ParallelOptimizer& optimizer() const {
    return zero_ ? zero_->optimizer() : *optimizer_;
  }
  // Bytes held by this rank, counted where they are allocated.
  ZeroMemory memory() const;

 private:
  explicit ShardedTrainer(const ShardedTrainerConfig& config)
      : config_(config) {}
  Status SetUpReplicas(const Communicator& comm,
                       const CollectiveFamily& collectives,
                       const OptimizerKernels& kernels);
  Status SetUpZero(const Communicator& comm,
                   const CollectiveFamily& collectives,
                   const OptimizerKernels& kernels);
  Status StepReplicas(ZeroModel& model, std::span<const int64_t> tokens,
                      double factor);

  ShardedTrainerConfig config_;
  CollectiveFamily collectives_;
  // Replicas.
  std::vector<Tensor> parameters_;
  std::vector<const void*> addresses_;
  std::optional<DataParallel> gradients_;
  std::optional<ParallelOptimizer> optimizer_;
  std::vector<OptimizerMemory> step_memory_;
  // Stages 1 to 3.
  std::optional<Zero> zero_;
  Communicator shard_;
  std::vector<std::vector<int64_t>> counts_;  // Of each block's parts.
  Buffer gathered_;                           // A block, to collect it.
};

// What one step sends, and what collecting does. The family must have costs.
Cost ShardedTrainerStepCost(int ranks, const ShardedTrainerConfig& config,
                            const CollectiveFamily& collectives);
Cost ShardedTrainerCollectCost(int ranks, const ShardedTrainerConfig& config,
                               const CollectiveFamily& collectives);
// What `rank` must hold at least: Model() of its memory.
int64_t ShardedTrainerModelBytes(int ranks, int rank,
                                 const ShardedTrainerConfig& config);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_TRANSFORMER_TRAINING_SHARDED_TRAINER_H_
