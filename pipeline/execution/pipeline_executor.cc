#include "pipeline/execution/pipeline_executor.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <chrono>
#include <iterator>
#include <string>
#include <utility>

#include "layers/tensor_parallel/agree.h"
#include "pipeline/validator.h"

namespace shardproof {
namespace {

using Clock = std::chrono::steady_clock;

// Everything that ranks must have alike.
std::string Describe(const PipelineExecutorConfig& config) {
  const Schedule& s = config.schedule;
  std::string text = fmt::format("{} of {} ranks and {} micro-batches", s.name,
                                 s.ranks(), s.micro_batches);
  for (const std::vector<Place>& stages : s.pipelines) {
    text += "; stages";
    for (const Place& place : stages) {
      text += fmt::format(" {}.{}", place.rank, place.chunk);
    }
  }
  text += fmt::format("; pipelines {}; messages of {} bytes",
                      fmt::join(s.pipeline_of, " "),
                      fmt::join(config.message_bytes, " "));
  for (int rank = 0; rank < s.ranks(); ++rank) {
    text += fmt::format("; rank {}:", rank);
    for (const Action& a : s.actions[static_cast<size_t>(rank)]) {
      text += fmt::format(" {}{}.{}", Letter(a.kind), a.micro_batch, a.chunk);
    }
  }
  return text;
}

// What is at a place of a text, and around it.
std::string_view Around(std::string_view text, size_t at) {
  constexpr size_t kBefore = 24, kShown = 48;
  const size_t begin = at > kBefore ? at - kBefore : 0;
  return text.substr(std::min(begin, text.size()), kShown);
}

Status Agree(const Communicator& comm, const PipelineExecutorConfig& config) {
  SP_ASSIGN_OR_RETURN(const std::vector<std::string> all,
                      comm.ExchangeControl(Describe(config)));
  for (size_t r = 1; r < all.size(); ++r) {
    if (all[r] == all[0]) continue;
    const auto differ = std::mismatch(all[0].begin(), all[0].end(),
                                      all[r].begin(), all[r].end());
    const auto at = static_cast<size_t>(differ.first - all[0].begin());
    return InvalidArgument(
        "rank {} runs another pipeline than rank 0: \"{}\", not \"{}\"", r,
        Around(all[r], at), Around(all[0], at));
  }
  return OkStatus();
}

Status Check(const Communicator& comm, const PipelineExecutorConfig& config) {
  SP_RETURN_IF_ERROR(Agree(comm, config));
  const Schedule& s = config.schedule;
  SP_RETURN_IF_ERROR(ValidateSchedule(s, MessageSemantics::kBuffered)
                         .WithContext(fmt::format("schedule {}", s.name)));
  if (s.ranks() != comm.size()) {
    return InvalidArgument("schedule {} is for {} ranks; there are {}", s.name,
                           s.ranks(), comm.size());
  }
  const int64_t places = int64_t{s.stages()} * std::ssize(s.pipelines);
  for (const std::vector<Place>& stages : s.pipelines) {
    for (const Place& place : stages) {
      if (place.chunk < places) continue;
      return InvalidArgument("schedule {} has {} chunks; rank {} has no {}",
                             s.name, places, place.rank, place.chunk);
    }
  }
  if (std::ssize(config.message_bytes) != s.micro_batches) {
    return InvalidArgument(
        "schedule {} has {} micro-batches, and {} have a size", s.name,
        s.micro_batches, config.message_bytes.size());
  }
  const int64_t least = *std::min_element(config.message_bytes.begin(),
                                          config.message_bytes.end());
  if (least < 0) return InvalidArgument("messages of {} bytes", least);
  if (int64_t{2} * s.stages() * s.micro_batches > kMostPipelineTags) {
    return Unsupported(
        "schedule {} of {} stages and {} micro-batches: of each direction "
        "there "
        "can be {} messages",
        s.name, s.stages(), s.micro_batches, kMostPipelineTags / 2);
  }
  return OkStatus();
}

}  // namespace

class PipelineExecutor::State {
 public:
  State(const Communicator& comm, const PipelineExecutorConfig& config,
        PipelinePlan plan)
      : comm_(comm),
        schedule_(config.schedule),
        bytes_(config.message_bytes),
        plan_(std::move(plan)),
        receives_(plan_.receives.size()),
        sends_(plan_.sends.size()),
        times_(plan_.actions.size()) {}

