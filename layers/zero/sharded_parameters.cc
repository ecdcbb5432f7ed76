#include "layers/zero/sharded_parameters.h"

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

std::string Describe(const ZeroGroups& groups,
                     const ShardedParametersConfig& config) {
  std::string uses;
  for (const ParameterUse& use : config.uses) {
    uses += fmt::format("{}{}{}", use.block, use.reads ? "r" : "",
                        use.gradient ? "g " : " ");
  }
  return fmt::format(
      "sharding of stage {}, {} ranks to a copy, {} copies, blocks of {} in "
      "{}, gradients in {}{}, uses {}",
      config.stage, groups.shard.size(),
      groups.replica.valid() ? groups.replica.size() : 1,
      fmt::join(config.blocks, ", "), Name(config.dtype),
      Name(config.gradient_dtype), config.overlap ? ", overlapping" : "", uses);
}

Status CheckConfig(const ShardedParametersConfig& config) {
  if (config.stage < 0 || config.stage > 3) {
    return InvalidArgument("there are stages 0, 1, 2 and 3");
  }
  for (const int64_t n : config.blocks) {
    if (n < 0) return InvalidArgument("a block of {} elements", n);
  }
  for (const ParameterUse& use : config.uses) {
    if (use.block >= config.blocks.size()) {
      return InvalidArgument("a use of block {} of {}", use.block,
                             config.blocks.size());
    }
  }
  return OkStatus();
}

size_t BytesOf(int64_t count, DType dtype) {
  return static_cast<size_t>(count * SizeOf(dtype));
}

int64_t Bytes(const Buffer& buffer) {
  return static_cast<int64_t>(buffer.bytes());
}

}  // namespace

Status AgreeOnBoth(const ZeroGroups& groups, const Status& mine) {
  const Status ours = AgreeOnStatus(groups.shard, mine);
  return groups.replica.valid() ? AgreeOnStatus(groups.replica, ours) : ours;
}

Status AgreeOnSharding(const ZeroGroups& groups, std::string_view text) {
  Status same = AgreeOnLayer(groups.shard, text);
  if (!groups.replica.valid()) return same;
  SP_RETURN_IF_ERROR(AgreeOnStatus(groups.replica, same));
  same = AgreeOnLayer(groups.replica, text);
  // Copies are alike: all ranks go on, or none.
  if (same.ok()) {
    same = AgreeOnLayer(
        groups.replica,
        fmt::format("replica of part {} of a {}", groups.shard.rank(), text));
    same = AgreeOnStatus(groups.shard, same);
  }
  return same;
}

StatusOr<ShardedParameters> ShardedParameters::Create(
    const ZeroGroups& groups, const ShardedParametersConfig& config,
    const CollectiveFamily& collectives) {
  const std::string text = Describe(groups, config);
  SP_RETURN_IF_ERROR(AgreeOnSharding(groups, text));
  SP_RETURN_IF_ERROR(CheckConfig(config).WithContext(text));
  ShardedParameters sharded(config, collectives);
  SP_RETURN_IF_ERROR(sharded.SetUp(groups));
  SP_RETURN_IF_ERROR(AgreeOnBoth(groups, sharded.Allocate()));
  return sharded;
}

Status ShardedParameters::SetUp(const ZeroGroups& groups) {
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
  // In stage 0 every rank owns what the only one of a group would.
  const bool whole = config_.stage == 0;
  const int parts = whole ? 1 : shard_.size();
  for (const int64_t n : config_.blocks) {
    Block& block = blocks_.emplace_back();
    block.count = n;
    block.begin = count_;
    block.own_begin = own_count_;
    block.own = BalancedChunk(n, parts, whole ? 0 : shard_.rank());
    for (int r = 0; r < parts; ++r) {
      block.counts.push_back(BalancedChunk(n, parts, r).count);
    }
    count_ += n;
    own_count_ += block.own.count;
    largest_ = std::max(largest_, n);
    largest_own_ = std::max(largest_own_, block.own.count);
  }
  for (size_t u = 0; u < config_.uses.size(); ++u) {
    if (config_.uses[u].gradient) blocks_[config_.uses[u].block].last = u;
  }
  return OkStatus();
}

