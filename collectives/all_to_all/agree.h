// What the ranks of a direct all_to_all_v must know of one another.
#ifndef SHARDPROOF_COLLECTIVES_ALL_TO_ALL_AGREE_H_
#define SHARDPROOF_COLLECTIVES_ALL_TO_ALL_AGREE_H_

#include <cstdint>

#include "collectives/chunks.h"
#include "collectives/communicator.h"
#include "collectives/direct/rank_array.h"
#include "reference/status.h"

namespace shardproof {

struct Agreement {
  explicit Agreement(int ranks) : begins(ranks) {}

  // Where rank s has its block for this rank, in elements of what it sends.
  direct::RankArray<int64_t> begins;
  // Whether any rank receives where it sends.
  bool any_in_place = false;
};

// One flag round, not counted: these are arguments. kInvalidArgument, with the
// communicator aborted, where a rank sends more or less than is expected of it.
// Serves up to 1023 ranks of a node.
StatusOr<Agreement> Agree(const Communicator& comm, const Blocks& out,
                          const Blocks& in, bool in_place);

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_ALL_TO_ALL_AGREE_H_
