// LayerNorm and RMSNorm beside a tensor-parallel layer: every rank has all
// tokens and does the same, or each has its own and the gradients of the
// weights are summed.
//
// Contract, for each token of x [tokens, h], weight w and bias b [h]:
//
//     z = x + residual                  x itself in a layer without residual
//     m = mean(z), v = mean((z - m)^2)  RMSNorm: m = 0
//     r = 1 / sqrt(v + epsilon)         n = (z - m) r
//     forward    y  = n w + b
//     backward   dx = r (g - p - n q) + dz,
//                     g = dy w, p = mean(g) (RMSNorm: 0), q = mean(g n)
//                dw = sum over tokens of dy n
//                db = sum over tokens of dy
//
// dz is the gradient that arrives at z on its way past the norm, and dx that of
// x and of the residual alike. All means are over h, of which every rank has
// all: z, y and dx are local.
//
//                          plain                     sequence-parallel
//     x y z dy dz dx       all tokens on every rank  own tokens
//     w b dw db            equal on all ranks        equal on all ranks
//     forward              sends nothing             sends nothing
//     backward             sends nothing             one all_reduce of dw and db
//
// The sum over ranks is of f32 (f64 for f64) and rounded to the layer's type
// afterwards: it is small, and a gradient of thousands of tokens deserves it.
//
//     SP_ASSIGN_OR_RETURN(ParallelNorm norm,
//         ParallelNorm::Create(comm, {.kind = NormKind::kRmsNorm,
//                                     .tokens = 512, .hidden = 4096,
//                                     .dtype = DType::kBF16,
//                                     .sequence_parallel = true}));
//     SP_RETURN_IF_ERROR(norm.Forward({.x = x, .weight = w, .y = y}));
//     SP_RETURN_IF_ERROR(norm.Backward({.z = x, .weight = w, .dy = dy,
//                                       .dx = dx, .dweight = dw}));
//
// Sources: Ba, Kiros and Hinton, arXiv:1607.06450; Zhang and Sennrich,
// arXiv:1910.07467; Korthikanti et al., arXiv:2205.05198, section 4.2.2. That
// the gradients must be summed, and not averaged, is what Megatron-LM and its
// users got wrong more than once.
#ifndef SHARDPROOF_LAYERS_NORM_NORM_H_
#define SHARDPROOF_LAYERS_NORM_NORM_H_

#include <cstdint>

#include "collectives/communicator.h"
#include "collectives/device.h"
#include "collectives/traffic.h"
#include "layers/kernels/norm.h"
#include "layers/tensor_parallel/collective_family.h"
#include "reference/dtype.h"
#include "reference/norm.h"  // NormKind
#include "reference/status.h"
#include "reference/tensor.h"

namespace shardproof {

// Sizes of the whole layer, equal on all ranks; each may be 0, and there may be
// fewer tokens than ranks.
struct ParallelNormConfig {
  NormKind kind = NormKind::kLayerNorm;
  int64_t tokens = 0;
  int64_t hidden = 0;
  double epsilon = 1e-5;
  DType dtype = DType::kF32;  // f64, f32, bf16 or f16.
  bool bias = false;
  bool residual = false;  // x + residual is normalised, and given as z.
  bool sequence_parallel = false;
};

class ParallelNorm {
 public:
  // Row-major, of the layer's type; what the layer does not have is ignored.
  struct ForwardArgs {
    const void* x = nullptr;         // [local tokens, h]
    const void* residual = nullptr;  // [local tokens, h]
    const void* weight = nullptr;    // [h]
    const void* bias = nullptr;      // [h]
    void* z = nullptr;               // [local tokens, h]
    void* y = nullptr;               // [local tokens, h]
  };
  struct BackwardArgs {
    const void* z = nullptr;  // As Forward gave it; x without residual.
    const void* weight = nullptr;
    const void* dy = nullptr;
    const void* dz = nullptr;  // Null: nothing arrives.
    void* dx = nullptr;        // May be dy or dz.
    void* dweight = nullptr;   // [h]
    void* dbias = nullptr;     // [h]
  };

  // Collective; the same error on every rank: kInvalidArgument for a negative
  // size, an epsilon that is not a positive number (of the type computed in),
  // or where ranks differ; kUnsupported for the type, and kOutOfMemory. All
  // memory that the layer ever asks for is asked for here: two numbers per
  // token and two per column, of f32 or f64.
  static StatusOr<ParallelNorm> Create(
      const Communicator& comm, const ParallelNormConfig& config,
      const CollectiveFamily& collectives = kAutoCollectives);

  // A local call. The statistics of the tokens are kept.
  Status Forward(const ForwardArgs& args,
                 const Stream& stream = Stream::Inline());
  // Collective. The gradients of the last Forward; may be called again. Errors
  // are those of the transport.
  Status Backward(const BackwardArgs& args,
                  const Stream& stream = Stream::Inline());

  // How many tokens this rank has.
  int64_t local_tokens() const { return rows_.rows; }
  // What is kept from Forward to Backward (z is the caller's), and what Backward
  // works in, in bytes on this rank.
  int64_t kept_bytes() const {
    return mean_.num_bytes() + inverse_.num_bytes();
  }
  int64_t working_bytes() const { return static_cast<int64_t>(sums_.bytes()); }

 private:
  ParallelNorm(const Communicator& comm, const ParallelNormConfig& config,
               const CollectiveFamily& collectives);

  Communicator comm_;
  ParallelNormConfig config_;
  CollectiveFamily collectives_;
  NormRows rows_;
  Tensor mean_, inverse_;  // [local tokens]
  Buffer sums_;            // dw, then db: addressable by peers.
};

// What Backward sends; Forward sends nothing. The family must have costs.
Cost ParallelNormBackwardCost(int ranks, const ParallelNormConfig& config,
                              const CollectiveFamily& collectives);
// How it rounds where sums over ranks take the additions that `summed` says.
NormArithmetic ParallelNormArithmetic(const ParallelNormConfig& config,
                                      const Arithmetic& summed);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_NORM_NORM_H_
