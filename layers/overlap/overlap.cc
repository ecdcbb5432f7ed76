#include "layers/overlap/overlap.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "collectives/kernels/reduce.h"
#include "layers/kernels/activation.h"
#include "layers/kernels/gemm.h"
#include "layers/overlap/message_thread.h"
#include "layers/tensor_parallel/agree.h"
#include "layers/tensor_parallel/parallel_region.h"

namespace shardproof {
namespace {

using Flow = OverlapExchange::Flow;
using Kind = OverlapStep::Kind;

bool Scatters(const OverlapSchedule& schedule) {
  return std::any_of(
      schedule.exchanges.begin(), schedule.exchanges.end(),
      [](const OverlapExchange& e) { return e.flow == Flow::kScatter; });
}

// The features of a token that is gathered or scattered.
int64_t SentWidth(const OverlapConfig& config) {
  return config.kind == OverlapKind::kColumn ? config.in : config.out;
}

// Chunks with tokens on some rank; the first rank has most. What more there are
// is empty everywhere, and nothing is sent for it.
int ChunksOf(const OverlapConfig& config, int ranks) {
  const int64_t most = BalancedChunk(config.tokens, ranks, 0).count;
  return static_cast<int>(
      std::clamp<int64_t>(most, 1, std::max(1, config.chunks)));
}

Status Check(const Communicator& comm, const OverlapConfig& config) {
  constexpr const char* kModes[] = {"", ", overlapped", ", message thread"};
  const std::string text = fmt::format(
      "{} linear layer in {} chunks of {} tokens, {} to {}, {}{}{}",
      config.kind == OverlapKind::kColumn ? "column" : "row", config.chunks,
      config.tokens, config.in, config.out, Name(config.dtype),
      config.bias ? ", bias" : "", kModes[static_cast<size_t>(config.mode)]);
  SP_RETURN_IF_ERROR(AgreeOnLayer(comm, text));
  if (config.tokens < 0 || config.in < 0 || config.out < 0) {
    return InvalidArgument("{}: a size is negative", text);
  }
  if (config.chunks < 1) return InvalidArgument("{}: no chunks", text);
  const int64_t exchanges =
      int64_t{2} * (comm.size() - 1) * ChunksOf(config, comm.size());
  if (exchanges > kMostOverlapExchanges) {
    return InvalidArgument(
        "{}: {} exchanges in a pass are more than {}; use fewer chunks", text,
        exchanges, kMostOverlapExchanges);
  }
  return CheckLayerType(config.dtype).WithContext(text);
}

}  // namespace

OverlapSchedules PlanOverlap(const OverlapConfig& config, int ranks, int rank) {
  const OverlapPlace place = {.tokens = config.tokens,
                              .ranks = ranks,
                              .rank = rank,
                              .chunks = ChunksOf(config, ranks),
                              .overlap = config.mode != OverlapMode::kChunked};
  if (config.kind == OverlapKind::kColumn) {
    return {GatherSchedule(place, false), ScatterAndGatherSchedule(place)};
  }
  return {ScatterSchedule(place), GatherSchedule(place, true)};
}

class OverlapLinear::State {
 public:
  State(const Communicator& comm, const OverlapConfig& config,
        OverlapSchedules schedules)
      : comm_(comm),
        config_(config),
        schedules_(std::move(schedules)),
        own_(BalancedChunk(config.tokens, comm.size(), comm.rank())),
        features_(BalancedChunk(column() ? config.out : config.in, comm.size(),
                                comm.rank())
                      .count),
        sources_(static_cast<size_t>(comm.size()) + 1) {}

  Status Allocate();
  Status StartThread();
  Status Forward(const ForwardArgs& args);
  Status Backward(const BackwardArgs& args);

  int64_t features() const { return features_; }
  const Chunk& own() const { return own_; }

 private:
  // An exchange under way.
  struct Pending {
    std::array<Request, 2> requests;
    int64_t number = -1;  // Of the thread's message.
    bool started = false;
  };

  bool column() const { return config_.kind == OverlapKind::kColumn; }
  int64_t width() const { return SentWidth(config_); }
  int64_t row_bytes() const { return width() * SizeOf(config_.dtype); }

