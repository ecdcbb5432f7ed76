// What a rank computes in a pipeline: one chunk of the model.
//
// Contract, for stage s of s_1 .. s_n, each a function y = f_s(x, w_s):
//
//     Forward          y = f_s(x)
//     Backward         dx = dy df_s/dx,  dw_s += dy df_s/dw_s
//     BackwardInput    the first of these alone
//     BackwardWeight   the second alone, later
//
// x comes from the stage before and y goes to the next, dy and dx the other way.
// The first stage has no x and no dx, and the last no y and no dy: these are null,
// and where the stage takes its input, or its loss, is its own affair.
//
//     struct Scale : PipelineStage {
//       Status Forward(const StageVisit& visit, const void* x, void* y) override;
//       ...
//     };
//
// x and dy stay as they are, at the same addresses, until the visit's last action
// (Backward, or BackwardWeight). What else a stage keeps of a visit it keeps in
// as many sets as SlotsOfChunks says (pipeline_plan.h): visit.slot is the set that
// nobody else uses meanwhile.
#ifndef SHARDPROOF_PIPELINE_EXECUTION_PIPELINE_STAGE_H_
#define SHARDPROOF_PIPELINE_EXECUTION_PIPELINE_STAGE_H_

#include "reference/status.h"

namespace shardproof {

// Of a micro-batch to a chunk.
struct StageVisit {
  int micro_batch = 0;
  int slot = 0;  // Which of the chunk's sets of kept activations.
};

class PipelineStage {
 public:
  virtual ~PipelineStage() = default;

  virtual Status Forward(const StageVisit& visit, const void* x, void* y) = 0;
  virtual Status Backward(const StageVisit& visit, const void* x,
                          const void* dy, void* dx) = 0;
  virtual Status BackwardInput(const StageVisit& visit, const void* x,
                               const void* dy, void* dx) = 0;
  virtual Status BackwardWeight(const StageVisit& visit, const void* x,
                                const void* dy) = 0;
};

}  // namespace shardproof

#endif  // SHARDPROOF_PIPELINE_EXECUTION_PIPELINE_STAGE_H_
