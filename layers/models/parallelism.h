// How a training job is laid over its ranks: tp x cp x pp x dp, innermost first (the order of the Llama 3 paper,
// arXiv:2407.21783, section 3.3), with expert parallelism inside the data-parallel ranks.
#ifndef SHARDPROOF_LAYERS_MODELS_PARALLELISM_H_
#define SHARDPROOF_LAYERS_MODELS_PARALLELISM_H_

#include <cstdint>
#include <string_view>
#include <utility>

#include "layers/models/model_config.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof::models {

// How attention sees the keys and values of the other context-parallel ranks.
enum class ContextScheme {
  kRing,  // KV blocks travel round the ring (arXiv:2310.01889).
  kAllGatherKv,  // Every rank gathers all keys and values (arXiv:2407.21783, section 3.3.2).
  kUlysses,  // all_to_all from sequence shards to head shards (arXiv:2309.14509).
};
std::string_view Name(
    ContextScheme scheme);  // "ring", "all_gather_kv", "ulysses"

struct Parallelism {
  int64_t tp = 1;  // Tensor.
  int64_t cp = 1;  // Context.
  int64_t pp = 1;  // Pipeline.
  int64_t dp = 1;  // Data.
  int64_t ep =
      1;  // Expert; a divisor of dp, since its ranks are data-parallel ranks for the dense layers.

  int64_t sequence =
      4096;  // Tokens of one sample, before it is cut by cp and tp.
  int64_t micro_batch =
      1;  // Samples of one forward pass on one data-parallel rank.
  int64_t micro_batches =
      1;  // Forward passes of one step on one data-parallel rank.

  bool sequence_parallel =
      false;  // Activations between the linear layers are cut by tp along the sequence.
  int zero_stage =
      0;  // 0 none, 1 optimizer states, 2 + gradients, 3 + parameters (arXiv:1910.02054).
  ContextScheme context_scheme = ContextScheme::kRing;

  DType dtype = DType::kBF16;      // Activations and parameters.
  DType grad_dtype = DType::kF32;  // Gradients, as they are reduced.
  int64_t bucket_bytes =
      int64_t{25}
      << 20;  // A gradient bucket is closed once it holds this much.

  int64_t ranks() const { return tp * cp * pp * dp; }
  // Tokens of one micro-batch on one context-parallel rank.
  int64_t local_tokens() const { return sequence / cp * micro_batch; }
};

// Checks the layout against the model. InvalidArgument, in one sentence that names the sizes and says what to change,
// when a size is below 1 or does not divide what it cuts, or the job is too large for 64-bit sizes.
Status Validate(const ModelConfig& config, const Parallelism& parallelism);

// The blocks [first, second) of a pipeline stage: layers / pp each, one more on the first layers % pp stages.
std::pair<int64_t, int64_t> StageLayers(const ModelConfig& config,
                                        const Parallelism& parallelism,
                                        int64_t stage);

}  // namespace shardproof::models

#endif  // SHARDPROOF_LAYERS_MODELS_PARALLELISM_H_
