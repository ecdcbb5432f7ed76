#include "collectives/broadcast/broadcast.h"
#include "collectives/checks.h"

namespace shardproof {

Status BroadcastNative(const Communicator& comm, const BroadcastArgs& args) {
  SP_RETURN_IF_ERROR(CheckCount(args.count));
  SP_RETURN_IF_ERROR(CheckRoot(comm, args.root));
  const OpScope op(comm, {.label = "broadcast/native",
                          .dtype = args.dtype,
                          .count = args.count,
                          .root = args.root});
  SP_RETURN_IF_ERROR(op.status());
  return comm.Native({.primitive = "broadcast",
                      .send = args.send,
                      .recv = args.recv,
                      .count = args.count,
                      .dtype = args.dtype,
                      .root = op.root(),
                      .in_place = args.send == args.recv});
}

}  // namespace shardproof
