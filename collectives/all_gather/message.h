// What the message variants of all_gather have in common: the equal and the v
// form differ in how their blocks are described, no further.
#ifndef SHARDPROOF_COLLECTIVES_ALL_GATHER_MESSAGE_H_
#define SHARDPROOF_COLLECTIVES_ALL_GATHER_MESSAGE_H_

#include "collectives/all_gather/all_gather.h"
#include "collectives/chunks.h"
#include "collectives/communicator.h"
#include "collectives/op.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof {

// On at least two ranks: `recv` holds this rank's own block at its place and
// gets the others.
using AllGatherAlgorithm = Status(const Communicator& comm, DType dtype,
                                  const Blocks& blocks, void* recv);

Status RunAllGather(const Communicator& comm, const AllGatherArgs& args,
                    OpLabel label, AllGatherAlgorithm* algorithm);
Status RunAllGather(const Communicator& comm, const AllGatherVArgs& args,
                    OpLabel label, AllGatherAlgorithm* algorithm);

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_ALL_GATHER_MESSAGE_H_