  // Row `row` of a matrix with `columns`.
  const void* Row(const void* matrix, int64_t columns, int64_t row) const {
    return At(matrix, config_.dtype, row * columns);
  }
  void* Row(void* matrix, int64_t columns, int64_t row) const {
    return At(matrix, config_.dtype, row * columns);
  }
  // Rows of all tokens, of which this rank has its own at `mine`.
  const void* Gathered(const void* mine, int64_t row) const {
    return row >= own_.begin && row < own_.begin + own_.count
               ? Row(mine, width(), row - own_.begin)
               : Row(gathered_.data(), width(), row);
  }
  // Where terms of all tokens are made of a sum that ends in `result`.
  void* Terms(void* result) const {
    return comm_.size() > 1 ? terms_.data() : result;
  }

  Status Start(const OverlapExchange& exchange, const void* gathered_from,
               Pending& pending) const;
  Status Wait(Pending& pending) const;
  Status Fold(const OverlapSchedule& schedule, void* result);
  Status CopyOwn(const void* mine) const;
  // `step` does what is no exchange.
  template <class Step>
  Status Execute(const OverlapSchedule& schedule, const void* gathered_from,
                 const Step& step);

  Communicator comm_;
  OverlapConfig config_;
  OverlapSchedules schedules_;
  Chunk own_;
  int64_t features_;
  std::vector<const void*> sources_;
  std::vector<Pending> pending_;
  Buffer gathered_;  // [tokens, width]
  Buffer terms_;     // [tokens, width]
  Buffer arrived_;   // [(t - 1) own tokens, width]
  std::unique_ptr<MessageThread> thread_;
};

Status OverlapLinear::State::Allocate() {
  if (comm_.size() == 1) return OkStatus();
  pending_.resize(std::max(schedules_.forward.exchanges.size(),
                           schedules_.backward.exchanges.size()));
  const auto rows = [&](int64_t count) {
    return static_cast<size_t>(count * row_bytes());
  };
  SP_ASSIGN_OR_RETURN(gathered_, comm_.Allocate(rows(config_.tokens)));
  SP_ASSIGN_OR_RETURN(terms_, comm_.Allocate(rows(config_.tokens)));
  SP_ASSIGN_OR_RETURN(arrived_,
                      comm_.Allocate(rows((comm_.size() - 1) * own_.count)));
  return OkStatus();
}

Status OverlapLinear::State::StartThread() {
  if (config_.mode != OverlapMode::kMessageThread || comm_.size() == 1) {
    return OkStatus();
  }
  StatusOr<std::unique_ptr<MessageThread>> thread =
      MessageThread::Create(comm_, std::max<size_t>(1, pending_.size()));
  SP_RETURN_IF_ERROR(AgreeOnStatus(comm_, thread.status()));
  thread_ = *std::move(thread);
  return OkStatus();
}

Status OverlapLinear::State::Start(const OverlapExchange& exchange,
                                   const void* gathered_from,
                                   Pending& pending) const {
  const bool gather = exchange.flow == Flow::kGather;
  const int ranks = comm_.size(), rank = comm_.rank();
  const PairedMessage m = {
      .out = Row(gather ? gathered_from : terms_.data(), width(),
                 exchange.out.begin),
      .out_bytes = static_cast<size_t>(exchange.out.count * row_bytes()),
      .to = (rank + exchange.distance) % ranks,
      .in = Row(gather ? gathered_.data() : arrived_.data(), width(),
                exchange.in.begin),
      .in_bytes = static_cast<size_t>(exchange.in.count * row_bytes()),
      .from = (rank + ranks - exchange.distance) % ranks,
      .tag = gather ? 0 : 1};
  if (thread_ != nullptr) {
    SP_ASSIGN_OR_RETURN(pending.number, thread_->Start(m));
  } else {
    SP_ASSIGN_OR_RETURN(pending.requests[0],
                        comm_.Irecv(m.in, m.in_bytes, m.from, m.tag));
    pending.started = true;
    SP_ASSIGN_OR_RETURN(pending.requests[1],
                        comm_.Isend(m.out, m.out_bytes, m.to, m.tag));
  }
  pending.started = true;
  return OkStatus();
}

Status OverlapLinear::State::Wait(Pending& pending) const {
  if (!pending.started) return OkStatus();
  pending.started = false;
  if (thread_ != nullptr) return thread_->Wait(pending.number);
  const Status status = comm_.WaitAll(pending.requests);
  pending.requests = {};
  return status;
}

Status OverlapLinear::State::Fold(const OverlapSchedule& schedule,
                                  void* result) {
  const int ranks = comm_.size(), rank = comm_.rank();
  if (ranks == 1 || own_.count * width() == 0) return OkStatus();
  size_t count = 0;
  for (const int r : schedule.summed) {
    const int distance = (rank - r + ranks) % ranks;
    sources_[count++] = distance == 0 ? Row(terms_.data(), width(), own_.begin)
                                      : Row(arrived_.data(), width(),
                                            (distance - 1) * own_.count);
  }
  void* const results[] = {result};
  kernels::Reduce(config_.dtype, ReduceOp::kSum,
                  std::span(sources_).first(count), own_.count * width(),
                  results);
  return OkStatus();
}

// For a product of all tokens at once.
Status OverlapLinear::State::CopyOwn(const void* mine) const {
  const auto bytes = static_cast<size_t>(own_.count * row_bytes());
  if (bytes > 0) {
    std::memcpy(Row(gathered_.data(), width(), own_.begin), mine, bytes);
  }
  return OkStatus();
}

template <class Step>
Status OverlapLinear::State::Execute(const OverlapSchedule& schedule,
                                     const void* gathered_from,
                                     const Step& step) {
  const OpScope op(comm_, {.label = "overlap/pass",
                           .dtype = config_.dtype,
                           .count = config_.tokens * width()});
  SP_RETURN_IF_ERROR(op.status());
  Status status;
  for (const OverlapStep& s : schedule.steps) {
    const auto i = static_cast<size_t>(s.index);
    switch (s.kind) {
      case Kind::kStart:
        status = Start(schedule.exchanges[i], gathered_from, pending_[i]);
        break;
      case Kind::kWait:
        status = Wait(pending_[i]);
        break;
      default:
        status = step(s);
    }
    if (!status.ok()) break;
  }
  if (status.ok()) return status;
  // Nobody may answer any more; buffers must not be in use when this returns.
  comm_.Abort(status.ToString());
  for (Pending& pending : pending_) static_cast<void>(Wait(pending));
  return status;
}

Status OverlapLinear::State::Forward(const ForwardArgs& args) {
  const Stream here;
  const DType dtype = config_.dtype;
  const OverlapSchedule& schedule = schedules_.forward;
  const int64_t in = column() ? config_.in : features_;
  const int64_t out = column() ? features_ : config_.out;
  SP_RETURN_IF_ERROR(
      Execute(schedule, args.x, [&](const OverlapStep& step) -> Status {
        if (step.kind == Kind::kFold) return Fold(schedule, args.y);
        const OverlapProduct& p =
            schedule.products[static_cast<size_t>(step.index)];
        if (p.count == 0) return OkStatus();
        const void* const x =
            column() ? Gathered(args.x, p.from) : Row(args.x, in, p.from);
        void* const y = column() ? args.y : Terms(args.y);
        return Gemm(here,
                    {.a = {dtype, {p.count, in}, x},
                     .b = {dtype, {out, in}, args.w},
                     .transpose_b = true,
                     .c = {dtype, {p.count, out}, Row(y, out, p.to)},
                     .bias = column() && config_.bias ? args.b : nullptr});
      }));
  if (column() || !config_.bias) return OkStatus();
  return AddBias(here, dtype, own_.count, out, args.b, args.y);
}

Status OverlapLinear::State::Backward(const BackwardArgs& args) {
  const Stream here;
  const DType dtype = config_.dtype;
  const OverlapSchedule& schedule = schedules_.backward;
  const int64_t tokens = config_.tokens;
  const int64_t in = column() ? config_.in : features_;
  const int64_t out = column() ? features_ : config_.out;
  const void* const mine = column() ? args.x : args.dy;
  // Of all tokens, once they are gathered.
  const void* const all = comm_.size() > 1 ? gathered_.data() : mine;
  SP_RETURN_IF_ERROR(
      Execute(schedule, mine, [&](const OverlapStep& step) -> Status {
        if (step.kind == Kind::kFold) return Fold(schedule, args.dx);
        if (step.kind == Kind::kWeights) {
          if (comm_.size() > 1) SP_RETURN_IF_ERROR(CopyOwn(mine));
          return Gemm(here,
                      {.a = {dtype, {tokens, out}, column() ? args.dy : all},
                       .transpose_a = true,
                       .b = {dtype, {tokens, in}, column() ? all : args.x},
                       .c = {dtype, {out, in}, args.dw}});
        }
        const OverlapProduct& p =
            schedule.products[static_cast<size_t>(step.index)];
        if (p.count == 0) return OkStatus();
        const void* const dy =
            column() ? Row(args.dy, out, p.from) : Gathered(args.dy, p.from);
        void* const dx = column() ? Terms(args.dx) : args.dx;
        return Gemm(here, {.a = {dtype, {p.count, out}, dy},
                           .b = {dtype, {out, in}, args.w},
                           .c = {dtype, {p.count, in}, Row(dx, in, p.to)}});
      }));
  if (!config_.bias) return OkStatus();
  return ColumnSum(here, dtype, tokens, out, column() ? args.dy : all, args.db);
}

OverlapLinear::OverlapLinear(std::shared_ptr<State> state)
    : state_(std::move(state)) {}

StatusOr<OverlapLinear> OverlapLinear::Create(const Communicator& comm,
                                              const OverlapConfig& config) {
  SP_RETURN_IF_ERROR(Check(comm, config));
  return Make(comm, config, PlanOverlap(config, comm.size(), comm.rank()));
}

StatusOr<OverlapLinear> OverlapLinear::Create(const Communicator& comm,
                                              const OverlapConfig& config,
                                              OverlapSchedules schedules) {
  SP_RETURN_IF_ERROR(Check(comm, config));
  return Make(comm, config, std::move(schedules));
}

StatusOr<OverlapLinear> OverlapLinear::Make(const Communicator& comm,
                                            const OverlapConfig& config,
                                            OverlapSchedules schedules) {
  auto state = std::make_shared<State>(comm, config, std::move(schedules));
  SP_RETURN_IF_ERROR(AgreeOnStatus(comm, state->Allocate()));
  SP_RETURN_IF_ERROR(state->StartThread());
  return OverlapLinear(std::move(state));
}

Status OverlapLinear::Forward(const ForwardArgs& args,
                              const Stream& stream) const {
  if (stream.is_inline()) return state_->Forward(args);
  return stream.Run([state = state_, args] { return state->Forward(args); });
}

Status OverlapLinear::Backward(const BackwardArgs& args,
                               const Stream& stream) const {
  if (stream.is_inline()) return state_->Backward(args);
  return stream.Run([state = state_, args] { return state->Backward(args); });
}

int64_t OverlapLinear::local_features() const { return state_->features(); }
int64_t OverlapLinear::local_tokens() const { return state_->own().count; }

namespace {

Cost CostOf(int ranks, const OverlapConfig& config,
            OverlapSchedule OverlapSchedules::*pass) {
  const int64_t row_bytes = SentWidth(config) * SizeOf(config.dtype);
  Cost cost;
  for (int r = 0; r < ranks; ++r) {
    const OverlapSchedule schedule = PlanOverlap(config, ranks, r).*pass;
    Traffic sent;
    for (const OverlapExchange& e : schedule.exchanges) {
      const int64_t bytes = e.out.count * row_bytes;
      sent += {bytes, bytes > 0 ? 1 : 0};
    }
    cost.total += sent;
    cost.alpha_count =
        std::max(cost.alpha_count, static_cast<double>(sent.messages));
    cost.beta_bytes =
        std::max(cost.beta_bytes, static_cast<double>(sent.bytes));
    if (!Scatters(schedule)) continue;
    const Chunk own = BalancedChunk(config.tokens, ranks, r);
    cost.gamma_bytes =
        std::max(cost.gamma_bytes,
                 static_cast<double>((ranks - 1) * own.count * row_bytes));
  }
  return cost;
}

}  // namespace

Cost OverlapForwardCost(int ranks, const OverlapConfig& config) {
  return CostOf(ranks, config, &OverlapSchedules::forward);
}

Cost OverlapBackwardCost(int ranks, const OverlapConfig& config) {
  return CostOf(ranks, config, &OverlapSchedules::backward);
}

}  // namespace shardproof
