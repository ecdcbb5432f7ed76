// When a payload travels with the flag itself.
//
// An eager operation has one flag round instead of two, but its bytes are stored
// once more, into the slot beside the flag, and every line of that is then taken
// from one core's cache to another's.
#ifndef SHARDPROOF_COLLECTIVES_DIRECT_EAGER_H_
#define SHARDPROOF_COLLECTIVES_DIRECT_EAGER_H_

#include <cstddef>

namespace shardproof::direct {

// The payload of one rank up to which that pays; every backend's EagerLimit() is
// larger. Open MPI, two pinned ranks, all_reduce of f32, medians: one round takes
// 0.28, 0.52, 0.9 and 2.0 us at 4 B, 256 B, 1 KiB and 4 KiB, and two take 0.59,
// 0.65, 0.65 and 0.67. Copies do without the fold, and all_gather, broadcast and
// all_to_all break even at 1 KiB. With 4 ranks on two cores, where a round waits
// for the scheduler, 2.6 and 4.2 us at 1 and 4 KiB against 3.4 and 3.5.
inline constexpr size_t kEagerLimit = size_t{1} << 10;

}  // namespace shardproof::direct

#endif  // SHARDPROOF_COLLECTIVES_DIRECT_EAGER_H_
