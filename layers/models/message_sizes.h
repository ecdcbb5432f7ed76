// The messages of one training step: what a rank really sends, for a model and a layout.
//
//   SP_ASSIGN_OR_RETURN(ModelConfig config, models::FindModel("llama-3.1-8b"));
//   SP_ASSIGN_OR_RETURN(std::vector<Message> messages,
//                       models::TrainingStepMessages(config, {.tp = 4, .dp = 2, .sequence = 8192}));
//   for (const MessageSize& size : models::DistinctSizes(messages)) ...  // what to verify and measure
//
// Elements (Message::count) per micro-batch and block, with T = s b / cp tokens, hidden width h and t = tp:
//
//   tensor parallel                                forward                          backward
//     plain            (1909.08053, 3)     2 all_reduce T h                  2 all_reduce T h
//     sequence parallel (2205.05198, 4.2.2)
//                       2 (all_gather + reduce_scatter) T h    the same, + 2 all_gather T h: inputs gathered again
//     embedding                            all_reduce or reduce_scatter T h   -, or all_gather T h
//     output projection                    -, or all_gather T h       all_reduce, or reduce_scatter + all_gather T h
//     cross entropy    (1909.08053, 3)     3 all_reduce of T floats           -
//     latent attention: q_lora_rank and kv_lora_rank + qk_rope_head_dim stand for h before the up-projections
//     once a step: gradients of weights that are replicated over t but saw other tokens; those of replicated KV heads
//   context parallel, KV = T kv_heads/t (d_qk + d_v)
//     ring             (2310.01889, 3)     cp-1 times send KV                cp-1 times KV, cp times its f32 gradient
//     all_gather_kv    (2407.21783, 3.3.2) all_gather cp KV                  all_gather, f32 reduce_scatter
//     Ulysses          (2309.14509, 3.2)   all_to_all of Q, K, V and O       the same
//   pipeline           (2104.04473, 2.2)   send T h, or T h / t under sequence parallelism; the same back
//   experts            (2101.03961, 2.2)   2 all_to_all k T h                2 all_to_all k T h
//     sequence parallel: on T / t tokens, and all_gather + reduce_scatter of k T h over t about the experts
//   data parallel, Psi parameters of the rank, over dp x cp ranks (experts: dp x cp / ep)
//     ZeRO 0           (2006.15704, 3.2)   -                                  all_reduce, buckets
//     ZeRO 1           (1910.02054, 7.1)   all_gather Psi, buckets            reduce_scatter Psi, buckets
//     ZeRO 2           (1910.02054, 7.1)   all_gather Psi, buckets            the same, every micro-batch
//     ZeRO 3           (1910.02054, 7.2)   all_gather each layer              all_gather and reduce_scatter each layer
//   once a step: the tied embedding's gradient between the first and last stage; the squared norm for clipping
//
// Assumed: 1F1B or any schedule without interleaving; no full recomputation (it repeats the forward messages; selective
// recomputation repeats none); balanced routing. Left out: the token counts of dropless routing, and the loss.
// Rejected: buckets cut at exactly bucket_bytes. PyTorch and Megatron-LM close a bucket after the tensor that fills it;
// cutting evenly would measure sizes that are never sent.
#ifndef SHARDPROOF_LAYERS_MODELS_MESSAGE_SIZES_H_
#define SHARDPROOF_LAYERS_MODELS_MESSAGE_SIZES_H_

#include <compare>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "layers/models/model_config.h"
#include "layers/models/parallelism.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof::models {

enum class Primitive {
  kAllReduce,
  kAllGather,
  kReduceScatter,
  kAllToAll,
  kSendRecv
};
std::string_view Name(
    Primitive primitive);  // "all_reduce", ...: the folder of collectives/

enum class Group {
  kTensor,  // "tp"
  kTensorKv,  // "tp_kv": the tp / kv_heads tensor-parallel ranks that hold one KV head
  kContext,     // "cp"
  kPipeline,    // "pp": two neighbouring stages
  kData,        // "dp": the dp x cp ranks that hold the same dense parameters
  kExpert,      // "ep"
  kExpertData,  // "edp": the dp x cp / ep ranks that hold the same experts
  kEmbedding,   // "embedding": the first and the last stage
  kModel,       // "model": all ranks that hold different parts of the gradient
};
std::string_view Name(Group group);

struct Message {
  std::string
      what;  // "tensor parallel: all_reduce of the attention output, forward"
  Primitive primitive = Primitive::kAllReduce;
  Group group = Group::kTensor;
  int64_t group_size = 1;  // At least 2.
  // Elements of the whole tensor, the size that nccl-tests prints. all_reduce: the vector; all_gather: the result;
  // reduce_scatter: the input; all_to_all: all that one rank sends, its own part included; send_recv: the message.
  int64_t count = 0;
  DType dtype = DType::kBF16;
  int64_t times = 0;  // Per step, on one rank of each of the stages below.
  int64_t first_stage = 0;  // The pipeline stages that send it, inclusive.
  int64_t last_stage = 0;

  int64_t bytes() const { return count * SizeOf(dtype); }
};

// Bytes that one rank sends per operation: all_reduce 2(n-1)/n of bytes(), send_recv all of it, the rest (n-1)/n.
double WireBytes(const Message& message);

// The messages of all stages; equal ones of adjacent stages are one entry. Sorted by group, in the order of
// Group. Groups of one rank send nothing and are not listed. InvalidArgument as Validate() of parallelism.h.
StatusOr<std::vector<Message>> TrainingStepMessages(
    const ModelConfig& config, const Parallelism& parallelism);

// Wire bytes of one rank of `stage` in one step.
double WireBytesPerStep(std::span<const Message> messages, int64_t stage);

// What a benchmark needs to know of a message.
struct MessageSize {
  Primitive primitive = Primitive::kAllReduce;
  int64_t count = 0;
  DType dtype = DType::kBF16;
  int64_t group_size = 1;

  // NOLINTNEXTLINE(modernize-use-nullptr): clang-tidy 14 on a defaulted <=>.
  auto operator<=>(const MessageSize&) const = default;
};

// Sorted, each once.
std::vector<MessageSize> DistinctSizes(std::span<const Message> messages);

}  // namespace shardproof::models

#endif  // SHARDPROOF_LAYERS_MODELS_MESSAGE_SIZES_H_
