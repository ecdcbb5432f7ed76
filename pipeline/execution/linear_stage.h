// A few linear layers as a stage of a pipeline: the smallest model with gradients
// that are real and linear. The case trains it.
//
// Contract, for n layers of one width W, of the tokens of a micro-batch:
//
//     Forward          h_0 = x, h_(l+1) = h_l w_l^T + b_l, y = h_n
//     BackwardInput    d_n = dy, d_l = d_(l+1) w_l, dx = d_0
//     BackwardWeight   dw_l += d_(l+1)^T h_l, db_l += sum over tokens of d_(l+1)
//
// and Backward both. Without layers a stage passes on what it gets. The first
// stage takes x from `model`, where it leaves dx too; the last takes dy from there,
// and leaves y.
//
// Between a visit's actions h_1 .. h_(n-1) are kept or, with `recompute`, x alone,
// from which BackwardWeight makes them again; d_1 .. d_(n-1) are kept from
// BackwardInput to BackwardWeight.
//
//     SP_ASSIGN_OR_RETURN(LinearStage stage, LinearStage::Create(
//         {.width = 64, .tokens = {32, 32, 7}, .slots = 2}, layers, model));
//     stage.BeginStep();
#ifndef SHARDPROOF_PIPELINE_EXECUTION_LINEAR_STAGE_H_
#define SHARDPROOF_PIPELINE_EXECUTION_LINEAR_STAGE_H_

#include <cstdint>
#include <vector>

#include "collectives/device.h"
#include "pipeline/execution/pipeline_stage.h"
#include "reference/dtype.h"
#include "reference/status.h"
#include "reference/tensor.h"

namespace shardproof {

struct LinearStageConfig {
  int64_t width = 0;
  std::vector<int64_t> tokens;  // Of each micro-batch.
  DType dtype = DType::kF32;    // f64, f32, bf16 or f16.
  int slots = 0;
  bool recompute = false;
};

// w, dw [W, W]; b, db [W].
struct LinearStageLayer {
  const void* w = nullptr;
  const void* b = nullptr;
  void* dw = nullptr;
  void* db = nullptr;
};

// All micro-batches, one after the other, [tokens, W]. Null where the stage is
// not the first, or not the last.
struct LinearStageEnds {
  const void* x = nullptr;
  void* dx = nullptr;
  void* y = nullptr;
  const void* dy = nullptr;
};

class LinearStage : public PipelineStage {
 public:
  // Local. All memory is asked for here. kInvalidArgument for a negative size,
  // kUnsupported for the type.
  static StatusOr<LinearStage> Create(const LinearStageConfig& config,
                                      std::vector<LinearStageLayer> layers,
                                      const LinearStageEnds& ends);

  int layers() const { return static_cast<int>(layers_.size()); }

  // Zeroes the gradients.
  void BeginStep();

  Status Forward(const StageVisit& visit, const void* x, void* y) override;
  Status Backward(const StageVisit& visit, const void* x, const void* dy,
                  void* dx) override;
  Status BackwardInput(const StageVisit& visit, const void* x, const void* dy,
                       void* dx) override;
  Status BackwardWeight(const StageVisit& visit, const void* x,
                        const void* dy) override;

 private:
  LinearStage(const LinearStageConfig& config,
              std::vector<LinearStageLayer> layers,
              const LinearStageEnds& ends);

  int64_t TokensOf(const StageVisit& visit) const {
    return config_.tokens[static_cast<size_t>(visit.micro_batch)];
  }
  // What an end has of a micro-batch.
  const void* Of(const StageVisit& visit, const void* end) const;
  void* Of(const StageVisit& visit, void* end) const;
  // h_l and d_l, for 0 < l < n.
  void* Activation(const StageVisit& visit, int l);
  void* Gradient(const StageVisit& visit, int l);
  Status Apply(const StageVisit& visit, int l, const void* h, void* out);
  void PassOn(const StageVisit& visit, const void* from, void* to) const;

  LinearStageConfig config_;
  std::vector<LinearStageLayer> layers_;
  LinearStageEnds ends_;
  std::vector<int64_t> begins_;  // First token of each micro-batch.
  Tensor activations_;           // [slots or 1, n - 1, tokens, W]
  Tensor gradients_;             // [slots, n - 1, tokens, W]
  Tensor ones_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_PIPELINE_EXECUTION_LINEAR_STAGE_H_
