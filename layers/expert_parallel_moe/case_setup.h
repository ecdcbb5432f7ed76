// The pairing of expert_parallel_moe, but for its variants and planted bugs
// (case.cc): parameters, tensors, the reference, and a rank's layer.
//
// Routing is discrete, so inputs are made such that no rounding decides it: noise
// on the logits plans every token's choices (planned_routing.h), far apart, and
// the reference refuses where they are not. The plan also says beforehand what
// is sent, to be compared with what is counted.
#ifndef SHARDPROOF_LAYERS_EXPERT_PARALLEL_MOE_CASE_SETUP_H_
#define SHARDPROOF_LAYERS_EXPERT_PARALLEL_MOE_CASE_SETUP_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "layers/expert_parallel_moe/expert_parallel_moe.h"
#include "layers/tensor_parallel/collective_family.h"
#include "reference/tensor.h"
#include "tools/harness/case.h"

namespace shardproof::moe_case {

struct P {
  DType dtype = DType::kF32;
  std::string activation = {};  // swiglu, gelu
  std::string routing = {};     // spread, one_expert, balanced
  std::string capacity = {};    // dropless, all_tokens, per_rank
  int64_t experts = 0;
  int64_t top_k = 1;
  int64_t tokens = 0;  // Uneven: of the fullest rank. Else of all together.
  int64_t hidden = 0;
  int64_t intermediate = 0;
  int64_t shared = 0;
  bool uneven = true;
  // Whether the gradients of the router and of the combine weights are
  // compared: in double they take the whole forward pass.
  bool all_gradients = true;
  int ranks = 1;
  Memory memory = Memory::kShared;
};

bool Gated(const P& p);
DType Lane(const P& p);
ExpertParallelMoeConfig ConfigOf(const P& p);
// The experts that each of all tokens chooses.
std::vector<int32_t> PlanOf(const P& p);
Tensors TensorsOf(const P& p);
StatusOr<DenseOutputs> Expected(const P& p, const Arithmetic& summed,
                                const Inputs& in, const Sample& sample);

// The layer of one rank with all that it works on.
class Bound {
 public:
  static StatusOr<std::shared_ptr<Bound>> Make(
      const P& p, const ExpertParallelMoeConfig& config, RankContext& context,
      const CollectiveFamily& collectives);
  Bound(const P& p, RankContext& context, ExpertParallelMoe moe);

  // Another plan, of all tokens.
  void PlanNoise(const std::vector<int32_t>& plan);
  Status Forward();
  // With other gradients of the losses or other weights, in a mutant.
  Status Backward(const void* d_losses = nullptr,
                  const void* weights = nullptr);

  const P& p() const { return p_; }
  RankContext& context() const { return context_; }

 private:
  MoeWeights Weights() const;

  P p_;
  RankContext& context_;
  ExpertParallelMoe moe_;
  Tensor noise_;
  Tensor d_weights_, d_router_;  // Where they are no outputs.
};

}  // namespace shardproof::moe_case

#endif  // SHARDPROOF_LAYERS_EXPERT_PARALLEL_MOE_CASE_SETUP_H_
