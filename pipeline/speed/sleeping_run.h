// Steps of a schedule on threads, with stages that do nothing but take their
// time: they sleep, so that many ranks fit on few cores, and so that nothing
// slows a rank down but what it waits for. Messages between stages are real.
//
//     SP_ASSIGN_OR_RETURN(const std::vector<ActionTimes> steps,
//         RunSleeping(schedule, {.costs = {2, 2, 1}, .seconds = 1e-3}));
//     MedianStep(steps)     when each action of each rank was
#ifndef SHARDPROOF_PIPELINE_SPEED_SLEEPING_RUN_H_
#define SHARDPROOF_PIPELINE_SPEED_SLEEPING_RUN_H_

#include <cstdint>
#include <vector>

#include "pipeline/schedule.h"
#include "pipeline/simulator.h"
#include "reference/status.h"

namespace shardproof {

struct SleepingRunOptions {
  // forward, input and weight, as the simulator takes them; messages take what
  // they take, and pairs are computed one after the other.
  StageCosts costs = {};
  double seconds = 1e-3;  // Of a unit of the costs.
  int64_t bytes = 4096;   // Of a message.
  int steps = 7;          // After one that warms up.
};

// Seconds, on one clock: of each action of each rank.
using ActionTimes = std::vector<std::vector<TimeSpan>>;

// Of each step. The world is one of threads. Errors are those of
// PipelineExecutor; kInternal where a stage was given another micro-batch than
// its action says.
StatusOr<std::vector<ActionTimes>> RunSleeping(
    const Schedule& schedule, const SleepingRunOptions& options);

// From the first begin to the last end.
TimeSpan SpanOf(const ActionTimes& times);
// The step whose span is the median one.
const ActionTimes& MedianStep(const std::vector<ActionTimes>& steps);

}  // namespace shardproof

#endif  // SHARDPROOF_PIPELINE_SPEED_SLEEPING_RUN_H_
