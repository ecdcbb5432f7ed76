#include "pipeline/execution/case_setup.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <optional>
#include <utility>

#include "collectives/chunks.h"
#include "collectives/kernels/reduce.h"
#include "pipeline/registry.h"
#include "pipeline/simulator.h"

namespace shardproof::pipeline_execution {
namespace {

// --- Data --------------------------------------------------------------------

struct StackData {
  Distribution x, w, b, dy;
};

// Integers such that every sum on the way is below 2^t: weights of +-1, and
// fewer of them, then fewer upstream gradients, until they are.
StackData Exact(const P& p) {
  const double limit =
      std::ldexp(1.0, std::min(SignificandBits(p.dtype), 24)) - 1;
  const Distribution ones = {.kind = Distribution::Kind::kInteger,
                             .dtype = p.dtype};
  int64_t w_tile = 1, dy_tile = 1;
  const auto most = [&] {
    const double per_row =
        std::ceil(static_cast<double>(p.width) / static_cast<double>(w_tile));
    double h = 1, d = 1, sum = 0;
    for (int l = 0; l < p.layers; ++l) {
      sum = std::max(sum, h * std::pow(per_row, p.layers - 1 - l));
      h = per_row * h + 1;
      d *= per_row;
    }
    const double rows = std::ceil(static_cast<double>(p.AllTokens()) /
                                  static_cast<double>(dy_tile));
    return std::max(h, (p.tied ? 2 : 1) * rows * std::max(sum, d));
  };
  while (most() > limit && w_tile < p.width) w_tile *= 2;
  while (most() > limit && dy_tile < p.AllTokens()) dy_tile *= 2;
  StackData data = {ones, ones, ones, ones};
  if (w_tile > 1) {
    data.w.columns = p.width;
    data.w.tile = w_tile;
  }
  if (dy_tile > 1) {
    data.dy.columns = p.width;
    data.dy.tile = dy_tile;
  }
  return data;
}

// Layers neither swell nor shrink what goes through them.
Distribution BoundedWeight(const P& p) {
  return Uniform(p.dtype, std::sqrt(3.0 / static_cast<double>(p.width)));
}

// --- Where everything is -----------------------------------------------------

int StageOf(const P& p, const Schedule& s, int layer) {
  return layer * s.stages() / p.layers;
}

int HolderOf(const P& p, const Schedule& s, int pipeline, int layer) {
  return s
      .pipelines[static_cast<size_t>(pipeline)]
                [static_cast<size_t>(StageOf(p, s, layer))]
      .rank;
}

int64_t RowBytes(const P& p) { return p.width * SizeOf(p.dtype); }
// A layer's gradients: those of its weights, and then of its bias.
int64_t LayerBytes(const P& p) { return (p.width + 1) * RowBytes(p); }

std::vector<int64_t> TokensOf(const P& p) {
  std::vector<int64_t> tokens;
  for (int m = 0; m < p.micro_batches(); ++m) tokens.push_back(p.TokensIn(m));
  return tokens;
}

std::vector<int64_t> MessageBytes(const P& p) {
  std::vector<int64_t> bytes;
  for (const int64_t n : TokensOf(p)) bytes.push_back(n * RowBytes(p));
  return bytes;
}

// GPipe over stages that are already there.
void AddGPipe(Schedule& s, int rank, int chunk, const std::vector<int>& order) {
  std::vector<Action>& actions = s.actions[static_cast<size_t>(rank)];
  for (const ActionKind kind : {ActionKind::kForward, ActionKind::kBackward}) {
    for (const int m : order) actions.push_back({kind, m, chunk});
  }
}

}  // namespace

Tensors TensorsOf(const P& p) {
  const StackData exact = Exact(p);
  const Shape tokens = {p.AllTokens(), p.width};
  const Shape weights = {p.layers, p.width, p.width};
  const Shape biases = {p.layers, p.width};
  return {Input("x", p.dtype, tokens, Replicated()).Data({.exact = exact.x}),
          Input("w", p.dtype, weights, Replicated())
              .Data({.exact = exact.w, .bounded = BoundedWeight(p)}),
          Input("b", p.dtype, biases, Replicated()).Data({.exact = exact.b}),
          Input("dy", p.dtype, tokens, Replicated()).Data({.exact = exact.dy}),
          Output("y", p.dtype, tokens, OnRank(0)),
          Output("dx", p.dtype, tokens, OnRank(0)).Gradient(),
          Output("dw", p.dtype, weights, OnRank(0)).Gradient(),
          Output("db", p.dtype, biases, OnRank(0)).Gradient()};
}

StatusOr<Schedule> BothWays(const P& p) {
  Schedule s;
  s.name = "both_ways";
  s.micro_batches = p.micro_batches();
  s.pipelines.resize(2);
  s.actions.resize(static_cast<size_t>(p.ranks));
  std::vector<int> order[2];
  for (int m = 0; m < s.micro_batches; ++m) {
    s.pipeline_of.push_back(m % 2);
    order[m % 2].push_back(m);
  }
  for (int rank = 0; rank < p.ranks; ++rank) {
    s.pipelines[0].push_back({rank, 0});
    s.pipelines[1].push_back({p.ranks - 1 - rank, 1});
    for (const int pipe : {0, 1}) AddGPipe(s, rank, pipe, order[pipe]);
  }
  return s;
}

StatusOr<Schedule> OppositeOrder(const P& p) {
  Schedule s;
  s.name = "opposite_order";
  s.micro_batches = p.micro_batches();
  s.pipelines = {LoopingStages(p.ranks, 1)};
  s.actions.resize(static_cast<size_t>(p.ranks));
  std::vector<int> order;
  for (int m = 0; m < s.micro_batches; ++m) order.push_back(m);
  for (int rank = 0; rank < p.ranks; ++rank) {
    AddGPipe(s, rank, 0, order);
    std::reverse(order.begin(), order.end());
  }
  return s;
}

// --- A rank ------------------------------------------------------------------

class Worker {
 public:
  static StatusOr<std::shared_ptr<Worker>> Create(const P& p,
                                                  RankContext& context,
                                                  const Plan& plan) {
    SP_ASSIGN_OR_RETURN(const Schedule schedule, plan.build(p));
    const Communicator& comm = context.comm();
    PipelineExecutorConfig config = {schedule, MessageBytes(p)};
    if (plan.message_bytes) plan.message_bytes(config.message_bytes);
    PipelinePlan actions = PlanPipeline(schedule, comm.rank());
    if (plan.plan) plan.plan(actions);
    SP_ASSIGN_OR_RETURN(PipelineExecutor executor,
                        PipelineExecutor::Create(comm, config, actions));
    auto worker = std::shared_ptr<Worker>(
        new Worker(p, context, plan, schedule, std::move(executor)));
    SP_RETURN_IF_ERROR(worker->MakeStages());
    SP_RETURN_IF_ERROR(worker->PredictMemory());
    return worker;
  }

