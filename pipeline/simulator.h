// How long a schedule takes, and what it holds, with given costs.
//
// Contract: each rank does its actions in order, one at a time, each as soon as
// the rank is free and what it needs is there:
//
//     start = max(end of the rank's action before, over all that it needs:
//                 its end, + latency where another rank did it)
//     end   = start + duration
//
// or, where costs say how long a pair of F and B takes together, both of them at
// once; with the durations of a whole rank's share of the model, a chunk taking an
// equal part of them. Memory is counted in order: an F holds activations, from
// its start, until the end of their B; an I makes of them what its W needs.
//
//     SP_ASSIGN_OR_RETURN(const Simulation s, Simulate(schedule, {}));
//     s.Idle(rank)    the bubble of a rank, in the same unit
#ifndef SHARDPROOF_PIPELINE_SIMULATOR_H_
#define SHARDPROOF_PIPELINE_SIMULATOR_H_

#include <cstdint>
#include <vector>

#include "pipeline/schedule.h"
#include "reference/status.h"

namespace shardproof {

struct TimeSpan {
  double start = 0;
  double end = 0;
};

struct Simulation {
  double makespan = 0;
  std::vector<std::vector<TimeSpan>> times;  // Of each action of each rank.
  std::vector<double> busy;                  // Of each rank.
  std::vector<double> peak;                  // The most that it holds.
  // Between ranks: activations and their gradients.
  int64_t messages = 0;

  // How long a rank is idle while any works, and from its own first action to its
  // own last: what counts where ranks need not wait for one another in the end.
  double Idle(int rank) const {
    return makespan - busy[static_cast<size_t>(rank)];
  }
  double IdleWithin(int rank) const;
};

// kInvalidArgument, naming a rank and its action, where a schedule does not get
// to its end; validator.h says more.
StatusOr<Simulation> Simulate(const Schedule& schedule,
                              const StageCosts& costs);

}  // namespace shardproof

#endif  // SHARDPROOF_PIPELINE_SIMULATOR_H_
