// Runs a schedule: real stages on real ranks, with messages between them.
//
// Contract: Step calls, on each rank, the stages of its chunks as the schedule's
// actions say, in their order, and hands what a stage makes to the next one:
//
//     y of F of stage s          is the x of F of stage s + 1
//     dx of B or I of stage s    is the dy of B or I of stage s - 1
//
// of the same micro-batch, bit for bit. Between ranks that is a message, as many
// bytes for each micro-batch as the config says, and there are no others; between
// stages of one rank it is an address. Messages are asynchronous (pipeline_plan.h
// says when they start and what waits), so a schedule need only run with buffered
// messages.
//
//     SP_ASSIGN_OR_RETURN(PipelineExecutor executor, PipelineExecutor::Create(
//         comm, {.schedule = schedule, .message_bytes = {4096, 4096, 1024}}));
//     MyStage stage(.., executor.slots(0));
//     PipelineStage* const chunks[] = {&stage};
//     SP_RETURN_IF_ERROR(executor.Step(chunks));
//
// With two pipelines a rank's chunks are stages of different ones. Gradients of
// weights are the stages' own: what two copies make must be summed after the step.
//
// Sources: Narayanan et al., arXiv:2104.04473; Qi et al., arXiv:2401.10241, which
// calls I and W what BackwardInput and BackwardWeight are.
#ifndef SHARDPROOF_PIPELINE_EXECUTION_PIPELINE_EXECUTOR_H_
#define SHARDPROOF_PIPELINE_EXECUTION_PIPELINE_EXECUTOR_H_

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "collectives/communicator.h"
#include "pipeline/execution/pipeline_plan.h"
#include "pipeline/execution/pipeline_stage.h"
#include "pipeline/schedule.h"
#include "pipeline/simulator.h"
#include "reference/status.h"

namespace shardproof {

struct PipelineExecutorConfig {
  Schedule schedule;
  // Of each micro-batch: of the activations between any two stages, and of their
  // gradients alike. May be 0.
  std::vector<int64_t> message_bytes;
};

// Of one rank, in bytes.
struct PipelineMemory {
  // What is kept for later: each x from its F to the visit's last action, and each
  // dy of a split backward pass from its I to its W. Now, and at most in the last
  // step.
  int64_t kept = 0;
  int64_t kept_peak = 0;
  // All slots and outputs, which are there all the time.
  int64_t buffers = 0;
};

class PipelineExecutor {
 public:
  // Collective. All memory is asked for here. Errors are the same on every rank:
  // kInvalidArgument unless all have the same config, whose schedule is valid with
  // buffered messages, for as many ranks as there are, with the bytes of each
  // micro-batch; kUnsupported for more messages than there are tags.
  static StatusOr<PipelineExecutor> Create(
      const Communicator& comm, const PipelineExecutorConfig& config);
  // As another plan says, of this rank. Only for tests, which break one.
  static StatusOr<PipelineExecutor> Create(const Communicator& comm,
                                           const PipelineExecutorConfig& config,
                                           PipelinePlan plan);

  // How many visits of a chunk are alive at once at most.
  int slots(int chunk) const;
  const PipelinePlan& plan() const;

  // Collective. One step of `chunks`, the stages of this rank's chunks. It returns
  // when all ranks are done. Where a stage returns an error, or the chunks are not
  // as many as the schedule has, the step ends on all ranks: on this one with that
  // error, saying which action it was, on the others with kAborted and the same
  // reason. The communicator cannot be used any more then.
  Status Step(std::span<PipelineStage* const> chunks);

  // When each of this rank's actions of the last step began and ended, in seconds
  // since the step did: between are the stages alone, without what was waited for.
  const std::vector<TimeSpan>& times() const;
  const PipelineMemory& memory() const;

 private:
  class State;
  explicit PipelineExecutor(std::shared_ptr<State> state);
  static StatusOr<PipelineExecutor> Make(const Communicator& comm,
                                         const PipelineExecutorConfig& config,
                                         PipelinePlan plan);
  std::shared_ptr<State> state_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_PIPELINE_EXECUTION_PIPELINE_EXECUTOR_H_
