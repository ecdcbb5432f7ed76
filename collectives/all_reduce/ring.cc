#include "collectives/patterns/ring.h"

#include "collectives/all_reduce/message.h"

namespace shardproof {
namespace {

Status Ring(const Communicator& comm, const Combine& combine, const void* input,
            const AllReduceArgs& args) {
  const Blocks chunks = Blocks::Balanced(args.count, comm.size());
  SP_RETURN_IF_ERROR(RingReduceScatter(comm, combine, chunks, input, args.recv,
                                       /*recv=*/nullptr));
  return RingAllGather(comm, args.dtype, chunks, args.recv);
}

}  // namespace

Status AllReduceRing(const Communicator& comm, const AllReduceArgs& args) {
  return RunAllReduce(comm, args, "all_reduce/ring", Ring);
}

}  // namespace shardproof
