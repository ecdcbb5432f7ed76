#include "collectives/barrier/barrier.h"

namespace shardproof {
namespace {

Status Choose(const Communicator& comm) {
  return comm.SharesMemory() ? BarrierDirect(comm) : BarrierDissemination(comm);
}

}  // namespace

Status Barrier(const Communicator& comm, const Stream& stream) {
  if (stream.is_inline()) return Choose(comm);
  return stream.Run([comm] { return Choose(comm); });
}

}  // namespace shardproof
