#include "collectives/all_gather/all_gather.h"
#include "collectives/checks.h"
#include "collectives/chunks.h"

namespace shardproof {

Status AllGatherNative(const Communicator& comm, const AllGatherArgs& args) {
  SP_RETURN_IF_ERROR(CheckCount(args.count));
  const OpScope op(
      comm,
      {.label = "all_gather/native", .dtype = args.dtype, .count = args.count});
  SP_RETURN_IF_ERROR(op.status());
  return comm.Native({.primitive = "all_gather",
                      .send = args.send,
                      .recv = args.recv,
                      .count = args.count,
                      .dtype = args.dtype,
                      .in_place = args.send == At(args.recv, args.dtype,
                                                  comm.rank() * args.count)});
}

Status AllGatherVNative(const Communicator& comm, const AllGatherVArgs& args) {
  SP_RETURN_IF_ERROR(CheckCounts(comm, args.counts, args.offsets));
  const Blocks blocks = Blocks::Listed(args.counts, args.offsets);
  const OpScope op(comm, {.label = "all_gather_v/native",
                          .dtype = args.dtype,
                          .count = blocks.Count(comm.rank())});
  SP_RETURN_IF_ERROR(op.status());
  return comm.Native({.primitive = "all_gather_v",
                      .send = args.send,
                      .recv = args.recv,
                      .count = blocks.Count(comm.rank()),
                      .dtype = args.dtype,
                      .in_place = args.send == At(args.recv, args.dtype,
                                                  blocks.Begin(comm.rank())),
                      .recv_counts = args.counts,
                      .recv_offsets = args.offsets});
}

}  // namespace shardproof
