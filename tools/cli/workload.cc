#include "tools/cli/workload.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "layers/models/catalog.h"
#include "layers/models/message_sizes.h"
#include "layers/models/model_config.h"

namespace shardproof {
namespace {

// models::Message::count is of the whole tensor; primitives count one rank's
// part where the parts make up the tensor.
int64_t CountOnOneRank(const models::Message& message) {
  switch (message.primitive) {
    case models::Primitive::kAllGather:
    case models::Primitive::kReduceScatter:
    case models::Primitive::kAllToAll:
      return message.count / message.group_size;
    default:
      return message.count;
  }
}

// The same message among groups of `ranks`, where the model asks for it among
// groups of another size: a part keeps its share of the whole.
bool Serves(const models::Message& message, int ranks) {
  return message.group_size == ranks ||
         message.primitive == models::Primitive::kSendRecv;
}

}  // namespace

StatusOr<Workload> WorkloadOf(const std::string& model,
                              models::Parallelism layout, int ranks,
                              int64_t tokens) {
  SP_ASSIGN_OR_RETURN(const models::ModelConfig config,
                      models::FindOrLoadModel(model));
  if (layout.tp == 0) layout.tp = ranks;
  SP_ASSIGN_OR_RETURN(const std::vector<models::Message> messages,
                      models::TrainingStepMessages(config, layout));
  Workload workload;
  workload.name = fmt::format("{} tp={} cp={} pp={} dp={}", config.name,
                              layout.tp, layout.cp, layout.pp, layout.dp);
  workload.shape = {{"hidden", config.hidden},
                    {"intermediate", config.intermediate},
                    {"heads", config.heads},
                    {"kv_heads", config.kv_heads},
                    {"head_dim", config.head_dim},
                    {"vocabulary", config.vocabulary},
                    {"layers", config.layers},
                    {"experts", config.experts},
                    {"experts_per_token", config.experts_per_token},
                    {"moe_intermediate", config.moe_intermediate},
                    {"shared_experts", config.shared_experts},
                    {"tokens", tokens > 0 ? tokens : layout.local_tokens()}};
  workload.facts = {
      {"activation", config.activation == models::Activation::kSwiGlu
                         ? "swiglu"
                         : "gelu_tanh"},
      {"bias", config.mlp_bias ? "true" : "false"},
      {"norm",
       config.norm == models::Norm::kLayerNorm ? "layer_norm" : "rms_norm"},
      {"latent_attention", config.is_latent() ? "true" : "false"},
      {"rope_theta", fmt::format("{}", config.rope_theta)},
      {"dtype", std::string(Name(layout.dtype))}};
  for (const models::Message& message : messages) {
    if (!Serves(message, ranks)) continue;
    Workload::Message next{.primitive = std::string(Name(message.primitive)),
                           .what = message.what,
                           .count = CountOnOneRank(message),
                           .dtype = message.dtype};
    const bool known =
        std::any_of(workload.messages.begin(), workload.messages.end(),
                    [&](const Workload::Message& m) {
                      return m.primitive == next.primitive &&
                             m.count == next.count && m.dtype == next.dtype;
                    });
    if (!known) workload.messages.push_back(std::move(next));
  }
  return workload;
}

}  // namespace shardproof