  Status Allocate() {
    // A buffer without bytes still has an address: null says that there is none.
    const int64_t most =
        std::max<int64_t>(1, *std::max_element(bytes_.begin(), bytes_.end()));
    constexpr int64_t kAligned = 128;
    stride_ = (most + kAligned - 1) / kAligned * kAligned;
    memory_.buffers = stride_ * (plan_.slots + plan_.outputs);
    SP_ASSIGN_OR_RETURN(buffers_,
                        comm_.Allocate(static_cast<size_t>(memory_.buffers)));
    return OkStatus();
  }

  Status Step(std::span<PipelineStage* const> chunks);

  const PipelinePlan& plan() const { return plan_; }
  const std::vector<TimeSpan>& times() const { return times_; }
  const PipelineMemory& memory() const { return memory_; }

 private:
  std::byte* BufferAt(int i) const {
    return i < 0 ? nullptr : buffers_.data() + i * stride_;
  }
  size_t BytesOf(int micro_batch) const {
    return static_cast<size_t>(bytes_[static_cast<size_t>(micro_batch)]);
  }
  double Now() const {
    return std::chrono::duration<double>(Clock::now() - began_).count();
  }

  Status CheckChunks(std::span<PipelineStage* const> chunks) const;
  Status Run(std::span<PipelineStage* const> chunks);
  Status Before(const PlannedAction& action);
  Status After(const PlannedAction& action);
  Status Call(PipelineStage& stage, const PlannedAction& action) const;
  void CountKept(const PlannedAction& action, bool done);

