#include "layers/models/message_sizes.h"

#include <algorithm>
#include <utility>

#include "layers/models/parameters.h"
#include "layers/models/stage_messages.h"

namespace shardproof::models {
namespace {

std::vector<Message> StageMessages(const Stage& stage) {
  MessageList list(stage.index);
  AddTensorMessages(stage, list);
  AddContextMessages(stage, list);
  AddExpertMessages(stage, list);
  AddPipelineMessages(stage, list);
  AddDataMessages(stage, list);
  return std::move(list).Take();
}

// The stage's part of `all`, which is sorted by layer; the last stage holds its own copy of a tied embedding.
std::vector<Parameter> StageParameters(std::span<const Parameter> all,
                                       const ModelConfig& config,
                                       const Parallelism& p, int64_t stage) {
  const auto [first, end] = StageLayers(config, p, stage);
  const bool last = stage == p.pp - 1;
  const auto before = [](int64_t layer) {
    return [layer](const Parameter& q) { return q.layer < layer; };
  };
  const auto from = std::partition_point(
      all.begin(), all.end(), before(stage == 0 ? kEmbedding : first));
  const auto to =
      last ? all.end() : std::partition_point(from, all.end(), before(end));
  std::vector<Parameter> parameters(from, to);
  if (last && p.pp > 1 && config.tied_embeddings) {
    parameters.push_back(
        {.name = "head.weight (tied)",
         .layer = config.layers,
         .count = LocalVocabulary(config, p.tp) * config.hidden});
  }
  return parameters;
}

}  // namespace

std::string_view Name(Primitive primitive) {
  switch (primitive) {
    case Primitive::kAllReduce:
      return "all_reduce";
    case Primitive::kAllGather:
      return "all_gather";
    case Primitive::kReduceScatter:
      return "reduce_scatter";
    case Primitive::kAllToAll:
      return "all_to_all";
    case Primitive::kSendRecv:
      return "send_recv";
  }
  return "unknown";
}

std::string_view Name(Group group) {
  switch (group) {
    case Group::kTensor:
      return "tp";
    case Group::kTensorKv:
      return "tp_kv";
    case Group::kContext:
      return "cp";
    case Group::kPipeline:
      return "pp";
    case Group::kData:
      return "dp";
    case Group::kExpert:
      return "ep";
    case Group::kExpertData:
      return "edp";
    case Group::kEmbedding:
      return "embedding";
    case Group::kModel:
      return "model";
  }
  return "unknown";
}

bool SameKind(const Message& a, const Message& b) {
  return a.what == b.what && a.primitive == b.primitive && a.group == b.group &&
         a.group_size == b.group_size && a.count == b.count &&
         a.dtype == b.dtype;
}

void MessageList::Add(Message message) {
  if (message.group_size < 2 || message.count == 0 || message.times == 0)
    return;
  message.first_stage = message.last_stage = stage_;
  for (Message& known : messages_) {
    if (SameKind(known, message)) {
      known.times += message.times;
      return;
    }
  }
  messages_.push_back(std::move(message));
}

double WireBytes(const Message& message) {
  const double n = static_cast<double>(message.group_size);
  const double bytes = static_cast<double>(message.bytes());
  switch (message.primitive) {
    case Primitive::kAllReduce:
      return 2 * (n - 1) / n * bytes;
    case Primitive::kAllGather:
    case Primitive::kReduceScatter:
    case Primitive::kAllToAll:
      return (n - 1) / n * bytes;
    case Primitive::kSendRecv:
      return bytes;
  }
  return 0;
}

StatusOr<std::vector<Message>> TrainingStepMessages(const ModelConfig& config,
                                                    const Parallelism& p) {
  SP_RETURN_IF_ERROR(Validate(config, p));
  const std::vector<Parameter> all = Parameters(config, p.tp, p.ep);
  std::vector<Message> messages;
  for (int64_t index = 0; index < p.pp; ++index) {
    const auto [first, end] = StageLayers(config, p, index);
    const std::vector<Parameter> parameters =
        StageParameters(all, config, p, index);
    const Stage stage{config, p, parameters, index, first, end};
    for (Message& message : StageMessages(stage)) {
      const auto previous = std::find_if(
          messages.begin(), messages.end(), [&](const Message& known) {
            return known.last_stage == index - 1 &&
                   known.times == message.times && SameKind(known, message);
          });
      if (previous != messages.end()) {
        previous->last_stage = index;
      } else {
        messages.push_back(std::move(message));
      }
    }
  }
  // Stages were visited one after another; a reader looks for one kind of parallelism.
  std::stable_sort(
      messages.begin(), messages.end(),
      [](const Message& a, const Message& b) { return a.group < b.group; });
  return messages;
}

double WireBytesPerStep(std::span<const Message> messages, int64_t stage) {
  double bytes = 0;
  for (const Message& message : messages) {
    if (message.first_stage <= stage && stage <= message.last_stage) {
      bytes += WireBytes(message) * static_cast<double>(message.times);
    }
  }
  return bytes;
}

std::vector<MessageSize> DistinctSizes(std::span<const Message> messages) {
  std::vector<MessageSize> sizes;
  sizes.reserve(messages.size());
  for (const Message& m : messages)
    sizes.push_back({m.primitive, m.count, m.dtype, m.group_size});
  std::sort(sizes.begin(), sizes.end());
  sizes.erase(std::unique(sizes.begin(), sizes.end()), sizes.end());
  return sizes;
}

}  // namespace shardproof::models
