#include "collectives/checks.h"
#include "collectives/chunks.h"
#include "collectives/reduce_scatter/reduce_scatter.h"

namespace shardproof {

Status ReduceScatterNative(const Communicator& comm,
                           const ReduceScatterArgs& args) {
  SP_RETURN_IF_ERROR(CheckCount(args.count));
  const OpScope op(comm, {.label = "reduce_scatter/native",
                          .dtype = args.dtype,
                          .count = args.count});
  SP_RETURN_IF_ERROR(op.status());
  return comm.Native({.primitive = "reduce_scatter",
                      .send = args.send,
                      .recv = args.recv,
                      .count = args.count,
                      .dtype = args.dtype,
                      .op = args.op,
                      .scale = args.scale,
                      .in_place = args.recv == At(args.send, args.dtype,
                                                  comm.rank() * args.count)});
}

Status ReduceScatterVNative(const Communicator& comm,
                            const ReduceScatterVArgs& args) {
  SP_RETURN_IF_ERROR(CheckCounts(comm, args.counts));
  const Blocks blocks = Blocks::Listed(args.counts);
  const OpScope op(comm, {.label = "reduce_scatter_v/native",
                          .dtype = args.dtype,
                          .count = blocks.Count(comm.rank())});
  SP_RETURN_IF_ERROR(op.status());
  return comm.Native({.primitive = "reduce_scatter_v",
                      .send = args.send,
                      .recv = args.recv,
                      .count = blocks.Count(comm.rank()),
                      .dtype = args.dtype,
                      .op = args.op,
                      .scale = args.scale,
                      .in_place = args.recv == At(args.send, args.dtype,
                                                  blocks.Begin(comm.rank())),
                      .recv_counts = args.counts});
}

}  // namespace shardproof
