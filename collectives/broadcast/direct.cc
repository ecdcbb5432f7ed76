// broadcast over shared memory: each rank copies a slice of the root's vector to
// all other ranks, so that all share the work. With n bytes and p ranks that
// loads n bytes in all, where ranks that pull would load (p - 1) n. Small
// vectors travel with the flag of the root.
#include "collectives/broadcast/direct.h"

#include "collectives/broadcast/broadcast.h"
#include "collectives/checks.h"
#include "collectives/direct/move.h"
#include "collectives/direct/slices.h"
#include "collectives/direct/staged.h"
#include "collectives/direct/walk.h"
#include "collectives/kernels/copy.h"

namespace shardproof {
namespace {

using direct::ByteCount;

Status CopySlice(const Peers& peers, int rank, int root, DType dtype,
                 const Blocks& in, const Blocks& out) {
  const int p = peers.size();
  const int64_t count = in.Count(0);
  SP_RETURN_IF_ERROR(direct::CheckOffered(
      peers, root, ByteCount(in.Begin(0) + count, dtype), 0));
  const kernels::Walk walk = direct::WalkOf(peers, count * (p + 1), dtype);
  const bool root_copies = !direct::InPlace(peers, root);
  const Chunk slice =
      BroadcastSlice(count, dtype, p, (rank - root + p) % p, root_copies);
  direct::MoveToAll(peers, dtype, slice.count, root, in.Begin(0) + slice.begin,
                    out.Begin(0) + slice.begin, walk, /*except=*/root);
  if (rank == root && root_copies) {
    direct::MoveOne(peers, dtype, count, root, in.Begin(0), root, out.Begin(0),
                    walk);
  }
  return OkStatus();
}

}  // namespace

Status BroadcastDirect(const Communicator& comm, const BroadcastArgs& args) {
  SP_RETURN_IF_ERROR(CheckCount(args.count));
  SP_RETURN_IF_ERROR(CheckRoot(comm, args.root));
  const OpScope op(comm, {.label = "broadcast/direct",
                          .dtype = args.dtype,
                          .count = args.count,
                          .root = args.root});
  SP_RETURN_IF_ERROR(op.status());
  const int rank = comm.rank(), root = op.root();
  const size_t bytes = ByteCount(args.count, args.dtype);
  if (BroadcastIsEager(args.count, args.dtype)) {
    SP_ASSIGN_OR_RETURN(const Peers peers,
                        comm.MeetEager(args.send, rank == root ? bytes : 0));
    SP_RETURN_IF_ERROR(direct::CheckOffered(peers, root, bytes, 0));
    if (bytes != 0) {
      kernels::Copy(args.recv, peers.Read(root, 0, bytes), bytes);
    }
    return OkStatus();
  }
  const Blocks whole = Blocks::Even(args.count, 1);
  return direct::RunDirect(
      comm,
      {rank == root ? args.send : nullptr, whole, args.recv, whole, args.dtype},
      [&](const Peers& peers, const Blocks& in, const Blocks& out) {
        return CopySlice(peers, rank, root, args.dtype, in, out);
      });
}

}  // namespace shardproof
