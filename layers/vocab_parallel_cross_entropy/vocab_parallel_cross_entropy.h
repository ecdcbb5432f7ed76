// The cross entropy of logits that are cut by vocabulary, without gathering
// them.
//
// Contract, for rank r of t with columns v_r of the padded vocabulary
// (VocabPartition), x [tokens, padded] the whole logits, of which a rank has x[:,
// v_r], targets [tokens] the same on all t ranks, V the vocabulary without
// padding and e the smoothing:
//
//     m[i]     = max over j < V of x[i, j]
//     S[i]     = sum over j < V of exp(x[i, j] - m[i])
//     q[i, j]  = e / V + (1 - e if j is targets[i])
//     loss[i]  = log S[i] + sum over j < V of q[i, j] (m[i] - x[i, j])
//     mean     = (sum of loss over the tokens that count) / count
//     dx[i, j] = (exp(x[i, j] - m[i]) / S[i] - q[i, j]) w[i]
//     w        = upstream / count for the mean, upstream[i] per token
//
// Tokens whose target is ignore_index do not count: loss 0 and a row of zeros,
// whatever their logits hold. count is that of all tokens, and if a
// data-parallel communicator is given, of all of its ranks: the mean and its
// gradient are those of the whole batch, however unequally it is cut. Without
// any token that counts, mean and gradients are 0. Padded columns count as -inf:
// they are not read, and their dx is 0.
//
// What is sent, per token a float (double for f64):
//
//     forward    all_reduce (max) of m, tokens floats
//                all_reduce (sum) of S and of the weighted sum, 2 tokens floats
//                data-parallel: all_gather of 32 bytes
//     backward   nothing
//
// These are the bytes of three all_reduces of tokens floats (max, sum of exp,
// target logit) in two: the smoothed sum takes the place of the target logit.
//
// Statistics are of f32 (f64 for f64), the losses' sum is of f64. Every
// difference is to the maximum: logits of any size that the type holds are
// right, and both terms of a loss are positive. The same bits on all t ranks.
//
//     SP_ASSIGN_OR_RETURN(VocabParallelCrossEntropy loss,
//         VocabParallelCrossEntropy::Create(
//             tp, {.tokens = 1024, .vocabulary = 50257, .multiple = 128,
//                  .dtype = DType::kBF16, .smoothing = 0.1}, &dp));
//     SP_RETURN_IF_ERROR(loss.Forward({.logits = x, .targets = targets,
//                                      .loss = losses, .mean = &mean}));
//     SP_RETURN_IF_ERROR(loss.Backward({.logits = x, .targets = targets,
//                                       .upstream = &one, .dlogits = x}));
//
// Rejected: one all_gather of (m, S, weighted sum) of each rank instead of the
// two all_reduces. A round less, but t / 2 times the bytes.
//
// Sources: Shoeybi et al., Megatron-LM, arXiv:1909.08053, section 3; Szegedy et
// al., arXiv:1512.00567, section 7.
#ifndef SHARDPROOF_LAYERS_VOCAB_PARALLEL_CROSS_ENTROPY_VOCAB_PARALLEL_CROSS_ENTROPY_H_
#define SHARDPROOF_LAYERS_VOCAB_PARALLEL_CROSS_ENTROPY_VOCAB_PARALLEL_CROSS_ENTROPY_H_

#include <cstdint>
#include <vector>

#include "collectives/communicator.h"
#include "collectives/device.h"
#include "collectives/traffic.h"
#include "layers/tensor_parallel/collective_family.h"
#include "layers/tensor_parallel/vocab_partition.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof {

struct VocabCrossEntropyConfig {
  // Of this tensor-parallel group. Data-parallel ranks may have others; all else
  // is equal on all ranks.
  int64_t tokens = 0;
  int64_t vocabulary = 0;     // Without padding, at least 1.
  int64_t multiple = 1;       // As VocabPartition has it.
  DType dtype = DType::kF32;  // Of the logits: f64, f32, bf16 or f16.
  double smoothing = 0;       // In [0, 1].
  int64_t ignore_index = -100;
  // Upstream is of each token's loss, not of the mean.
  bool per_token = false;
};

