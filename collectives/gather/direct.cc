// gather over shared memory: every rank stores its block at the root. Small
// blocks travel with the flags.
#include "collectives/checks.h"
#include "collectives/direct/eager.h"
#include "collectives/direct/move.h"
#include "collectives/direct/slices.h"
#include "collectives/direct/staged.h"
#include "collectives/direct/walk.h"
#include "collectives/gather/gather.h"
#include "collectives/kernels/copy.h"

namespace shardproof {
namespace {

using direct::ByteCount;

Status Eager(const Communicator& comm, const void* send, void* recv,
             const Blocks& blocks, DType dtype, int root) {
  SP_ASSIGN_OR_RETURN(
      const Peers peers,
      comm.MeetEager(send, ByteCount(blocks.Count(comm.rank()), dtype)));
  if (comm.rank() != root) return OkStatus();
  for (int r = 0; r < peers.size(); ++r) {
    const size_t bytes = ByteCount(blocks.Count(r), dtype);
    if (bytes == 0) continue;
    kernels::Copy(At(recv, dtype, blocks.Begin(r)), peers.Read(r, 0, bytes),
                  bytes);
  }
  return OkStatus();
}

template <class Args>
Status Run(const Communicator& comm, const Args& args, const Blocks& blocks,
           OpLabel label) {
  const int rank = comm.rank();
  const DType dtype = args.dtype;
  const int64_t count = blocks.Count(rank);
  const OpScope op(
      comm,
      {.label = label, .dtype = dtype, .count = count, .root = args.root});
  SP_RETURN_IF_ERROR(op.status());
  const int root = op.root();
  if (ByteCount(blocks.Largest(), dtype) <= direct::kEagerLimit) {
    return Eager(comm, args.send, args.recv, blocks, dtype, root);
  }
  return direct::RunDirect(
      comm,
      {args.send, Blocks::Even(count, 1), rank == root ? args.recv : nullptr,
       blocks, dtype},
      [&](const Peers& peers, const Blocks& in, const Blocks& out) {
        SP_RETURN_IF_ERROR(direct::CheckOffered(
            peers, root, 0, ByteCount(out.Begin(rank) + in.Count(0), dtype)));
        const int64_t touched = 2 * out.Total();
        direct::MoveOne(peers, dtype, in.Count(0), rank, in.Begin(0), root,
                        out.Begin(rank), direct::WalkOf(peers, touched, dtype));
        return OkStatus();
      });
}

}  // namespace

Status GatherDirect(const Communicator& comm, const GatherArgs& args) {
  SP_RETURN_IF_ERROR(CheckCount(args.count));
  SP_RETURN_IF_ERROR(CheckRoot(comm, args.root));
  return Run(comm, args, Blocks::Even(args.count, comm.size()),
             "gather/direct");
}

Status GatherVDirect(const Communicator& comm, const GatherVArgs& args) {
  SP_RETURN_IF_ERROR(CheckCounts(comm, args.counts, args.offsets));
  SP_RETURN_IF_ERROR(CheckRoot(comm, args.root));
  return Run(comm, args, Blocks::Listed(args.counts, args.offsets),
             "gather_v/direct");
}

}  // namespace shardproof
