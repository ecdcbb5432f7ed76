#include "layers/expert_parallel_moe/expert_parallel_moe.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <new>
#include <string>
#include <utility>

#include "collectives/chunks.h"
#include "layers/kernels/convert.h"
#include "layers/kernels/gemm.h"
#include "layers/kernels/moe.h"
#include "layers/tensor_parallel/parallel_region.h"

namespace shardproof {
namespace {

bool Narrow(const ExpertParallelMoeConfig& config) {
  return config.dtype != config.lane();
}

std::string Describe(const ExpertParallelMoeConfig& c) {
  std::string text = fmt::format(
      "mixture of {} experts, {} for each of {} tokens{}, {} to {} and back, "
      "{}, {}",
      c.experts, c.top_k, fmt::join(c.tokens, " + "),
      c.renormalise ? ", renormalised" : "", c.hidden, c.intermediate,
      c.activation == Activation::kSwiGlu ? "swiglu" : "gelu", Name(c.dtype));
  if (c.capacity_factor != 0) {
    text += fmt::format(
        ", capacity factor {}{}", c.capacity_factor,
        c.capacity_scope == CapacityScope::kPerRank ? " per rank" : "");
  }
  if (c.auxiliary_coefficient != 0 || c.z_coefficient != 0) {
    text += fmt::format(", losses by {} and {}", c.auxiliary_coefficient,
                        c.z_coefficient);
  }
  if (c.shared_intermediate != 0) {
    text += fmt::format(", {} shared", c.shared_intermediate);
  }
  return text;
}

Status Check(const Communicator& comm, const ExpertParallelMoeConfig& c) {
  const std::string text = Describe(c);
  SP_RETURN_IF_ERROR(AgreeOnLayer(comm, text));
  if (static_cast<int>(c.tokens.size()) != comm.size()) {
    return InvalidArgument("{}: tokens of {} ranks, but there are {}", text,
                           c.tokens.size(), comm.size());
  }
  if (c.hidden < 0 || c.intermediate < 0 || c.shared_intermediate < 0 ||
      std::any_of(c.tokens.begin(), c.tokens.end(),
                  [](int64_t n) { return n < 0; })) {
    return InvalidArgument("{}: a size is negative", text);
  }
  if (c.top_k < 1 || c.top_k > c.experts ||
      c.experts > std::numeric_limits<int32_t>::max()) {
    return InvalidArgument("{}: {} of {} experts cannot be chosen", text,
                           c.top_k, c.experts);
  }
  if (!(c.capacity_factor >= 0 && std::isfinite(c.capacity_factor) &&
        std::isfinite(c.auxiliary_coefficient) &&
        std::isfinite(c.z_coefficient))) {
    return InvalidArgument(
        "{}: a capacity factor is at least 0, and every factor finite", text);
  }
  return CheckLayerType(c.dtype).WithContext(text);
}

RoutingSizes SizesOf(const ExpertParallelMoeConfig& config, int rank) {
  return {.rank = rank,
          .tokens = config.tokens,
          .experts = config.experts,
          .top_k = config.top_k,
          .capacities = ExpertCapacities(config)};
}

StatusOr<Buffer> AllocateElements(const Communicator& comm, int64_t count,
                                  DType dtype) {
  return comm.Allocate(
      static_cast<size_t>(std::max<int64_t>(count * SizeOf(dtype), 1)));
}

// rows[s * t + r] elements go from rank s to rank r, or the other way.
std::vector<int64_t> Travelling(const ExpertParallelMoeConfig& config,
                                std::span<const int64_t> chosen, bool back) {
  const RoutingSizes sizes = SizesOf(config, 0);
  const int t = sizes.ranks();
  std::vector<int64_t> kept(chosen.size());
  KeepWithinCapacity(sizes, chosen, kept);
  std::vector<int64_t> rows(static_cast<size_t>(t * t));
  for (int s = 0; s < t; ++s) {
    for (int r = 0; r < t; ++r) {
      const Chunk there = BalancedChunk(config.experts, t, r);
      for (int64_t e = there.begin; e < there.begin + there.count; ++e) {
        rows[static_cast<size_t>(back ? r * t + s : s * t + r)] +=
            kept[static_cast<size_t>(s * config.experts + e)] * config.hidden;
      }
    }
  }
  return rows;
}

// There and back. The rows lie in memory of the layer's own.
Cost TravelCost(const ExpertParallelMoeConfig& config,
                std::span<const int64_t> chosen,
                const CollectiveFamily& collectives) {
  Cost cost;
  for (const bool back : {false, true}) {
    cost += collectives.all_to_all_cost(static_cast<int>(config.tokens.size()),
                                        Travelling(config, chosen, back),
                                        config.dtype, Memory::kShared);
  }
  return cost;
}

}  // namespace

std::vector<int64_t> ExpertCapacities(const ExpertParallelMoeConfig& config) {
  if (config.capacity_factor == 0) return {};
  const auto share = [&](int64_t tokens) {
    return static_cast<int64_t>(std::ceil(
        config.capacity_factor * static_cast<double>(tokens * config.top_k) /
        static_cast<double>(config.experts)));
  };
  std::vector<int64_t> capacities;
  int64_t all = 0;
  for (const int64_t tokens : config.tokens) {
    capacities.push_back(share(tokens));
    all += tokens;
  }
  if (config.capacity_scope == CapacityScope::kPerRank) return capacities;
  return {share(all)};
}

ExpertParallelMoe::ExpertParallelMoe(const Communicator& comm,
                                     const ExpertParallelMoeConfig& config,
                                     const CollectiveFamily& collectives)
    : comm_(comm),
      config_(config),
      collectives_(collectives),
      tokens_(config.tokens[static_cast<size_t>(comm.rank())]),
      all_tokens_(SizesOf(config, comm.rank()).AllTokens()),
      local_experts_(SizesOf(config, comm.rank()).LocalExperts(comm.rank())) {}

StatusOr<ExpertParallelMoe> ExpertParallelMoe::Create(
    const Communicator& comm, const ExpertParallelMoeConfig& config,
    const CollectiveFamily& collectives) {
  SP_RETURN_IF_ERROR(Check(comm, config));
  ExpertParallelMoe moe(comm, config, collectives);
  // Ranks ask for different amounts: if one gets none, all refuse.
  const Status allocated = moe.Allocate();
  SP_ASSIGN_OR_RETURN(
      const std::vector<std::string> all,
      comm.ExchangeControl(allocated.ok() ? "" : allocated.message()));
  for (size_t r = 0; r < all.size(); ++r) {
    if (all[r].empty()) continue;
    return Status(StatusCode::kOutOfMemory,
                  fmt::format("rank {}: {}", r, all[r]));
  }
  return moe;
}

Status ExpertParallelMoe::Allocate() {
  const RoutingSizes sizes = SizesOf(config_, comm_.rank());
  const DType dtype = config_.dtype, lane = config_.lane();
  const int64_t h = config_.hidden, e = config_.experts;
  const int64_t sent = sizes.MostSent(), received = sizes.MostReceived();
  SP_ASSIGN_OR_RETURN(experts_,
                      ExpertFfn::Create({.activation = config_.activation,
                                         .dtype = dtype,
                                         .hidden = h,
                                         .features = config_.intermediate,
                                         .most_rows = received}));
  SP_ASSIGN_OR_RETURN(
      shared_, ExpertFfn::Create({.activation = config_.activation,
                                  .dtype = dtype,
                                  .hidden = h,
                                  .features = config_.shared_intermediate,
                                  .most_rows = tokens_}));
  SP_ASSIGN_OR_RETURN(wide_, Tensor::Create(lane, {tokens_, h}));
  SP_ASSIGN_OR_RETURN(logits_, Tensor::Create(lane, {tokens_, e}));
  SP_ASSIGN_OR_RETURN(probabilities_, Tensor::Create(lane, {tokens_, e}));
  SP_ASSIGN_OR_RETURN(lse_, Tensor::Create(lane, {tokens_}));
  SP_ASSIGN_OR_RETURN(d_probability_, Tensor::Create(lane, {e}));
  SP_ASSIGN_OR_RETURN(row_weights_, Tensor::Create(lane, {sent}));
  SP_ASSIGN_OR_RETURN(grouped_, Tensor::Create(dtype, {received, h}));
  SP_ASSIGN_OR_RETURN(sent_, AllocateElements(comm_, sent * h, dtype));
  SP_ASSIGN_OR_RETURN(returned_, AllocateElements(comm_, sent * h, dtype));
  SP_ASSIGN_OR_RETURN(received_, AllocateElements(comm_, received * h, dtype));
  SP_ASSIGN_OR_RETURN(outgoing_, AllocateElements(comm_, received * h, dtype));
  const auto ranks = static_cast<size_t>(comm_.size());
  sums_counts_.assign(ranks, 2 * e + 1);
  SP_ASSIGN_OR_RETURN(
      sums_,
      AllocateElements(comm_, (comm_.size() + 1) * (2 * e + 1), DType::kF64));
  sent_counts_.resize(ranks);
  received_counts_.resize(ranks);
  try {
    plan_ = RoutingPlan(sizes);
  } catch (const std::bad_alloc&) {
    return Status(StatusCode::kOutOfMemory,
                  fmt::format("a plan of {} rows that are sent and {} that are "
                              "received",
                              sent, received));
  }
  return OkStatus();
}

Status ExpertParallelMoe::Forward(const ForwardArgs& args,
                                  const Stream& stream) {
  return stream.Run([this, args] { return RunForward(args); });
}

Status ExpertParallelMoe::Backward(const BackwardArgs& args,
                                   const Stream& stream) {
  return stream.Run([this, args] { return RunBackward(args); });
}

const void* ExpertParallelMoe::Widened(const void* x) {
  return Narrow(config_) ? wide_.raw() : x;
}

Status ExpertParallelMoe::Route(const ForwardArgs& args) {
  const DType lane = config_.lane();
  const int64_t h = config_.hidden, e = config_.experts;
  if (Narrow(config_)) {
    kernels::Widen(config_.dtype, args.x, tokens_ * h, wide_.data<float>());
  }
  SP_RETURN_IF_ERROR(
      Gemm(Stream::Inline(), {.a = {lane, {tokens_, h}, Widened(args.x)},
                              .b = {lane, {e, h}, args.weights.router},
                              .transpose_b = true,
                              .c = logits_.view()}));
  SP_RETURN_IF_ERROR(TopKSoftmax(Stream::Inline(), lane,
                                 {.tokens = tokens_,
                                  .experts = e,
                                  .k = config_.top_k,
                                  .renormalise = config_.renormalise,
                                  .logits = logits_.raw(),
                                  .noise = args.noise,
                                  .probabilities = probabilities_.raw(),
                                  .chosen = args.chosen,
                                  .weights = args.combine_weights,
                                  .lse = lse_.raw()}));
  return Agree(args);
}

Status ExpertParallelMoe::Agree(const ForwardArgs& args) {
  const int64_t e = config_.experts, stride = 2 * e + 1;
  double* const own = sums_.as<double>();
  double* const all = own + stride;
  SP_RETURN_IF_ERROR(RoutingSums(Stream::Inline(), config_.lane(),
                                 {.tokens = tokens_,
                                  .experts = e,
                                  .k = config_.top_k,
                                  .probabilities = probabilities_.raw(),
                                  .chosen = args.chosen,
                                  .lse = lse_.raw(),
                                  .sums = own}));
  SP_RETURN_IF_ERROR(collectives_.all_gather(comm_, {.send = own,
                                                     .recv = all,
                                                     .counts = sums_counts_,
                                                     .dtype = DType::kF64}));
  SP_RETURN_IF_ERROR(plan_.Make(all, stride, args.chosen));
  // Every rank adds in the order of ranks.
  std::array<double, 2> losses = {0, 0};
  for (int r = 0; r < comm_.size(); ++r) losses[1] += all[r * stride + 2 * e];
  for (int64_t i = 0; i < e; ++i) {
    double probability = 0;
    for (int r = 0; r < comm_.size(); ++r) {
      probability += all[r * stride + e + i];
    }
    losses[0] += static_cast<double>(plan_.load()[i]) * probability;
  }
  const auto n = static_cast<double>(std::max<int64_t>(all_tokens_, 1));
  losses[0] *= config_.auxiliary_coefficient * static_cast<double>(e) /
               (static_cast<double>(config_.top_k) * n * n);
  losses[1] *= config_.z_coefficient / n;
  FromDouble(config_.lane(), losses.data(), 2, args.losses);
  return OkStatus();
}

Status ExpertParallelMoe::Dispatch(void* grouped) {
  for (size_t r = 0; r < sent_counts_.size(); ++r) {
    sent_counts_[r] = plan_.sent_to()[r] * config_.hidden;
    received_counts_[r] = plan_.received_from()[r] * config_.hidden;
  }
  SP_RETURN_IF_ERROR(
      collectives_.all_to_all(comm_, {.send = sent_.data(),
                                      .recv = received_.data(),
                                      .send_counts = sent_counts_,
                                      .recv_counts = received_counts_,
                                      .dtype = config_.dtype}));
  return GatherRows(Stream::Inline(), config_.dtype,
                    {.rows = plan_.received(),
                     .width = config_.hidden,
                     .source = received_.data(),
                     .index = plan_.received_of_grouped(),
                     .out = grouped});
}

Status ExpertParallelMoe::Collect(const void* grouped, void* returned) {
  SP_RETURN_IF_ERROR(GatherRows(Stream::Inline(), config_.dtype,
                                {.rows = plan_.received(),
                                 .width = config_.hidden,
                                 .source = grouped,
                                 .index = plan_.grouped_of_received(),
                                 .out = outgoing_.data()}));
  return collectives_.all_to_all(comm_, {.send = outgoing_.data(),
                                         .recv = returned,
                                         .send_counts = received_counts_,
                                         .recv_counts = sent_counts_,
                                         .dtype = config_.dtype});
}

Status ExpertParallelMoe::RunForward(const ForwardArgs& args) {
  const DType dtype = config_.dtype;
  SP_RETURN_IF_ERROR(Route(args));
  SP_RETURN_IF_ERROR(GatherRows(Stream::Inline(), dtype,
                                {.rows = plan_.sent(),
                                 .width = config_.hidden,
                                 .source = args.x,
                                 .index = plan_.token_of_row(),
                                 .out = sent_.data()}));
  SP_RETURN_IF_ERROR(Dispatch(grouped_.raw()));
  SP_RETURN_IF_ERROR(experts_.Forward(plan_.expert_begins(), grouped_.raw(),
                                      args.weights.experts, received_.data()));
  SP_RETURN_IF_ERROR(Collect(received_.data(), returned_.data()));
  const bool shared = config_.shared_intermediate > 0;
  if (shared) {
    SP_RETURN_IF_ERROR(shared_.Forward(std::array<int64_t, 2>{0, tokens_},
                                       args.x, args.weights.shared, args.y));
  }
  return CombineRows(Stream::Inline(), dtype,
                     {.tokens = tokens_,
                      .k = config_.top_k,
                      .width = config_.hidden,
                      .source = returned_.data(),
                      .place = plan_.place(),
                      .weights = args.combine_weights,
                      .narrow = shared ? args.y : nullptr,
                      .out = args.y});
}

Status ExpertParallelMoe::SumOverRanks(void* data, int64_t count,
                                       DType dtype) const {
  return collectives_.all_reduce(
      comm_, {.send = data, .recv = data, .count = count, .dtype = dtype});
}

// Leaves the router's part of dx in wide_.
Status ExpertParallelMoe::RouterGradient(const BackwardArgs& args) {
  const DType lane = config_.lane();
  const int64_t h = config_.hidden, e = config_.experts;
  std::array<double, 2> d_losses;
  ToDouble(lane, args.d_losses, 2, d_losses.data());
  const auto n = static_cast<double>(std::max<int64_t>(all_tokens_, 1));
  for (int64_t i = 0; i < e; ++i) {
    const double d = d_losses[0] * config_.auxiliary_coefficient *
                     static_cast<double>(e) *
                     static_cast<double>(plan_.load()[i]) /
                     (static_cast<double>(config_.top_k) * n * n);
    FromDouble(lane, &d, 1, At(d_probability_.raw(), lane, i));
  }
  SP_RETURN_IF_ERROR(TopKSoftmaxGradient(
      Stream::Inline(), lane,
      {.tokens = tokens_,
       .experts = e,
       .k = config_.top_k,
       .renormalise = config_.renormalise,
       .probabilities = probabilities_.raw(),
       .chosen = args.chosen,
       .weights = args.combine_weights,
       .d_weights = args.d_combine_weights,
       .lse = lse_.raw(),
       .d_probability = d_probability_.raw(),
       .d_lse_factor = 2 * d_losses[1] * config_.z_coefficient / n,
       .d_logits = logits_.raw()}));
  const ConstTensorView d_logits = std::as_const(logits_).view();
  SP_RETURN_IF_ERROR(
      Gemm(Stream::Inline(), {.a = d_logits,
                              .transpose_a = true,
                              .b = {lane, {tokens_, h}, Widened(args.x)},
                              .c = {lane, {e, h}, args.gradients.router}}));
  SP_RETURN_IF_ERROR(
      Gemm(Stream::Inline(), {.a = d_logits,
                              .b = {lane, {e, h}, args.weights.router},
                              .c = wide_.view()}));
  return SumOverRanks(args.gradients.router, e * h, lane);
}

Status ExpertParallelMoe::RunBackward(const BackwardArgs& args) {
  const DType dtype = config_.dtype, lane = config_.lane();
  const int64_t h = config_.hidden, k = config_.top_k;
  SP_RETURN_IF_ERROR(RowDots(Stream::Inline(), dtype,
                             {.tokens = tokens_,
                              .k = k,
                              .width = h,
                              .y = args.dy,
                              .source = returned_.data(),
                              .place = plan_.place(),
                              .dots = args.d_combine_weights}));
  // w dy to the experts. A weight is a row of one element here.
  SP_RETURN_IF_ERROR(GatherRows(Stream::Inline(), lane,
                                {.rows = plan_.sent(),
                                 .width = 1,
                                 .source = args.combine_weights,
                                 .index = plan_.choice_of_row(),
                                 .out = row_weights_.raw()}));
  SP_RETURN_IF_ERROR(GatherRows(Stream::Inline(), dtype,
                                {.rows = plan_.sent(),
                                 .width = h,
                                 .source = args.dy,
                                 .index = plan_.token_of_row(),
                                 .scale = row_weights_.raw(),
                                 .out = sent_.data()}));
  void* const dy = outgoing_.data();
  SP_RETURN_IF_ERROR(Dispatch(dy));
  SP_RETURN_IF_ERROR(experts_.Backward(plan_.expert_begins(), grouped_.raw(),
                                       args.weights.experts, dy, grouped_.raw(),
                                       args.gradients.experts));
  SP_RETURN_IF_ERROR(Collect(grouped_.raw(), sent_.data()));
  SP_RETURN_IF_ERROR(RouterGradient(args));
  const bool shared = config_.shared_intermediate > 0;
  if (shared) {
    SP_RETURN_IF_ERROR(shared_.Backward(std::array<int64_t, 2>{0, tokens_},
                                        args.x, args.weights.shared, args.dy,
                                        args.dx, args.gradients.shared));
    const int64_t count = h * config_.shared_intermediate;
    for (void* gradient : {args.gradients.shared.gate, args.gradients.shared.up,
                           args.gradients.shared.down}) {
      if (gradient == args.gradients.shared.gate &&
          config_.activation != Activation::kSwiGlu) {
        continue;
      }
      SP_RETURN_IF_ERROR(SumOverRanks(gradient, count, dtype));
    }
  }
  return CombineRows(Stream::Inline(), dtype,
                     {.tokens = tokens_,
                      .k = k,
                      .width = h,
                      .source = sent_.data(),
                      .place = plan_.place(),
                      .wide = wide_.raw(),
                      .narrow = shared ? args.dx : nullptr,
                      .out = args.dx});
}

Cost ExpertParallelMoeForwardCost(const ExpertParallelMoeConfig& config,
                                  std::span<const int64_t> chosen,
                                  const CollectiveFamily& collectives) {
  const std::vector<int64_t> sums(config.tokens.size(), 2 * config.experts + 1);
  return collectives.all_gather_cost(sums, DType::kF64, Memory::kShared) +
         TravelCost(config, chosen, collectives);
}

Cost ExpertParallelMoeBackwardCost(const ExpertParallelMoeConfig& config,
                                   std::span<const int64_t> chosen,
                                   const CollectiveFamily& collectives) {
  const auto ranks = static_cast<int>(config.tokens.size());
  const auto sum = [&](int64_t count, DType dtype) {
    return collectives.all_reduce_cost(ranks, count, dtype, collectives.memory);
  };
  Cost cost = TravelCost(config, chosen, collectives) +
              sum(config.experts * config.hidden, config.lane());
  if (config.shared_intermediate == 0) return cost;
  const int matrices = config.activation == Activation::kSwiGlu ? 3 : 2;
  for (int i = 0; i < matrices; ++i) {
    cost += sum(config.hidden * config.shared_intermediate, config.dtype);
  }
  return cost;
}

MoeArithmetic ExpertParallelMoeArithmetic(const ExpertParallelMoeConfig& config,
                                          const Arithmetic& summed) {
  Arithmetic router = summed;
  router.accumulate = router.reduce = router.wire = router.store =
      config.lane();
  MoeArithmetic a = {.router = router,
                     .expert = summed,
                     .router_summed = router,
                     .shared_summed = summed};
  a.router.partials = a.expert.partials = 1;
  return a;
}

}  // namespace shardproof
