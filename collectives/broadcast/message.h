// What the message variants of broadcast have in common.
#ifndef SHARDPROOF_COLLECTIVES_BROADCAST_MESSAGE_H_
#define SHARDPROOF_COLLECTIVES_BROADCAST_MESSAGE_H_

#include "collectives/broadcast/broadcast.h"
#include "collectives/communicator.h"
#include "collectives/op.h"
#include "collectives/patterns/binomial.h"
#include "reference/status.h"

namespace shardproof {

// On at least two ranks: fills args.recv, on the root (virtual rank v = 0) too.
using BroadcastAlgorithm = Status(const Communicator& comm,
                                  const BroadcastArgs& args,
                                  const Rooted& rooted, int v);

// The root's own copy; for algorithms to do while their messages are on their
// way.
void CopyAtRoot(const BroadcastArgs& args, int v);

Status RunBroadcast(const Communicator& comm, const BroadcastArgs& args,
                    OpLabel label, BroadcastAlgorithm* algorithm);

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_BROADCAST_MESSAGE_H_
