#include "layers/zero/zero.h"

#include <fmt/ranges.h>

#include <algorithm>
#include <cstring>
#include <string>
#include <utility>

#include "layers/kernels/activation.h"
#include "layers/tensor_parallel/agree.h"
#include "layers/tensor_parallel/parallel_region.h"

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

// `mine`, agreed on by the ranks of both groups. Every rank of a group of
// `shard` has come to the same before its replicas are asked.
Status AgreeOnBoth(const ZeroGroups& groups, const Status& mine) {
  const Status ours = AgreeOnStatus(groups.shard, mine);
  return groups.replica.valid() ? AgreeOnStatus(groups.replica, ours) : ours;
}

Status Check(const ZeroGroups& groups, const ZeroConfig& config) {
  const std::string text = Describe(groups, config);
  Status same = AgreeOnLayer(groups.shard, text);
  if (groups.replica.valid()) {
    SP_RETURN_IF_ERROR(AgreeOnStatus(groups.replica, same));
    same = AgreeOnLayer(groups.replica, text);
    // Copies are alike: all ranks go on, or none.
    if (same.ok()) {
      same = AgreeOnLayer(
          groups.replica,
          fmt::format("replica of part {} of a {}", groups.shard.rank(), text));
      same = AgreeOnStatus(groups.shard, same);
    }
  }
  SP_RETURN_IF_ERROR(same);
  return CheckConfig(config).WithContext(text);
}

size_t BytesOf(int64_t count, DType dtype) {
  return static_cast<size_t>(count * SizeOf(dtype));
}

}  // namespace

StatusOr<Zero> Zero::Create(const ZeroGroups& groups, const ZeroConfig& config,
                            const CollectiveFamily& collectives,
                            const OptimizerKernels& kernels) {
  SP_RETURN_IF_ERROR(Check(groups, config));
  Zero zero(config, collectives);
  SP_RETURN_IF_ERROR(zero.SetUp(groups));
  std::vector<OptimizerTensor> tensors;
  for (const Block& b : zero.blocks_) tensors.push_back({.count = b.own.count});
  // Replicas have the same parts and the same gradients: a norm over one copy.
  auto optimizer = ParallelOptimizer::Create(
      groups.shard, config.optimizer, std::move(tensors), collectives, kernels);
  SP_RETURN_IF_ERROR(AgreeOnBoth(groups, optimizer.status()));
  zero.optimizer_.emplace(*std::move(optimizer));
  SP_RETURN_IF_ERROR(AgreeOnBoth(groups, zero.Allocate()));
  return zero;
}

Status Zero::SetUp(const ZeroGroups& groups) {
  shard_ = queued_shard_ = groups.shard;
  replica_ = groups.replica;
  if (config_.overlap) {
    SP_ASSIGN_OR_RETURN(queued_shard_, groups.shard.Duplicate());
    if (groups.replica.valid()) {
      SP_ASSIGN_OR_RETURN(replica_, groups.replica.Duplicate());
    }
    auto stream = Stream::Create("zero");
    SP_RETURN_IF_ERROR(AgreeOnBoth(groups, stream.status()));
    stream_ = *std::move(stream);
  }
  for (const int64_t n : config_.blocks) {
    Block& block = blocks_.emplace_back();
    block.count = n;
    block.begin = count_;
    block.own_begin = own_count_;
    block.own = BalancedChunk(n, shard_.size(), shard_.rank());
    for (int r = 0; r < shard_.size(); ++r) {
      block.counts.push_back(BalancedChunk(n, shard_.size(), r).count);
    }
    count_ += n;
    own_count_ += block.own.count;
    largest_ = std::max(largest_, n);
    largest_own_ = std::max(largest_own_, block.own.count);
  }
  return OkStatus();
}

