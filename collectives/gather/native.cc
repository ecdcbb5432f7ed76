#include "collectives/checks.h"
#include "collectives/chunks.h"
#include "collectives/gather/gather.h"

namespace shardproof {

Status GatherNative(const Communicator& comm, const GatherArgs& args) {
  SP_RETURN_IF_ERROR(CheckCount(args.count));
  SP_RETURN_IF_ERROR(CheckRoot(comm, args.root));
  const OpScope op(comm, {.label = "gather/native",
                          .dtype = args.dtype,
                          .count = args.count,
                          .root = args.root});
  SP_RETURN_IF_ERROR(op.status());
  return comm.Native({.primitive = "gather",
                      .send = args.send,
                      .recv = args.recv,
                      .count = args.count,
                      .dtype = args.dtype,
                      .root = op.root(),
                      .in_place = comm.rank() == op.root() &&
                                  args.send == At(args.recv, args.dtype,
                                                  op.root() * args.count)});
}

Status GatherVNative(const Communicator& comm, const GatherVArgs& args) {
  SP_RETURN_IF_ERROR(CheckCounts(comm, args.counts, args.offsets));
  SP_RETURN_IF_ERROR(CheckRoot(comm, args.root));
  const Blocks blocks = Blocks::Listed(args.counts, args.offsets);
  const OpScope op(comm, {.label = "gather_v/native",
                          .dtype = args.dtype,
                          .count = blocks.Count(comm.rank()),
                          .root = args.root});
  SP_RETURN_IF_ERROR(op.status());
  return comm.Native({.primitive = "gather_v",
                      .send = args.send,
                      .recv = args.recv,
                      .count = blocks.Count(comm.rank()),
                      .dtype = args.dtype,
                      .root = op.root(),
                      .in_place = comm.rank() == op.root() &&
                                  args.send == At(args.recv, args.dtype,
                                                  blocks.Begin(op.root())),
                      .recv_counts = args.counts,
                      .recv_offsets = args.offsets});
}

}  // namespace shardproof
