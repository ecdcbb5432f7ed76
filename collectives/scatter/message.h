// What the message variants of scatter have in common: the equal and the v form
// differ in how their blocks are described, no further.
#ifndef SHARDPROOF_COLLECTIVES_SCATTER_MESSAGE_H_
#define SHARDPROOF_COLLECTIVES_SCATTER_MESSAGE_H_

#include "collectives/chunks.h"
#include "collectives/communicator.h"
#include "collectives/op.h"
#include "collectives/scatter/scatter.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof {

struct ScatterCall {
  const void* send;
  void* recv;
  Blocks blocks;
  DType dtype;
  int root;
};

// On at least two ranks: moves every other rank's block from the root to its
// `recv`; the root's own is in place already.
using ScatterAlgorithm = Status(const Communicator& comm,
                                const ScatterCall& call);

Status RunScatter(const Communicator& comm, const ScatterArgs& args,
                  OpLabel label, ScatterAlgorithm* algorithm);
Status RunScatter(const Communicator& comm, const ScatterVArgs& args,
                  OpLabel label, ScatterAlgorithm* algorithm);

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_SCATTER_MESSAGE_H_