Status Zero::Allocate() {
  const int64_t parameters = config_.stage == 3 ? own_count_ : count_;
  const int64_t gradients = config_.stage == 1 ? count_ : own_count_;
  SP_ASSIGN_OR_RETURN(parameters_,
                      shard_.Allocate(BytesOf(parameters, dtype())));
  SP_ASSIGN_OR_RETURN(gradients_,
                      shard_.Allocate(BytesOf(gradients, gradient_dtype())));
  for (size_t i = 0; i < (config_.overlap ? 2 : 1); ++i) {
    if (config_.stage == 3) {
      SP_ASSIGN_OR_RETURN(gathered_[i],
                          shard_.Allocate(BytesOf(largest_, dtype())));
    }
    if (config_.stage >= 2) {
      SP_ASSIGN_OR_RETURN(partial_[i],
                          shard_.Allocate(BytesOf(largest_, gradient_dtype())));
    }
  }
  if (config_.stage >= 2 && config_.micro_batches > 1) {
    SP_ASSIGN_OR_RETURN(
        reduced_, shard_.Allocate(BytesOf(largest_own_, gradient_dtype())));
  }
  for (const Block& block : blocks_) {
    step_memory_.push_back({OwnParameters(block), OwnGradients(block)});
  }
  return OkStatus();
}

std::byte* Zero::OwnParameters(const Block& block) const {
  return At(
      parameters_.data(), dtype(),
      config_.stage == 3 ? block.own_begin : block.begin + block.own.begin);
}
std::byte* Zero::OwnGradients(const Block& block) const {
  return At(
      gradients_.data(), gradient_dtype(),
      config_.stage == 1 ? block.begin + block.own.begin : block.own_begin);
}
const void* Zero::own_parameters(size_t block) const {
  return OwnParameters(blocks_[block]);
}
const void* Zero::own_gradients(size_t block) const {
  return OwnGradients(blocks_[block]);
}
const void* Zero::parameters(size_t block) const {
  if (config_.stage == 3) return nullptr;
  return At(parameters_.data(), dtype(), blocks_[block].begin);
}

ZeroMemory Zero::memory() const {
  const auto bytes = [](const Buffer& b) {
    return static_cast<int64_t>(b.bytes());
  };
  return {.parameters = bytes(parameters_),
          .gradients = bytes(gradients_),
          .states = optimizer_->state_bytes(),
          .buffers = bytes(gathered_[0]) + bytes(gathered_[1]) +
                     bytes(partial_[0]) + bytes(partial_[1]) + bytes(reduced_)};
}

Status Zero::Load(std::span<const void* const> blocks) {
  if (blocks.size() != blocks_.size()) {
    return InvalidArgument("{} blocks for {}", blocks.size(), blocks_.size());
  }
  std::vector<const void*> own;
  for (size_t l = 0; l < blocks.size(); ++l) {
    const Block& b = blocks_[l];
    own.push_back(OwnParameters(b));
    const bool whole = config_.stage < 3;
    const int64_t count = whole ? b.count : b.own.count;
    if (count == 0) continue;
    std::memcpy(
        whole ? At(parameters_.data(), dtype(), b.begin) : OwnParameters(b),
        At(blocks[l], dtype(), whole ? 0 : b.own.begin),
        BytesOf(count, dtype()));
  }
  return optimizer_->Load(own);
}

Status Zero::Step(ZeroModel& model, double factor) {
  const Status passes = RunPasses(model);
  // Also after an error: what is queued works on memory of ours.
  const Status queued = stream_.Synchronize();
  gather_done_ = partial_free_ = {};
  SP_RETURN_IF_ERROR(passes);
  SP_RETURN_IF_ERROR(queued);
  SP_RETURN_IF_ERROR(optimizer_->Step(step_memory_, factor));
  return config_.stage == 3 ? OkStatus() : GatherParameters();
}

// Forward through the blocks, then back through them, for each micro-batch.
int64_t Zero::Uses() const {
  return 2 * static_cast<int64_t>(blocks_.size()) * config_.micro_batches;
}
size_t Zero::BlockOfUse(int64_t use) const {
  const auto n = static_cast<int64_t>(blocks_.size());
  const int64_t at = use % (2 * n);
  return static_cast<size_t>(at < n ? at : 2 * n - 1 - at);
}

Status Zero::RunPasses(ZeroModel& model) {
  const auto n = static_cast<int64_t>(blocks_.size());
  for (int64_t use = 0; use < Uses(); ++use) {
    const auto micro = static_cast<int>(use / (2 * n));
    const size_t block = BlockOfUse(use);
    SP_ASSIGN_OR_RETURN(const void* const parameters, Acquire(use));
    if (use % (2 * n) < n) {
      SP_RETURN_IF_ERROR(model.Forward(micro, block, parameters));
      continue;
    }
    SP_ASSIGN_OR_RETURN(void* const gradients, GradientsOf(block));
    const bool first = micro == 0, last = micro == config_.micro_batches - 1;
    SP_RETURN_IF_ERROR(model.Backward(micro, block, parameters, gradients,
                                      config_.stage == 1 && !first));
    SP_RETURN_IF_ERROR(Reduce(block, first, last));
  }
  return OkStatus();
}

