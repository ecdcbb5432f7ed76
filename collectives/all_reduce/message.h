// What the message variants of all_reduce have in common.
#ifndef SHARDPROOF_COLLECTIVES_ALL_REDUCE_MESSAGE_H_
#define SHARDPROOF_COLLECTIVES_ALL_REDUCE_MESSAGE_H_

#include "collectives/all_reduce/all_reduce.h"
#include "collectives/communicator.h"
#include "collectives/op.h"
#include "collectives/patterns/reducing_exchange.h"
#include "reference/status.h"

namespace shardproof {

// On at least two ranks: reduces `input` of all ranks into args.recv. `input`
// is args.send, or args.recv holding the scaled input.
using AllReduceAlgorithm = Status(const Communicator& comm,
                                  const Combine& combine, const void* input,
                                  const AllReduceArgs& args);

// Checks, opens the operation, scales, and runs `algorithm` where there is
// anybody to talk to.
Status RunAllReduce(const Communicator& comm, const AllReduceArgs& args,
                    OpLabel label, AllReduceAlgorithm* algorithm);

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_ALL_REDUCE_MESSAGE_H_