  Communicator comm_;
  Schedule schedule_;
  std::vector<int64_t> bytes_;
  PipelinePlan plan_;
  std::vector<Request> receives_, sends_;
  Buffer buffers_;
  int64_t stride_ = 0;
  Clock::time_point began_;
  std::vector<TimeSpan> times_;
  PipelineMemory memory_;
};

Status PipelineExecutor::State::CheckChunks(
    std::span<PipelineStage* const> chunks) const {
  const std::vector<int>& slots = plan_.slots_of_chunks;
  if (chunks.size() != slots.size()) {
    return InvalidArgument("rank {} has {} chunks in schedule {}, not {}",
                           comm_.rank(), slots.size(), schedule_.name,
                           chunks.size());
  }
  for (size_t c = 0; c < chunks.size(); ++c) {
    if (chunks[c] == nullptr && slots[c] > 0) {
      return InvalidArgument("chunk {} of rank {} is null", c, comm_.rank());
    }
  }
  return OkStatus();
}

// What the action needs is there after it, and what it writes to is free.
Status PipelineExecutor::State::Before(const PlannedAction& action) {
  for (const int number : action.receives) {
    const auto at = static_cast<size_t>(number);
    const PipelineMessage& m = plan_.receives[at];
    SP_ASSIGN_OR_RETURN(
        receives_[at],
        comm_.Irecv(BufferAt(m.buffer), BytesOf(m.micro_batch), m.peer, m.tag));
  }
  if (action.frees >= 0) {
    SP_RETURN_IF_ERROR(comm_.Wait(sends_[static_cast<size_t>(action.frees)]));
  }
  if (action.arrives >= 0) {
    SP_RETURN_IF_ERROR(
        comm_.Wait(receives_[static_cast<size_t>(action.arrives)]));
  }
  return OkStatus();
}

Status PipelineExecutor::State::After(const PlannedAction& action) {
  if (action.leaves < 0) return OkStatus();
  const auto at = static_cast<size_t>(action.leaves);
  const PipelineMessage& m = plan_.sends[at];
  SP_ASSIGN_OR_RETURN(
      sends_[at],
      comm_.Isend(BufferAt(m.buffer), BytesOf(m.micro_batch), m.peer, m.tag));
  return OkStatus();
}

void PipelineExecutor::State::CountKept(const PlannedAction& action,
                                        bool done) {
  const int64_t bytes = bytes_[static_cast<size_t>(action.action.micro_batch)];
  const int64_t x = action.x >= 0 ? bytes : 0;
  const int64_t dy = action.dy >= 0 ? bytes : 0;
  switch (action.action.kind) {
    case ActionKind::kForward:
      memory_.kept += done ? 0 : x;
      break;
    case ActionKind::kBackward:
      memory_.kept -= done ? x : 0;
      break;
    case ActionKind::kInput:
      memory_.kept += done ? 0 : dy;
      break;
    case ActionKind::kWeight:
      memory_.kept -= done ? x + dy : 0;
      break;
  }
  memory_.kept_peak = std::max(memory_.kept_peak, memory_.kept);
}

Status PipelineExecutor::State::Call(PipelineStage& stage,
                                     const PlannedAction& action) const {
  const StageVisit visit = {action.action.micro_batch, action.slot};
  const void* const x = BufferAt(action.x);
  const void* const dy = BufferAt(action.dy);
  switch (action.action.kind) {
    case ActionKind::kForward:
      return stage.Forward(visit, x, BufferAt(action.y));
    case ActionKind::kBackward:
      return stage.Backward(visit, x, dy, BufferAt(action.dx));
    case ActionKind::kInput:
      return stage.BackwardInput(visit, x, dy, BufferAt(action.dx));
    case ActionKind::kWeight:
      return stage.BackwardWeight(visit, x, dy);
  }
  return Internal("there is no such action");
}

Status PipelineExecutor::State::Run(std::span<PipelineStage* const> chunks) {
  SP_RETURN_IF_ERROR(CheckChunks(chunks));
  for (size_t i = 0; i < plan_.actions.size(); ++i) {
    const PlannedAction& action = plan_.actions[i];
    SP_RETURN_IF_ERROR(Before(action));
    CountKept(action, false);
    times_[i].start = Now();
    Status done =
        Call(*chunks[static_cast<size_t>(action.action.chunk)], action);
    times_[i].end = Now();
    if (!done.ok()) {
      return done.WithContext(
          fmt::format("rank {}, action {}, {} of stage {}", comm_.rank(), i,
                      schedule_.Text(action.action), action.stage));
    }
    CountKept(action, true);
    SP_RETURN_IF_ERROR(After(action));
  }
  return comm_.WaitAll(sends_);
}

Status PipelineExecutor::State::Step(std::span<PipelineStage* const> chunks) {
  const OpScope op(comm_, {.label = "pipeline/step",
                           .count = static_cast<int64_t>(times_.size())});
  SP_RETURN_IF_ERROR(op.status());
  memory_.kept = memory_.kept_peak = 0;
  began_ = Clock::now();
  // A rank may be done while another one fails.
  Status status = Run(chunks);
  if (status.ok()) return comm_.Barrier();
  // Nobody may answer any more; buffers must not be in use when this returns.
  comm_.Abort(status.message());
  static_cast<void>(comm_.WaitAll(receives_));
  static_cast<void>(comm_.WaitAll(sends_));
  return status;
}

PipelineExecutor::PipelineExecutor(std::shared_ptr<State> state)
    : state_(std::move(state)) {}

StatusOr<PipelineExecutor> PipelineExecutor::Create(
    const Communicator& comm, const PipelineExecutorConfig& config) {
  SP_RETURN_IF_ERROR(Check(comm, config));
  return Make(comm, config, PlanPipeline(config.schedule, comm.rank()));
}

StatusOr<PipelineExecutor> PipelineExecutor::Create(
    const Communicator& comm, const PipelineExecutorConfig& config,
    PipelinePlan plan) {
  SP_RETURN_IF_ERROR(Check(comm, config));
  return Make(comm, config, std::move(plan));
}

StatusOr<PipelineExecutor> PipelineExecutor::Make(
    const Communicator& comm, const PipelineExecutorConfig& config,
    PipelinePlan plan) {
  auto state = std::make_shared<State>(comm, config, std::move(plan));
  SP_RETURN_IF_ERROR(AgreeOnStatus(comm, state->Allocate()));
  return PipelineExecutor(std::move(state));
}

int PipelineExecutor::slots(int chunk) const {
  return state_->plan().slots_of_chunks[static_cast<size_t>(chunk)];
}
const PipelinePlan& PipelineExecutor::plan() const { return state_->plan(); }
Status PipelineExecutor::Step(std::span<PipelineStage* const> chunks) {
  return state_->Step(chunks);
}
const std::vector<TimeSpan>& PipelineExecutor::times() const {
  return state_->times();
}
const PipelineMemory& PipelineExecutor::memory() const {
  return state_->memory();
}

}  // namespace shardproof
