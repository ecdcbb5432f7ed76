#include "pipeline/speed/bubble.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstddef>
#include <cstring>
#include <map>
#include <memory>
#include <thread>
#include <tuple>
#include <vector>

#include "collectives/backend/thread/thread_world.h"
#include "pipeline/execution/pipeline_executor.h"
#include "pipeline/execution/pipeline_stage.h"
#include "pipeline/simulator.h"

namespace shardproof {
namespace {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

double Since(Clock::time_point begin) {
  return Seconds(Clock::now() - begin).count();
}

// Seconds of a chunk.
struct ChunkTimes {
  double forward = 0, input = 0, weight = 0;
};

// Sleeps, and hands the micro-batch's number on, so that what is measured is known
// to have been the schedule's.
class SleepingStage : public PipelineStage {
 public:
  SleepingStage(const ChunkTimes& times, int64_t bytes)
      : times_(times), bytes_(bytes) {}

  Status Forward(const StageVisit& visit, const void* x, void* y) override {
    return Do(times_.forward, visit, x, y);
  }
  Status Backward(const StageVisit& visit, const void* /*x*/, const void* dy,
                  void* dx) override {
    return Do(times_.input + times_.weight, visit, dy, dx);
  }
  Status BackwardInput(const StageVisit& visit, const void* /*x*/,
                       const void* dy, void* dx) override {
    return Do(times_.input, visit, dy, dx);
  }
  Status BackwardWeight(const StageVisit& visit, const void* x,
                        const void* /*dy*/) override {
    return Do(times_.weight, visit, x, nullptr);
  }

