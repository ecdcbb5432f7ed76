// The two halves of the ring algorithms: blocks that travel from each rank to
// the next, added to on the way (reduce_scatter) or left behind (all_gather).
//
//     chunk     the block of one rank; chunk c ends, or starts, at rank c
//     segment   what one message of a reducing step carries: see
//               reducing_exchange.h
#ifndef SHARDPROOF_COLLECTIVES_PATTERNS_RING_H_
#define SHARDPROOF_COLLECTIVES_PATTERNS_RING_H_

#include "collectives/chunks.h"
#include "collectives/communicator.h"
#include "collectives/patterns/reducing_exchange.h"
#include "collectives/traffic.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof {

// The reduction of block r of all ranks' `send`, on rank r. Partial sums lie in
// `vector` at the place of their block in `send`, the finished block too; in a
// null `vector` they lie in scratch memory and the finished block in `recv`.
// `vector` may be `send`, and `recv` may be this rank's block of `send`. At
// least two ranks; blocks.packed().
Status RingReduceScatter(const Communicator& comm, const Combine& combine,
                         const Blocks& blocks, const void* send, void* vector,
                         void* recv);

// Fills the other blocks of `vector`, of which rank r has brought block r; with
// a `root`, blocks are numbered from it, and rank r has brought block (r -
// root) mod p.
Status RingAllGather(const Communicator& comm, DType dtype,
                     const Blocks& blocks, void* vector, int root = 0);

Cost RingReduceScatterCost(const Blocks& blocks, DType dtype);
Cost RingAllGatherCost(const Blocks& blocks, DType dtype);

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_PATTERNS_RING_H_
