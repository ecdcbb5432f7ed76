// What the message variants of gather have in common: the equal and the v form
// differ in how their blocks are described, no further.
#ifndef SHARDPROOF_COLLECTIVES_GATHER_MESSAGE_H_
#define SHARDPROOF_COLLECTIVES_GATHER_MESSAGE_H_

#include "collectives/chunks.h"
#include "collectives/communicator.h"
#include "collectives/gather/gather.h"
#include "collectives/op.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof {

struct GatherCall {
  const void* send;
  void* recv;
  Blocks blocks;
  DType dtype;
  int root;
};

// On at least two ranks: moves the block of every other rank to the root, whose
// own is in place already.
using GatherAlgorithm = Status(const Communicator& comm,
                               const GatherCall& call);

Status RunGather(const Communicator& comm, const GatherArgs& args,
                 OpLabel label, GatherAlgorithm* algorithm);
Status RunGather(const Communicator& comm, const GatherVArgs& args,
                 OpLabel label, GatherAlgorithm* algorithm);

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_GATHER_MESSAGE_H_