Status ShardedParameters::Allocate() {
  const int64_t parameters = config_.stage == 3 ? own_count_ : count_;
  const int64_t gradients = config_.stage < 2 ? count_ : own_count_;
  SP_ASSIGN_OR_RETURN(parameters_,
                      shard_.Allocate(BytesOf(parameters, config_.dtype)));
  SP_ASSIGN_OR_RETURN(
      gradients_, shard_.Allocate(BytesOf(gradients, config_.gradient_dtype)));
  for (size_t i = 0; i < (config_.overlap ? 2 : 1); ++i) {
    if (config_.stage == 3) {
      SP_ASSIGN_OR_RETURN(gathered_[i],
                          shard_.Allocate(BytesOf(largest_, config_.dtype)));
    }
    if (config_.stage >= 2) {
      SP_ASSIGN_OR_RETURN(partial_[i], shard_.Allocate(BytesOf(
                                           largest_, config_.gradient_dtype)));
    }
  }
  // Where some block is reduced more than once.
  std::vector<int> gradients_of(blocks_.size());
  bool again = false;
  for (const ParameterUse& use : config_.uses) {
    again = again || (use.gradient && gradients_of[use.block]++ > 0);
  }
  if (config_.stage >= 2 && again) {
    SP_ASSIGN_OR_RETURN(reduced_, shard_.Allocate(BytesOf(
                                      largest_own_, config_.gradient_dtype)));
  }
  return OkStatus();
}

void* ShardedParameters::own_parameters(size_t block) const {
  const Block& b = blocks_[block];
  return At(parameters_.data(), config_.dtype,
            config_.stage == 3 ? b.own_begin : b.begin + b.own.begin);
}
void* ShardedParameters::own_gradients(size_t block) const {
  const Block& b = blocks_[block];
  return At(gradients_.data(), config_.gradient_dtype,
            config_.stage < 2 ? b.begin + b.own.begin : b.own_begin);
}
const void* ShardedParameters::parameters(size_t block) const {
  if (config_.stage == 3) return nullptr;
  return At(parameters_.data(), config_.dtype, blocks_[block].begin);
}

int64_t ShardedParameters::parameter_bytes() const {
  return Bytes(parameters_);
}
int64_t ShardedParameters::gradient_bytes() const { return Bytes(gradients_); }
int64_t ShardedParameters::buffer_bytes() const {
  return Bytes(gathered_[0]) + Bytes(gathered_[1]) + Bytes(partial_[0]) +
         Bytes(partial_[1]) + Bytes(reduced_);
}

Status ShardedParameters::Load(std::span<const void* const> blocks) {
  if (blocks.size() != blocks_.size()) {
    return InvalidArgument("{} blocks for {}", blocks.size(), blocks_.size());
  }
  for (size_t l = 0; l < blocks.size(); ++l) {
    const Block& b = blocks_[l];
    const bool whole = config_.stage < 3;
    const int64_t count = whole ? b.count : b.own.count;
    if (count == 0) continue;
    std::memcpy(whole ? At(parameters_.data(), config_.dtype, b.begin)
                      : own_parameters(l),
                At(blocks[l], config_.dtype, whole ? 0 : b.own.begin),
                BytesOf(count, config_.dtype));
  }
  return OkStatus();
}

StatusOr<ShardedParameters::Use> ShardedParameters::Begin() {
  if (use_ == config_.uses.size()) {
    return InvalidArgument("a step has {} uses of parameters", use_);
  }
  const ParameterUse& declared = config_.uses[use_];
  Use use;
  if (declared.reads) {
    SP_ASSIGN_OR_RETURN(use.parameters, Acquire());
  }
  if (!declared.gradient) return use;
  const Block& block = blocks_[declared.block];
  if (config_.stage < 2) {
    use.gradients = At(gradients_.data(), config_.gradient_dtype, block.begin);
    use.accumulate = block.made;
    return use;
  }
  turn_ = config_.overlap ? 1 - turn_ : 0;
  const auto turn = static_cast<size_t>(turn_);
  SP_RETURN_IF_ERROR(partial_free_[turn].Synchronize());
  use.gradients = partial_[turn].data();
  return use;
}

Status ShardedParameters::End() {
  const ParameterUse& declared = config_.uses[use_];
  if (declared.gradient) {
    Block& block = blocks_[declared.block];
    SP_RETURN_IF_ERROR(Reduce(block, !block.made, block.last == use_));
    block.made = true;
  }
  ++use_;
  return OkStatus();
}

Status ShardedParameters::Finish(const Status& passes) {
  const Status queued = stream_.Synchronize();
  gather_done_ = partial_free_ = {};
  use_ = reads_ = gathers_ = 0;
  for (Block& block : blocks_) block.made = false;
  return passes.ok() ? queued : passes;
}

size_t ShardedParameters::NextRead(size_t use) const {
  while (use < config_.uses.size() && !config_.uses[use].reads) ++use;
  return use;
}