  Status Run() {
    if (plan_.scale) ScaleUpstream();
    for (LinearStage& stage : stages_) stage.BeginStep();
    SP_RETURN_IF_ERROR(executor_.Step(chunks_));
    SP_RETURN_IF_ERROR(CheckMemory());
    const OpScope op(comm(), {.label = "pipeline/gradients"});
    SP_RETURN_IF_ERROR(op.status());
    SP_RETURN_IF_ERROR(Sum());
    if (plan_.scale_gradients) ScaleGradients();
    return Gather();
  }

 private:
  Worker(const P& p, RankContext& context, Plan plan, Schedule schedule,
         PipelineExecutor executor)
      : p_(p),
        context_(context),
        plan_(std::move(plan)),
        schedule_(std::move(schedule)),
        executor_(std::move(executor)),
        y_(p.dtype, {p.AllTokens(), p.width}),
        dx_(p.dtype, {p.AllTokens(), p.width}),
        dy_(p.dtype, {p.AllTokens(), p.width}),
        arrived_(p.dtype, {p.width + 1, p.width}) {
    for (size_t k = 0; k < schedule_.pipelines.size(); ++k) {
      gradients_.push_back(
          Tensor::Zeros(p.dtype, {p.layers, p.width + 1, p.width}));
    }
  }