// Two buffers take turns. That of use + 1 was last read in use - 1, which is
// over: the next gather may begin before this block is computed with.
StatusOr<const void*> Zero::Acquire(int64_t use) {
  if (config_.stage < 3) return parameters(BlockOfUse(use));
  if (use == 0 || !config_.overlap) SP_RETURN_IF_ERROR(BeginGather(use));
  const size_t turn = config_.overlap ? static_cast<size_t>(use % 2) : 0;
  SP_RETURN_IF_ERROR(gather_done_[turn].Synchronize());
  if (config_.overlap && use + 1 < Uses()) {
    SP_RETURN_IF_ERROR(BeginGather(use + 1));
  }
  return static_cast<const void*>(gathered_[turn].data());
}

Status Zero::BeginGather(int64_t use) {
  const Block& block = blocks_[BlockOfUse(use)];
  const size_t turn = config_.overlap ? static_cast<size_t>(use % 2) : 0;
  if (block.count > 0) {
    SP_RETURN_IF_ERROR(stream_.Run([this, &block, turn] {
      return collectives_.all_gather(queued_shard_,
                                     {.send = OwnParameters(block),
                                      .recv = gathered_[turn].data(),
                                      .counts = block.counts,
                                      .dtype = dtype()});
    }));
  }
  SP_ASSIGN_OR_RETURN(gather_done_[turn], stream_.Record());
  return OkStatus();
}

StatusOr<void*> Zero::GradientsOf(size_t block) {
  if (config_.stage == 1) {
    return At(gradients_.data(), gradient_dtype(), blocks_[block].begin);
  }
  turn_ = config_.overlap ? 1 - turn_ : 0;
  const auto turn = static_cast<size_t>(turn_);
  SP_RETURN_IF_ERROR(partial_free_[turn].Synchronize());
  return partial_[turn].data();
}

Status Zero::Reduce(size_t index, bool first, bool last) {
  const Block& block = blocks_[index];
  // Stage 1 adds micro-batches up before it sends.
  if (block.count == 0 || (config_.stage == 1 && !last)) return OkStatus();
  const auto turn = static_cast<size_t>(turn_);
  const void* const whole =
      config_.stage == 1 ? At(gradients_.data(), gradient_dtype(), block.begin)
                         : partial_[turn].data();
  SP_RETURN_IF_ERROR(stream_.Run([this, &block, whole, first, last] {
    return ReduceNow(block, whole, first, last);
  }));
  if (config_.stage == 1) return OkStatus();
  SP_ASSIGN_OR_RETURN(partial_free_[turn], stream_.Record());
  return OkStatus();
}

Status Zero::ReduceNow(const Block& block, const void* whole, bool first,
                       bool last) {
  std::byte* const own = OwnGradients(block);
  const bool adds = config_.stage > 1 && !first;
  SP_RETURN_IF_ERROR(collectives_.reduce_scatter(
      queued_shard_, {.send = whole,
                      .recv = adds ? reduced_.data() : own,
                      .counts = block.counts,
                      .dtype = gradient_dtype()}));
  const int64_t n = block.own.count;
  if (n == 0) return OkStatus();
  if (adds) {
    SP_RETURN_IF_ERROR(AddBias(Stream::Inline(), gradient_dtype(), 1, n,
                               reduced_.data(), own));
  }
  if (!last || !has_replicas()) return OkStatus();
  return collectives_.all_reduce(
      replica_,
      {.send = own, .recv = own, .count = n, .dtype = gradient_dtype()});
}

Status Zero::GatherParameters() {
  for (const Block& block : blocks_) {
    if (block.count == 0) continue;
    SP_RETURN_IF_ERROR(collectives_.all_gather(
        shard_, {.send = OwnParameters(block),
                 .recv = At(parameters_.data(), dtype(), block.begin),
                 .counts = block.counts,
                 .dtype = dtype()}));
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
