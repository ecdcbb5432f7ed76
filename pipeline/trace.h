// A schedule over time as a trace that chrome://tracing and ui.perfetto.dev open:
// a process for each kind of times (predicted, measured), a lane for each rank, a
// slice for each action.
//
//     SP_ASSIGN_OR_RETURN(const Simulation s, Simulate(schedule, costs));
//     ChromeTrace(schedule, {{.name = "predicted", .times = s.times},
//                            {.name = "measured", .times = measured}})
//
// A slice is named as Schedule::Text names its action, with arguments
// "micro_batch", "stage", "chunk", "kind" (F, B, I, W) and, of two pipelines,
// "pipeline"; the first of a pair that can be computed together has the second as
// "with". Process number k has pid k + 1, rank r tid r + 1: 0 means the idle thread.
//
// Times are rounded to 1/8 microsecond. Slices of a lane may nest but not overlap,
// and readers count in nanoseconds: so the end of one and the begin of the next are
// the same number there too, whichever way it is rounded.
//
// Source: Trace Event Format, Google (2016): "X" events in microseconds, "M"
// events for names and their order.
#ifndef SHARDPROOF_PIPELINE_TRACE_H_
#define SHARDPROOF_PIPELINE_TRACE_H_

#include <string>
#include <vector>

#include "pipeline/schedule.h"
#include "pipeline/simulator.h"
#include "reference/status.h"

namespace shardproof {

struct TraceProcess {
  std::string name;
  std::vector<std::vector<TimeSpan>> times;  // Of each action of each rank.
  // Of a unit of the times.
  double seconds = 1;
};

// kInvalidArgument, naming the process and the rank, where there is not a time for
// each action, or one that is not finite or ends before it starts.
StatusOr<std::string> ChromeTrace(const Schedule& schedule,
                                  const std::vector<TraceProcess>& processes);

}  // namespace shardproof

#endif  // SHARDPROOF_PIPELINE_TRACE_H_
