// Drawings of a schedule: a row for each rank, time from left to right.
#ifndef SHARDPROOF_PIPELINE_DRAWING_H_
#define SHARDPROOF_PIPELINE_DRAWING_H_

#include <string>

#include "pipeline/schedule.h"
#include "pipeline/simulator.h"

namespace shardproof {

// For a terminal: a column for each `unit` of time, in which an action stands
// where it begins; '.' is idle time. A pair, which can be computed together, is
// "F4& B1" one after the other and "F4&B1" where the simulation has it at once.
std::string DrawText(const Schedule& schedule, const Simulation& simulation,
                     double unit = 1);

// As SVG of its own: a box for each action, coloured by its kind, micro-batch
// written in it, chunks in shades; the two of a pair at once are halves.
std::string DrawSvg(const Schedule& schedule, const Simulation& simulation);

}  // namespace shardproof

#endif  // SHARDPROOF_PIPELINE_DRAWING_H_
