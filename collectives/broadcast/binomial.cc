#include "collectives/patterns/binomial.h"

#include "collectives/broadcast/message.h"
#include "collectives/patterns/requests.h"

namespace shardproof {
namespace {

Status Binomial(const Communicator& comm, const BroadcastArgs& args,
                const Rooted& rooted, int v) {
  const int p = comm.size();
  const auto bytes = static_cast<size_t>(args.count * SizeOf(args.dtype));
  const void* data = v == 0 ? args.send : args.recv;
  if (v != 0) {
    SP_RETURN_IF_ERROR(comm.Recv(args.recv, bytes, rooted.Real(Parent(v))));
  }
  Requests sends(comm);
  for (int mask = Reach(v, p) / 2; mask >= 1; mask /= 2) {
    if (v + mask >= p) continue;
    SP_RETURN_IF_ERROR(
        sends.Add(comm.Isend(data, bytes, rooted.Real(v + mask))));
  }
  CopyAtRoot(args, v);
  return sends.WaitAll();
}

}  // namespace

Status BroadcastBinomial(const Communicator& comm, const BroadcastArgs& args) {
  return RunBroadcast(comm, args, "broadcast/binomial", Binomial);
}

}  // namespace shardproof
