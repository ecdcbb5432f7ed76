// Every parameter tensor of a model, as one tensor-parallel and expert-parallel rank holds it.
//
// The one list gives the published parameter counts, the gradient buckets and the ZeRO units:
//
//   ParameterCount(config) = sum of count over Parameters(config, tp = 1, ep = 1)
//
// Column- and row-parallel weights are cut by tp (Megatron-LM, arXiv:1909.08053, section 3), the vocabulary is padded to
// a multiple of tp, KV heads are replicated where there are fewer than tp, experts are cut by ep and then by tp, and the
// rest is replicated.
#ifndef SHARDPROOF_LAYERS_MODELS_PARAMETERS_H_
#define SHARDPROOF_LAYERS_MODELS_PARAMETERS_H_

#include <cstdint>
#include <string>
#include <vector>

#include "layers/models/model_config.h"

namespace shardproof::models {

// `layer` of what comes before the first block. What comes after the last has layer == config.layers.
inline constexpr int64_t kEmbedding = -1;

// When the gradients of a tensor that is replicated over tp are partial sums and must be added over tp.
enum class TensorSum {
  kNever,  // Cut by tp, or its gradient is already the same everywhere.
  kSequenceParallel,  // Under sequence parallelism, where each rank saw its part of the sequence (arXiv:2205.05198).
  kAlways,  // The router: its gradient comes from the local part of each expert's output.
};

struct Parameter {
  std::string name;  // "layers.3.attention.qkv.weight"
  int64_t layer = 0;
  int64_t count = 0;  // Elements on one rank.
  TensorSum tensor_sum = TensorSum::kNever;
  bool expert =
      false;  // One of the routed experts: replicated over dp x cp / ep ranks, not dp x cp.
  bool trained = true;  // Has a gradient.
};

// In the order of the forward pass. Routed experts of a layer are one tensor per projection. Requires a valid config, and
// a tp and ep that Validate(config, parallelism) accepts.
std::vector<Parameter> Parameters(const ModelConfig& config, int64_t tp = 1,
                                  int64_t ep = 1);

// All parameters of the model, tied embeddings counted once, as published. Multi-token prediction modules are not part
// of it. Fewer than 2^57 for a valid config.
int64_t ParameterCount(const ModelConfig& config);

// The parameters that one token passes through: experts_per_token of the routed experts, all of the rest.
int64_t ActiveParameterCount(const ModelConfig& config);

// KV heads on one tensor-parallel rank: kv_heads / tp, and 1 where they are replicated.
int64_t LocalKvHeads(const ModelConfig& config, int64_t tp);

// Vocabulary rows on one tensor-parallel rank, padding included: ceil(vocabulary / tp).
int64_t LocalVocabulary(const ModelConfig& config, int64_t tp);

}  // namespace shardproof::models

#endif  // SHARDPROOF_LAYERS_MODELS_PARAMETERS_H_
