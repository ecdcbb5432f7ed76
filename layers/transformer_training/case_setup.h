// The pairing of transformer_training, but for its forms and planted bugs
// (case.cc): parameters, tensors and the reference.
#ifndef SHARDPROOF_LAYERS_TRANSFORMER_TRAINING_CASE_SETUP_H_
#define SHARDPROOF_LAYERS_TRANSFORMER_TRAINING_CASE_SETUP_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "layers/transformer_training/sharded_trainer.h"
#include "layers/transformer_training/transformer_stack.h"
#include "reference/dtype.h"
#include "tools/harness/case.h"

namespace shardproof {

// For the axis, found by argument-dependent lookup.
std::string FormatAxisValue(OptimizerRule rule);
Status ParseAxisValue(std::string_view text, OptimizerRule* rule);

}  // namespace shardproof

namespace shardproof::transformer_training {

// LayerNorm, GELU and biases; or RMSNorm, SwiGLU, rotary embeddings and half as
// many KV heads as heads.
enum class Style : uint8_t { kGpt2, kLlama };
std::string FormatAxisValue(Style style);
Status ParseAxisValue(std::string_view text, Style* style);

inline constexpr int kLayers = 2;
inline bool Adam(OptimizerRule rule) { return rule != OptimizerRule::kSgd; }

struct P {
  DType dtype = DType::kF32;
  Style style = Style::kLlama;
  OptimizerRule rule = OptimizerRule::kAdamW;  // Or kSgd, with momentum.
  int micro_batches = 2;
  int64_t hidden = 8;
  int64_t steps = 20;
  int ranks = 1;
  Memory memory = Memory::kShared;
};

TransformerBlockConfig BlockOf(const P& p);
// Of rank `rank` in a step: 2, 1, 3, 1, 2, ... In two micro-batches some are
// empty, and others differ.
int64_t SequencesOf(int rank);
int64_t TokensOf(const P& p, int rank);
int64_t TokensOfAll(const P& p);
TransformerStackConfig StackOf(const P& p, int rank);
OptimizerSettings SettingsOf(const P& p);
// "block1_w_qkv"
std::string NameOf(int layer, const BlockParameter& parameter);

Tensors TensorsOf(const P& p);
StatusOr<DenseOutputs> Expected(const P& p, const Arithmetic& summed,
                                const Inputs& in, const Sample& sample);

}  // namespace shardproof::transformer_training

#endif  // SHARDPROOF_LAYERS_TRANSFORMER_TRAINING_CASE_SETUP_H_