class VocabParallelCrossEntropy {
 public:
  // Row-major. loss, mean and upstream are of Accumulator(dtype). Empty parts
  // may be null.
  struct ForwardArgs {
    const void* logits = nullptr;      // [tokens, rows]
    const int64_t* targets = nullptr;  // [tokens]
    void* loss = nullptr;              // [tokens]
    void* mean = nullptr;              // [1], or null.
  };
  struct BackwardArgs {
    const void* logits = nullptr;
    const int64_t* targets = nullptr;
    const void* upstream = nullptr;  // [1], or per token [tokens]
    void* dlogits = nullptr;         // [tokens, rows]; may be `logits`.
  };

  // Collective over `comm` and, if given, over `data_parallel`, whose ranks hold
  // the same columns of other tokens. The same error on every rank of both:
  // kInvalidArgument for negative tokens, a vocabulary or multiple below 1, a
  // smoothing out of [0, 1], or where ranks differ; kUnsupported for the type.
  // All memory that the layer ever asks for is asked for here, 4 tokens numbers
  // and 32 bytes for each data-parallel rank; kOutOfMemory.
  static StatusOr<VocabParallelCrossEntropy> Create(
      const Communicator& comm, const VocabCrossEntropyConfig& config,
      const Communicator* data_parallel = nullptr,
      const CollectiveFamily& collectives = kAutoCollectives);

  // Collective. kInvalidArgument names the first target that is neither in [0,
  // vocabulary) nor ignore_index, its position and data-parallel rank: on every
  // rank of both communicators alike. A group with such a target sends nothing
  // but that; what the others leave in loss is not to be used. Other errors are
  // those of the transport.
  Status Forward(const ForwardArgs& args,
                 const Stream& stream = Stream::Inline());
  // Local. The gradient of the last Forward, with the same logits and targets.
  Status Backward(const BackwardArgs& args,
                  const Stream& stream = Stream::Inline());

  const VocabPartition& partition() const { return partition_; }

 private:
  // What a tensor-parallel group tells the other ones.
  struct Report {
    double total = 0;  // Sum of loss.
    int64_t count = 0;
    int64_t bad_position = -1;
    int64_t bad_target = 0;
  };
  static_assert(sizeof(Report) == 4 * sizeof(int64_t));

  VocabParallelCrossEntropy(const Communicator& comm,
                            const VocabCrossEntropyConfig& config,
                            const CollectiveFamily& collectives);
  Status Allocate();
  Status RunForward(const ForwardArgs& args);
  // The losses of this group, into `report` what came of it.
  Status GroupLosses(const ForwardArgs& args, Report& report) const;
  // Of all groups, this rank's first in `reports_`.
  Status ExchangeReports() const;

  Communicator comm_;
  Communicator data_parallel_;  // Invalid: none.
  VocabCrossEntropyConfig config_;
  CollectiveFamily collectives_;
  VocabPartition partition_;
  std::vector<int64_t> report_counts_;
  Buffer local_max_, max_, sums_, report_, reports_;
  int64_t count_ = 0;  // Of the last Forward.
};

// What Forward sends in one tensor-parallel group of `ranks`, and in one
// data-parallel group (0 without one). Backward sends nothing. The family must
// have costs.
Cost VocabCrossEntropyCost(int ranks, const VocabCrossEntropyConfig& config,
                           const CollectiveFamily& collectives);
Cost VocabCrossEntropyDataCost(int data_parallel_ranks,
                               const CollectiveFamily& collectives);
// How often a sum is rescaled to a larger maximum at most: for each block of
// columns, and for the maximum of all ranks.
int VocabCrossEntropyRescalings(int ranks,
                                const VocabCrossEntropyConfig& config);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_VOCAB_PARALLEL_CROSS_ENTROPY_VOCAB_PARALLEL_CROSS_ENTROPY_H_
