#include "pipeline/train_step/model_chunk_config.h"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

namespace shardproof {

std::string HeadOf(const LanguageModelConfig& model) {
  return model.tied ? "table" : "head";
}

TransformerBlockConfig BlockConfigOf(const ModelChunkConfig& config,
                                     int64_t sequences) {
  const LanguageModelConfig& m = config.model;
  return {.sequences = sequences,
          .length = static_cast<int64_t>(config.positions.size()),
          .hidden = m.hidden,
          .heads = m.heads,
          .kv_heads = m.kv_heads,
          .head_dim = m.head_dim,
          .intermediate = m.intermediate,
          .norm = m.norm,
          .epsilon = m.epsilon,
          .activation = m.activation,
          .causal = true,
          .rope_theta = m.rope_theta,
          .positions = config.positions,
          .dtype = m.dtype,
          .bias = m.bias,
          .sequence_parallel = config.sequence_parallel,
          .recompute = config.recompute};
}

std::vector<std::string> BlocksOfChunk(const ModelChunkConfig& config) {
  std::vector<std::string> names;
  for (const NamedUse& use : UsesOf(config, ActionKind::kForward)) {
    if (std::find(names.begin(), names.end(), use.block) == names.end()) {
      names.push_back(use.block);
    }
  }
  return names;
}

std::vector<NamedUse> UsesOf(const ModelChunkConfig& config, ActionKind kind) {
  const LanguageModelConfig& model = config.model;
  std::vector<NamedUse> forward, backward;
  if (config.first) {
    forward.push_back({.block = "table"});
    if (model.learned_positions) forward.push_back({.block = "positions"});
  }
  for (int64_t l = 0; l < config.layers.count; ++l) {
    const int64_t layer = config.layers.begin + l;
    forward.push_back({.block = fmt::format("block{}", layer)});
    if (model.experts > 0) {
      forward.push_back({.block = fmt::format("experts{}", layer)});
    }
  }
  if (config.last) {
    forward.push_back({.block = "norm"});
    forward.push_back({.block = HeadOf(model)});
  }
  if (kind == ActionKind::kForward) return forward;
  const auto add = [&](std::string block, bool reads) {
    NamedUse use = {.block = std::move(block),
                    .reads = reads && kind != ActionKind::kWeight,
                    .gradient = kind != ActionKind::kInput};
    if (use.reads || use.gradient) backward.push_back(std::move(use));
  };
  if (config.last) {
    add(HeadOf(model), true);
    add("norm", true);
  }
  for (int64_t l = config.layers.count; l-- > 0;) {
    const int64_t layer = config.layers.begin + l;
    add(fmt::format("block{}", layer), true);
    if (model.experts > 0) add(fmt::format("experts{}", layer), true);
  }
  if (config.first) {
    if (model.learned_positions) add("positions", false);
    add("table", false);
  }
  return backward;
}

}  // namespace shardproof
