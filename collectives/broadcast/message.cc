#include "collectives/broadcast/message.h"

#include "collectives/checks.h"
#include "collectives/kernels/copy.h"

namespace shardproof {

void CopyAtRoot(const BroadcastArgs& args, int v) {
  if (v != 0) return;
  kernels::Copy(args.recv, args.send,
                static_cast<size_t>(args.count * SizeOf(args.dtype)));
}

Status RunBroadcast(const Communicator& comm, const BroadcastArgs& args,
                    OpLabel label, BroadcastAlgorithm* algorithm) {
  SP_RETURN_IF_ERROR(CheckCount(args.count));
  SP_RETURN_IF_ERROR(CheckRoot(comm, args.root));
  const OpScope op(comm, {.label = label,
                          .dtype = args.dtype,
                          .count = args.count,
                          .root = args.root});
  SP_RETURN_IF_ERROR(op.status());
  const Rooted rooted(op.root(), comm.size());
  const int v = rooted.Virtual(comm.rank());
  if (comm.size() > 1) return algorithm(comm, args, rooted, v);
  CopyAtRoot(args, v);
  return OkStatus();
}

}  // namespace shardproof
