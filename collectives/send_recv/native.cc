#include "collectives/checks.h"
#include "collectives/send_recv/send_recv.h"

namespace shardproof {

Status SendRecvNative(const Communicator& comm, const SendRecvArgs& args) {
  SP_RETURN_IF_ERROR(CheckCount(args.count));
  SP_RETURN_IF_ERROR(CheckOwnPeer(comm, args.destination, "destination"));
  SP_RETURN_IF_ERROR(CheckOwnPeer(comm, args.source, "source"));
  const OpScope op(
      comm,
      {.label = "send_recv/native", .dtype = args.dtype, .count = args.count});
  SP_RETURN_IF_ERROR(op.status());
  return comm.Native({.primitive = "send_recv",
                      .send = args.send,
                      .recv = args.recv,
                      .count = args.count,
                      .dtype = args.dtype,
                      .destination = args.destination,
                      .source = args.source,
                      .in_place = args.send == args.recv});
}

}  // namespace shardproof
