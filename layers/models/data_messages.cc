// Messages of gradients and parameters: data parallelism, ZeRO, and what happens once at the end of a step.
#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "layers/models/stage_messages.h"

namespace shardproof::models {
namespace {

// The parameters that one group of ranks replicates.
struct Replicas {
  Group group;
  int64_t group_size;
  std::string_view of;  // "" or " of the experts"
  std::vector<const Parameter*> parameters;
};

// Buckets are filled in the order in which the backward pass finishes gradients, and closed after the tensor that
// reaches the limit (PyTorch DDP, arXiv:2006.15704, section 3.2.2; Megatron-LM does the same).
std::vector<int64_t> GradientBuckets(const Replicas& replicas, int64_t limit) {
  std::vector<int64_t> buckets;
  bool open = false;
  for (auto it = replicas.parameters.rbegin(); it != replicas.parameters.rend();
       ++it) {
    if (!open) buckets.push_back(0);
    buckets.back() += (*it)->count;
    open = buckets.back() < limit;
  }
  return buckets;
}

// ZeRO-3 gathers and frees a layer at a time; the ends of the model are units of their own.
std::vector<int64_t> LayerUnits(const Replicas& replicas) {
  std::vector<int64_t> units;
  const Parameter* previous = nullptr;
  for (const Parameter* parameter : replicas.parameters) {
    if (previous == nullptr || previous->layer != parameter->layer)
      units.push_back(0);
    units.back() += parameter->count;
    previous = parameter;
  }
  return units;
}

void AddReplicas(const Replicas& replicas, const Parallelism& p,
                 MessageList& list) {
  // What is sharded is padded, so that every rank holds an equal part.
  const auto pad = [&](int64_t count) {
    return p.zero_stage == 0 ? count
                             : (count + replicas.group_size - 1) /
                                   replicas.group_size * replicas.group_size;
  };
  const auto add = [&](Primitive primitive, std::string_view what,
                       int64_t count, DType dtype, int64_t times) {
    list.Add({.what = fmt::format("data parallel: {} of {}{}", Name(primitive),
                                  what, replicas.of),
              .primitive = primitive,
              .group = replicas.group,
              .group_size = replicas.group_size,
              .count = pad(count),
              .dtype = dtype,
              .times = times});
  };
  if (p.zero_stage == 3) {
    for (const int64_t unit : LayerUnits(replicas)) {
      add(Primitive::kAllGather, "a layer's parameters, forward", unit, p.dtype,
          p.micro_batches);
      add(Primitive::kAllGather, "a layer's parameters, backward", unit,
          p.dtype, p.micro_batches);
      add(Primitive::kReduceScatter, "a layer's gradients", unit, p.grad_dtype,
          p.micro_batches);
    }
    return;
  }
  const int64_t limit =
      std::max<int64_t>(1, p.bucket_bytes / SizeOf(p.grad_dtype));
  for (const int64_t bucket : GradientBuckets(replicas, limit)) {
    if (p.zero_stage == 0) {
      add(Primitive::kAllReduce, "a gradient bucket", bucket, p.grad_dtype, 1);
    } else {
      add(Primitive::kReduceScatter, "a gradient bucket", bucket, p.grad_dtype,
          p.zero_stage == 2 ? p.micro_batches : 1);
      add(Primitive::kAllGather, "a bucket of updated parameters", bucket,
          p.dtype, 1);
    }
  }
}

}  // namespace

void AddDataMessages(const Stage& stage, MessageList& list) {
  const ModelConfig& c = stage.config;
  const Parallelism& p = stage.parallelism;
  Replicas dense{Group::kData, p.dp * p.cp, "", {}};
  Replicas experts{
      Group::kExpertData, p.dp * p.cp / p.ep, " of the experts", {}};
  for (const Parameter& parameter : stage.parameters) {
    if (parameter.trained)
      (parameter.expert ? experts : dense).parameters.push_back(&parameter);
  }
  AddReplicas(dense, p, list);
  AddReplicas(experts, p, list);

  if (c.tied_embeddings && p.pp > 1 && (stage.is_first() || stage.is_last())) {
    list.Add({.what = "pipeline: all_reduce of the tied embedding's gradient",
              .primitive = Primitive::kAllReduce,
              .group = Group::kEmbedding,
              .group_size = 2,
              .count = LocalVocabulary(c, p.tp) * c.hidden,
              .dtype = p.grad_dtype,
              .times = stage.reductions()});
  }
  // Each part of the gradient counted once: replicas are left out unless they hold different shards.
  const int64_t parts = p.zero_stage > 0 ? p.dp * p.cp : p.ep;
  list.Add({.what = "optimizer: all_reduce of the squared gradient norm",
            .primitive = Primitive::kAllReduce,
            .group = Group::kModel,
            .group_size = p.tp * p.pp * parts,
            .count = 1,
            .dtype = DType::kF32,
            .times = 1});
}

}  // namespace shardproof::models
