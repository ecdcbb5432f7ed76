// Our types and operations in NCCL's terms.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_NCCL_NCCL_TYPES_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_NCCL_NCCL_TYPES_H_

#include "collectives/backend/nccl/nccl_abi.h"
#include "collectives/backend/nccl/nccl_library.h"
#include "reference/dtype.h"
#include "reference/reduce_op.h"
#include "reference/status.h"

namespace shardproof {

// The type in which `library` moves elements of `dtype`: its own, or bytes where
// it does not know fp8.
nccl::DataType NcclMovementType(const NcclLibrary& library, DType dtype);

// The type in which it reduces them. kUnsupported for fp8 before 2.24. On a GPU
// older than sm_90 the library itself refuses to reduce fp8.
StatusOr<nccl::DataType> NcclReductionType(const NcclLibrary& library,
                                           DType dtype);

// Not for kPremulSum, which is an operation of each communicator. Of kAvg NCCL
// says only what it means: it multiplies each input by 1/p, rounded to the type,
// first (integers: divides the sum).
nccl::RedOp NcclReductionOp(ReduceOp op);

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_NCCL_NCCL_TYPES_H_
