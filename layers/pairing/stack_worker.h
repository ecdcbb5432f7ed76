// A rank of the linear stack's cases: one step of training, as a plan says.
//
//     SP_ASSIGN_OR_RETURN(const Operation step,
//                         BindStack(p, context, {.overlap = true}));
#ifndef SHARDPROOF_LAYERS_PAIRING_STACK_WORKER_H_
#define SHARDPROOF_LAYERS_PAIRING_STACK_WORKER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "collectives/communicator.h"
#include "collectives/mesh.h"
#include "layers/data_parallel/data_parallel.h"
#include "layers/data_parallel/linear_stack.h"
#include "layers/pairing/stack_case.h"
#include "layers/tensor_parallel/collective_family.h"
#include "reference/status.h"
#include "reference/tensor.h"
#include "tools/harness/case.h"

namespace shardproof {

class StackWorker;

// How a step goes about it; the second half is for planted bugs.
struct StackPlan {
  CollectiveFamily collectives = kAutoCollectives;
  bool in_buckets = true;
  bool overlap = false;
  bool rebuild = false;

  bool average = true;
  int steps = 1;
  std::function<double(const StackCase&, int replica, int m)> scale = {};
  std::function<int64_t(const StackCase&, const TokenRange&)> count = {};
  std::function<StatusOr<Communicator>(const Mesh&)> group = {};
  std::function<GradientSink(StackWorker&, GradientSink)> sink = {};
  // Which parameter's place a parameter takes.
  std::function<int(const StackWorker&, int parameter)> place = {};
  std::function<Status(StackWorker&, int m)> after_micro_batch = {};
  std::function<Status(StackWorker&)> after_rebuild = {}, after_finish = {};
  // Instead of finishing first.
  bool read_before_finish = false, clear_before_finish = false;
};

class StackWorker {
 public:
  // Collective.
  static StatusOr<std::shared_ptr<StackWorker>> Create(const StackCase& p,
                                                       RankContext& context,
                                                       const StackPlan& plan);

  Status Run() {
    for (int i = 0; i < plan_.steps; ++i) SP_RETURN_IF_ERROR(Step());
    return OkStatus();
  }

  const StackCase& p() const { return p_; }
  int replica() const { return replica_; }
  bool uses_prefix() const { return Prefixed(p_) > parts_.front().begin; }
  RankContext& context() const { return context_; }
  const Communicator& group() const { return mesh_.Along("dp"); }
  DataParallel& gradients() { return gradients_; }
  const std::vector<int64_t>& counts() const { return counts_; }

 private:
  StackWorker(const StackCase& p, RankContext& context, StackPlan plan,
              Mesh mesh, DataParallel gradients, LinearStack stack);

  Status Step();
  void MaskUpstream();
  Status MicroBatch(int m, const GradientSink& sink);
  Status Rebuild(bool reversed);
  Status CopyOut();

  StackCase p_;
  RankContext& context_;
  StackPlan plan_;
  Mesh mesh_;
  DataParallel gradients_;
  LinearStack stack_;
  int replica_;
  std::vector<TokenRange> parts_;
  std::vector<int64_t> counts_, counted_;
  std::vector<bool> mask_;
  Tensor dy_;
};

// What DataParallel is told on `rank`.
DataParallelConfig StackGradients(const StackCase& p, int rank,
                                  bool in_buckets);
// Collective.
StatusOr<Operation> BindStack(const StackCase& p, RankContext& context,
                              const StackPlan& plan);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_PAIRING_STACK_WORKER_H_
