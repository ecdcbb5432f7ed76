// What the message variants of reduce have in common.
#ifndef SHARDPROOF_COLLECTIVES_REDUCE_MESSAGE_H_
#define SHARDPROOF_COLLECTIVES_REDUCE_MESSAGE_H_

#include "collectives/communicator.h"
#include "collectives/op.h"
#include "collectives/patterns/reducing_exchange.h"
#include "collectives/reduce/reduce.h"
#include "reference/status.h"

namespace shardproof {

// On at least two ranks: reduces `input` of all ranks into args.recv of
// args.root. `input` is args.send or the scaled input.
using ReduceAlgorithm = Status(const Communicator& comm, const Combine& combine,
                               const void* input, const ReduceArgs& args);

Status RunReduce(const Communicator& comm, const ReduceArgs& args,
                 OpLabel label, ReduceAlgorithm* algorithm);

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_REDUCE_MESSAGE_H_
