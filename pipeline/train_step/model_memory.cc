#include "pipeline/train_step/model_memory.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "collectives/chunks.h"

namespace shardproof {
namespace {

size_t BytesOf(int64_t count, DType dtype) {
  return static_cast<size_t>(count * SizeOf(dtype));
}

}  // namespace

StatusOr<ModelMemory> ModelMemory::Create(const ModelGroups& groups,
                                          const ModelMemoryConfig& config,
                                          const CollectiveFamily& collectives) {
  ModelMemory memory(groups, config, collectives);
  SP_RETURN_IF_ERROR(memory.SetUp());
  SP_RETURN_IF_ERROR(memory.ShareAmongStages());
  SP_RETURN_IF_ERROR(memory.SetUpOptimizer());
  return memory;
}

Status ModelMemory::SetUp() {
  ShardedParametersConfig dense = {
      .stage = config_.stage,
      .overlap = config_.overlap,
      .dtype = config_.optimizer.dtype,
      .gradient_dtype = config_.optimizer.gradient_dtype};
  ShardedParametersConfig experts = dense;
  for (const ModelBlock& block : config_.blocks) {
    std::vector<int64_t>& counts = (block.experts ? experts : dense).blocks;
    places_.push_back({block.experts, counts.size()});
    counts.push_back(block.count);
  }
  for (ParameterUse use : config_.uses) {
    const Place& place = places_[use.block];
    use.block = place.index;
    (place.experts ? experts : dense).uses.push_back(use);
  }
  SP_ASSIGN_OR_RETURN(
      ShardedParameters made,
      ShardedParameters::Create({.shard = groups_.dense}, dense, collectives_));
  dense_ = std::make_unique<ShardedParameters>(std::move(made));
  SP_ASSIGN_OR_RETURN(ShardedParameters of_experts,
                      ShardedParameters::Create({.shard = groups_.experts},
                                                experts, collectives_));
  experts_ = std::make_unique<ShardedParameters>(std::move(of_experts));
  return OkStatus();
}

// Every stage takes part in every split, in the order of the model.
Status ModelMemory::ShareAmongStages() {
  holders_.resize(config_.blocks.size());
  const Communicator& pipeline = groups_.pipeline;
  std::string mine;
  for (const std::string& name : config_.all_names) {
    const bool holds =
        std::any_of(config_.blocks.begin(), config_.blocks.end(),
                    [&](const ModelBlock& b) { return b.name == name; });
    mine += holds ? '1' : '0';
  }
  SP_ASSIGN_OR_RETURN(const std::vector<std::string> all,
                      pipeline.ExchangeControl(mine));
  for (size_t i = 0; i < config_.all_names.size(); ++i) {
    const auto held = std::count_if(
        all.begin(), all.end(),
        [i](const std::string& holds) { return holds[i] == '1'; });
    if (held < 2) continue;
    const bool here = mine[i] == '1';
    SP_ASSIGN_OR_RETURN(Communicator group,
                        pipeline.Split(here ? 0 : -1, pipeline.rank()));
    if (here) holders_[BlockOf(config_.all_names[i])] = std::move(group);
  }
  return OkStatus();
}

// Of what a rank owns, and the first of those that hold it counts. What cp, ep
// and dp share is cut among them, or whole on each in stage 0.
Status ModelMemory::SetUpOptimizer() {
  std::vector<OptimizerTensor> tensors;
  const DType dtype = config_.optimizer.dtype;
  const DType gradient_dtype = config_.optimizer.gradient_dtype;
  for (size_t b = 0; b < config_.blocks.size(); ++b) {
    const Communicator& shard =
        places_[b].experts ? groups_.experts : groups_.dense;
    const bool first = (config_.stage > 0 || shard.rank() == 0) &&
                       (!holders_[b].valid() || holders_[b].rank() == 0);
    const Chunk own = Own(b);
    for (const CountedRun& run : config_.blocks[b].counted) {
      const int64_t begin = std::max(run.begin, own.begin);
      const int64_t end =
          std::min(run.begin + run.count, own.begin + own.count);
      if (begin >= end) continue;
      tensors.push_back(
          {.count = end - begin, .counted = first && run.counted});
      step_memory_.push_back(
          {At(OwnParameters(b), dtype, begin - own.begin),
           At(OwnGradients(b), gradient_dtype, begin - own.begin)});
    }
  }
  SP_ASSIGN_OR_RETURN(
      ParallelOptimizer optimizer,
      ParallelOptimizer::Create(groups_.norm, config_.optimizer,
                                std::move(tensors), collectives_));
  optimizer_ = std::make_unique<ParallelOptimizer>(std::move(optimizer));
  return OkStatus();
}

size_t ModelMemory::BlockOf(std::string_view name) const {
  const auto it =
      std::find_if(config_.blocks.begin(), config_.blocks.end(),
                   [&](const ModelBlock& b) { return b.name == name; });
  return static_cast<size_t>(it - config_.blocks.begin());
}

Status ModelMemory::Load(const void* model) {
  const DType dtype = config_.optimizer.dtype;
  std::vector<Tensor> blocks;
  std::vector<const void*> dense, experts;
  for (const ModelBlock& block : config_.blocks) {
    Tensor& own = blocks.emplace_back(Tensor::Zeros(dtype, {block.count}));
    for (const ParameterShard& p : block.parameters) {
      int64_t at = p.begin;
      for (const Chunk& run : p.runs) {
        std::memcpy(At(own.raw(), dtype, at), At(model, dtype, run.begin),
                    BytesOf(run.count, dtype));
        at += run.count;
      }
    }
    (block.experts ? experts : dense).push_back(own.raw());
  }
  SP_RETURN_IF_ERROR(dense_->Load(dense));
  SP_RETURN_IF_ERROR(experts_->Load(experts));
  std::vector<const void*> own;
  for (const OptimizerMemory& m : step_memory_) own.push_back(m.parameter);
  return optimizer_->Load(own);
}

StatusOr<ShardedParameters::Use> ModelMemory::Begin(size_t block) {
  return SetOf(block).Begin();
}
Status ModelMemory::End(size_t block) { return SetOf(block).End(); }

Status ModelMemory::Step(const Status& passes, double factor) {
  const Status done = dense_->Finish(passes);
  SP_RETURN_IF_ERROR(experts_->Finish(done));
  for (size_t b = 0; b < holders_.size(); ++b) {
    if (!holders_[b].valid() || Own(b).count == 0) continue;
    void* const own = OwnGradients(b);
    SP_RETURN_IF_ERROR(collectives_.all_reduce(
        holders_[b], {.send = own,
                      .recv = own,
                      .count = Own(b).count,
                      .dtype = config_.optimizer.gradient_dtype}));
  }
  SP_RETURN_IF_ERROR(optimizer_->Step(step_memory_, factor));
  SP_RETURN_IF_ERROR(dense_->GatherParameters());
  return experts_->GatherParameters();
}

Status ModelMemory::CollectParameters(void* to) { return Collect(false, to); }
Status ModelMemory::CollectGradients(void* to) { return Collect(true, to); }

// Own parts go to everybody; what else of a block a rank holds is seen as well,
// since it is what the rank computes with.
Status ModelMemory::Collect(bool gradients, void* to) {
  const DType dtype =
      gradients ? config_.optimizer.gradient_dtype : config_.optimizer.dtype;
  const auto size = static_cast<size_t>(SizeOf(dtype));
  // Pairs of a place and an element.
  std::string mine;
  for (size_t b = 0; b < config_.blocks.size(); ++b) {
    const std::vector<int64_t> places = config_.blocks[b].Places();
    const Chunk own = Own(b);
    const auto* const data = static_cast<const char*>(
        gradients ? OwnGradients(b) : OwnParameters(b));
    for (int64_t i = 0; i < own.count; ++i) {
      const int64_t place = places[static_cast<size_t>(own.begin + i)];
      if (place < 0) continue;
      mine.append(reinterpret_cast<const char*>(&place), sizeof place);
      mine.append(data + static_cast<size_t>(i) * size, size);
    }
  }
  SP_ASSIGN_OR_RETURN(std::vector<std::string> all,
                      groups_.world.ExchangeControl(mine));
  std::reverse(all.begin(), all.end());  // The first rank's last: it stays.
  all.push_back(mine);
  for (const std::string& from : all) {
    for (size_t at = 0; at < from.size(); at += sizeof(int64_t) + size) {
      int64_t place = 0;
      std::memcpy(&place, from.data() + at, sizeof place);
      std::memcpy(At(to, dtype, place), from.data() + at + sizeof place, size);
    }
  }
  if (gradients || config_.stage == 3) return OkStatus();
  for (size_t b = 0; b < config_.blocks.size(); ++b) {
    const std::vector<int64_t> places = config_.blocks[b].Places();
    const void* const whole = SetOf(b).parameters(places_[b].index);
    for (size_t i = 0; i < places.size(); ++i) {
      if (places[i] < 0) continue;
      std::memcpy(At(to, dtype, places[i]),
                  At(whole, dtype, static_cast<int64_t>(i)), size);
    }
  }
  return OkStatus();
}

int64_t ModelMemory::parameter_bytes() const {
  return dense_->parameter_bytes() + experts_->parameter_bytes();
}
int64_t ModelMemory::gradient_bytes() const {
  return dense_->gradient_bytes() + experts_->gradient_bytes();
}

}  // namespace shardproof
