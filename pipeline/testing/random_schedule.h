// Schedules that nobody would write, for tests of what must run all that is valid.
#ifndef SHARDPROOF_PIPELINE_TESTING_RANDOM_SCHEDULE_H_
#define SHARDPROOF_PIPELINE_TESTING_RANDOM_SCHEDULE_H_

#include <random>

#include "pipeline/schedule.h"

namespace shardproof {

// Valid with buffered messages: up to `ranks` ranks, with stages where it happens,
// some ranks with several and some with none; one pipeline or two; actions in any
// order that respects what they need, some backward passes split.
Schedule RandomSchedule(std::mt19937_64& random, int ranks);

// Two actions of a random rank change places, or one is lost, or comes twice, or is
// of another micro-batch, kind or chunk: valid or not.
void BreakAtRandom(std::mt19937_64& random, Schedule& schedule);

}  // namespace shardproof

#endif  // SHARDPROOF_PIPELINE_TESTING_RANDOM_SCHEDULE_H_
