#include "layers/attention_block/attention_block.h"

#include <algorithm>
#include <cmath>
#include <numeric>
#include <string>
#include <utility>

#include "collectives/direct/queue.h"
#include "layers/kernels/activation.h"
#include "layers/kernels/gemm.h"
#include "layers/tensor_parallel/agree.h"

namespace shardproof {
namespace {

// Of the region before the first product, and of that behind the last.
RegionShape Outside(const ParallelAttentionConfig& config) {
  return {.tokens = config.tokens(),
          .width = config.hidden,
          .dtype = config.dtype,
          .sequence_parallel = config.sequence_parallel};
}

// So that ranks with other positions do not make one layer.
uint64_t Fingerprint(const std::vector<int64_t>& positions) {
  uint64_t hash = positions.size();
  for (const int64_t p : positions) {
    hash = (hash ^ static_cast<uint64_t>(p)) * 0x100000001b3u;
  }
  return hash;
}

std::string Description(const ParallelAttentionConfig& config) {
  std::string text = fmt::format(
      "attention of {} x {} tokens of {}, {} heads of {}, {} KV heads, {}",
      config.sequences, config.length, config.hidden, config.heads,
      config.head_dim, config.kv_heads, Name(config.dtype));
  if (config.causal) text += ", causal";
  if (config.scale != 0) text += fmt::format(", scale {}", config.scale);
  if (config.rope_theta != 0)
    text += fmt::format(", rope {}", config.rope_theta);
  if (!config.positions.empty()) {
    text += fmt::format(", positions {:x}", Fingerprint(config.positions));
  }
  if (config.bias) text += ", bias";
  if (config.sequence_parallel) text += ", sequence-parallel";
  if (config.recompute_core) text += ", core recomputed";
  if (!config.sum_shared) text += ", shared gradients not summed";
  return text;
}

Status Check(const Communicator& comm, const ParallelAttentionConfig& config) {
  const std::string text = Description(config);
  SP_RETURN_IF_ERROR(AgreeOnLayer(comm, text));
  if (std::min({config.sequences, config.length, config.hidden, config.heads,
                config.kv_heads, config.head_dim}) < 0) {
    return InvalidArgument("{}: a size is negative", text);
  }
  if (config.kv_heads < 1 || config.heads % config.kv_heads != 0) {
    return InvalidArgument(
        "{}: the number of heads must be a multiple of that of KV heads", text);
  }
  if (config.heads < comm.size()) {
    return InvalidArgument(
        "{}: attention is cut by whole heads, and there are {} ranks; use at "
        "most as many as heads",
        text, comm.size());
  }
  if (config.rope_theta != 0 && config.head_dim % 2 != 0) {
    return InvalidArgument(
        "{}: a rotary embedding turns pairs, so heads must have an even number "
        "of elements",
        text);
  }
  const auto positions = static_cast<int64_t>(config.positions.size());
  if (positions != 0 && positions != config.length &&
      positions != config.tokens()) {
    return InvalidArgument(
        "{}: there are {} positions; give one for each of the {} tokens of a "
        "sequence, or for each of all {}",
        text, positions, config.length, config.tokens());
  }
  return CheckLayerType(config.dtype).WithContext(text);
}

AttentionShape CoreShape(const ParallelAttentionConfig& config,
                         const HeadShare& share) {
  const int64_t group = config.heads / config.kv_heads;
  const double scale = config.scale != 0
                           ? config.scale
                           : 1 / std::sqrt(static_cast<double>(
                                     std::max<int64_t>(1, config.head_dim)));
  return {.sequences = config.sequences,
          .queries = config.length,
          .keys = config.length,
          .heads = share.heads.count,
          .kv_heads = share.kv_heads.count,
          .heads_per_kv = group,
          .first_in_group = share.heads.begin - share.kv_heads.begin * group,
          .head_dim = config.head_dim,
          .causal = config.causal,
          .scale = scale,
          .dtype = config.dtype,
          .recompute = config.recompute_core};
}

}  // namespace

ParallelAttention::ParallelAttention(const ParallelAttentionConfig& config,
                                     HeadShare share,
                                     const CollectiveFamily& collectives,
                                     ParallelRegion input,
                                     ParallelRegion output)
    : config_(config),
      share_(share),
      collectives_(collectives),
      input_(std::move(input)),
      output_(std::move(output)) {}

StatusOr<ParallelAttention> ParallelAttention::Create(
    const Communicator& comm, const ParallelAttentionConfig& config,
    const CollectiveFamily& collectives, const AttentionCoreFactory& core) {
  SP_RETURN_IF_ERROR(Check(comm, config));
  const auto make = [&]() -> StatusOr<ParallelAttention> {
    SP_ASSIGN_OR_RETURN(
        ParallelRegion input,
        ParallelRegion::Create(comm, Outside(config), collectives));
    SP_ASSIGN_OR_RETURN(
        ParallelRegion output,
        ParallelRegion::Create(comm, Outside(config), collectives));
    ParallelAttention attention(
        config,
        HeadShare::Of(config.heads, config.kv_heads, comm.size(), comm.rank()),
        collectives, std::move(input), std::move(output));
    SP_RETURN_IF_ERROR(attention.Allocate(core));
    return attention;
  };
  StatusOr<ParallelAttention> attention = make();
  SP_RETURN_IF_ERROR(AgreeOnStatus(comm, attention.status()));
  SP_ASSIGN_OR_RETURN(attention->sharers_,
                      FindKvSharers(comm, config.heads, config.kv_heads));
  return attention;
}

Status ParallelAttention::Allocate(const AttentionCoreFactory& core) {
  const DType dtype = config_.dtype;
  const int64_t tokens = config_.tokens();
  for (Tensor* t : {&qkv_, &d_qkv_}) {
    SP_ASSIGN_OR_RETURN(*t, Tensor::Create(dtype, {tokens, qkv_width()}));
  }
  for (Tensor* t : {&o_, &d_o_}) {
    SP_ASSIGN_OR_RETURN(*t, Tensor::Create(dtype, {tokens, out_width()}));
  }
  SP_ASSIGN_OR_RETURN(core_, core(CoreShape(config_, share_)));
  if (config_.rope_theta == 0) return OkStatus();
  std::vector<int64_t> positions = config_.positions;
  if (positions.empty()) {
    positions.resize(static_cast<size_t>(config_.length));
    std::iota(positions.begin(), positions.end(), int64_t{0});
  }
  SP_ASSIGN_OR_RETURN(rope_, RopeTable::Create({.dtype = dtype,
                                                .head_dim = config_.head_dim,
                                                .theta = config_.rope_theta},
                                               positions));
  return OkStatus();
}

template <class Void>
HeadsIn<Void> ParallelAttention::PartOf(Void* qkv, int64_t first_head) const {
  return {At(qkv, config_.dtype, first_head * config_.head_dim), qkv_width()};
}

Status ParallelAttention::Turn(const Stream& stream, RopeDirection direction,
                               Tensor& qkv) const {
  if (!rope_.has_value()) return OkStatus();
  return Rope(stream, *rope_, direction,
              {.tokens = config_.tokens(),
               .heads = share_.heads.count + share_.kv_heads.count,
               .stride = qkv_width(),
               .x = qkv.raw()});
}

Status ParallelAttention::Forward(const void* x,
                                  const AttentionWeights& weights, void* y,
                                  const Stream& stream) {
  const DType dtype = config_.dtype;
  const int64_t tokens = config_.tokens(), hidden = config_.hidden;
  SP_ASSIGN_OR_RETURN(const void* const all, input_.Enter(stream, x));
  SP_RETURN_IF_ERROR(
      Gemm(stream, {.a = {dtype, {tokens, hidden}, all},
                    .b = {dtype, {qkv_width(), hidden}, weights.w_qkv},
                    .transpose_b = true,
                    .c = qkv_.view(),
                    .bias = config_.bias ? weights.b_qkv : nullptr}));
  SP_RETURN_IF_ERROR(Turn(stream, RopeDirection::kForward, qkv_));
  const void* const qkv = qkv_.raw();
  const int64_t keys = share_.heads.count;
  SP_RETURN_IF_ERROR(
      core_->Forward(stream, {.q = PartOf(qkv, 0),
                              .k = PartOf(qkv, keys),
                              .v = PartOf(qkv, keys + share_.kv_heads.count),
                              .o = {o_.raw(), out_width()}}));
  SP_RETURN_IF_ERROR(
      Gemm(stream, {.a = o_.view(),
                    .b = {dtype, {hidden, out_width()}, weights.w_out},
                    .transpose_b = true,
                    .c = {dtype, {tokens, hidden}, output_.Partial(y)}}));
  SP_RETURN_IF_ERROR(output_.Leave(stream, y));
  if (!config_.bias) return OkStatus();
  return AddBias(stream, dtype, output_.local_tokens(), hidden, weights.b_out,
                 y);
}

// d_o_ to d_qkv_.
Status ParallelAttention::CoreGradients(const Stream& stream) {
  const void* const qkv = qkv_.raw();
  void* const d_qkv = d_qkv_.raw();
  const int64_t keys = share_.heads.count;
  const int64_t values = keys + share_.kv_heads.count;
  SP_RETURN_IF_ERROR(core_->Backward(stream, {.q = PartOf(qkv, 0),
                                              .k = PartOf(qkv, keys),
                                              .v = PartOf(qkv, values),
                                              .o = {o_.raw(), out_width()},
                                              .d_o = {d_o_.raw(), out_width()},
                                              .dq = PartOf(d_qkv, 0),
                                              .dk = PartOf(d_qkv, keys),
                                              .dv = PartOf(d_qkv, values)}));
  return Turn(stream, RopeDirection::kBackward, d_qkv_);
}

Status ParallelAttention::Backward(const void* x,
                                   const AttentionWeights& weights,
                                   const void* dy, void* dx,
                                   const AttentionGradients& gradients,
                                   const Stream& stream) {
  const DType dtype = config_.dtype;
  const int64_t tokens = config_.tokens(), hidden = config_.hidden;
  SP_ASSIGN_OR_RETURN(const void* const all_dy, output_.Enter(stream, dy));
  const ConstTensorView dy_view(dtype, {tokens, hidden}, all_dy);
  SP_RETURN_IF_ERROR(
      Gemm(stream, {.a = dy_view,
                    .b = {dtype, {hidden, out_width()}, weights.w_out},
                    .c = d_o_.view()}));
  SP_RETURN_IF_ERROR(
      Gemm(stream, {.a = dy_view,
                    .transpose_a = true,
                    .b = o_.view(),
                    .c = {dtype, {hidden, out_width()}, gradients.w_out}}));
  if (config_.bias) {
    SP_RETURN_IF_ERROR(
        ColumnSum(stream, dtype, tokens, hidden, all_dy, gradients.b_out));
  }
  SP_RETURN_IF_ERROR(CoreGradients(stream));
  SP_ASSIGN_OR_RETURN(const void* const all_x, input_.Enter(stream, x));
  SP_RETURN_IF_ERROR(
      Gemm(stream, {.a = d_qkv_.view(),
                    .transpose_a = true,
                    .b = {dtype, {tokens, hidden}, all_x},
                    .c = {dtype, {qkv_width(), hidden}, gradients.w_qkv}}));
  if (config_.bias) {
    SP_RETURN_IF_ERROR(ColumnSum(stream, dtype, tokens, qkv_width(),
                                 d_qkv_.raw(), gradients.b_qkv));
  }
  if (config_.sum_shared) {
    SP_RETURN_IF_ERROR(SumSharedGradients(gradients, stream));
  }
  // Only now: the workspace of the partial sums is that of the gathered input.
  SP_RETURN_IF_ERROR(
      Gemm(stream, {.a = d_qkv_.view(),
                    .b = {dtype, {qkv_width(), hidden}, weights.w_qkv},
                    .c = {dtype, {tokens, hidden}, input_.Partial(dx)}}));
  return input_.Leave(stream, dx);
}

Status ParallelAttention::SumRows(const Stream& stream,
                                  const KvSharers& sharers, void* gradient,
                                  int64_t width) const {
  const int64_t head = config_.head_dim * width;
  const int64_t key = share_.heads.count + sharers.local_kv_head;
  for (const int64_t first : {key, key + share_.kv_heads.count}) {
    void* const rows = At(gradient, config_.dtype, first * head);
    SP_RETURN_IF_ERROR(direct::Enqueue<AllReduceArgs>(
        stream, sharers.comm,
        {.send = rows, .recv = rows, .count = head, .dtype = config_.dtype},
        collectives_.all_reduce));
  }
  return OkStatus();
}

Status ParallelAttention::SumSharedGradients(
    const AttentionGradients& gradients, const Stream& stream) const {
  for (const KvSharers& sharers : sharers_) {
    SP_RETURN_IF_ERROR(
        SumRows(stream, sharers, gradients.w_qkv, config_.hidden));
    if (!config_.bias) continue;
    SP_RETURN_IF_ERROR(SumRows(stream, sharers, gradients.b_qkv, 1));
  }
  return OkStatus();
}

int64_t ParallelAttention::kept_bytes() const {
  return qkv_.num_bytes() + o_.num_bytes() + core_->kept_bytes();
}

int64_t ParallelAttention::working_bytes() const {
  return d_qkv_.num_bytes() + d_o_.num_bytes() + core_->working_bytes() +
         input_.workspace_bytes() + output_.workspace_bytes() +
         (rope_.has_value() ? rope_->num_bytes() : 0);
}

Cost ParallelAttentionForwardCost(int ranks,
                                  const ParallelAttentionConfig& config,
                                  const CollectiveFamily& collectives) {
  return EnterCost(ranks, Outside(config), collectives) +
         LeaveCost(ranks, Outside(config), collectives);
}

Cost ParallelAttentionBackwardCost(int ranks,
                                   const ParallelAttentionConfig& config,
                                   const CollectiveFamily& collectives) {
  const Cost enter = EnterCost(ranks, Outside(config), collectives);
  const Cost sent =
      enter + enter + LeaveCost(ranks, Outside(config), collectives);
  if (!config.sum_shared) return sent;
  return sent + SumSharedGradientsCost(ranks, config, collectives);
}

Cost SumSharedGradientsCost(int ranks, const ParallelAttentionConfig& config,
                            const CollectiveFamily& collectives) {
  Cost cost;
  for (const SharedKvHead& shared :
       SharedKvHeads(config.heads, config.kv_heads, ranks)) {
    const auto sharers = static_cast<int>(shared.ranks.count);
    const auto sum = [&](int64_t width) {
      return collectives.all_reduce_cost(sharers, config.head_dim * width,
                                         config.dtype, collectives.memory);
    };
    cost += sum(config.hidden) + sum(config.hidden);
    if (config.bias) cost += sum(1) + sum(1);
  }
  return cost;
}

AttentionArithmetic ParallelAttentionArithmetic(
    const ParallelAttentionConfig& config, const Arithmetic& summed) {
  Arithmetic local = summed;
  local.partials = 1;
  return {.local = local,
          .core = {.local = local, .probabilities = config.dtype},
          .out = summed,
          .dx = summed,
          .shared = summed};
}

}  // namespace shardproof
