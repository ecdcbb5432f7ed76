// The linear layers of a model with their shapes and floating-point operations, for one micro-batch on one device.
//
//   y[tokens, out] = x[tokens, in] A[in, out]      2 tokens in out FLOPs forward, twice that backward
//
// Example: Llama 3.1 8B, sequence 4096, micro-batch 1: qkv [4096, 4096] x [4096, 6144], 32 times.
#ifndef SHARDPROOF_LAYERS_MODELS_LAYER_SHAPES_H_
#define SHARDPROOF_LAYERS_MODELS_LAYER_SHAPES_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "layers/models/model_config.h"
#include "reference/status.h"

namespace shardproof::models {

// How tensor parallelism cuts the weight: column by `out`, row by `in`.
enum class Split { kColumn, kRow, kReplicated };
std::string_view Name(Split split);  // "column", "row", "replicated"

struct LinearShape {
  std::string
      name;  // "qkv", "attention_out", "gate_up", "up", "down", "expert_gate_up", "router", "lm_head", ...
  int64_t tokens = 0;
  int64_t in = 0;
  int64_t out = 0;
  bool bias = false;
  Split split = Split::kColumn;
  int64_t times = 0;  // In one forward pass of the whole model.

  // Of one application, forward.
  double flops() const {
    return 2.0 * static_cast<double>(tokens) * static_cast<double>(in) *
           static_cast<double>(out);
  }
};

// Every distinct linear layer, in the order of the forward pass. Gate and up are one layer of 2 x intermediate outputs,
// and Q, K and V one layer. Experts get their share of a balanced routing, ceil(tokens experts_per_token / experts).
// InvalidArgument for an invalid config, sizes below 1, or sequence x micro_batch beyond 2^32.
StatusOr<std::vector<LinearShape>> LinearShapes(const ModelConfig& config,
                                                int64_t sequence,
                                                int64_t micro_batch);

// Q K^T and P V of all layers, without a causal mask: 2 b s^2 a (d_qk + d_v) per layer.
double AttentionFlops(const ModelConfig& config, int64_t sequence,
                      int64_t micro_batch);

// One forward pass: all linear layers and attention; norms, activations and softmax are left out, as in
// arXiv:2205.05198, appendix A. A dense GELU block of feed-forward width 4h has 24 s b h^2 (1 + s/6h).
StatusOr<double> ForwardFlops(const ModelConfig& config, int64_t sequence,
                              int64_t micro_batch);

}  // namespace shardproof::models

#endif  // SHARDPROOF_LAYERS_MODELS_LAYER_SHAPES_H_
