#include "collectives/checks.h"
#include "collectives/reduce/reduce.h"

namespace shardproof {

Status ReduceNative(const Communicator& comm, const ReduceArgs& args) {
  SP_RETURN_IF_ERROR(CheckCount(args.count));
  SP_RETURN_IF_ERROR(CheckRoot(comm, args.root));
  const OpScope op(comm, {.label = "reduce/native",
                          .dtype = args.dtype,
                          .count = args.count,
                          .root = args.root});
  SP_RETURN_IF_ERROR(op.status());
  return comm.Native({.primitive = "reduce",
                      .send = args.send,
                      .recv = args.recv,
                      .count = args.count,
                      .dtype = args.dtype,
                      .op = args.op,
                      .root = op.root(),
                      .scale = args.scale,
                      .in_place = args.send == args.recv});
}

}  // namespace shardproof
