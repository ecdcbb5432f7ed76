#include "layers/transformer_training/sharded_trainer.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "collectives/chunks.h"
#include "collectives/mesh.h"

namespace shardproof {
namespace {

DataParallelConfig GradientsOf(const ShardedTrainerConfig& config) {
  DataParallelConfig gradients;
  gradients.counts = config.blocks;
  gradients.dtype = config.optimizer.gradient_dtype;
  gradients.bucket_bytes = config.bucket_bytes;
  gradients.overlap = config.overlap;
  return gradients;
}

ZeroConfig ZeroOf(const ShardedTrainerConfig& config) {
  return {.stage = config.zero_stage,
          .blocks = config.blocks,
          .micro_batches = config.micro_batches,
          .overlap = config.overlap,
          .optimizer = config.optimizer};
}

void CopyBytes(void* to, const void* from, int64_t bytes) {
  if (bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
}

}  // namespace

StatusOr<ShardedTrainer> ShardedTrainer::Create(
    const Communicator& comm, const ShardedTrainerConfig& config,
    const CollectiveFamily& collectives, const OptimizerKernels& kernels) {
  ShardedTrainer trainer(config);
  trainer.collectives_ = collectives;
  SP_RETURN_IF_ERROR(config.zero_stage == 0
                         ? trainer.SetUpReplicas(comm, collectives, kernels)
                         : trainer.SetUpZero(comm, collectives, kernels));
  return trainer;
}

Status ShardedTrainer::SetUpReplicas(const Communicator& comm,
                                     const CollectiveFamily& collectives,
                                     const OptimizerKernels& kernels) {
  SP_ASSIGN_OR_RETURN(
      DataParallel gradients,
      DataParallel::Create(comm, GradientsOf(config_), collectives));
  gradients_.emplace(std::move(gradients));
  std::vector<OptimizerTensor> tensors;
  for (const int64_t n : config_.blocks) {
    // All ranks have the same gradients: those of one enter the norm.
    tensors.push_back({.count = n, .counted = comm.rank() == 0});
    parameters_.push_back(Tensor::Zeros(config_.optimizer.dtype, {n}));
    addresses_.push_back(parameters_.back().raw());
  }
  step_memory_.resize(config_.blocks.size());
  SP_ASSIGN_OR_RETURN(
      ParallelOptimizer optimizer,
      ParallelOptimizer::Create(comm, config_.optimizer, std::move(tensors),
                                collectives, kernels));
  optimizer_.emplace(std::move(optimizer));
  return OkStatus();
}

Status ShardedTrainer::SetUpZero(const Communicator& comm,
                                 const CollectiveFamily& collectives,
                                 const OptimizerKernels& kernels) {
  if (config_.replicas < 1 || comm.size() % config_.replicas != 0) {
    return InvalidArgument("{} replicas of {} ranks", config_.replicas,
                           comm.size());
  }
  const int shards = comm.size() / config_.replicas;
  SP_ASSIGN_OR_RETURN(
      const Mesh mesh,
      Mesh::Create(comm, {{"shard", shards}, {"replica", config_.replicas}}));
  shard_ = mesh.Along("shard");
  SP_ASSIGN_OR_RETURN(
      Zero zero,
      Zero::Create({.shard = shard_, .replica = mesh.Along("replica")},
                   ZeroOf(config_), collectives, kernels));
  zero_.emplace(std::move(zero));
  int64_t largest = 0;
  for (const int64_t n : config_.blocks) {
    std::vector<int64_t>& counts = counts_.emplace_back();
    for (int r = 0; r < shards; ++r) {
      counts.push_back(BalancedChunk(n, shards, r).count);
    }
    largest = std::max(largest, n);
  }
  if (config_.zero_stage < 3) return OkStatus();
  SP_ASSIGN_OR_RETURN(gathered_,
                      comm.Allocate(static_cast<size_t>(
                          largest * SizeOf(config_.optimizer.dtype))));
  return OkStatus();
}

Status ShardedTrainer::Load(std::span<const void* const> blocks) {
  if (zero_) return zero_->Load(blocks);
  if (blocks.size() != parameters_.size()) {
    return InvalidArgument("{} blocks for {}", blocks.size(),
                           parameters_.size());
  }
  for (size_t l = 0; l < blocks.size(); ++l) {
    CopyBytes(parameters_[l].raw(), blocks[l], parameters_[l].num_bytes());
  }
  return optimizer_->Load(addresses_);
}

Status ShardedTrainer::Step(ZeroModel& model, std::span<const int64_t> tokens,
                            int64_t tokens_of_all, double factor) {
  if (tokens.size() != static_cast<size_t>(config_.micro_batches)) {
    return InvalidArgument("{} micro-batches, not {}", tokens.size(),
                           config_.micro_batches);
  }
  if (!zero_) return StepReplicas(model, tokens, factor);
  return zero_->Step(model, factor / static_cast<double>(tokens_of_all));
}

Status ShardedTrainer::StepReplicas(ZeroModel& model,
                                    std::span<const int64_t> tokens,
                                    double factor) {
  const auto blocks = static_cast<int>(config_.blocks.size());
  SP_RETURN_IF_ERROR(gradients_->BeginStep());
  for (int m = 0; m < config_.micro_batches; ++m) {
    SP_RETURN_IF_ERROR(gradients_->BeginMicroBatch(
        tokens[static_cast<size_t>(m)], m + 1 == config_.micro_batches));
    for (int l = 0; l < blocks; ++l) {
      const auto at = static_cast<size_t>(l);
      SP_RETURN_IF_ERROR(model.Forward(m, at, addresses_[at]));
    }
    for (int l = blocks - 1; l >= 0; --l) {
      const auto at = static_cast<size_t>(l);
      SP_ASSIGN_OR_RETURN(const DataParallel::Target to, gradients_->Open(l));
      SP_RETURN_IF_ERROR(
          model.Backward(m, at, addresses_[at], to.data, to.accumulate));
      SP_RETURN_IF_ERROR(gradients_->Close(l));
    }
  }
  SP_RETURN_IF_ERROR(gradients_->Finish());
  for (int l = 0; l < blocks; ++l) {
    const auto at = static_cast<size_t>(l);
    step_memory_[at] = {parameters_[at].raw(), gradients_->gradient(l)};
  }
  return optimizer_->Step(step_memory_, factor);
}

Status ShardedTrainer::Collect(std::span<void* const> blocks) {
  if (blocks.size() != config_.blocks.size()) {
    return InvalidArgument("{} blocks for {}", blocks.size(),
                           config_.blocks.size());
  }
  const DType dtype = config_.optimizer.dtype;
  for (size_t l = 0; l < blocks.size(); ++l) {
    const int64_t bytes = config_.blocks[l] * SizeOf(dtype);
    if (config_.zero_stage < 3) {
      CopyBytes(blocks[l], zero_ ? zero_->parameters(l) : addresses_[l], bytes);
      continue;
    }
    if (bytes == 0) continue;
    SP_RETURN_IF_ERROR(
        collectives_.all_gather(shard_, {.send = zero_->own_parameters(l),
                                         .recv = gathered_.data(),
                                         .counts = counts_[l],
                                         .dtype = dtype}));
    CopyBytes(blocks[l], gathered_.data(), bytes);
  }
  return OkStatus();
}

ZeroMemory ShardedTrainer::memory() const {
  const auto gathered = static_cast<int64_t>(gathered_.bytes());
  if (zero_) {
    ZeroMemory memory = zero_->memory();
    memory.buffers += gathered;
    return memory;
  }
  ZeroMemory memory;
  for (const Tensor& t : parameters_) memory.parameters += t.num_bytes();
  for (const GradientBucket& b : gradients_->buckets()) {
    memory.gradients += b.count * SizeOf(config_.optimizer.gradient_dtype);
  }
  memory.states = optimizer_->state_bytes();
  return memory;
}

Cost ShardedTrainerStepCost(int ranks, const ShardedTrainerConfig& config,
                            const CollectiveFamily& collectives) {
  if (config.zero_stage > 0) {
    return ZeroStepCost(ranks / config.replicas, config.replicas,
                        ZeroOf(config), collectives);
  }
  // Gradients and the count of tokens lie in buffers of DataParallel.
  CollectiveFamily shared = collectives;
  shared.memory = Memory::kShared;
  return DataParallelStepCost(ranks, GradientsOf(config), shared) +
         ParallelOptimizerCost(ranks, config.optimizer.settings, shared);
}

Cost ShardedTrainerCollectCost(int ranks, const ShardedTrainerConfig& config,
                               const CollectiveFamily& collectives) {
  Cost cost;
  if (config.zero_stage < 3) return cost;
  const int shards = ranks / config.replicas;
  for (const int64_t n : config.blocks) {
    if (n == 0) continue;
    std::vector<int64_t> counts;
    for (int r = 0; r < shards; ++r) {
      counts.push_back(BalancedChunk(n, shards, r).count);
    }
    cost += collectives.all_gather_cost(counts, config.optimizer.dtype,
                                        Memory::kShared);
  }
  cost.total.bytes *= config.replicas;
  cost.total.messages *= config.replicas;
  return cost;
}

int64_t ShardedTrainerModelBytes(int ranks, int rank,
                                 const ShardedTrainerConfig& config) {
  if (config.zero_stage > 0) {
    const int shards = ranks / config.replicas;
    return ZeroModelBytes(shards, rank % shards, ZeroOf(config));
  }
  // As stage 1 on one rank, which shards nothing.
  ZeroConfig whole = ZeroOf(config);
  whole.stage = 1;
  return ZeroModelBytes(1, 0, whole);
}

}  // namespace shardproof
