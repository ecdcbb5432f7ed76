// What of nccl_abi.h is not as NVIDIA's nccl.h says.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_NCCL_NCCL_HEADER_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_NCCL_NCCL_HEADER_H_

#include "collectives/backend/cuda/library/header_comparison.h"

namespace shardproof::nccl {

// NCCL_VERSION_CODE of the header; 0: there is none.
int HeaderVersion();

// Nothing is compared with a header that is older than 2.28, which does not declare all that is here.
HeaderComparison CompareWithHeader();

}  // namespace shardproof::nccl

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_NCCL_NCCL_HEADER_H_
