// What a message algorithm reads as this rank's input.
#ifndef SHARDPROOF_COLLECTIVES_PATTERNS_INPUT_H_
#define SHARDPROOF_COLLECTIVES_PATTERNS_INPUT_H_

#include <cstddef>
#include <cstdint>

#include "collectives/communicator.h"
#include "reference/dtype.h"
#include "reference/reduce_op.h"
#include "reference/status.h"

namespace shardproof {

// The input of a reduction: `send`, or, for kPremulSum, scale * send rounded to
// dtype, in `room` for `count` elements (may be `send`) or, where that is null,
// in scratch memory.
StatusOr<const std::byte*> ReductionInput(const Communicator& comm,
                                          const void* send, int64_t count,
                                          DType dtype, ReduceOp op,
                                          double scale, void* room = nullptr);

// `count` elements of `send`, in scratch memory where `in_place`: the operation
// will overwrite them before they are sent.
StatusOr<const std::byte*> SavedInput(const Communicator& comm,
                                      const void* send, int64_t count,
                                      DType dtype, bool in_place);

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_PATTERNS_INPUT_H_
