// Dropout of a tensor that every rank has, or of which each has a part: the
// mask is a function of (seed, call, index in the whole tensor), so that the
// result does not depend on how many ranks there are.
//
// Contract, for a tensor x of which element i = (a units + u) inner + k is
// x[a, u, k], a < outer, u < units, k < inner:
//
//     forward    y_i  = kept(i) ? x_i / (1 - p) : 0
//     backward   dx_i = kept(i) ? dy_i / (1 - p) : 0        with the same mask
//
//     kept(i) = word(first + i) >= round(p 2^32), of Philox4x32-10 with the
//               seed for its key and (index, call) for its counter; see
//               reference/dropout.h
//
//                replicated              sharded
//     x y dy dx  all of it               units BalancedChunk(units, t, r), in
//                                        all of outer and inner
//     mask       the same on all ranks   the rank's part of that mask
//
// Nothing is sent, and nothing is kept: Backward makes the mask anew, and so
// does whoever recomputes a forward pass with the same call. What is sharded is
// described by its units:
//
//     tokens (sequence-parallel) x hidden    outer 1, units tokens, inner hidden
//     tokens x features (between two         outer tokens, units features,
//       tensor-parallel products)            inner 1
//     batch x heads x s x s (probabilities   outer batch, units heads, inner
//       of attention, sharded by head)       s s
//
// The whole tensor may itself be a part of something larger, as the batch of a
// data-parallel rank is: `first` is the index of its element 0 in that. Two
// layers of a model must differ in seed, or use different calls.
//
//     SP_ASSIGN_OR_RETURN(const ParallelDropout dropout,
//         ParallelDropout::Create(comm, {.units = 512, .inner = 4096,
//                                        .sharded = true, .probability = 0.1,
//                                        .seed = seed + layer}));
//     SP_RETURN_IF_ERROR(dropout.Forward({.x = x, .y = y, .call = step}));
//     SP_RETURN_IF_ERROR(dropout.Backward({.dy = dy, .dx = dx, .call = step}));
//
// Megatron-LM keeps two states of a sequential generator instead, one that is
// equal on all tensor-parallel ranks and one that is not (Shoeybi et al.,
// arXiv:1909.08053, section 3): masks then depend on the number of ranks, and
// one use of the wrong state is the bug "same mask on every shard". Sources:
// Srivastava et al., JMLR 15, 2014; Salmon et al., SC 2011 (Philox).
#ifndef SHARDPROOF_LAYERS_DROPOUT_DROPOUT_H_
#define SHARDPROOF_LAYERS_DROPOUT_DROPOUT_H_

#include <cstdint>

#include "collectives/communicator.h"
#include "collectives/device.h"
#include "layers/kernels/dropout.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof {

// Equal on all ranks. Sizes may be 0, and there may be fewer units than ranks.
struct ParallelDropoutConfig {
  int64_t outer = 1;
  int64_t units = 0;
  int64_t inner = 1;
  bool sharded = false;
  double probability = 0;  // Of being dropped; 0 <= p < 1.
  uint64_t seed = 0;
  uint64_t first = 0;
  DType dtype = DType::kF32;  // f64, f32, bf16 or f16.
};

class ParallelDropout {
 public:
  // [outer, local units, inner], row-major, of the layer's type. `call` is equal
  // on all ranks; that is not checked.
  struct ForwardArgs {
    const void* x = nullptr;
    void* y = nullptr;  // May be x.
    uint64_t call = 0;
  };
  struct BackwardArgs {
    const void* dy = nullptr;
    void* dx = nullptr;  // May be dy.
    uint64_t call = 0;   // That of the forward pass.
  };

  // Collective; the same error on every rank: kInvalidArgument for a negative
  // size, a probability outside [0, 1), or where ranks differ; kUnsupported for
  // the type.
  static StatusOr<ParallelDropout> Create(const Communicator& comm,
                                          const ParallelDropoutConfig& config);

  // Local calls.
  Status Forward(const ForwardArgs& args,
                 const Stream& stream = Stream::Inline()) const;
  Status Backward(const BackwardArgs& args,
                  const Stream& stream = Stream::Inline()) const;

  // How many units this rank has.
  int64_t local_units() const { return local_units_; }

 private:
  ParallelDropout(const ParallelDropoutConfig& config, int64_t begin,
                  int64_t local_units);

  int64_t local_units_;
  DropoutArgs part_;  // All but what a call brings.
};

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_DROPOUT_DROPOUT_H_
