#include "collectives/barrier/barrier.h"

namespace shardproof {

Status BarrierDirect(const Communicator& comm) {
  const OpScope op(comm, {.label = "barrier/direct"});
  SP_RETURN_IF_ERROR(op.status());
  return comm.Sync();
}

}  // namespace shardproof
