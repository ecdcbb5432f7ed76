// When a payload travels with the flag itself.
//
// An eager operation has one flag round instead of two, but its bytes are stored
// once more, into the slot beside the flag. Up to which size that pays was
// measured for each primitive, with 2 ranks on 2 cores, and is a constant beside
// it, which its cost function shares.
#ifndef SHARDPROOF_COLLECTIVES_DIRECT_EAGER_H_
#define SHARDPROOF_COLLECTIVES_DIRECT_EAGER_H_

#include <cstddef>

namespace shardproof::direct {

// What every backend's EagerLimit() is at least.
inline constexpr size_t kEagerLimit = size_t{16} << 10;

}  // namespace shardproof::direct

#endif  // SHARDPROOF_COLLECTIVES_DIRECT_EAGER_H_
