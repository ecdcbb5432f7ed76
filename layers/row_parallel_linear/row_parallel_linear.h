// A linear layer whose weight is cut by input: every rank makes a term of the
// result from its columns of the input, and the terms are summed.
//
// Contract, for rank r of t with inputs i_r = BalancedChunk(in, t, r), w [out,
// in], b [out], x_r = x[:, i_r] as column_parallel_linear leaves it, and DY
// [tokens, out] the whole upstream gradient:
//
//     forward    y    = (sum over ranks of x_r w[:, i_r]^T) + b
//     backward   dx_r = DY w[:, i_r]                     [tokens, i_r]
//                dw_r = DY^T x_r                         [out, i_r]
//                db   = sum over tokens of DY            equal on all ranks
//
//                plain                          sequence-parallel
//     y, dy      all tokens on every rank       own tokens
//     forward    all_reduce of y                reduce_scatter of y
//     backward   sends nothing                  all_gather of dy
//
// With input_is_parallel off, x and dx are [tokens, in] on every rank: forward
// takes the rank's columns of x, and backward ends with an all_gather of dx.
//
// The bias is added once, after the sum: by every rank to its copy of y, or to
// the tokens that it holds. Its gradient comes from the gathered dy and needs
// no sum over ranks. (Megatron-LM takes it of the rank's own tokens and sums it
// later: as right, and one message more.)
//
//     SP_ASSIGN_OR_RETURN(const RowParallelLinear layer,
//         RowParallelLinear::Create(comm, {.tokens = 512, .in = 14336,
//                                          .out = 4096, .bias = true}));
//     SP_RETURN_IF_ERROR(layer.Forward({.x = x, .w = w, .b = b, .y = y}));
//     SP_RETURN_IF_ERROR(layer.Backward({.x = x, .w = w, .dy = dy, .dx = dx,
//                                        .dw = dw, .db = db}));
//
// Sources: Shoeybi et al., Megatron-LM, arXiv:1909.08053, section 3;
// Korthikanti et al., arXiv:2205.05198, section 4.2.2.
#ifndef SHARDPROOF_LAYERS_ROW_PARALLEL_LINEAR_ROW_PARALLEL_LINEAR_H_
#define SHARDPROOF_LAYERS_ROW_PARALLEL_LINEAR_ROW_PARALLEL_LINEAR_H_

#include <cstdint>
#include <utility>

#include "collectives/communicator.h"
#include "collectives/device.h"
#include "collectives/traffic.h"
#include "layers/tensor_parallel/collective_family.h"
#include "layers/tensor_parallel/feature_split.h"
#include "layers/tensor_parallel/parallel_linear.h"
#include "layers/tensor_parallel/parallel_region.h"
#include "reference/status.h"

namespace shardproof {

class RowParallelLinear {
 public:
  // This rank's parts, row-major, of the layer's type. Empty parts may be null.
  // b and db are ignored in a layer without bias. Nothing may overlap.
  struct ForwardArgs {
    const void* x = nullptr;  // [tokens, i_r], or [tokens, in]
    const void* w = nullptr;  // [out, i_r]
    const void* b = nullptr;  // [out]
    void* y = nullptr;
  };
  struct BackwardArgs {
    const void* x = nullptr;
    const void* w = nullptr;
    const void* dy = nullptr;
    void* dx = nullptr;  // as x
    void* dw = nullptr;  // [out, i_r]
    void* db = nullptr;  // [out]
  };

  // Collective; the same error on every rank, as CheckParallelLinear, and
  // kOutOfMemory for the
  // workspace (sequence-parallel: tokens x out; without input_is_parallel:
  // tokens x in and tokens x i_r), which is all the memory that the layer ever
  // asks for.
  static StatusOr<RowParallelLinear> Create(
      const Communicator& comm, const ParallelLinearConfig& config,
      const CollectiveFamily& collectives = kAutoCollectives);

  // Collective. Errors are those of the transport.
  Status Forward(const ForwardArgs& args,
                 const Stream& stream = Stream::Inline()) const;
  Status Backward(const BackwardArgs& args,
                  const Stream& stream = Stream::Inline()) const;

  // How many inputs this rank has, |i_r|.
  int64_t local_in() const { return local_in_; }
  // How many tokens of y it has.
  int64_t local_tokens() const { return output_.local_tokens(); }

 private:
  RowParallelLinear(const ParallelLinearConfig& config, int64_t local_in,
                    FeatureSplit input, ParallelRegion output)
      : config_(config),
        local_in_(local_in),
        input_(std::move(input)),
        output_(std::move(output)) {}

  ParallelLinearConfig config_;
  int64_t local_in_;
  FeatureSplit input_;  // Without input_is_parallel.
  ParallelRegion output_;
};

// What one pass sends. The family must have costs.
Cost RowParallelLinearForwardCost(int ranks, const ParallelLinearConfig& config,
                                  const CollectiveFamily& collectives);
Cost RowParallelLinearBackwardCost(int ranks,
                                   const ParallelLinearConfig& config,
                                   const CollectiveFamily& collectives);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_ROW_PARALLEL_LINEAR_ROW_PARALLEL_LINEAR_H_
