// What parallel layers gain, at the shapes of a model: measured by
// //layers:parallel_speed, one function per question.
//
// Each measures side by side, in one run, and compares the results of its ways
// before it times them. A wrong result is an error.
#ifndef SHARDPROOF_LAYERS_SPEED_PARALLEL_SPEED_H_
#define SHARDPROOF_LAYERS_SPEED_PARALLEL_SPEED_H_

#include <cstdint>

#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof {

struct SpeedOptions {
  bool smoke = false;  // Tiny shapes, one round: does it run at all?
  int rounds = 9;
  int ranks = 2;
};

// A tensor-parallel transformer_block of Llama 3.1 8B, forward and backward, on
// `ranks` ranks against one, one core each.
Status TensorParallelSpeed(DType dtype, const SpeedOptions& options);

// How much of the time that the reduction of gradients adds to a backward pass
// disappears with overlap:
//
//     (plain - overlapped) / (plain - nothing reduced)
//
// Once as it is here, where the cores that compute also reduce, and once over a
// link that takes time and no core (LinkCollectives), as a network card does.
Status GradientOverlapSpeed(const SpeedOptions& options);

// A step of ZeRO 3 with prefetch against one without, over the same two.
Status ZeroPrefetchSpeed(const SpeedOptions& options);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_SPEED_PARALLEL_SPEED_H_
