// The groups of the hierarchical all_reduce.
#ifndef SHARDPROOF_COLLECTIVES_ALL_REDUCE_HIERARCHY_H_
#define SHARDPROOF_COLLECTIVES_ALL_REDUCE_HIERARCHY_H_

#include <cstdint>
#include <vector>

#include "collectives/communicator.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof {

// The group of each rank, numbered from 0: its node, or, where all ranks share
// one, rank / g for g the largest divisor of the ranks not above its square
// root.
std::vector<int> HierarchyGroups(const Topology& topology);

struct Hierarchy {
  Communicator inside;  // The ranks of this group.
  // Of each group, the rank with the same number inside; invalid on ranks whose
  // number is not below `chunks`.
  Communicator across;
  int chunks = 1;  // The size of the smallest group.
};

// Collective at its first use on `comm`, kept with it.
StatusOr<const Hierarchy*> GetHierarchy(const Communicator& comm);

// From this size on, in bytes of a chunk, the step across groups is a ring;
// below it, recursive doubling.
inline constexpr int64_t kRingAcrossBytes = 64 << 10;

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_ALL_REDUCE_HIERARCHY_H_
