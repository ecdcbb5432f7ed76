// The feed-forward block of a transformer, tensor-parallel: a column-parallel
// product, an activation, a row-parallel product, and one sum over ranks in each
// direction.
//
// Contract, for rank r of t with features f_r = BalancedChunk(intermediate, t,
// r), X and DY [tokens, hidden] the whole input and upstream gradient:
//
//     GELU      z = X w_up[f_r]^T + b_up[f_r]       a = gelu(z)
//     SwiGLU    g = X w_gate[f_r]^T + b_gate[f_r]   a = silu(g) z, z as above
//
//     forward   y = (sum over ranks of a w_down[:, f_r]^T) + b_down
//
//     backward  da = DY w_down[:, f_r]        dw_down_r = DY^T a
//               dz = da gelu'(z)              db_down = sum over tokens of DY
//               SwiGLU: dz = da silu(g), dg = da z silu'(g)
//               dw_up_r = dz^T X              db_up_r = sum over tokens of dz
//               dw_gate_r = dg^T X            db_gate_r = the same of dg
//               dx = sum over ranks of (dz w_up[f_r] + dg w_gate[f_r])
//
//                plain                       sequence-parallel
//     x y dy dx  all tokens on every rank    own tokens
//     forward    all_reduce of y             all_gather of x, reduce_scatter of
//                                            y
//     backward   all_reduce of dx            all_gather of x again and of dy,
//                                            reduce_scatter of dx
//
// The parts of gate and up are summed on the rank before they are sent: one
// all_reduce each way, not two. In a fused gate_up weight [2 intermediate,
// hidden] w_gate and w_up are its two halves, and each is cut by itself: a rank
// holds rows f_r of both, never a contiguous part of the whole.
//
//     SP_ASSIGN_OR_RETURN(ParallelMlp mlp,
//         ParallelMlp::Create(comm, {.tokens = 512, .hidden = 4096,
//                                    .intermediate = 14336,
//                                    .activation = Activation::kSwiGlu,
//                                    .dtype = DType::kBF16}));
//     SP_RETURN_IF_ERROR(mlp.Forward(x, weights, y));
//     SP_RETURN_IF_ERROR(mlp.Backward(x, weights, dy, dx, gradients));
//
// Sources: Shoeybi et al., Megatron-LM, arXiv:1909.08053, section 3 and figure
// 3a; Korthikanti et al., arXiv:2205.05198, section 4.2.2; Shazeer,
// arXiv:2002.05202.
#ifndef SHARDPROOF_LAYERS_MLP_MLP_H_
#define SHARDPROOF_LAYERS_MLP_MLP_H_

#include <cstdint>

#include "collectives/communicator.h"
#include "collectives/device.h"
#include "collectives/traffic.h"
#include "layers/tensor_parallel/collective_family.h"
#include "layers/tensor_parallel/parallel_region.h"
#include "reference/dtype.h"
#include "reference/mlp.h"  // Activation
#include "reference/status.h"
#include "reference/tensor.h"

namespace shardproof {

// Sizes of the whole block, equal on all ranks. Any of them may be smaller than
// the number of ranks, or 0.
struct ParallelMlpConfig {
  int64_t tokens = 0;
  int64_t hidden = 0;
  int64_t intermediate = 0;
  Activation activation = Activation::kGeluTanh;
  DType dtype = DType::kF32;  // f64, f32, bf16 or f16.
  bool bias = false;
  bool sequence_parallel = false;
};

// A rank's parts, row-major, of the block's type. Empty parts may be null; so
// may the gate's with GELU, and the biases in a block without. `Void` is void or
// const void.
template <class Void>
struct MlpParts {
  Void* w_gate = nullptr;  // [f_r, hidden]
  Void* w_up = nullptr;    // [f_r, hidden]
  Void* w_down = nullptr;  // [hidden, f_r]
  Void* b_gate = nullptr;  // [f_r]
  Void* b_up = nullptr;    // [f_r]
  Void* b_down = nullptr;  // [hidden]
};
using MlpWeights = MlpParts<const void>;
using MlpGradients = MlpParts<void>;

class ParallelMlp {
 public:
  // Collective; the same error on every rank: kInvalidArgument for a negative
  // size or where ranks differ, kUnsupported for the type, and kOutOfMemory. All
  // memory that the block ever asks for is asked for here: three (GELU) or four
  // activations of tokens x f_r and, sequence-parallel, two of tokens x hidden.
  static StatusOr<ParallelMlp> Create(
      const Communicator& comm, const ParallelMlpConfig& config,
      const CollectiveFamily& collectives = kAutoCollectives);

  // Collective. y = mlp(x); what Backward needs is kept here, but for x. Errors are those of
  // the transport.
  Status Forward(const void* x, const MlpWeights& weights, void* y,
                 const Stream& stream = Stream::Inline());
  // Collective. The gradients of the last Forward, whose activations it uses
  // up: once for each Forward, with the same x.
  Status Backward(const void* x, const MlpWeights& weights, const void* dy,
                  void* dx, const MlpGradients& gradients,
                  const Stream& stream = Stream::Inline());

  // How many features this rank has, |f_r|.
  int64_t local_features() const { return features_; }
  // How many tokens of x, y, dy and dx it has.
  int64_t local_tokens() const { return input_.local_tokens(); }
  // What is kept from Forward to Backward, and what either works in, in bytes
  // on this rank. x, which the caller keeps, is in neither.
  int64_t kept_bytes() const {
    return gate_.num_bytes() + up_.num_bytes() + activated_.num_bytes();
  }
  int64_t working_bytes() const {
    return d_activated_.num_bytes() + input_.workspace_bytes() +
           output_.workspace_bytes();
  }

 private:
  ParallelMlp(const ParallelMlpConfig& config, int64_t features,
              ParallelRegion input, ParallelRegion output);

  bool gated() const { return config_.activation == Activation::kSwiGlu; }
  // out = x w^T + b, one of the two products that begin the block.
  Status Project(const Stream& stream, const void* x, const void* w,
                 const void* b, Tensor& out) const;
  // dw = dz^T x and db = sum dz: the gradients of one of them.
  Status ProjectionGradients(const Stream& stream, const Tensor& dz,
                             const void* x, void* dw, void* db) const;
  // out = dz w, or out += dz w.
  Status InputTerm(const Stream& stream, const Tensor& dz, const void* w,
                   bool accumulate, void* out) const;
  // da to dz and dg, in the place of the activations that they are of.
  Status ActivationGradient(const Stream& stream);

  ParallelMlpConfig config_;
  int64_t features_;
  ParallelRegion input_, output_;
  // g, z, a and da; dg and dz take the place of g and z.
  Tensor gate_, up_, activated_, d_activated_;
};

// What one pass sends. The family must have costs.
Cost ParallelMlpForwardCost(int ranks, const ParallelMlpConfig& config,
                            const CollectiveFamily& collectives);
Cost ParallelMlpBackwardCost(int ranks, const ParallelMlpConfig& config,
                             const CollectiveFamily& collectives);
// How it rounds where every sum over ranks rounds as `summed` says.
MlpArithmetic ParallelMlpArithmetic(const ParallelMlpConfig& config,
                                    const Arithmetic& summed);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_MLP_MLP_H_
