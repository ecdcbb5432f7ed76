// What a schedule's bubble is when it runs, beside what the simulator says.
//
// Stages do nothing but take their time (sleeping_run.h). Of each step are measured
//
//     F, I, W, B      the mean time of an action of each kind
//     link            from an action's end to the begin of one that waited for its
//                     message, on another rank: the median
//     bubble          1 - sum of all actions' times / (ranks x step)    idle / total
//     step            from the first rank's begin to the last one's end
//
// and the simulator gets the first two, as its costs, to predict the others.
#ifndef SHARDPROOF_PIPELINE_SPEED_BUBBLE_H_
#define SHARDPROOF_PIPELINE_SPEED_BUBBLE_H_

#include <cstdint>
#include <string>

#include "pipeline/schedule.h"
#include "reference/status.h"

namespace shardproof {

struct BubbleOptions {
  int ranks = 4;
  int micro_batches = 0;
  int rounds = 7;
  // Of all chunks of a rank together, in milliseconds.
  double forward = 10, input = 12, weight = 8;
  int64_t bytes = 4096;  // Of a message.
};

struct BubbleResult {
  // Seconds.
  double link = 0;
  double step = 0, predicted_step = 0;
  // Fractions of the whole time.
  double bubble = 0, predicted_bubble = 0;

  // Relative to what was predicted.
  double StepError() const { return step / predicted_step - 1; }
  double BubbleError() const { return bubble / predicted_bubble - 1; }
};

// Of the round whose step is the median one, after one that warms up. The world is
// one of threads.
StatusOr<BubbleResult> MeasureBubble(const Schedule& schedule,
                                     const BubbleOptions& options);

}  // namespace shardproof

#endif  // SHARDPROOF_PIPELINE_SPEED_BUBBLE_H_