 private:
  Status Do(double seconds, const StageVisit& visit, const void* in,
            void* out) const {
    if (bytes_ >= static_cast<int64_t>(sizeof(int))) {
      int number = visit.micro_batch;
      if (in != nullptr) std::memcpy(&number, in, sizeof(number));
      if (number != visit.micro_batch) {
        return Internal("micro-batch {} came as {}", number, visit.micro_batch);
      }
      if (out != nullptr) std::memcpy(out, &number, sizeof(number));
    }
    std::this_thread::sleep_for(Seconds(seconds));
    return OkStatus();
  }
  ChunkTimes times_;
  int64_t bytes_;
};

// When all actions of all ranks were, on one clock.
using Times = std::vector<std::vector<TimeSpan>>;

// From the end of an action to the begin of one on another rank that waited for
// what it sent: the median, since who waits is woken now sooner, now later.
double LinkOf(const Schedule& s, const Times& times) {
  // When what a stage made of a micro-batch was sent, forward and back.
  std::map<std::tuple<bool, int, int>, double> sent;
  std::vector<double> waits;
  const auto each = [&](const auto& f) {
    for (int rank = 0; rank < s.ranks(); ++rank) {
      const auto r = static_cast<size_t>(rank);
      for (size_t i = 0; i < times[r].size(); ++i) {
        const Action& a = s.actions[r][i];
        if (a.kind == ActionKind::kWeight) continue;
        f(a.kind == ActionKind::kForward, a.micro_batch,
          s.StageAt(a.micro_batch, {rank, a.chunk}), rank, i);
      }
    }
  };
  each([&](bool forward, int m, int stage, int rank, size_t i) {
    sent[{forward, m, stage}] = times[static_cast<size_t>(rank)][i].end;
  });
  each([&](bool forward, int m, int stage, int rank, size_t i) {
    const int source = forward ? stage - 1 : stage + 1;
    if (source < 0 || source >= s.stages()) return;
    if (s.PlaceOf(m, source).rank == rank) return;
    const std::vector<TimeSpan>& mine = times[static_cast<size_t>(rank)];
    const double left = sent.at({forward, m, source});
    if (i == 0 || mine[i - 1].end < left) waits.push_back(mine[i].start - left);
  });
  if (waits.empty()) return 0;
  const auto median = waits.begin() + static_cast<ptrdiff_t>(waits.size() / 2);
  std::nth_element(waits.begin(), median, waits.end());
  return *median;
}

// The costs that the simulator is to have, from the mean time of each kind.
StageCosts CostsOf(const Schedule& s, const Times& times,
                   const BubbleOptions& options) {
  std::array<double, 4> sums = {}, counts = {};
  for (size_t rank = 0; rank < times.size(); ++rank) {
    for (size_t i = 0; i < times[rank].size(); ++i) {
      const auto kind = static_cast<size_t>(s.actions[rank][i].kind);
      sums[kind] += times[rank][i].end - times[rank][i].start;
      ++counts[kind];
    }
  }
  const auto mean = [&](ActionKind kind) {
    const auto at = static_cast<size_t>(kind);
    return counts[at] > 0 ? sums[at] / counts[at] : 0;
  };
  // The simulator's are of a rank's whole share of the model.
  const double chunks = std::max(1, s.stages() / s.ranks());
  StageCosts costs;
  costs.latency = LinkOf(s, times);
  costs.forward = chunks * mean(ActionKind::kForward);
  costs.input = chunks * mean(ActionKind::kInput);
  costs.weight = chunks * mean(ActionKind::kWeight);
  // Without split backward passes only their sum is known, and only it matters.
  if (counts[static_cast<size_t>(ActionKind::kInput)] == 0) {
    const double share = options.input / (options.input + options.weight);
    costs.input = share * chunks * mean(ActionKind::kBackward);
    costs.weight = (1 - share) * chunks * mean(ActionKind::kBackward);
  }
  return costs;
}

double Busy(const Times& times) {
  double busy = 0;
  for (const std::vector<TimeSpan>& of_rank : times) {
    for (const TimeSpan& t : of_rank) busy += t.end - t.start;
  }
  return busy;
}

StatusOr<BubbleResult> Judge(const Schedule& s, const Times& times,
                             const BubbleOptions& options) {
  double begin = times[0][0].start, end = begin;
  for (const std::vector<TimeSpan>& of_rank : times) {
    for (const TimeSpan& t : of_rank) {
      begin = std::min(begin, t.start);
      end = std::max(end, t.end);
    }
  }
  const StageCosts costs = CostsOf(s, times, options);
  SP_ASSIGN_OR_RETURN(const Simulation simulated, Simulate(s, costs));
  double busy = 0;
  for (const double of_rank : simulated.busy) busy += of_rank;
  BubbleResult result;
  result.link = costs.latency;
  result.step = end - begin;
  result.bubble = 1 - Busy(times) / (s.ranks() * result.step);
  result.predicted_step = simulated.makespan;
  result.predicted_bubble = 1 - busy / (s.ranks() * simulated.makespan);
  return result;
}

}  // namespace

StatusOr<BubbleResult> MeasureBubble(const Schedule& schedule,
                                     const BubbleOptions& options) {
  const auto rounds = static_cast<size_t>(options.rounds);
  const int ranks = schedule.ranks();
  const double share = 1e-3 / std::max(1, schedule.stages() / ranks);
  const ChunkTimes chunk = {share * options.forward, share * options.input,
                            share * options.weight};
  std::vector<Times> measured(rounds, Times(static_cast<size_t>(ranks)));
  const auto zero = Clock::now();
  SP_ASSIGN_OR_RETURN(const std::unique_ptr<ThreadWorld> world,
                      ThreadWorld::Create({.ranks = ranks}));
  SP_RETURN_IF_ERROR(world->Run([&](const Communicator& comm) -> Status {
    const std::vector<int64_t> bytes(
        static_cast<size_t>(schedule.micro_batches), options.bytes);
    SP_ASSIGN_OR_RETURN(PipelineExecutor executor,
                        PipelineExecutor::Create(comm, {schedule, bytes}));
    SleepingStage stage(chunk, options.bytes);
    const std::vector<PipelineStage*> chunks(
        executor.plan().slots_of_chunks.size(), &stage);
    SP_RETURN_IF_ERROR(executor.Step(chunks));
    for (Times& round : measured) {
      SP_RETURN_IF_ERROR(comm.Barrier());
      const double begins = Since(zero);
      SP_RETURN_IF_ERROR(executor.Step(chunks));
      std::vector<TimeSpan>& times = round[static_cast<size_t>(comm.rank())];
      for (const TimeSpan& t : executor.times()) {
        times.push_back({begins + t.start, begins + t.end});
      }
    }
    return OkStatus();
  }));
  std::vector<BubbleResult> results;
  for (const Times& times : measured) {
    SP_ASSIGN_OR_RETURN(results.emplace_back(),
                        Judge(schedule, times, options));
  }
  const auto median = results.begin() + options.rounds / 2;
  std::nth_element(results.begin(), median, results.end(),
                   [](const BubbleResult& a, const BubbleResult& b) {
                     return a.step < b.step;
                   });
  return *median;
}

}  // namespace shardproof