  const Communicator& comm() const { return context_.comm(); }
  std::byte* Layer(int pipeline, int layer) {
    return static_cast<std::byte*>(
               gradients_[static_cast<size_t>(pipeline)].raw()) +
           layer * LayerBytes(p_);
  }

  Status MakeStages() {
    const std::vector<int> slots = SlotsOfChunks(schedule_, comm().rank());
    stages_.reserve(slots.size());
    chunks_.resize(slots.size());
    for (size_t k = 0; k < schedule_.pipelines.size(); ++k) {
      for (int stage = 0; stage < schedule_.stages(); ++stage) {
        const Place& place = schedule_.pipelines[k][static_cast<size_t>(stage)];
        if (place.rank != comm().rank()) continue;
        const auto chunk = static_cast<size_t>(place.chunk);
        SP_RETURN_IF_ERROR(MakeStage(static_cast<int>(k), stage, slots[chunk]));
        chunks_[chunk] = &stages_.back();
        if (!plan_.around) continue;
        around_.push_back(plan_.around(p_, stages_.back()));
        chunks_[chunk] = around_.back().get();
      }
    }
    return OkStatus();
  }

  Status MakeStage(int pipeline, int stage, int slots) {
    std::vector<LinearStageLayer> layers;
    const ConstTensorView w = context_.in("w"), b = context_.in("b");
    const int64_t square = p_.width * p_.width;
    for (int l = 0; l < p_.layers; ++l) {
      if (StageOf(p_, schedule_, l) != stage) continue;
      std::byte* const gradients = Layer(pipeline, l);
      layers.push_back({.w = At(w.data, p_.dtype, p_.WeightOf(l) * square),
                        .b = At(b.data, p_.dtype, l * p_.width),
                        .dw = gradients,
                        .db = gradients + p_.width * RowBytes(p_)});
    }
    LinearStageEnds ends;
    if (stage == 0) {
      ends.x = context_.in("x").data;
      ends.dx = dx_.raw();
    }
    if (stage + 1 == schedule_.stages()) {
      ends.y = y_.raw();
      ends.dy = plan_.scale ? dy_.raw() : context_.in("dy").data;
    }
    SP_ASSIGN_OR_RETURN(LinearStage made,
                        LinearStage::Create({.width = p_.width,
                                             .tokens = TokensOf(p_),
                                             .dtype = p_.dtype,
                                             .slots = slots,
                                             .recompute = p_.recompute},
                                            std::move(layers), ends));
    stages_.push_back(std::move(made));
    return OkStatus();
  }

  // What is kept at most is what the simulator says, on ranks with neither the
  // first stage nor the last, which lack an x or a dy, where all micro-batches
  // are alike. Simulated here, once, and not in the operation that is timed.
  Status PredictMemory() {
    if (p_.TokensIn(p_.micro_batches() - 1) != p_.tokens) return OkStatus();
    if (plan_.message_bytes) return OkStatus();
    for (const std::vector<Place>& stages : schedule_.pipelines) {
      for (const Place& end : {stages.front(), stages.back()}) {
        if (end.rank == comm().rank()) return OkStatus();
      }
    }
    const int64_t chunks = std::max(1, schedule_.stages() / p_.ranks);
    const auto bytes = static_cast<double>(p_.tokens * RowBytes(p_) * chunks);
    SP_ASSIGN_OR_RETURN(const Simulation s,
                        Simulate(schedule_, {.held_to_input = bytes,
                                             .held_to_weight = 2 * bytes}));
    predicted_peak_ = s.peak[static_cast<size_t>(comm().rank())];
    return OkStatus();
  }

