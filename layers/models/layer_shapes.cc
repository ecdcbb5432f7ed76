#include "layers/models/layer_shapes.h"

namespace shardproof::models {
namespace {

constexpr int64_t kMaxTokens = int64_t{1} << 32;

void AddAttention(const ModelConfig& c, int64_t tokens,
                  std::vector<LinearShape>& shapes) {
  const auto add = [&](const char* name, int64_t in, int64_t out, Split split,
                       bool bias) {
    shapes.push_back({name, tokens, in, out, bias, split, c.layers});
  };
  if (!c.is_latent()) {
    const int64_t qkv =
        c.heads * c.head_dim + c.kv_heads * (c.head_dim + c.v_head_dim);
    add("qkv", c.hidden, qkv, Split::kColumn, c.attention_bias);
  } else {
    if (c.q_lora_rank > 0) {
      add("q_down", c.hidden, c.q_lora_rank, Split::kReplicated,
          c.attention_bias);
      add("q_up", c.q_lora_rank, c.heads * c.head_dim, Split::kColumn, false);
    } else {
      add("q", c.hidden, c.heads * c.head_dim, Split::kColumn, false);
    }
    add("kv_down", c.hidden, c.kv_lora_rank + c.qk_rope_head_dim,
        Split::kReplicated, c.attention_bias);
    add("kv_up", c.kv_lora_rank, c.heads * (c.qk_nope_head_dim + c.v_head_dim),
        Split::kColumn, false);
  }
  add("attention_out", c.heads * c.v_head_dim, c.hidden, Split::kRow,
      c.attention_bias);
}

// The two layers of a feed-forward network `prefix` of the given width.
void AddFeedForward(const ModelConfig& c, const std::string& prefix,
                    int64_t tokens, int64_t width, int64_t times,
                    std::vector<LinearShape>& shapes) {
  const bool gated = c.activation == Activation::kSwiGlu;
  shapes.push_back({prefix + (gated ? "gate_up" : "up"), tokens, c.hidden,
                    gated ? 2 * width : width, c.mlp_bias, Split::kColumn,
                    times});
  shapes.push_back({prefix + "down", tokens, width, c.hidden, c.mlp_bias,
                    Split::kRow, times});
}

}  // namespace

std::string_view Name(Split split) {
  switch (split) {
    case Split::kColumn:
      return "column";
    case Split::kRow:
      return "row";
    case Split::kReplicated:
      return "replicated";
  }
  return "unknown";
}

StatusOr<std::vector<LinearShape>> LinearShapes(const ModelConfig& c,
                                                int64_t sequence,
                                                int64_t micro_batch) {
  SP_RETURN_IF_ERROR(Validate(c, c.name));
  if (sequence < 1 || micro_batch < 1 || sequence > kMaxTokens / micro_batch) {
    return InvalidArgument(
        "sequence ({}) and micro-batch ({}) must be at least 1 and their "
        "product at most {}",
        sequence, micro_batch, kMaxTokens);
  }
  const int64_t tokens = sequence * micro_batch;
  const int64_t moe_layers = c.is_moe() ? c.layers - c.first_dense_layers : 0;
  std::vector<LinearShape> shapes;
  AddAttention(c, tokens, shapes);
  if (moe_layers < c.layers)
    AddFeedForward(c, "", tokens, c.intermediate, c.layers - moe_layers,
                   shapes);
  if (moe_layers > 0) {
    shapes.push_back({"router", tokens, c.hidden, c.experts, false,
                      Split::kReplicated, moe_layers});
    const int64_t share =
        (tokens * c.experts_per_token + c.experts - 1) / c.experts;
    AddFeedForward(c, "expert_", share, c.moe_intermediate,
                   moe_layers * c.experts, shapes);
    if (c.shared_experts > 0) {
      AddFeedForward(c, "shared_", tokens,
                     c.shared_experts * c.moe_intermediate, moe_layers, shapes);
    }
  }
  shapes.push_back(
      {"lm_head", tokens, c.hidden, c.vocabulary, false, Split::kColumn, 1});
  return shapes;
}

double AttentionFlops(const ModelConfig& c, int64_t sequence,
                      int64_t micro_batch) {
  const double s = static_cast<double>(sequence);
  return 2.0 * static_cast<double>(c.layers) *
         static_cast<double>(micro_batch) * s * s *
         static_cast<double>(c.heads) *
         static_cast<double>(c.head_dim + c.v_head_dim);
}

StatusOr<double> ForwardFlops(const ModelConfig& config, int64_t sequence,
                              int64_t micro_batch) {
  SP_ASSIGN_OR_RETURN(const std::vector<LinearShape> shapes,
                      LinearShapes(config, sequence, micro_batch));
  double flops = AttentionFlops(config, sequence, micro_batch);
  for (const LinearShape& shape : shapes)
    flops += shape.flops() * static_cast<double>(shape.times);
  return flops;
}

}  // namespace shardproof::models
