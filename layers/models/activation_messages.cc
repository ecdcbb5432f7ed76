// Messages of activations and their gradients: tensor, context, expert and pipeline parallelism.
#include <fmt/format.h>

#include <algorithm>
#include <string_view>

#include "layers/models/stage_messages.h"

namespace shardproof::models {
namespace {

// The conjugate pairs of Megatron-LM: what enters a column-parallel layer and what leaves a row-parallel one.
class TensorEdges {
 public:
  TensorEdges(const Stage& stage, MessageList& list)
      : p_(stage.parallelism), list_(list) {}

  // f of arXiv:1909.08053, and g of 2205.05198 under sequence parallelism, where the input is gathered again in the
  // backward pass instead of being kept.
  void Column(std::string_view what, int64_t count, int64_t times) {
    if (!p_.sequence_parallel) {
      Add(Primitive::kAllReduce, what, "input gradient, backward", count,
          times);
      return;
    }
    Add(Primitive::kAllGather, what, "input, forward", count, times);
    Add(Primitive::kReduceScatter, what, "input gradient, backward", count,
        times);
    Add(Primitive::kAllGather, what, "input again, backward", count, times);
  }

  // g of 1909.08053, g-bar of 2205.05198.
  void Row(std::string_view what, int64_t count, int64_t times) {
    if (!p_.sequence_parallel) {
      Add(Primitive::kAllReduce, what, "output, forward", count, times);
      return;
    }
    Add(Primitive::kReduceScatter, what, "output, forward", count, times);
    Add(Primitive::kAllGather, what, "output gradient, backward", count, times);
  }

  void Add(Primitive primitive, std::string_view what, std::string_view which,
           int64_t count, int64_t times) {
    list_.Add({.what = fmt::format("tensor parallel: {} of the {} {}",
                                   Name(primitive), what, which),
               .primitive = primitive,
               .group = Group::kTensor,
               .group_size = p_.tp,
               .count = count,
               .dtype = p_.dtype,
               .times = times});
  }

