#include "layers/zero/zero.h"

#include <fmt/ranges.h>

#include <string>
#include <utility>

#include "collectives/chunks.h"

namespace shardproof {
namespace {

std::string Describe(const ZeroGroups& groups, const ZeroConfig& config) {
  return fmt::format(
      "zero stage {}, {} ranks to a copy, {} copies, blocks of {}, {} "
      "micro-batches{}, {}",
      config.stage, groups.shard.size(),
      groups.replica.valid() ? groups.replica.size() : 1,
      fmt::join(config.blocks, ", "), config.micro_batches,
      config.overlap ? ", overlapping" : "", Describe(config.optimizer));
}

Status CheckConfig(const ZeroConfig& config) {
  if (config.stage < 1 || config.stage > 3) {
    return InvalidArgument("there are stages 1, 2 and 3");
  }
  if (config.micro_batches < 1) {
    return InvalidArgument("a step has at least one micro-batch");
  }
  for (const int64_t n : config.blocks) {
    if (n < 0) return InvalidArgument("a block of {} elements", n);
  }
  return OkStatus();
}

// Forward through the blocks, then back through them, for each micro-batch.
std::vector<ParameterUse> UsesOf(const ZeroConfig& config) {
  std::vector<ParameterUse> uses;
  const size_t n = config.blocks.size();
  for (int m = 0; m < config.micro_batches; ++m) {
    for (size_t l = 0; l < n; ++l) uses.push_back({.block = l});
    for (size_t l = n; l-- > 0;) uses.push_back({.block = l, .gradient = true});
  }
  return uses;
}

}  // namespace

StatusOr<Zero> Zero::Create(const ZeroGroups& groups, const ZeroConfig& config,
                            const CollectiveFamily& collectives,
                            const OptimizerKernels& kernels) {
  const std::string text = Describe(groups, config);
  SP_RETURN_IF_ERROR(AgreeOnSharding(groups, text));
  SP_RETURN_IF_ERROR(CheckConfig(config).WithContext(text));
  SP_ASSIGN_OR_RETURN(ShardedParameters sharded,
                      ShardedParameters::Create(
                          groups,
                          {.stage = config.stage,
                           .blocks = config.blocks,
                           .uses = UsesOf(config),
                           .overlap = config.overlap,
                           .dtype = config.optimizer.dtype,
                           .gradient_dtype = config.optimizer.gradient_dtype},
                          collectives));
  Zero zero(config, std::move(sharded));
  std::vector<OptimizerTensor> tensors;
  for (size_t l = 0; l < config.blocks.size(); ++l) {
    tensors.push_back({.count = zero.own(l).count});
    zero.step_memory_.push_back(
        {zero.sharded_.own_parameters(l), zero.sharded_.own_gradients(l)});
  }
  // Replicas have the same parts and the same gradients: a norm over one copy.
  auto optimizer = ParallelOptimizer::Create(
      groups.shard, config.optimizer, std::move(tensors), collectives, kernels);
  SP_RETURN_IF_ERROR(AgreeOnBoth(groups, optimizer.status()));
  zero.optimizer_.emplace(*std::move(optimizer));
  return zero;
}

ZeroMemory Zero::memory() const {
  return {.parameters = sharded_.parameter_bytes(),
          .gradients = sharded_.gradient_bytes(),
          .states = optimizer_->state_bytes(),
          .buffers = sharded_.buffer_bytes()};
}

Status Zero::Load(std::span<const void* const> blocks) {
  SP_RETURN_IF_ERROR(sharded_.Load(blocks));
  std::vector<const void*> own;
  for (size_t l = 0; l < sharded_.size(); ++l) own.push_back(own_parameters(l));
  return optimizer_->Load(own);
}

Status Zero::Step(ZeroModel& model, double factor) {
  SP_RETURN_IF_ERROR(sharded_.Finish(RunPasses(model)));
  SP_RETURN_IF_ERROR(optimizer_->Step(step_memory_, factor));
  return sharded_.GatherParameters();
}

Status Zero::RunPasses(ZeroModel& model) {
  const size_t n = sharded_.size();
  for (int m = 0; m < config_.micro_batches; ++m) {
    for (size_t l = 0; l < n; ++l) {
      SP_ASSIGN_OR_RETURN(const ShardedParameters::Use use, sharded_.Begin());
      SP_RETURN_IF_ERROR(model.Forward(m, l, use.parameters));
      SP_RETURN_IF_ERROR(sharded_.End());
    }
    for (size_t l = n; l-- > 0;) {
      SP_ASSIGN_OR_RETURN(const ShardedParameters::Use use, sharded_.Begin());
      SP_RETURN_IF_ERROR(
          model.Backward(m, l, use.parameters, use.gradients, use.accumulate));
      SP_RETURN_IF_ERROR(sharded_.End());
    }
  }
  return OkStatus();
}

// --- Costs -------------------------------------------------------------------

// Every buffer is the layer's own, and peers can address it.
Cost ZeroStepCost(int shards, int replicas, const ZeroConfig& config,
                  const CollectiveFamily& collectives) {
  const ParallelOptimizerConfig& optimizer = config.optimizer;
  const int64_t gathers = config.stage == 3 ? 2 * config.micro_batches : 1;
  const int64_t reductions = config.stage == 1 ? 1 : config.micro_batches;
  Cost in_group;  // Of one copy.
  Cost among_replicas;
  for (const int64_t n : config.blocks) {
    if (n == 0) continue;
    std::vector<int64_t> counts;
    for (int r = 0; r < shards; ++r) {
      counts.push_back(BalancedChunk(n, shards, r).count);
    }
    for (int64_t i = 0; i < gathers; ++i) {
      in_group +=
          collectives.all_gather_cost(counts, optimizer.dtype, Memory::kShared);
    }
    for (int64_t i = 0; i < reductions; ++i) {
      in_group += collectives.reduce_scatter_cost(
          counts, optimizer.gradient_dtype, Memory::kShared);
    }
    for (int r = 0; r < shards && replicas > 1; ++r) {
      if (counts[static_cast<size_t>(r)] == 0) continue;
      const Cost one = collectives.all_reduce_cost(
          replicas, counts[static_cast<size_t>(r)], optimizer.gradient_dtype,
          Memory::kShared);
      // At the same time; the first has the largest part.
      if (r == 0) {
        among_replicas += one;
      } else {
        among_replicas.total += one.total;
      }
    }
  }
  in_group += ParallelOptimizerCost(shards, optimizer.settings, collectives);
  in_group.total.bytes *= replicas;
  in_group.total.messages *= replicas;
  return in_group + among_replicas;
}

int64_t ZeroModelBytes(int shards, int rank, const ZeroConfig& config) {
  const ParallelOptimizerConfig& o = config.optimizer;
  const DType computed = Accumulator(o.dtype);
  int64_t count = 0, own = 0;
  for (const int64_t n : config.blocks) {
    count += n;
    own += BalancedChunk(n, shards, rank).count;
  }
  const int64_t states = (computed != o.dtype ? 1 : 0) +
                         (o.settings.HasFirstMoment() ? 1 : 0) +
                         (o.settings.HasSecondMoment() ? 1 : 0);
  return (config.stage == 3 ? own : count) * SizeOf(o.dtype) +
         (config.stage == 1 ? count : own) * SizeOf(o.gradient_dtype) +
         own * states * SizeOf(computed);
}

}  // namespace shardproof
