// Collectives with bugs, to plant into any layer: what it sends goes wrong while
// the layer itself is as it was. For cases; nothing else uses them.
#ifndef SHARDPROOF_LAYERS_PAIRING_BROKEN_COLLECTIVES_H_
#define SHARDPROOF_LAYERS_PAIRING_BROKEN_COLLECTIVES_H_

#include "layers/tensor_parallel/collective_family.h"

namespace shardproof {

// No reduction takes place: a partial sum is taken for the result.
extern const CollectiveFamily kWithoutReduction;
// Sums become averages: everything is divided by the ranks.
extern const CollectiveFamily kAveraging;
// all_reduce takes place in pairs of neighbours: the wrong group.
extern const CollectiveFamily kReducingPairs;
// Each rank has its own block only, and zeros for those of the others.
extern const CollectiveFamily kGatheringNothing;
// The blocks of all ranks lie in the opposite order.
extern const CollectiveFamily kGatheringBackwards;

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_PAIRING_BROKEN_COLLECTIVES_H_
