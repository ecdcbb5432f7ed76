#include "pipeline/speed/sleeping_run.h"

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <memory>
#include <numeric>
#include <thread>

#include "collectives/backend/thread/thread_world.h"
#include "pipeline/execution/pipeline_executor.h"
#include "pipeline/execution/pipeline_stage.h"

namespace shardproof {
namespace {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

// Seconds of a chunk.
struct ChunkTimes {
  double forward = 0, input = 0, weight = 0;
};

// Sleeps, and hands the micro-batch's number on, so that what is measured is known
// to have been the schedule's. Each action of its rank is one visit, and when it
// was is noted here on one clock for all ranks: the executor's times are since the
// step began on each of them.
class SleepingStage : public PipelineStage {
 public:
  SleepingStage(const ChunkTimes& durations, int64_t bytes,
                Clock::time_point zero)
      : durations_(durations), bytes_(bytes), zero_(zero) {}

  // Where to from now on.
  void NoteIn(std::vector<TimeSpan>* visits) { visits_ = visits; }

  Status Forward(const StageVisit& visit, const void* x, void* y) override {
    return Do(durations_.forward, visit, x, y);
  }
  Status Backward(const StageVisit& visit, const void* /*x*/, const void* dy,
                  void* dx) override {
    return Do(durations_.input + durations_.weight, visit, dy, dx);
  }
  Status BackwardInput(const StageVisit& visit, const void* /*x*/,
                       const void* dy, void* dx) override {
    return Do(durations_.input, visit, dy, dx);
  }
  Status BackwardWeight(const StageVisit& visit, const void* x,
                        const void* /*dy*/) override {
    return Do(durations_.weight, visit, x, nullptr);
  }

 private:
  Status Do(double seconds, const StageVisit& visit, const void* in,
            void* out) {
    const double start = Now();
    if (bytes_ >= static_cast<int64_t>(sizeof(int))) {
      int number = visit.micro_batch;
      if (in != nullptr) std::memcpy(&number, in, sizeof(number));
      if (number != visit.micro_batch) {
        return Internal("micro-batch {} came as {}", number, visit.micro_batch);
      }
      if (out != nullptr) std::memcpy(out, &number, sizeof(number));
    }
    std::this_thread::sleep_for(Seconds(seconds));
    if (visits_ != nullptr) visits_->push_back({start, Now()});
    return OkStatus();
  }
  double Now() const { return Seconds(Clock::now() - zero_).count(); }

  ChunkTimes durations_;
  int64_t bytes_;
  Clock::time_point zero_;
  std::vector<TimeSpan>* visits_ = nullptr;
};

}  // namespace

StatusOr<std::vector<ActionTimes>> RunSleeping(
    const Schedule& schedule, const SleepingRunOptions& options) {
  const int ranks = schedule.ranks();
  const double share = options.seconds / std::max(1, schedule.stages() / ranks);
  const ChunkTimes chunk = {share * options.costs.forward,
                            share * options.costs.input,
                            share * options.costs.weight};
  std::vector<ActionTimes> steps(static_cast<size_t>(options.steps),
                                 ActionTimes(static_cast<size_t>(ranks)));
  const auto zero = Clock::now();
  SP_ASSIGN_OR_RETURN(const std::unique_ptr<ThreadWorld> world,
                      ThreadWorld::Create({.ranks = ranks}));
  SP_RETURN_IF_ERROR(world->Run([&](const Communicator& comm) -> Status {
    const std::vector<int64_t> bytes(
        static_cast<size_t>(schedule.micro_batches), options.bytes);
    SP_ASSIGN_OR_RETURN(PipelineExecutor executor,
                        PipelineExecutor::Create(comm, {schedule, bytes}));
    SleepingStage stage(chunk, options.bytes, zero);
    const std::vector<PipelineStage*> chunks(
        executor.plan().slots_of_chunks.size(), &stage);
    SP_RETURN_IF_ERROR(executor.Step(chunks));
    for (ActionTimes& step : steps) {
      std::vector<TimeSpan>& visits = step[static_cast<size_t>(comm.rank())];
      visits.reserve(executor.plan().actions.size());
      stage.NoteIn(&visits);
      SP_RETURN_IF_ERROR(comm.Barrier());
      SP_RETURN_IF_ERROR(executor.Step(chunks));
    }
    return OkStatus();
  }));
  return steps;
}

TimeSpan SpanOf(const ActionTimes& times) {
  TimeSpan span = times[0][0];
  for (const std::vector<TimeSpan>& of_rank : times) {
    for (const TimeSpan& t : of_rank) {
      span.start = std::min(span.start, t.start);
      span.end = std::max(span.end, t.end);
    }
  }
  return span;
}

const ActionTimes& MedianStep(const std::vector<ActionTimes>& steps) {
  std::vector<size_t> order(steps.size());
  std::iota(order.begin(), order.end(), size_t{0});
  const auto length = [&](size_t i) {
    const TimeSpan span = SpanOf(steps[i]);
    return span.end - span.start;
  };
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return length(a) < length(b); });
  return steps[order[order.size() / 2]];
}

}  // namespace shardproof
