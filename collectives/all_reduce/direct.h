// What direct.cc and direct_cost.cc must agree about.
#ifndef SHARDPROOF_COLLECTIVES_ALL_REDUCE_DIRECT_H_
#define SHARDPROOF_COLLECTIVES_ALL_REDUCE_DIRECT_H_

#include <cstdint>

#include "reference/dtype.h"

namespace shardproof {

// Whether AllReduceDirect takes AllReduceOneShot. A rank of one-shot loads p n
// bytes and of two-shot n, so the limit falls with p.
constexpr bool OneShotIsFaster(int ranks, int64_t count, DType dtype) {
  return count * SizeOf(dtype) * ranks <= (int64_t{16} << 10);
}

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_ALL_REDUCE_DIRECT_H_
