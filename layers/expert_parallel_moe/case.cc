// Variants and planted bugs of expert_parallel_moe; case_setup.h has the rest.
#include "tools/harness/case.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "collectives/chunks.h"
#include "layers/expert_parallel_moe/case_setup.h"
#include "layers/expert_parallel_moe/planned_routing.h"
#include "layers/kernels/moe.h"
#include "layers/pairing/layer_case.h"
#include "layers/pairing/meddled_exchange.h"

namespace shardproof::moe_case {
namespace {

StatusOr<Operation> Bind(const P& p, RankContext& context,
                         const CollectiveFamily& collectives) {
  SP_ASSIGN_OR_RETURN(const auto bound,
                      Bound::Make(p, ConfigOf(p), context, collectives));
  return Operation([bound]() -> Status {
    SP_RETURN_IF_ERROR(bound->Forward());
    return bound->Backward();
  });
}

Cost CostOf(const P& p, const CollectiveFamily& collectives) {
  const ExpertParallelMoeConfig config = ConfigOf(p);
  const std::vector<int64_t> chosen =
      ChoicesPerRank(PlanOf(p), config.tokens, p.experts, p.top_k);
  return ExpertParallelMoeForwardCost(config, chosen, collectives) +
         ExpertParallelMoeBackwardCost(config, chosen, collectives);
}

// --- Planted bugs ------------------------------------------------------------

// The layer with a bug: another configuration, something that goes wrong as rows
// arrive (exchanges 0 and 1 forward, 2 and 3 backward; odd ones bring rows back)
// or after Forward, losses whose gradients are scaled, or dy that reaches the
// experts without its weights. Combine weights that were spoiled are put right
// after Forward.
struct Bug {
  void (*config)(ExpertParallelMoeConfig&) = nullptr;
  CollectiveFamily family = kMeddledExchange;
  void (*arrived)(const Bound&, int exchange, const AllToAllVArgs&) = nullptr;
  void (*after_forward)(const Bound&, int run) = nullptr;
  double (*d_losses)(const P&) = nullptr;
  bool unweighted = false;
};

Tensor CopyOf(const ConstTensorView& view) {
  Tensor copy(view.dtype, view.shape);
  if (view.num_bytes() > 0) {
    std::memcpy(copy.raw(), view.data, static_cast<size_t>(view.num_bytes()));
  }
  return copy;
}

void CopyTo(const TensorView& view, const Tensor& tensor) {
  if (view.num_bytes() == 0) return;
  std::memcpy(view.data, tensor.raw(), static_cast<size_t>(view.num_bytes()));
}

// Every element of it through f.
void Change(const TensorView& view, double (*f)(double)) {
  std::vector<double> values(static_cast<size_t>(view.num_elements()));
  ToDouble(view.dtype, view.data, view.num_elements(), values.data());
  for (double& v : values) v = f(v);
  FromDouble(view.dtype, values.data(), view.num_elements(), view.data);
}

StatusOr<Operation> BindBug(const P& p, RankContext& context, const Bug& bug) {
  ExpertParallelMoeConfig config = ConfigOf(p);
  if (bug.config != nullptr) bug.config(config);
  SP_ASSIGN_OR_RETURN(const auto bound,
                      Bound::Make(p, config, context, bug.family));
  SP_ASSIGN_OR_RETURN(Meddling* const meddling, MeddlingOf(context.comm()));
  const auto runs = std::make_shared<int>(0);
  return Operation([=, &context]() -> Status {
    const TensorView weights = context.out("combine_weights");
    Tensor right = CopyOf(weights);
    *meddling = {};
    meddling->arrived = [&](int exchange, const AllToAllVArgs& args) {
      if (exchange == 1) right = CopyOf(weights);
      if (bug.arrived != nullptr) bug.arrived(*bound, exchange, args);
    };
    SP_RETURN_IF_ERROR(bound->Forward());
    if (bug.arrived != nullptr) CopyTo(weights, right);
    if (bug.after_forward != nullptr) bug.after_forward(*bound, (*runs)++);
    Tensor d_losses = CopyOf(context.in("d_losses"));
    if (bug.d_losses != nullptr) {
      SP_RETURN_IF_ERROR(Scale(d_losses.view(), bug.d_losses(p)));
    }
    right = CopyOf(weights);
    if (bug.unweighted) Change(right.view(), [](double) { return 1.0; });
    const Status ran = bound->Backward(d_losses.raw(), right.raw());
    *meddling = {};
    return ran;
  });
}

Mutant<P> With(std::string name, const Bug& bug, bool (*applies)(const P&)) {
  return {
      .name = std::move(name),
      .bind = [bug](const P& p, RankContext& c) { return BindBug(p, c, bug); },
      .applies = applies};
}

bool Several(const P& p) { return p.ranks >= 2; }
bool Dropping(const P& p) { return p.ranks >= 2 && p.capacity != "dropless"; }
bool Renormalised(const P& p) { return p.ranks >= 2 && p.top_k > 1; }

// What arrives has its first and its last row exchanged.
template <int kExchange>
void ExchangeRows(const Bound& b, int exchange, const AllToAllVArgs& args) {
  const int64_t h = b.p().hidden;
  const int64_t rows = Blocks::Listed(args.recv_counts).Total() / h;
  if (exchange != kExchange || rows < 2) return;
  auto* const first = static_cast<std::byte*>(args.recv);
  std::swap_ranges(first, At(first, args.dtype, h),
                   At(first, args.dtype, (rows - 1) * h));
}

// The last row of y, in every second run only.
void CorruptRow(const Bound& b, int run) {
  TensorView y = b.context().out("y");
  const int64_t rows = y.shape[0], h = y.shape[1];
  if (run % 2 == 0 || rows == 0) return;
  Change({y.dtype, {h}, At(y.data, y.dtype, (rows - 1) * h)},
         [](double v) { return 1.25 * v; });
}

// A token none of whose choices was kept passes through the layer unchanged.
Status PassDroppedThrough(const P& p, const RankContext& c) {
  const TensorView y = c.out("y"), dw = c.out("d_combine_weights");
  const ConstTensorView x = c.in("x");
  std::vector<double> gradients(static_cast<size_t>(dw.num_elements()));
  ToDouble(dw.dtype, dw.data, dw.num_elements(), gradients.data());
  for (int64_t t = 0; t < y.shape[0]; ++t) {
    const auto of_token = gradients.begin() + t * p.top_k;
    if (std::any_of(of_token, of_token + p.top_k,
                    [](double d) { return d != 0; })) {
      continue;
    }
    const int64_t row = t * p.hidden;
    SP_RETURN_IF_ERROR(CombineRows(c.stream(), p.dtype,
                                   {.tokens = 1,
                                    .width = p.hidden,
                                    .wide = nullptr,
                                    .narrow = At(x.data, p.dtype, row),
                                    .out = At(y.data, p.dtype, row)}));
  }
  return OkStatus();
}

Status ScaleExperts(const P& p, const RankContext& c, double factor) {
  if (Gated(p)) SP_RETURN_IF_ERROR(Scale(c.out("dw_gate"), factor));
  SP_RETURN_IF_ERROR(Scale(c.out("dw_up"), factor));
  return Scale(c.out("dw_down"), factor);
}

// Probabilities and log-sums of the rank's own tokens only, though what was
// chosen is known of all.
Status GatherOwnLosses(const Communicator& comm, const AllGatherVArgs& args) {
  SP_RETURN_IF_ERROR(AllGatherV(comm, args));
  const int64_t stride = args.counts[0], experts = stride / 2;
  for (int r = 0; r < comm.size(); ++r) {
    if (r == comm.rank()) continue;
    std::fill_n(static_cast<double*>(args.recv) + r * stride + experts,
                experts + 1, 0.0);
  }
  return OkStatus();
}

CollectiveFamily OwnLosses() {
  CollectiveFamily family = kAutoCollectives;
  family.all_gather = GatherOwnLosses;
  return family;
}

// The last token of all takes another expert for its last choice; what it says
// of its choice and weights is as if it had not.
StatusOr<Operation> BindOtherExpert(const P& p, RankContext& context) {
  SP_ASSIGN_OR_RETURN(const auto good,
                      Bound::Make(p, ConfigOf(p), context, kAutoCollectives));
  SP_ASSIGN_OR_RETURN(const auto bad,
                      Bound::Make(p, ConfigOf(p), context, kAutoCollectives));
  std::vector<int32_t> plan = PlanOf(p);
  const auto of_last = plan.end() - p.top_k;
  auto& other = plan.back();
  do {
    other = static_cast<int32_t>((other + 1) % p.experts);
  } while (std::count(of_last, plan.end(), other) > 1);
  bad->PlanNoise(plan);
  return Operation([=, &context]() -> Status {
    SP_RETURN_IF_ERROR(good->Forward());
    const Tensor chosen = CopyOf(context.out("chosen"));
    const Tensor weights = CopyOf(context.out("combine_weights"));
    SP_RETURN_IF_ERROR(bad->Forward());
    SP_RETURN_IF_ERROR(bad->Backward());
    CopyTo(context.out("chosen"), chosen);
    CopyTo(context.out("combine_weights"), weights);
    return OkStatus();
  });
}

// Forward renormalises; backward does not know it.
StatusOr<Operation> BindShareForgotten(const P& p, RankContext& context) {
  ExpertParallelMoeConfig config = ConfigOf(p);
  SP_ASSIGN_OR_RETURN(const auto good,
                      Bound::Make(p, config, context, kAutoCollectives));
  config.renormalise = false;
  SP_ASSIGN_OR_RETURN(const auto bad,
                      Bound::Make(p, config, context, kAutoCollectives));
  return Operation([=]() -> Status {
    SP_RETURN_IF_ERROR(bad->Forward());
    SP_RETURN_IF_ERROR(good->Forward());
    return bad->Backward();
  });
}

std::vector<Mutant<P>> Mutants() {
  return {
      Spoiled<P>(
          "expert_gradients_times_ranks", Bind,
          [](const P& p, const RankContext& c) {
            return ScaleExperts(p, c, p.ranks);
          },
          Several),
      Spoiled<P>(
          "expert_gradients_averaged", Bind,
          [](const P& p, const RankContext& c) {
            return ScaleExperts(p, c, 1.0 / p.ranks);
          },
          Several),
      With("auxiliary_loss_dropped",
           {.config = [](auto& c) { c.auxiliary_coefficient = 0; }}, Several),
      With("auxiliary_loss_times_ranks",
           {.config =
                [](auto& c) {
                  c.auxiliary_coefficient *=
                      static_cast<double>(c.tokens.size());
                }},
           Several),
      With("auxiliary_loss_over_ranks",
           {.config =
                [](auto& c) {
                  c.auxiliary_coefficient /=
                      static_cast<double>(c.tokens.size());
                }},
           Several),
      With("losses_of_own_tokens", {.family = OwnLosses()}, Several),
      With("gradients_of_losses_dropped",
           {.d_losses = [](const P&) { return 0.0; }}, Several),
      With("gradients_of_losses_times_ranks",
           {.d_losses = [](const P& p) { return 1.0 * p.ranks; }}, Several),
      With("gradients_of_losses_over_ranks",
           {.d_losses = [](const P& p) { return 1.0 / p.ranks; }}, Several),
      Planted<P>("router_gradient_left_partial", Bind, kWithoutReduction,
                 Several),
      Planted<P>("router_gradient_averaged", Bind, kAveraging, Several),
      Planted<P>("router_gradient_of_the_wrong_group", Bind, kReducingPairs,
                 [](const P& p) { return p.ranks >= 3; }),
      {.name = "router_gradient_without_renormalisation",
       .bind = BindShareForgotten,
       .applies = Renormalised},
      With("rows_arrive_in_the_wrong_order", {.arrived = ExchangeRows<0>},
           Several),
      With("rows_return_in_the_wrong_order", {.arrived = ExchangeRows<1>},
           Several),
      With("gradients_arrive_in_the_wrong_order", {.arrived = ExchangeRows<2>},
           Several),
      With("gradients_return_in_the_wrong_order", {.arrived = ExchangeRows<3>},
           Several),
      With("combine_weights_applied_twice",
           {.arrived =
                [](const Bound& b, int exchange, const AllToAllVArgs&) {
                  if (exchange != 1) return;
                  Change(b.context().out("combine_weights"),
                         [](double w) { return w * w; });
                }},
           Several),
      With("combine_weights_not_applied",
           {.arrived =
                [](const Bound& b, int exchange, const AllToAllVArgs&) {
                  if (exchange != 1) return;
                  Change(b.context().out("combine_weights"),
                         [](double) { return 1.0; });
                }},
           Several),
      With("gradients_not_weighted", {.unweighted = true}, Several),
      With("capacity_of_the_other_scope",
           {.config =
                [](auto& c) {
                  c.capacity_scope = c.capacity_scope == CapacityScope::kPerRank
                                         ? CapacityScope::kAllTokens
                                         : CapacityScope::kPerRank;
                }},
           Dropping),
      With("capacity_ignored",
           {.config = [](auto& c) { c.capacity_factor = 0; }}, Dropping),
      Spoiled<P>("dropped_tokens_pass_through", Bind, PassDroppedThrough,
                 [](const P& p) { return Dropping(p) && p.shared == 0; }),
      {.name = "one_choice_goes_to_another_expert",
       .bind = BindOtherExpert,
       .applies = Several},
      With("one_row_corrupt_in_every_second_run", {.after_forward = CorruptRow},
           Several)};
}

// --- The case ----------------------------------------------------------------

// All that is not a size is varied at the sizes of tests only, and not in every
// combination.
std::optional<std::string> Skip(const P& p) {
  if (p.top_k > p.experts) return "more choices than experts";
  if (!p.uneven) return std::nullopt;
  if ((p.shared == 0) != (p.experts == 3)) {
    return "a shared expert goes with many experts";
  }
  if (p.top_k == 1 && (p.experts == 3 || p.capacity == "per_rank")) {
    return "one choice goes with many experts";
  }
  const bool usual = Gated(p) && p.dtype == DType::kF32;
  if (!usual && (p.top_k == 1 || p.capacity == "per_rank")) {
    return "one choice, and capacities per rank, go with f32 and swiglu";
  }
  if (!usual && p.dtype != DType::kF64 && p.routing != "spread") {
    return "all tokens to one expert go with f32 and swiglu, or f64";
  }
  if (p.dtype == DType::kF64 && p.experts == 3) return "f64 has many experts";
  return std::nullopt;
}

// The experts of a model. So many that their weights take at most 3 GiB, of
// the size that they have, each with its share of balanced tokens.
std::vector<P> WorkloadOf(const Workload& workload, int ranks) {
  constexpr int64_t kMostBytes = int64_t{3} << 30;
  const auto dtype = TypeOf(workload);
  P p{.activation =
          FactOf(workload, "activation") == "swiglu" ? "swiglu" : "gelu",
      .routing = "balanced",
      .capacity = "dropless",
      .experts = ShapeOf(workload, "experts"),
      .top_k = ShapeOf(workload, "experts_per_token"),
      .tokens = ShapeOf(workload, "tokens"),
      .hidden = ShapeOf(workload, "hidden"),
      .intermediate = ShapeOf(workload, "moe_intermediate"),
      .shared = ShapeOf(workload, "shared_experts") *
                ShapeOf(workload, "moe_intermediate"),
      .uneven = false,
      .all_gradients = false,
      .ranks = ranks};
  if (!dtype.ok() || p.experts * p.top_k * p.tokens * p.intermediate == 0) {
    return {};
  }
  p.dtype = *dtype;
  const int64_t bytes = 3 * p.hidden * p.intermediate * SizeOf(p.dtype);
  p.experts = std::max(p.top_k, std::min(p.experts, kMostBytes / bytes));
  return {p};
}

// Every product forward, and two more backward.
double Flops(const P& p) {
  const auto tokens = static_cast<double>(p.tokens);
  const auto widths = static_cast<double>(p.top_k * p.intermediate + p.shared);
  return 6.0 * tokens * static_cast<double>(p.hidden) *
         ((Gated(p) ? 3 : 2) * widths + static_cast<double>(p.experts));
}

const RegisterCase kExpertParallelMoe(Case<P>{
    .name = "layers/expert_parallel_moe",
    .what =
        "mixture of experts over ranks: all_to_all to the experts and back, "
        "both ways; losses, router and shared expert summed over ranks",
    .axes = {Axis("dtype", &P::dtype,
                  {DType::kF32, DType::kBF16, DType::kF16, DType::kF64})
                 .Bench({DType::kF32, DType::kBF16}),
             Axis("activation", &P::activation, {"swiglu", "gelu"})
                 .Bench({"swiglu"}),
             Axis("routing", &P::routing, {"spread", "one_expert"})
                 .Bench({"balanced", "one_expert"}),
             Axis("capacity", &P::capacity,
                  {"dropless", "all_tokens", "per_rank"})
                 .Bench({"dropless"}),
             Axis("experts", &P::experts, {8, 3}).Bench({8}),
             Axis("top_k", &P::top_k, {2}).Bench({2}),
             Axis("tokens", &P::tokens, {12}).Bench({512}),
             Axis("hidden", &P::hidden, {20}).Bench({1024}),
             Axis("intermediate", &P::intermediate, {17}).Bench({1792}),
             Axis("shared", &P::shared, {7, 0}).Bench({0}),
             Axis("uneven", &P::uneven, {true}).Bench({false}),
             Axis("all_gradients", &P::all_gradients, {true}).Bench({false})},
    .skip = Skip,
    .tensors = TensorsOf,
    .reference = DenseReference<P>(Expected),
    .variants = OverCollectives<P>(Bind, CostOf),
    .mutants = Mutants(),
    .exact = false,  // Not linear; what only moves is tested to the bit.
    .flops = Flops,
    .floor = [](const P& p) { return Floor{.flops = Flops(p) / p.ranks}; },
    .workload = WorkloadOf});

}  // namespace
}  // namespace shardproof::moe_case
