#include "layers/expert_parallel_moe/case_setup.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <utility>

#include "collectives/chunks.h"
#include "collectives/uneven.h"
#include "layers/expert_parallel_moe/planned_routing.h"
#include "layers/pairing/sampling.h"
#include "reference/moe.h"

namespace shardproof::moe_case {
namespace {

int64_t AllTokens(const P& p) {
  return RoutingSizes{.tokens = ConfigOf(p).tokens}.AllTokens();
}

// Weights such that sums of `terms` products with uniform numbers have a
// deviation of about `size` / 3.
TensorData Weight(DType dtype, int64_t terms, double size) {
  return {.bounded =
              Uniform(dtype, size / std::sqrt(static_cast<double>(terms)))};
}

MoeInputs InputsOf(const P& p, const Inputs& in, const Tensor& noise) {
  const ExpertParallelMoeConfig config = ConfigOf(p);
  MoeInputs inputs = {
      .activation = config.activation,
      .top_k = config.top_k,
      .renormalise = config.renormalise,
      .auxiliary_coefficient = config.auxiliary_coefficient,
      .z_coefficient = config.z_coefficient,
      .tokens = config.tokens,
      .capacities = ExpertCapacities(config),
      .x = in.Global("x"),
      .router = in.Global("router"),
      .noise = noise.view(),
      .experts = {.up = in.Global("w_up"), .down = in.Global("w_down")},
      .dy = in.Global("dy"),
      .d_losses = in.Global("d_losses")};
  if (Gated(p)) inputs.experts.gate = in.Global("w_gate");
  if (p.shared == 0) return inputs;
  inputs.shared = ExpertWeights{.up = in.Global("shared_up"),
                                .down = in.Global("shared_down")};
  if (Gated(p)) inputs.shared->gate = in.Global("shared_gate");
  return inputs;
}

}  // namespace

bool Gated(const P& p) { return p.activation == "swiglu"; }
DType Lane(const P& p) { return Accumulator(p.dtype); }

// The losses count for much, so that the gradient of the router stands out
// against what the roundings of bf16 experts leave unknown of it.
ExpertParallelMoeConfig ConfigOf(const P& p) {
  ExpertParallelMoeConfig config = {
      .hidden = p.hidden,
      .intermediate = p.intermediate,
      .experts = p.experts,
      .top_k = p.top_k,
      .renormalise = p.top_k > 1,
      .capacity_factor = p.capacity == "dropless" ? 0.0 : 1.0,
      .capacity_scope = p.capacity == "per_rank" ? CapacityScope::kPerRank
                                                 : CapacityScope::kAllTokens,
      .auxiliary_coefficient = 40,
      .z_coefficient = 20,
      .shared_intermediate = p.shared,
      .activation = Gated(p) ? Activation::kSwiGlu : Activation::kGeluTanh,
      .dtype = p.dtype};
  if (p.uneven) {
    config.tokens = UnevenCounts(p.ranks, p.tokens, /*turn=*/2);
  } else {
    for (int r = 0; r < p.ranks; ++r) {
      config.tokens.push_back(BalancedChunk(p.tokens, p.ranks, r).count);
    }
  }
  return config;
}

std::vector<int32_t> PlanOf(const P& p) {
  const Load load = p.routing == "balanced" ? Load::kBalanced
                    : p.routing == "spread" ? Load::kSpread
                                            : Load::kOneExpert;
  return PlannedChoices(load, AllTokens(p), p.experts, p.top_k);
}

// Inputs in the order in which they are used, then outputs.
Tensors TensorsOf(const P& p) {
  const int64_t t = AllTokens(p), e = p.experts, h = p.hidden,
                f = p.intermediate, k = p.top_k;
  const DType lane = Lane(p);
  const Sharding tokens = ShardSizes(0, ConfigOf(p).tokens);
  Tensors tensors;
  const auto in = [&](const char* name, DType dtype, const Shape& shape,
                      const Sharding& by, const TensorData& data = {}) {
    tensors.push_back(Input(name, dtype, shape, by).Data(data));
  };
  const auto gradient = [&](const char* name, DType dtype, const Shape& shape,
                            const Sharding& by, int sampled) {
    tensors.push_back(
        Output(name, dtype, shape, by).Gradient().SampleDimension(sampled));
  };
  in("x", p.dtype, {t, h}, tokens);
  // Far below half a step of the noise.
  in("router", lane, {e, h}, Replicated(), Weight(lane, h, 0.2));
  if (Gated(p))
    in("w_gate", p.dtype, {e, f, h}, Shard(0), Weight(p.dtype, h, 3));
  in("w_up", p.dtype, {e, f, h}, Shard(0), Weight(p.dtype, h, 3));
  in("w_down", p.dtype, {e, h, f}, Shard(0), Weight(p.dtype, f, 3));
  const Shape up = {1, p.shared, h}, down = {1, h, p.shared};
  if (p.shared > 0) {
    if (Gated(p)) {
      in("shared_gate", p.dtype, up, Replicated(), Weight(p.dtype, h, 3));
    }
    in("shared_up", p.dtype, up, Replicated(), Weight(p.dtype, h, 3));
    in("shared_down", p.dtype, down, Replicated(),
       Weight(p.dtype, p.shared, 3));
  }
  in("dy", p.dtype, {t, h}, tokens);
  in("d_losses", lane, {2}, Replicated(),
     {.bounded = Distribution{.kind = Distribution::Kind::kPowerOfTwo,
                              .dtype = lane}});
  tensors.push_back(Output("y", p.dtype, {t, h}, tokens).SampleDimension(0));
  tensors.push_back(Output("chosen", DType::kI32, {t, k}, tokens));
  tensors.push_back(Output("combine_weights", lane, {t, k}, tokens));
  tensors.push_back(Output("losses", lane, {2}, Replicated()));
  gradient("dx", p.dtype, {t, h}, tokens, 0);
  if (p.all_gradients) {
    gradient("d_combine_weights", lane, {t, k}, tokens, -1);
    gradient("d_router", lane, {e, h}, Replicated(), -1);
  }
  if (Gated(p)) gradient("dw_gate", p.dtype, {e, f, h}, Shard(0), 1);
  gradient("dw_up", p.dtype, {e, f, h}, Shard(0), 1);
  gradient("dw_down", p.dtype, {e, h, f}, Shard(0), 2);
  if (p.shared == 0) return tensors;
  if (Gated(p)) gradient("d_shared_gate", p.dtype, up, Replicated(), 1);
  gradient("d_shared_up", p.dtype, up, Replicated(), 1);
  gradient("d_shared_down", p.dtype, down, Replicated(), 2);
  return tensors;
}

StatusOr<DenseOutputs> Expected(const P& p, const Arithmetic& summed,
                                const Inputs& in, const Sample& sample) {
  const std::vector<int32_t> plan = PlanOf(p);
  const Tensor noise =
      NoiseFor(plan, AllTokens(p), p.experts, p.top_k, Lane(p));
  // Gradients that are not sampled take all tokens.
  const MoeSamples samples = {
      .tokens = p.all_gradients ? Rows() : Together(sample, {"y", "dx"}),
      .features = Gated(p) ? Together(sample, {"dw_up", "dw_down", "dw_gate"})
                           : Together(sample, {"dw_up", "dw_down"}),
      .shared_features =
          Gated(p) ? Together(sample,
                              {"d_shared_up", "d_shared_down", "d_shared_gate"})
                   : Together(sample, {"d_shared_up", "d_shared_down"}),
      .router_gradient = p.all_gradients};
  SP_ASSIGN_OR_RETURN(
      const MoeResult r,
      MoeReference(InputsOf(p, in, noise),
                   ExpertParallelMoeArithmetic(ConfigOf(p), summed), samples));
  if (r.routing.chosen != plan) {
    return InvalidArgument("tokens are not routed as the noise plans it");
  }
  DenseOutputs out;
  out["losses"] = {r.routing.auxiliary, r.routing.z};
  out["combine_weights"] = r.routing.weights.values;
  for (const int32_t e : r.routing.chosen) {
    out["chosen"].push_back({.value = static_cast<double>(e)});
  }
  const int64_t tokens = AllTokens(p);
  out["y"] = RowsAt(r.y, Places(sample, "y", samples.tokens, tokens));
  out["dx"] = RowsAt(r.dx, Places(sample, "dx", samples.tokens, tokens));
  if (p.all_gradients) {
    out["d_combine_weights"] = r.d_weights.values;
    out["d_router"] = r.d_router.values;
  }
  const auto stack = [&](const char* name, const Rows& evaluated,
                         int64_t extent, const std::vector<Matrix>& of,
                         bool transposed) {
    const std::vector<int64_t> places = Places(sample, name, evaluated, extent);
    for (const Matrix& m : of) {
      const std::vector<Bounded> next =
          transposed ? Transposed(m, places) : RowsAt(m, places);
      out[name].insert(out[name].end(), next.begin(), next.end());
    }
  };
  const int64_t f = p.intermediate;
  stack("dw_up", samples.features, f, r.d_up, false);
  stack("dw_down", samples.features, f, r.d_down_t, true);
  if (Gated(p)) stack("dw_gate", samples.features, f, r.d_gate, false);
  if (p.shared == 0) return out;
  const Rows& shared = samples.shared_features;
  stack("d_shared_up", shared, p.shared, {r.d_shared_up}, false);
  stack("d_shared_down", shared, p.shared, {r.d_shared_down_t}, true);
  if (Gated(p))
    stack("d_shared_gate", shared, p.shared, {r.d_shared_gate}, false);
  return out;
}

StatusOr<std::shared_ptr<Bound>> Bound::Make(
    const P& p, const ExpertParallelMoeConfig& config, RankContext& context,
    const CollectiveFamily& collectives) {
  SP_ASSIGN_OR_RETURN(
      ExpertParallelMoe moe,
      ExpertParallelMoe::Create(context.comm(), config, collectives));
  auto bound = std::make_shared<Bound>(p, context, std::move(moe));
  bound->PlanNoise(PlanOf(p));
  return bound;
}

Bound::Bound(const P& p, RankContext& context, ExpertParallelMoe moe)
    : p_(p),
      context_(context),
      moe_(std::move(moe)),
      d_weights_(Lane(p), {moe_.local_tokens(), p.top_k}),
      d_router_(Lane(p), {p.experts, p.hidden}) {}

void Bound::PlanNoise(const std::vector<int32_t>& plan) {
  const std::vector<int64_t> tokens = ConfigOf(p_).tokens;
  const auto rank = static_cast<size_t>(context_.comm().rank());
  const int64_t before =
      RoutingSizes{.tokens = {tokens.begin(), tokens.begin() + rank}}
          .AllTokens();
  noise_ = NoiseFor(
      std::span(plan).subspan(static_cast<size_t>(before * p_.top_k),
                              static_cast<size_t>(tokens[rank] * p_.top_k)),
      tokens[rank], p_.experts, p_.top_k, Lane(p_));
}

Status Bound::Forward() {
  return moe_.Forward({.x = context_.in("x").data,
                       .weights = Weights(),
                       .noise = noise_.raw(),
                       .y = context_.out("y").data,
                       .chosen = context_.out("chosen").as<int32_t>(),
                       .combine_weights = context_.out("combine_weights").data,
                       .losses = context_.out("losses").data},
                      context_.stream());
}

Status Bound::Backward(const void* d_losses, const void* weights) {
  MoeGradients gradients = {.router = p_.all_gradients
                                          ? context_.out("d_router").data
                                          : d_router_.raw(),
                            .experts = {.up = context_.out("dw_up").data,
                                        .down = context_.out("dw_down").data}};
  if (Gated(p_)) gradients.experts.gate = context_.out("dw_gate").data;
  if (p_.shared > 0) {
    gradients.shared = {.up = context_.out("d_shared_up").data,
                        .down = context_.out("d_shared_down").data};
    if (Gated(p_)) {
      gradients.shared.gate = context_.out("d_shared_gate").data;
    }
  }
  return moe_.Backward(
      {.x = context_.in("x").data,
       .weights = Weights(),
       .chosen = context_.out("chosen").as<int32_t>(),
       .combine_weights =
           weights ? weights : context_.out("combine_weights").data,
       .dy = context_.in("dy").data,
       .d_losses = d_losses ? d_losses : context_.in("d_losses").data,
       .dx = context_.out("dx").data,
       .gradients = gradients,
       .d_combine_weights = p_.all_gradients
                                ? context_.out("d_combine_weights").data
                                : d_weights_.raw()},
      context_.stream());
}

MoeWeights Bound::Weights() const {
  MoeWeights w = {.router = context_.in("router").data,
                  .experts = {.up = context_.in("w_up").data,
                              .down = context_.in("w_down").data}};
  if (Gated(p_)) w.experts.gate = context_.in("w_gate").data;
  if (p_.shared == 0) return w;
  w.shared = {.up = context_.in("shared_up").data,
              .down = context_.in("shared_down").data};
  if (Gated(p_)) w.shared.gate = context_.in("shared_gate").data;
  return w;
}

}  // namespace shardproof::moe_case
