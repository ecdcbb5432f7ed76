// When a payload travels with the flag itself.
//
// An eager operation has one flag round instead of two, but its bytes are stored
// once more, into the slot beside the flag. Up to which size that pays is a
// constant beside each primitive, estimated and not yet measured, which its cost
// function shares.
#ifndef SHARDPROOF_COLLECTIVES_DIRECT_EAGER_H_
#define SHARDPROOF_COLLECTIVES_DIRECT_EAGER_H_

#include <cstddef>

namespace shardproof::direct {

// What every backend's EagerLimit() is at least.
inline constexpr size_t kEagerLimit = size_t{16} << 10;

}  // namespace shardproof::direct

#endif  // SHARDPROOF_COLLECTIVES_DIRECT_EAGER_H_
