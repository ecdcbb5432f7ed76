// The arithmetic of a direct reduction: what is folded from the buffers that
// all ranks show.
#ifndef SHARDPROOF_COLLECTIVES_DIRECT_FOLD_H_
#define SHARDPROOF_COLLECTIVES_DIRECT_FOLD_H_

#include <cstdint>
#include <span>
#include <vector>

#include "collectives/chunks.h"
#include "collectives/communicator.h"
#include "collectives/direct/rank_array.h"
#include "collectives/kernels/reduce.h"
#include "reference/dtype.h"
#include "reference/reduce_op.h"
#include "reference/status.h"

namespace shardproof::direct {

// A reduction over the ranks of one communicator, always in rank order: whoever
// folds an element gets the same bits. Inputs are scaled (kPremulSum) and
// the sum is divided (kAvg) in the accumulator, and rounded to `dtype` once.
class Fold {
 public:
  // For kPremulSum a flag round, in which ranks tell one another their `scale`.
  // That is an argument of the operation, not payload: it is not counted.
  static StatusOr<Fold> Prepare(const Communicator& comm, DType dtype,
                                ReduceOp op, double scale);

  // Folds elements `range` of what all ranks send into all `destinations`.
  void Run(const Peers& peers, const Chunk& range,
           std::span<void* const> destinations,
           const kernels::Walk& walk = {}) const;

  DType dtype() const { return dtype_; }

 private:
  Fold(DType dtype, ReduceOp op, int64_t divisor)
      : dtype_(dtype), op_(op), divisor_(divisor) {}

  DType dtype_;
  ReduceOp op_;
  int64_t divisor_;
  std::vector<double> scales_;  // Empty but for kPremulSum.
};

}  // namespace shardproof::direct

#endif  // SHARDPROOF_COLLECTIVES_DIRECT_FOLD_H_
