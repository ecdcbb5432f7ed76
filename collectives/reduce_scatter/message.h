// What the message variants of reduce_scatter have in common: the equal and the
// v form differ in how their blocks are described, no further.
#ifndef SHARDPROOF_COLLECTIVES_REDUCE_SCATTER_MESSAGE_H_
#define SHARDPROOF_COLLECTIVES_REDUCE_SCATTER_MESSAGE_H_

#include "collectives/chunks.h"
#include "collectives/communicator.h"
#include "collectives/op.h"
#include "collectives/patterns/reducing_exchange.h"
#include "collectives/reduce_scatter/reduce_scatter.h"
#include "reference/status.h"

namespace shardproof {

// On at least two ranks: `input` holds the packed `blocks` of this rank; its
// own block, reduced over all ranks, goes to `recv`, which may be that block of
// `input`.
using ReduceScatterAlgorithm = Status(const Communicator& comm,
                                      const Combine& combine,
                                      const Blocks& blocks, const void* input,
                                      void* recv);

Status RunReduceScatter(const Communicator& comm, const ReduceScatterArgs& args,
                        OpLabel label, ReduceScatterAlgorithm* algorithm);
Status RunReduceScatter(const Communicator& comm,
                        const ReduceScatterVArgs& args, OpLabel label,
                        ReduceScatterAlgorithm* algorithm);

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_REDUCE_SCATTER_MESSAGE_H_
