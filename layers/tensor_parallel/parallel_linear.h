// The description that column- and row-parallel linear layers share.
#ifndef SHARDPROOF_LAYERS_TENSOR_PARALLEL_PARALLEL_LINEAR_H_
#define SHARDPROOF_LAYERS_TENSOR_PARALLEL_PARALLEL_LINEAR_H_

#include <cstdint>

#include "collectives/communicator.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof {

// Sizes of the whole layer, equal on all ranks. Any of them may be smaller than
// the number of ranks, or 0: parts are as BalancedChunk cuts them, and may be
// empty.
struct ParallelLinearConfig {
  int64_t tokens = 0;
  int64_t in = 0;
  int64_t out = 0;
  DType dtype = DType::kF32;  // f64, f32, bf16 or f16.
  bool bias = false;
  bool sequence_parallel = false;
  // column_parallel_linear: every rank gets the whole result.
  bool gather_output = false;
  // row_parallel_linear: off, every rank has the whole input.
  bool input_is_parallel = true;
};

// Collective; the same error on every rank. kInvalidArgument for a negative
// size, or where ranks differ; kUnsupported for the type, and for a whole result
// or input of a sequence-parallel layer, which would have all tokens where its
// neighbours have their own. `kind` is for the
// message: "column_parallel_linear".
Status CheckParallelLinear(const Communicator& comm, const char* kind,
                           const ParallelLinearConfig& config);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_TENSOR_PARALLEL_PARALLEL_LINEAR_H_
