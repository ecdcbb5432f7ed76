#include "collectives/patterns/ring.h"

#include "collectives/reduce_scatter/message.h"

namespace shardproof {
namespace {

Status Ring(const Communicator& comm, const Combine& combine,
            const Blocks& blocks, const void* input, void* recv) {
  return RingReduceScatter(comm, combine, blocks, input, /*vector=*/nullptr,
                           recv);
}

}  // namespace

Status ReduceScatterRing(const Communicator& comm,
                         const ReduceScatterArgs& args) {
  return RunReduceScatter(comm, args, "reduce_scatter/ring", Ring);
}

Status ReduceScatterVRing(const Communicator& comm,
                          const ReduceScatterVArgs& args) {
  return RunReduceScatter(comm, args, "reduce_scatter_v/ring", Ring);
}

}  // namespace shardproof