  Status CheckMemory() const {
    if (!predicted_peak_.has_value()) return OkStatus();
    const int64_t kept = executor_.memory().kept_peak;
    if (std::abs(static_cast<double>(kept) - *predicted_peak_) < 0.5) {
      return OkStatus();
    }
    return Internal("{} bytes were kept, not {}", kept, *predicted_peak_);
  }

  // Two ranks, or one, each get the sum of what both have at `a` and `b`.
  Status SumBetween(int rank_a, std::byte* a, int rank_b, std::byte* b,
                    int64_t bytes) {
    const int64_t count = bytes / SizeOf(p_.dtype);
    const auto size = static_cast<size_t>(bytes);
    const int rank = comm().rank();
    if (rank_a == rank_b && rank == rank_a) {
      kernels::ReduceInto(p_.dtype, ReduceOp::kSum, a, b, count);
      std::memcpy(b, a, size);
    } else if (rank == rank_a || rank == rank_b) {
      std::byte* const mine = rank == rank_a ? a : b;
      const int other = rank == rank_a ? rank_b : rank_a;
      SP_RETURN_IF_ERROR(
          comm().SendRecv(mine, size, other, arrived_.raw(), size, other));
      kernels::ReduceInto(p_.dtype, ReduceOp::kSum, mine, arrived_.raw(),
                          count);
    }
    return OkStatus();
  }

  int Holder(int pipeline, int layer) const {
    return HolderOf(p_, schedule_, pipeline, layer);
  }

  Status Sum() {
    const bool copies = gradients_.size() > 1 && plan_.sums_copies;
    for (int l = 0; copies && l < p_.layers; ++l) {
      SP_RETURN_IF_ERROR(SumBetween(Holder(0, l), Layer(0, l), Holder(1, l),
                                    Layer(1, l), LayerBytes(p_)));
    }
    if (!p_.tied || !plan_.sums_tied) return OkStatus();
    const int last = p_.layers - 1;
    return SumBetween(Holder(0, 0), Layer(0, 0), Holder(0, last),
                      Layer(0, last), p_.width * RowBytes(p_));
  }

  // To rank 0.
  Status Move(int from, const void* data, void* to, int64_t bytes) {
    const auto size = static_cast<size_t>(bytes);
    if (from == 0 && comm().rank() == 0) {
      if (size > 0) std::memcpy(to, data, size);
    } else if (comm().rank() == 0) {
      return comm().Recv(to, size, from);
    } else if (comm().rank() == from) {
      return comm().Send(data, size, 0);
    }
    return OkStatus();
  }

  Status Gather() {
    int64_t begin = 0;
    for (int m = 0; m < p_.micro_batches(); ++m) {
      const int64_t at = begin * p_.width,
                    bytes = p_.TokensIn(m) * RowBytes(p_);
      begin += p_.TokensIn(m);
      SP_RETURN_IF_ERROR(Move(schedule_.PlaceOf(m, schedule_.stages() - 1).rank,
                              At(y_.raw(), p_.dtype, at),
                              At(context_.out("y").data, p_.dtype, at), bytes));
      SP_RETURN_IF_ERROR(
          Move(schedule_.PlaceOf(m, 0).rank, At(dx_.raw(), p_.dtype, at),
               At(context_.out("dx").data, p_.dtype, at), bytes));
    }
    const int64_t row = RowBytes(p_), square = p_.width * p_.width;
    for (int l = 0; l < p_.layers; ++l) {
      SP_RETURN_IF_ERROR(
          Move(Holder(0, l), Layer(0, l), arrived_.raw(), LayerBytes(p_)));
      if (comm().rank() != 0) continue;
      std::memcpy(At(context_.out("dw").data, p_.dtype, l * square),
                  arrived_.raw(), static_cast<size_t>(p_.width * row));
      std::memcpy(At(context_.out("db").data, p_.dtype, l * p_.width),
                  At(arrived_.raw(), p_.dtype, square),
                  static_cast<size_t>(row));
    }
    return OkStatus();
  }

