#include "collectives/all_reduce/all_reduce.h"
#include "collectives/checks.h"

namespace shardproof {

Status AllReduceNative(const Communicator& comm, const AllReduceArgs& args) {
  SP_RETURN_IF_ERROR(CheckCount(args.count));
  const OpScope op(
      comm,
      {.label = "all_reduce/native", .dtype = args.dtype, .count = args.count});
  SP_RETURN_IF_ERROR(op.status());
  return comm.Native({.primitive = "all_reduce",
                      .send = args.send,
                      .recv = args.recv,
                      .count = args.count,
                      .dtype = args.dtype,
                      .op = args.op,
                      .scale = args.scale,
                      .in_place = args.send == args.recv});
}

}  // namespace shardproof
