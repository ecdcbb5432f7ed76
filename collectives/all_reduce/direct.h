// What direct.cc and direct_cost.cc must agree about.
#ifndef SHARDPROOF_COLLECTIVES_ALL_REDUCE_DIRECT_H_
#define SHARDPROOF_COLLECTIVES_ALL_REDUCE_DIRECT_H_

#include <algorithm>
#include <cstdint>

#include "collectives/direct/eager.h"
#include "reference/dtype.h"

namespace shardproof {

// Whether AllReduceDirect takes AllReduceOneShot. The flag round that it saves
// costs more the more ranks there are. Measured, f32 over Open MPI, on two cores:
// the two take the same time at 0.5 KiB with 2 ranks, between 1 and 4 KiB with 4,
// at 4 KiB with 8. Beyond kEagerLimit one-shot has two rounds as well.
constexpr bool OneShotIsFaster(int ranks, int64_t count, DType dtype) {
  constexpr auto kEager = static_cast<int64_t>(direct::kEagerLimit);
  return count * SizeOf(dtype) <= std::min<int64_t>(256 * ranks, kEager);
}

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_ALL_REDUCE_DIRECT_H_
