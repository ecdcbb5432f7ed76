#include "collectives/patterns/ring.h"

#include "collectives/all_gather/message.h"

namespace shardproof {
namespace {

Status Ring(const Communicator& comm, DType dtype, const Blocks& blocks,
            void* recv) {
  return RingAllGather(comm, dtype, blocks, recv);
}

}  // namespace

Status AllGatherRing(const Communicator& comm, const AllGatherArgs& args) {
  return RunAllGather(comm, args, "all_gather/ring", Ring);
}

Status AllGatherVRing(const Communicator& comm, const AllGatherVArgs& args) {
  return RunAllGather(comm, args, "all_gather_v/ring", Ring);
}

}  // namespace shardproof
