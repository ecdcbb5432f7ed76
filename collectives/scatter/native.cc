#include "collectives/checks.h"
#include "collectives/chunks.h"
#include "collectives/scatter/scatter.h"

namespace shardproof {

Status ScatterNative(const Communicator& comm, const ScatterArgs& args) {
  SP_RETURN_IF_ERROR(CheckCount(args.count));
  SP_RETURN_IF_ERROR(CheckRoot(comm, args.root));
  const OpScope op(comm, {.label = "scatter/native",
                          .dtype = args.dtype,
                          .count = args.count,
                          .root = args.root});
  SP_RETURN_IF_ERROR(op.status());
  return comm.Native({.primitive = "scatter",
                      .send = args.send,
                      .recv = args.recv,
                      .count = args.count,
                      .dtype = args.dtype,
                      .root = op.root(),
                      .in_place = comm.rank() == op.root() &&
                                  args.recv == At(args.send, args.dtype,
                                                  op.root() * args.count)});
}

Status ScatterVNative(const Communicator& comm, const ScatterVArgs& args) {
  SP_RETURN_IF_ERROR(CheckCounts(comm, args.counts, args.offsets));
  SP_RETURN_IF_ERROR(CheckRoot(comm, args.root));
  const Blocks blocks = Blocks::Listed(args.counts, args.offsets);
  const OpScope op(comm, {.label = "scatter_v/native",
                          .dtype = args.dtype,
                          .count = blocks.Count(comm.rank()),
                          .root = args.root});
  SP_RETURN_IF_ERROR(op.status());
  return comm.Native({.primitive = "scatter_v",
                      .send = args.send,
                      .recv = args.recv,
                      .count = blocks.Count(comm.rank()),
                      .dtype = args.dtype,
                      .root = op.root(),
                      .in_place = comm.rank() == op.root() &&
                                  args.recv == At(args.send, args.dtype,
                                                  blocks.Begin(op.root())),
                      .send_counts = args.counts,
                      .send_offsets = args.offsets});
}

}  // namespace shardproof
