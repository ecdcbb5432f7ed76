// An optimizer over the parameters of a group of ranks, some sharded over the
// group and some replicated.
//
// Contract: with W all parameters of the group, each element once, and G their
// gradients, a Step is one step of reference/optimizer.h on (W, G), whoever
// holds which part:
//
//     norm^2 = sum over ranks r of sum over tensors with `counted` of
//              |f G_r / S|^2                                          in f64
//     found  = max over ranks of "some element of G_r is not finite"
//     found: no rank changes anything but its loss scale
//     else   every rank updates its parts with the same clip factor
//
// An element that several ranks hold (a norm's weight under tensor parallelism)
// counts on one of them: set `counted` on the group's rank 0 only. One small
// message each step carries both the squares and the flag: an all_gather of two
// numbers of each rank, which every rank then adds up in rank order, so that all
// have the same bits whatever the algorithm. (Rejected: an all_reduce of sums
// and one of flags. Twice the latency, and the sum's bits would depend on the
// algorithm.)
//
//     SP_ASSIGN_OR_RETURN(ParallelOptimizer optimizer,
//         ParallelOptimizer::Create(tensor_parallel,
//             {.settings = {.learning_rate = 3e-4, .weight_decay = 0.1,
//                           .max_norm = 1.0},
//              .dtype = DType::kBF16, .gradient_dtype = DType::kBF16},
//             {{.count = own_weights}, {.count = norms, .counted = rank == 0}}));
//     const void* const parameters[] = {weights, norm_weights};
//     optimizer.Load(parameters);               // master weights, at first
//     ... forward, backward of loss * optimizer.loss_scale() ...
//     const OptimizerMemory memory[] = {{weights, d_weights},
//                                       {norm_weights, d_norms}};
//     SP_RETURN_IF_ERROR(optimizer.Step(memory));
//
// Memory per parameter of bf16 or f16: 12 bytes with Adam (master, two moments),
// beside its own 2 and those of its gradient; of f32 8, since it is its own
// master.
//
// Sources: as reference/optimizer.h; Shoeybi et al., arXiv:1909.08053 (which
// parameters count: those that are not duplicates of another rank's).
#ifndef SHARDPROOF_LAYERS_OPTIMIZER_OPTIMIZER_H_
#define SHARDPROOF_LAYERS_OPTIMIZER_OPTIMIZER_H_

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "collectives/communicator.h"
#include "collectives/device.h"
#include "collectives/traffic.h"
#include "layers/kernels/optimizer.h"
#include "layers/tensor_parallel/collective_family.h"
#include "reference/dtype.h"
#include "reference/optimizer.h"  // OptimizerSettings
#include "reference/status.h"
#include "reference/tensor.h"

namespace shardproof {

struct ParallelOptimizerConfig {
  OptimizerSettings settings = {};
  DType dtype = DType::kF32;  // Of the parameters: f64, f32, bf16 or f16.
  // Of the gradients: as the parameters, or Accumulator(dtype).
  DType gradient_dtype = DType::kF32;
};

// All of it in words, for ranks to compare.
std::string Describe(const ParallelOptimizerConfig& config);

// One tensor of this rank: what it holds of a parameter.
struct OptimizerTensor {
  int64_t count = 0;  // Elements; may be 0.
  // Whether these elements enter the norm here. Of an element that several
  // ranks of the group hold, exactly one rank's counts.
  bool counted = true;
};

struct OptimizerMemory {
  void* parameter = nullptr;
  const void* gradient = nullptr;
};

// The loops that a step is made of.
struct OptimizerKernels {
  Status (*add_squares)(const Stream&, DType, int64_t, const void*,
                        SquareSum*) = &AddSquares;
  Status (*sgd)(const Stream&, const SgdArgs&) = &SgdStep;
  Status (*adam)(const Stream&, const AdamArgs&) = &AdamStep;
};

class ParallelOptimizer {
 public:
  // What the last step did.
  struct Report {
    double norm = 0;  // Before clipping; infinite if a gradient is not finite.
    double clip = 1;  // The factor that was applied.
    double loss_scale = 1;  // That the gradients carried.
    bool skipped = false;
  };

  // Collective; the same error on every rank. kInvalidArgument where ranks have
  // different settings, where one of them has no meaning, or for a negative
  // count; kUnsupported for the types; kOutOfMemory. All memory is asked for
  // here: masters and moments in one block each, zero.
  static StatusOr<ParallelOptimizer> Create(
      const Communicator& comm, const ParallelOptimizerConfig& config,
      std::vector<OptimizerTensor> tensors,
      const CollectiveFamily& collectives = kAutoCollectives,
      const OptimizerKernels& kernels = {});

  // The state of a model that starts from `parameters` (one per tensor): master
  // weights from them, no moments, no steps, the initial loss scale. A local
  // call. Without it, masters are 0.
  Status Load(std::span<const void* const> parameters);

  // Collective. One step with gradients that carry loss_scale(); `factor` (1 /
  // tokens, 1 / ranks: equal on all ranks) multiplies them on the way. Errors:
  // kInvalidArgument unless there is one memory per tensor; the transport's.
  Status Step(std::span<const OptimizerMemory> memory, double factor = 1,
              const Stream& stream = Stream::Inline());

  // The scale for the next loss. As the rest below: once the stream has done
  // the steps before.
  double loss_scale() const { return scale_.value(); }
  // Steps that were not skipped.
  int64_t steps() const { return steps_; }
  const Report& report() const { return report_; }

  // The state of one tensor, `count` elements of Accumulator(dtype). Masters:
  // null where the parameter is its own; moments: null where the rule has none.
  const void* master(size_t tensor) const;
  const void* first(size_t tensor) const;
  const void* second(size_t tensor) const;
  // What all state of this rank takes, in bytes.
  int64_t state_bytes() const;

 private:
  ParallelOptimizer(const ParallelOptimizerConfig& config,
                    std::vector<OptimizerTensor> tensors,
                    const CollectiveFamily& collectives,
                    const OptimizerKernels& kernels);
  Status Allocate(const Communicator& comm);
  bool Measures() const {
    return config_.settings.max_norm.has_value() ||
           config_.settings.loss_scaling.has_value();
  }
  // Squares and flag of all ranks together, the same bits on every rank.
  StatusOr<SquareSum> Measure(std::span<const OptimizerMemory> memory);
  Status StepNow(std::span<const OptimizerMemory> memory, double factor);
  Status Update(size_t tensor, const OptimizerMemory& memory, double scale);
  std::byte* StateOf(const Tensor& block, size_t tensor) const;

  ParallelOptimizerConfig config_;
  std::vector<OptimizerTensor> tensors_;
  std::vector<int64_t> begins_;  // Of each tensor's state in its block.
  int64_t count_ = 0;            // Elements of all tensors.
  CollectiveFamily collectives_;
  OptimizerKernels kernels_;
  Communicator comm_;
  Buffer gathered_;              // {sum of squares, flag} of each rank.
  std::vector<int64_t> counts_;  // 2 for each rank.
  // Owned once, so that views of a moved optimizer stay.
  std::unique_ptr<Tensor> master_, first_, second_;
  LossScale scale_;
  int64_t steps_ = 0;
  Report report_;
};

// What one step sends. The family must have costs.
Cost ParallelOptimizerCost(int ranks, const OptimizerSettings& settings,
                           const CollectiveFamily& collectives);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_OPTIMIZER_OPTIMIZER_H_