// Two buffers take turns. That of the next read was last read in the one before
// this, which is over: the next gather may begin before this block is computed
// with.
StatusOr<const void*> ShardedParameters::Acquire() {
  if (config_.stage < 3) return parameters(config_.uses[use_].block);
  if (gathers_ == reads_) SP_RETURN_IF_ERROR(BeginGather(use_));
  const size_t turn = config_.overlap ? reads_ % 2 : 0;
  ++reads_;
  SP_RETURN_IF_ERROR(gather_done_[turn].Synchronize());
  const size_t next = NextRead(use_ + 1);
  if (config_.overlap && next < config_.uses.size()) {
    SP_RETURN_IF_ERROR(BeginGather(next));
  }
  return static_cast<const void*>(gathered_[turn].data());
}

Status ShardedParameters::BeginGather(size_t use) {
  const size_t index = config_.uses[use].block;
  const Block& block = blocks_[index];
  const size_t turn = config_.overlap ? gathers_ % 2 : 0;
  ++gathers_;
  if (block.count > 0) {
    SP_RETURN_IF_ERROR(stream_.Run([this, index, &block, turn] {
      return collectives_.all_gather(queued_shard_,
                                     {.send = own_parameters(index),
                                      .recv = gathered_[turn].data(),
                                      .counts = block.counts,
                                      .dtype = config_.dtype});
    }));
  }
  SP_ASSIGN_OR_RETURN(gather_done_[turn], stream_.Record());
  return OkStatus();
}

Status ShardedParameters::Reduce(const Block& block, bool first, bool last) {
  // Stages 0 and 1 add everything up before they send.
  if (block.count == 0 || (config_.stage < 2 && !last)) return OkStatus();
  const auto turn = static_cast<size_t>(turn_);
  const void* const whole =
      config_.stage < 2
          ? At(gradients_.data(), config_.gradient_dtype, block.begin)
          : partial_[turn].data();
  SP_RETURN_IF_ERROR(stream_.Run([this, &block, whole, first, last] {
    return ReduceNow(block, whole, first, last);
  }));
  if (config_.stage < 2) return OkStatus();
  SP_ASSIGN_OR_RETURN(partial_free_[turn], stream_.Record());
  return OkStatus();
}

Status ShardedParameters::AllReduceOwn(const Communicator& comm,
                                       const Block& block) {
  void* const own = own_gradients(static_cast<size_t>(&block - blocks_.data()));
  return collectives_.all_reduce(comm, {.send = own,
                                        .recv = own,
                                        .count = block.own.count,
                                        .dtype = config_.gradient_dtype});
}

Status ShardedParameters::ReduceNow(const Block& block, const void* whole,
                                    bool first, bool last) {
  if (config_.stage == 0) {
    SP_RETURN_IF_ERROR(AllReduceOwn(queued_shard_, block));
    return has_replicas() ? AllReduceOwn(replica_, block) : OkStatus();
  }
  void* const own = own_gradients(static_cast<size_t>(&block - blocks_.data()));
  const bool adds = config_.stage > 1 && !first;
  SP_RETURN_IF_ERROR(collectives_.reduce_scatter(
      queued_shard_, {.send = whole,
                      .recv = adds ? reduced_.data() : own,
                      .counts = block.counts,
                      .dtype = config_.gradient_dtype}));
  const int64_t n = block.own.count;
  if (n == 0) return OkStatus();
  if (adds) {
    SP_RETURN_IF_ERROR(AddBias(Stream::Inline(), config_.gradient_dtype, 1, n,
                               reduced_.data(), own));
  }
  return last && has_replicas() ? AllReduceOwn(replica_, block) : OkStatus();
}

Status ShardedParameters::GatherParameters() {
  if (config_.stage == 0 || config_.stage == 3) return OkStatus();
  for (size_t l = 0; l < blocks_.size(); ++l) {
    const Block& block = blocks_[l];
    if (block.count == 0) continue;
    SP_RETURN_IF_ERROR(collectives_.all_gather(
        shard_, {.send = own_parameters(l),
                 .recv = At(parameters_.data(), config_.dtype, block.begin),
                 .counts = block.counts,
                 .dtype = config_.dtype}));
  }
  return OkStatus();
}

Status ShardedParameters::Collect(size_t block, void* to) {
  const Block& b = blocks_[block];
  if (b.count == 0) return OkStatus();
  if (config_.stage < 3) {
    std::memcpy(to, parameters(block), BytesOf(b.count, config_.dtype));
    return OkStatus();
  }
  return collectives_.all_gather(shard_, {.send = own_parameters(block),
                                          .recv = to,
                                          .counts = b.counts,
                                          .dtype = config_.dtype});
}

}  // namespace shardproof
