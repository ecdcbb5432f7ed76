// What the parts of the pairing of pipelines share: a stack of linear layers, cut
// into the stages of a schedule.
//
// Layer l of L is on stage floor(l s / L) of s: some stages have one more than
// others, and where there are fewer layers than stages some have none. After a step
// the copies of a layer that two pipelines have, and the gradients of both uses of
// a tied weight, are summed between those who have them; then rank 0 gathers
// everything.
#ifndef SHARDPROOF_PIPELINE_EXECUTION_CASE_SETUP_H_
#define SHARDPROOF_PIPELINE_EXECUTION_CASE_SETUP_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "collectives/traffic.h"
#include "pipeline/execution/linear_stage.h"
#include "pipeline/execution/pipeline_executor.h"
#include "reference/bounded.h"
#include "reference/dtype.h"
#include "tools/harness/case.h"

namespace shardproof::pipeline_execution {

struct P {
  DType dtype = DType::kF32;
  int batches_per_rank = 2;
  bool uneven = false;  // The last micro-batch has a third of the tokens.
  int chunks = 1;
  bool recompute = false;
  bool tied = false;  // w of the last layer is that of the first.
  int layers = 0;
  int64_t tokens = 0;  // Of a micro-batch.
  int64_t width = 0;
  int ranks = 1;
  Memory memory = Memory::kShared;

  int micro_batches() const { return batches_per_rank * ranks; }
  int64_t TokensIn(int micro_batch) const {
    const bool last = micro_batch + 1 == micro_batches();
    return uneven && last ? tokens / 3 : tokens;
  }
  int64_t AllTokens() const {
    return (micro_batches() - 1) * tokens + TokensIn(micro_batches() - 1);
  }
  // Whose weight a layer uses.
  int WeightOf(int layer) const {
    return tied && layer + 1 == layers ? 0 : layer;
  }
};

// x, w, b and dy; y, dx, dw and db, on rank 0.
Tensors TensorsOf(const P& p);
// All on one device.
StatusOr<DenseOutputs> Expected(const P& p, const Arithmetic& a,
                                const Inputs& in, const Sample& sample);

using BuildFor = std::function<StatusOr<Schedule>(const P&)>;

// Half of the micro-batches go through the ranks one way and half the other way,
// as GPipe, with two copies of the weights.
StatusOr<Schedule> BothWays(const P& p);
// GPipe, whose odd ranks take the micro-batches in the opposite order.
StatusOr<Schedule> OppositeOrder(const P& p);

class Worker;

// How a step goes about it; all but the first for planted bugs.
struct Plan {
  BuildFor build = {};

  std::function<void(PipelinePlan&)> plan = {};
  std::function<void(std::vector<int64_t>&)> message_bytes = {};
  // A stage around another.
  std::function<std::unique_ptr<PipelineStage>(const P&, LinearStage&)> around =
      {};
  // What dy of a micro-batch is multiplied by.
  std::function<double(const P&, int micro_batch)> scale = {};
  std::function<double(const P&)> scale_gradients = {};
  bool sums_tied = true, sums_copies = true;
};

// Collective.
StatusOr<Operation> Bind(const P& p, RankContext& context, const Plan& plan);
// The messages of the schedule, of the sums and of gathering.
Cost CostOf(const P& p, const BuildFor& build);

}  // namespace shardproof::pipeline_execution

#endif  // SHARDPROOF_PIPELINE_EXECUTION_CASE_SETUP_H_
