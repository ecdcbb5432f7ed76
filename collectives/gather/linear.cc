#include "collectives/gather/message.h"
#include "collectives/patterns/requests.h"

namespace shardproof {
namespace {

Status Linear(const Communicator& comm, const GatherCall& call) {
  const auto bytes = [&](int rank) {
    return static_cast<size_t>(call.blocks.Count(rank) * SizeOf(call.dtype));
  };
  if (comm.rank() != call.root) {
    return comm.Send(call.send, bytes(comm.rank()), call.root);
  }
  Requests receives(comm);
  for (int k = 1; k < comm.size(); ++k) {
    const int from = (call.root + k) % comm.size();
    SP_RETURN_IF_ERROR(receives.Add(
        comm.Irecv(At(call.recv, call.dtype, call.blocks.Begin(from)),
                   bytes(from), from)));
  }
  return receives.WaitAll();
}

}  // namespace

Status GatherLinear(const Communicator& comm, const GatherArgs& args) {
  return RunGather(comm, args, "gather/linear", Linear);
}

Status GatherVLinear(const Communicator& comm, const GatherVArgs& args) {
  return RunGather(comm, args, "gather_v/linear", Linear);
}

}  // namespace shardproof