  void ScaleUpstream() {
    int64_t at = 0;
    for (int m = 0; m < p_.micro_batches(); ++m) {
      const int64_t n = p_.TokensIn(m) * p_.width;
      Multiply(At(context_.in("dy").data, p_.dtype, at), n, plan_.scale(p_, m),
               At(dy_.raw(), p_.dtype, at));
      at += n;
    }
  }
  void ScaleGradients() {
    for (Tensor& all : gradients_) {
      Multiply(all.raw(), all.num_elements(), plan_.scale_gradients(p_),
               all.raw());
    }
  }
  void Multiply(const void* from, int64_t n, double factor, void* to) const {
    std::vector<double> values(static_cast<size_t>(n));
    ToDouble(p_.dtype, from, n, values.data());
    for (double& v : values) v *= factor;
    FromDouble(p_.dtype, values.data(), n, to);
  }

  P p_;
  RankContext& context_;
  Plan plan_;
  Schedule schedule_;
  PipelineExecutor executor_;
  std::optional<double> predicted_peak_;  // Bytes, where it can be said.
  Tensor y_, dx_, dy_, arrived_;
  std::vector<Tensor> gradients_;  // Of each pipeline: of all layers.
  std::vector<LinearStage> stages_;
  std::vector<std::unique_ptr<PipelineStage>> around_;
  std::vector<PipelineStage*> chunks_;
};

StatusOr<Operation> Bind(const P& p, RankContext& context, const Plan& plan) {
  SP_ASSIGN_OR_RETURN(const auto worker, Worker::Create(p, context, plan));
  return Operation([worker] { return worker->Run(); });
}

// --- Cost --------------------------------------------------------------------

namespace {

// What each rank sends.
class Sent {
 public:
  explicit Sent(int ranks) : of_(static_cast<size_t>(ranks)) {}

  void Add(int from, int to, int64_t bytes) {
    if (from == to || bytes == 0) return;
    of_[static_cast<size_t>(from)] += {bytes, 1};
  }
  Cost AsCost() const {
    Cost cost;
    for (const Traffic& sent : of_) {
      cost.total += sent;
      cost.alpha_count =
          std::max(cost.alpha_count, static_cast<double>(sent.messages));
      cost.beta_bytes =
          std::max(cost.beta_bytes, static_cast<double>(sent.bytes));
    }
    return cost;
  }

 private:
  std::vector<Traffic> of_;
};

}  // namespace

Cost CostOf(const P& p, const BuildFor& build) {
  const StatusOr<Schedule> built = build(p);
  if (!built.ok()) return {};
  const Schedule& s = *built;
  Sent sent(p.ranks);
  for (int m = 0; m < p.micro_batches(); ++m) {
    const int64_t bytes = p.TokensIn(m) * RowBytes(p);
    for (int stage = 1; stage < s.stages(); ++stage) {
      const int before = s.PlaceOf(m, stage - 1).rank;
      const int rank = s.PlaceOf(m, stage).rank;
      sent.Add(before, rank, bytes);
      sent.Add(rank, before, bytes);
    }
    sent.Add(s.PlaceOf(m, s.stages() - 1).rank, 0, bytes);
    sent.Add(s.PlaceOf(m, 0).rank, 0, bytes);
  }
  const auto both = [&](int a, int b, int64_t bytes) {
    sent.Add(a, b, bytes);
    sent.Add(b, a, bytes);
  };
  for (int l = 0; l < p.layers; ++l) {
    const int holder = HolderOf(p, s, 0, l);
    if (s.pipelines.size() > 1) {
      both(holder, HolderOf(p, s, 1, l), LayerBytes(p));
    }
    sent.Add(holder, 0, LayerBytes(p));
  }
  if (p.tied) {
    both(HolderOf(p, s, 0, 0), HolderOf(p, s, 0, p.layers - 1),
         p.width * RowBytes(p));
  }
  return sent.AsCost();
}

}  // namespace shardproof::pipeline_execution
