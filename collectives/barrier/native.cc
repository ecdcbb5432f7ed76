#include "collectives/barrier/barrier.h"

namespace shardproof {

Status BarrierNative(const Communicator& comm) {
  const OpScope op(comm, {.label = "barrier/native"});
  SP_RETURN_IF_ERROR(op.status());
  return comm.Native({.primitive = "barrier"});
}

}  // namespace shardproof
