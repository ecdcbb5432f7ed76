// Data-parallel training for several steps: gradients of micro-batches, their
// sum over replicas, and an optimizer, on every replica of a stack of linear
// layers.
//
// Contract: after S steps on d replicas the parameters are those of one device
// that took S steps with the whole batches, and they have the same bits on all
// replicas:
//
//     for s in 0..S-1:  G = gradient of the mean loss of batch s at W
//                       W = optimizer(W, G)
//
// An error of one step is in the parameters of the next, so what is wrong by
// little in a step (a scale that Adam hides, a moment that is kept) shows after
// many. What is sent: S times what DataParallel and ParallelOptimizer send.
//
//     SP_ASSIGN_OR_RETURN(ReplicaTrainer trainer, ReplicaTrainer::Create(
//         comm, {.stack = {.widths = {8, 8, 8}, .tokens = 6}, .optimizer = ..}));
//     SP_RETURN_IF_ERROR(trainer.Load(parameters));
//     for (step) SP_RETURN_IF_ERROR(trainer.Step(micro_batches));
#ifndef SHARDPROOF_LAYERS_TRAINING_STEPS_TRAINING_STEPS_H_
#define SHARDPROOF_LAYERS_TRAINING_STEPS_TRAINING_STEPS_H_

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "collectives/communicator.h"
#include "collectives/traffic.h"
#include "layers/data_parallel/data_parallel.h"
#include "layers/data_parallel/linear_stack.h"
#include "layers/optimizer/optimizer.h"
#include "layers/tensor_parallel/collective_family.h"
#include "reference/optimizer.h"
#include "reference/status.h"
#include "reference/tensor.h"

namespace shardproof {

struct ReplicaTrainerConfig {
  LinearStackConfig stack;
  OptimizerSettings optimizer = {};
  int64_t bucket_bytes = int64_t{25} << 20;
  bool overlap = false;
};

// One micro-batch of this replica, and how many of its tokens count.
struct TrainingBatch {
  LinearStackBatch batch;
  const void* dy = nullptr;  // [tokens, n_L], zeros for tokens that do not.
  int64_t counted = 0;
};

// Whether this rank's elements of the replicated parameters enter the norm:
// those of rank 0 do.
using CountsInNorm = std::function<bool(int rank)>;

class ReplicaTrainer {
 public:
  // Collective; the same error on every rank, those of LinearStack, DataParallel
  // and ParallelOptimizer.
  static StatusOr<ReplicaTrainer> Create(
      const Communicator& comm, const ReplicaTrainerConfig& config,
      const CollectiveFamily& collectives = kAutoCollectives,
      const CountsInNorm& counts = [](int rank) { return rank == 0; });

  // Parameters to start from, in the order of use; no moments, no steps. Local;
  // kInvalidArgument for more or fewer than there are.
  Status Load(std::span<const void* const> parameters);
  // Collective. At least one micro-batch, which may be empty. `factor`
  // multiplies the gradients. `sink` stands between backward and DataParallel.
  Status Step(std::span<const TrainingBatch> batches, double factor = 1,
              const std::function<GradientSink(GradientSink)>& sink = {});

  const Tensor& parameter(int i) const {
    return parameters_[static_cast<size_t>(i)];
  }
  const ParallelOptimizer& optimizer() const { return optimizer_; }

 private:
  ReplicaTrainer(const ReplicaTrainerConfig& config, LinearStack stack,
                 DataParallel gradients, ParallelOptimizer optimizer);

  ReplicaTrainerConfig config_;
  LinearStack stack_;
  DataParallel gradients_;
  ParallelOptimizer optimizer_;
  std::vector<Tensor> parameters_;
  std::vector<const void*> weights_;
  std::vector<OptimizerMemory> memory_;
};

// What one step sends. The family must have costs.
Cost ReplicaTrainerCost(int ranks, const ReplicaTrainerConfig& config,
                        const CollectiveFamily& collectives);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_TRAINING_STEPS_TRAINING_STEPS_H_
