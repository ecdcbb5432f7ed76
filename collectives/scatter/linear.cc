#include "collectives/patterns/requests.h"
#include "collectives/scatter/message.h"

namespace shardproof {
namespace {

Status Linear(const Communicator& comm, const ScatterCall& call) {
  const auto bytes = [&](int rank) {
    return static_cast<size_t>(call.blocks.Count(rank) * SizeOf(call.dtype));
  };
  if (comm.rank() != call.root) {
    return comm.Recv(call.recv, bytes(comm.rank()), call.root);
  }
  Requests sends(comm);
  for (int k = 1; k < comm.size(); ++k) {
    const int to = (call.root + k) % comm.size();
    SP_RETURN_IF_ERROR(sends.Add(comm.Isend(
        At(call.send, call.dtype, call.blocks.Begin(to)), bytes(to), to)));
  }
  return sends.WaitAll();
}

}  // namespace

Status ScatterLinear(const Communicator& comm, const ScatterArgs& args) {
  return RunScatter(comm, args, "scatter/linear", Linear);
}

Status ScatterVLinear(const Communicator& comm, const ScatterVArgs& args) {
  return RunScatter(comm, args, "scatter_v/linear", Linear);
}

}  // namespace shardproof
