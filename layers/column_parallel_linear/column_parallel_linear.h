// A linear layer whose weight is cut by output: every rank makes its columns of
// the result from the whole input.
//
// Contract, for rank r of t with outputs o_r = BalancedChunk(out, t, r), w
// [out, in], b [out], and X [tokens, in] the whole input:
//
//     forward    y_r  = X w[o_r]^T + b[o_r]              [tokens, o_r]
//     backward   dw_r = dy_r^T X      db_r = sum over tokens of dy_r
//                dx   = sum over ranks of dy_r w[o_r]    [tokens, in]
//
//                plain                          sequence-parallel
//     x, dx      all tokens on every rank       own tokens
//     forward    sends nothing                  all_gather of x
//     backward   all_reduce of dx               all_gather of x again,
//                                               reduce_scatter of dx
//
// The gathered input is not kept for the backward pass but gathered again: that
// is what makes activations t times smaller (arXiv:2205.05198, section 4.2.2).
// y stays cut: it is what row_parallel_linear takes. With gather_output it does
// not: forward ends with an all_gather of y, and y and dy are [tokens, out] on
// every rank. Backward takes the rank's columns of dy and sends nothing for it:
// every rank has the whole gradient of a result that every rank has.
//
//     SP_ASSIGN_OR_RETURN(const ColumnParallelLinear layer,
//         ColumnParallelLinear::Create(comm, {.tokens = 512, .in = 4096,
//                                             .out = 14336, .bias = true}));
//     SP_RETURN_IF_ERROR(layer.Forward({.x = x, .w = w, .b = b, .y = y}));
//     SP_RETURN_IF_ERROR(layer.Backward({.x = x, .w = w, .dy = dy, .dx = dx,
//                                        .dw = dw, .db = db}));
//
// Sources: Shoeybi et al., Megatron-LM, arXiv:1909.08053, section 3;
// Korthikanti et al., arXiv:2205.05198, section 4.2.2.
#ifndef SHARDPROOF_LAYERS_COLUMN_PARALLEL_LINEAR_COLUMN_PARALLEL_LINEAR_H_
#define SHARDPROOF_LAYERS_COLUMN_PARALLEL_LINEAR_COLUMN_PARALLEL_LINEAR_H_

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

class ColumnParallelLinear {
 public:
  // This rank's parts, row-major, of the layer's type. Empty parts may be null.
  // b and db are ignored in a layer without bias. Nothing may overlap.
  struct ForwardArgs {
    const void* x = nullptr;
    const void* w = nullptr;  // [o_r, in]
    const void* b = nullptr;  // [o_r]
    void* y = nullptr;        // [tokens, o_r]; [tokens, out] if gathered
  };
  struct BackwardArgs {
    const void* x = nullptr;
    const void* w = nullptr;
    const void* dy = nullptr;  // as y
    void* dx = nullptr;
    void* dw = nullptr;  // [o_r, in]
    void* db = nullptr;  // [o_r]
  };

  // Collective; the same error on every rank, as CheckParallelLinear, and
  // kOutOfMemory for the
  // workspace (sequence-parallel: tokens x in; gather_output: tokens x out and
  // tokens x o_r), which is all the memory that the layer ever asks for.
  static StatusOr<ColumnParallelLinear> Create(
      const Communicator& comm, const ParallelLinearConfig& config,
      const CollectiveFamily& collectives = kAutoCollectives);

  // Collective. Errors are those of the transport.
  Status Forward(const ForwardArgs& args,
                 const Stream& stream = Stream::Inline()) const;
  Status Backward(const BackwardArgs& args,
                  const Stream& stream = Stream::Inline()) const;

  // How many outputs this rank has, |o_r|.
  int64_t local_out() const { return local_out_; }
  // How many tokens of x it has.
  int64_t local_tokens() const { return input_.local_tokens(); }

 private:
  ColumnParallelLinear(const ParallelLinearConfig& config, int64_t local_out,
                       ParallelRegion input, FeatureSplit output)
      : config_(config),
        local_out_(local_out),
        input_(std::move(input)),
        output_(std::move(output)) {}

  ParallelLinearConfig config_;
  int64_t local_out_;
  ParallelRegion input_;
  FeatureSplit output_;  // With gather_output.
};

// What one pass sends. The family must have costs.
Cost ColumnParallelLinearForwardCost(int ranks,
                                     const ParallelLinearConfig& config,
                                     const CollectiveFamily& collectives);
Cost ColumnParallelLinearBackwardCost(int ranks,
                                      const ParallelLinearConfig& config,
                                      const CollectiveFamily& collectives);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_COLUMN_PARALLEL_LINEAR_COLUMN_PARALLEL_LINEAR_H_
