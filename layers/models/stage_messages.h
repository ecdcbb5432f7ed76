// The messages of one pipeline stage, kind by kind. Internal to models/: callers use message_sizes.h.
#ifndef SHARDPROOF_LAYERS_MODELS_STAGE_MESSAGES_H_
#define SHARDPROOF_LAYERS_MODELS_STAGE_MESSAGES_H_

#include <algorithm>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "layers/models/message_sizes.h"
#include "layers/models/model_config.h"
#include "layers/models/parallelism.h"
#include "layers/models/parameters.h"

namespace shardproof::models {

struct Stage {
  const ModelConfig& config;
  const Parallelism& parallelism;
  std::span<const Parameter>
      parameters;  // What one rank of the stage holds, in forward order.
  int64_t index = 0;
  int64_t first_layer = 0;
  int64_t end_layer = 0;

  bool is_first() const { return index == 0; }
  bool is_last() const { return index == parallelism.pp - 1; }
  int64_t layers() const { return end_layer - first_layer; }
  int64_t moe_layers() const {
    if (!config.is_moe()) return 0;
    return end_layer - std::min(end_layer, std::max(first_layer,
                                                    config.first_dense_layers));
  }
  // Elements of the hidden states of one micro-batch on one context-parallel rank: T h.
  int64_t hidden_count() const {
    return parallelism.local_tokens() * config.hidden;
  }
  // How often a gradient is reduced in a step: without a full copy to accumulate into, after every micro-batch.
  int64_t reductions() const {
    return parallelism.zero_stage >= 2 ? parallelism.micro_batches : 1;
  }
};

class MessageList {
 public:
  explicit MessageList(int64_t stage) : stage_(stage) {}

  // Drops what sends nothing; adds up the times of what is there already.
  void Add(Message message);
  std::vector<Message> Take() && { return std::move(messages_); }

 private:
  int64_t stage_;
  std::vector<Message> messages_;
};

// Whether two messages differ at most in their times and stages.
bool SameKind(const Message& a, const Message& b);

void AddTensorMessages(const Stage& stage, MessageList& list);
void AddContextMessages(const Stage& stage, MessageList& list);
void AddExpertMessages(const Stage& stage, MessageList& list);
void AddPipelineMessages(const Stage& stage, MessageList& list);
void AddDataMessages(const Stage& stage, MessageList& list);

}  // namespace shardproof::models

#endif  // SHARDPROOF_LAYERS_MODELS_STAGE_MESSAGES_H_
