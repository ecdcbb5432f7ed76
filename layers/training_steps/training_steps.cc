#include "layers/training_steps/training_steps.h"

#include <cstring>
#include <utility>

#include "layers/tensor_parallel/agree.h"

namespace shardproof {
namespace {

DataParallelConfig GradientsOf(const ReplicaTrainerConfig& config) {
  DataParallelConfig gradients;
  gradients.counts = config.stack.Counts();
  gradients.dtype = config.stack.dtype;
  gradients.bucket_bytes = config.bucket_bytes;
  gradients.overlap = config.overlap;
  return gradients;
}

}  // namespace

StatusOr<ReplicaTrainer> ReplicaTrainer::Create(
    const Communicator& comm, const ReplicaTrainerConfig& config,
    const CollectiveFamily& collectives, const CountsInNorm& counts) {
  StatusOr<LinearStack> stack = LinearStack::Create(config.stack);
  SP_RETURN_IF_ERROR(AgreeOnStatus(comm, stack.status()));
  SP_ASSIGN_OR_RETURN(
      DataParallel gradients,
      DataParallel::Create(comm, GradientsOf(config), collectives));
  std::vector<OptimizerTensor> tensors;
  for (const int64_t count : config.stack.Counts()) {
    tensors.push_back({.count = count, .counted = counts(comm.rank())});
  }
  SP_ASSIGN_OR_RETURN(
      ParallelOptimizer optimizer,
      ParallelOptimizer::Create(comm,
                                {.settings = config.optimizer,
                                 .dtype = config.stack.dtype,
                                 .gradient_dtype = config.stack.dtype},
                                std::move(tensors), collectives));
  return ReplicaTrainer(config, *std::move(stack), std::move(gradients),
                        std::move(optimizer));
}

ReplicaTrainer::ReplicaTrainer(const ReplicaTrainerConfig& config,
                               LinearStack stack, DataParallel gradients,
                               ParallelOptimizer optimizer)
    : config_(config),
      stack_(std::move(stack)),
      gradients_(std::move(gradients)),
      optimizer_(std::move(optimizer)),
      memory_(static_cast<size_t>(config.stack.parameters())) {
  for (int i = 0; i < config.stack.parameters(); ++i) {
    parameters_.push_back(
        Tensor::Zeros(config.stack.dtype, config.stack.ShapeOf(i)));
    weights_.push_back(parameters_.back().raw());
  }
}

Status ReplicaTrainer::Load(std::span<const void* const> parameters) {
  if (parameters.size() != parameters_.size()) {
    return InvalidArgument("{} parameters for {}", parameters.size(),
                           parameters_.size());
  }
  for (size_t i = 0; i < parameters_.size(); ++i) {
    const auto bytes = static_cast<size_t>(parameters_[i].num_bytes());
    if (bytes > 0) std::memcpy(parameters_[i].raw(), parameters[i], bytes);
  }
  return optimizer_.Load(weights_);
}

Status ReplicaTrainer::Step(
    std::span<const TrainingBatch> batches, double factor,
    const std::function<GradientSink(GradientSink)>& sink) {
  GradientSink to = SinkOf(gradients_);
  if (sink) to = sink(to);
  SP_RETURN_IF_ERROR(gradients_.BeginStep());
  for (const TrainingBatch& b : batches) {
    SP_RETURN_IF_ERROR(
        gradients_.BeginMicroBatch(b.counted, &b == &batches.back()));
    SP_RETURN_IF_ERROR(stack_.Forward(b.batch, weights_));
    SP_RETURN_IF_ERROR(stack_.Backward(b.dy, weights_, to));
  }
  SP_RETURN_IF_ERROR(gradients_.Finish());
  for (size_t i = 0; i < parameters_.size(); ++i) {
    memory_[i] = {parameters_[i].raw(),
                  gradients_.gradient(static_cast<int>(i))};
  }
  return optimizer_.Step(memory_, factor);
}

Cost ReplicaTrainerCost(int ranks, const ReplicaTrainerConfig& config,
                        const CollectiveFamily& collectives) {
  return DataParallelStepCost(ranks, GradientsOf(config), collectives) +
         ParallelOptimizerCost(ranks, config.optimizer, collectives);
}

}  // namespace shardproof
