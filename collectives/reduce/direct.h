// What direct.cc and direct_cost.cc must agree about.
#ifndef SHARDPROOF_COLLECTIVES_REDUCE_DIRECT_H_
#define SHARDPROOF_COLLECTIVES_REDUCE_DIRECT_H_

#include <cstdint>

#include "collectives/direct/eager.h"
#include "collectives/direct/slices.h"
#include "reference/dtype.h"

namespace shardproof {

// Whether ReduceDirect leaves all of the work to the root, to which small
// vectors travel with the flags.
constexpr bool ReduceIsEager(int64_t count, DType dtype) {
  return direct::ByteCount(count, dtype) <= direct::kEagerLimit;
}

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_REDUCE_DIRECT_H_
