#include "collectives/all_to_all/all_to_all.h"
#include "collectives/checks.h"
#include "collectives/chunks.h"

namespace shardproof {

Status AllToAllNative(const Communicator& comm, const AllToAllArgs& args) {
  SP_RETURN_IF_ERROR(CheckCount(args.count));
  const OpScope op(
      comm,
      {.label = "all_to_all/native", .dtype = args.dtype, .count = args.count});
  SP_RETURN_IF_ERROR(op.status());
  return comm.Native(
      {.primitive = "all_to_all",
       .send = args.send,
       .recv = args.recv,
       .count = args.count,
       .dtype = args.dtype,
       .in_place = args.send == args.recv && args.send != nullptr});
}

Status AllToAllVNative(const Communicator& comm, const AllToAllVArgs& args) {
  SP_RETURN_IF_ERROR(CheckOwnCounts(comm, args.send_counts, args.send_offsets));
  SP_RETURN_IF_ERROR(CheckOwnCounts(comm, args.recv_counts, args.recv_offsets));
  const int64_t total = Blocks::Listed(args.send_counts).Total();
  const OpScope op(
      comm,
      {.label = "all_to_all_v/native", .dtype = args.dtype, .count = total});
  SP_RETURN_IF_ERROR(op.status());
  return comm.Native(
      {.primitive = "all_to_all_v",
       .send = args.send,
       .recv = args.recv,
       .count = total,
       .dtype = args.dtype,
       .in_place = args.send == args.recv && args.send != nullptr,
       .send_counts = args.send_counts,
       .send_offsets = args.send_offsets,
       .recv_counts = args.recv_counts,
       .recv_offsets = args.recv_offsets});
}

}  // namespace shardproof