 private:
  const Parallelism& p_;
  MessageList& list_;
};

void AddAttention(const Stage& stage, TensorEdges& edges, int64_t times) {
  const ModelConfig& c = stage.config;
  const int64_t tokens = stage.parallelism.local_tokens();
  if (!c.is_latent()) {
    edges.Column("attention", stage.hidden_count(), times);
  } else {
    edges.Column("query up-projection",
                 tokens * (c.q_lora_rank > 0 ? c.q_lora_rank : c.hidden),
                 times);
    edges.Column("key and value up-projection",
                 tokens * (c.kv_lora_rank + c.qk_rope_head_dim), times);
  }
  edges.Row("attention", stage.hidden_count(), times);
}

void AddFeedForward(const Stage& stage, TensorEdges& edges) {
  const ModelConfig& c = stage.config;
  const Parallelism& p = stage.parallelism;
  const int64_t dense = (stage.layers() - stage.moe_layers()) * p.micro_batches;
  const int64_t moe = stage.moe_layers() * p.micro_batches;
  edges.Column("mlp", stage.hidden_count(), dense);
  edges.Row("mlp", stage.hidden_count(), dense);
  if (!p.sequence_parallel) {
    // Every rank holds all tokens, so the partial sums of all experts are added up locally and reduced once.
    edges.Column("experts", stage.hidden_count(), moe);
    edges.Row("experts", stage.hidden_count(), moe);
    return;
  }
  const int64_t routed = stage.hidden_count() * c.experts_per_token;
  edges.Add(Primitive::kAllGather, "dispatched tokens",
            "to the experts, forward", routed, moe);
  edges.Add(Primitive::kReduceScatter, "expert outputs",
            "before they are combined, forward", routed, moe);
  edges.Add(Primitive::kAllGather, "expert outputs'", "gradient, backward",
            routed, moe);
  edges.Add(Primitive::kReduceScatter, "dispatched tokens'",
            "gradient, backward", routed, moe);
  if (c.shared_experts > 0) {
    edges.Column("shared experts", stage.hidden_count(), moe);
    edges.Row("shared experts", stage.hidden_count(), moe);
  }
}

// The ends of the model: word embedding (arXiv:1909.08053, section 3), output projection, cross entropy.
void AddVocabulary(const Stage& stage, TensorEdges& edges, MessageList& list) {
  const Parallelism& p = stage.parallelism;
  if (stage.is_first())
    edges.Row("word embedding", stage.hidden_count(), p.micro_batches);
  if (!stage.is_last()) return;
  edges.Column("output projection", stage.hidden_count(), p.micro_batches);
  list.Add({.what = "tensor parallel: all_reduce of the cross entropy's "
                    "maximum, target logit and sum of exponentials",
            .primitive = Primitive::kAllReduce,
            .group = Group::kTensor,
            .group_size = p.tp,
            .count = p.local_tokens(),
            .dtype = DType::kF32,
            .times = 3 * p.micro_batches});
}

// Weights that all tensor-parallel ranks hold, whose gradients are nevertheless partial sums.
void AddReplicatedWeights(const Stage& stage, MessageList& list) {
  const ModelConfig& c = stage.config;
  const Parallelism& p = stage.parallelism;
  int64_t count = 0;
  for (const Parameter& parameter : stage.parameters) {
    const bool summed = parameter.tensor_sum == TensorSum::kAlways ||
                        (parameter.tensor_sum == TensorSum::kSequenceParallel &&
                         p.sequence_parallel);
    if (summed && parameter.trained) count += parameter.count;
  }
  list.Add(
      {.what =
           "tensor parallel: all_reduce of the gradients of replicated weights",
       .primitive = Primitive::kAllReduce,
       .group = Group::kTensor,
       .group_size = p.tp,
       .count = count,
       .dtype = p.grad_dtype,
       .times = stage.reductions()});
  const int64_t kv_head =
      (c.head_dim + c.v_head_dim) * (c.hidden + (c.attention_bias ? 1 : 0));
  list.Add({.what = "tensor parallel: all_reduce of the gradients of a "
                    "replicated KV head's projections",
            .primitive = Primitive::kAllReduce,
            .group = Group::kTensorKv,
            .group_size = p.tp / c.kv_heads,
            .count = kv_head,
            .dtype = p.grad_dtype,
            .times = stage.layers() * stage.reductions()});
}

}  // namespace

void AddTensorMessages(const Stage& stage, MessageList& list) {
  TensorEdges edges(stage, list);
  AddAttention(stage, edges, stage.layers() * stage.parallelism.micro_batches);
  AddFeedForward(stage, edges);
  AddVocabulary(stage, edges, list);
  AddReplicatedWeights(stage, list);
}

void AddContextMessages(const Stage& stage, MessageList& list) {
  const ModelConfig& c = stage.config;
  const Parallelism& p = stage.parallelism;
  const int64_t tokens = p.local_tokens();
  const int64_t kv_heads = LocalKvHeads(c, p.tp);
  const int64_t kv = tokens * kv_heads * (c.head_dim + c.v_head_dim);
  const int64_t times = stage.layers() * p.micro_batches;
  const auto add = [&](Primitive primitive, std::string_view what,
                       int64_t count, DType dtype, int64_t n) {
    list.Add({.what = fmt::format("context parallel: {} of {}", Name(primitive),
                                  what),
              .primitive = primitive,
              .group = Group::kContext,
              .group_size = p.cp,
              .count = count,
              .dtype = dtype,
              .times = n});
  };
  switch (p.context_scheme) {
    case ContextScheme::kRing:
      // The gradients start with their block and need one hop more to come home; they are sums, so they travel in f32.
      add(Primitive::kSendRecv, "a block of keys and values, forward", kv,
          p.dtype, times * (p.cp - 1));
      add(Primitive::kSendRecv, "a block of keys and values, backward", kv,
          p.dtype, times * (p.cp - 1));
      add(Primitive::kSendRecv,
          "the gradients of a block of keys and values, backward", kv,
          DType::kF32, times * p.cp);
      break;
    case ContextScheme::kAllGatherKv:
      add(Primitive::kAllGather, "keys and values, forward", p.cp * kv, p.dtype,
          times);
      add(Primitive::kAllGather, "keys and values again, backward", p.cp * kv,
          p.dtype, times);
      add(Primitive::kReduceScatter,
          "the gradients of keys and values, backward", p.cp * kv, DType::kF32,
          times);
      break;
    case ContextScheme::kUlysses:
      for (const std::string_view pass : {"forward", "backward"}) {
        const int64_t heads = c.heads / p.tp;
        add(Primitive::kAllToAll, fmt::format("queries, {}", pass),
            tokens * heads * c.head_dim, p.dtype, times);
        add(Primitive::kAllToAll, fmt::format("keys, {}", pass),
            tokens * kv_heads * c.head_dim, p.dtype, times);
        add(Primitive::kAllToAll, fmt::format("values, {}", pass),
            tokens * kv_heads * c.v_head_dim, p.dtype, times);
        add(Primitive::kAllToAll, fmt::format("outputs, {}", pass),
            tokens * heads * c.v_head_dim, p.dtype, times);
      }
      break;
  }
}

void AddExpertMessages(const Stage& stage, MessageList& list) {
  const Parallelism& p = stage.parallelism;
  // Under sequence parallelism each tensor-parallel rank dispatches its own tokens, otherwise all send the same.
  const int64_t hidden =
      stage.hidden_count() / (p.sequence_parallel ? p.tp : 1);
  for (const std::string_view what :
       {"dispatch, forward", "combine, forward", "combine, backward",
        "dispatch, backward"}) {
    list.Add({.what = fmt::format(
                  "expert parallel: all_to_all of the tokens, {}", what),
              .primitive = Primitive::kAllToAll,
              .group = Group::kExpert,
              .group_size = p.ep,
              .count = hidden * stage.config.experts_per_token,
              .dtype = p.dtype,
              .times = stage.moe_layers() * p.micro_batches});
  }
}

void AddPipelineMessages(const Stage& stage, MessageList& list) {
  const Parallelism& p = stage.parallelism;
  const auto add = [&](std::string_view what) {
    list.Add({.what = fmt::format("pipeline: send_recv of the {}", what),
              .primitive = Primitive::kSendRecv,
              .group = Group::kPipeline,
              .group_size = 2,
              .count = stage.hidden_count() / (p.sequence_parallel ? p.tp : 1),
              .dtype = p.dtype,
              .times = p.micro_batches});
  };
  if (!stage.is_last()) add("activations to the next stage, forward");
  if (!stage.is_first())
    add("activation gradients to the previous stage, backward");
}

}  // namespace shardproof::models
