// scatter over shared memory: every rank loads its block from the root. Where
// all blocks together are small, they travel with the flag of the root.
#include "collectives/checks.h"
#include "collectives/direct/eager.h"
#include "collectives/direct/move.h"
#include "collectives/direct/slices.h"
#include "collectives/direct/staged.h"
#include "collectives/direct/walk.h"
#include "collectives/kernels/copy.h"
#include "collectives/scatter/scatter.h"

namespace shardproof {
namespace {

using direct::ByteCount;

Status Eager(const Communicator& comm, const void* send, void* recv,
             const Blocks& blocks, DType dtype, int root) {
  const int rank = comm.rank();
  const size_t all = ByteCount(blocks.Extent(), dtype);
  SP_ASSIGN_OR_RETURN(const Peers peers,
                      comm.MeetEager(send, rank == root ? all : 0));
  SP_RETURN_IF_ERROR(direct::CheckOffered(peers, root, all, 0));
  const size_t bytes = ByteCount(blocks.Count(rank), dtype);
  if (bytes == 0) return OkStatus();
  kernels::Copy(recv,
                peers.Read(root, ByteCount(blocks.Begin(rank), dtype), bytes),
                bytes);
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
  if (ByteCount(blocks.Extent(), dtype) <= direct::kEagerLimit) {
    return Eager(comm, args.send, args.recv, blocks, dtype, root);
  }
  return direct::RunDirect(
      comm,
      {rank == root ? args.send : nullptr, blocks, args.recv,
       Blocks::Even(count, 1), dtype},
      [&](const Peers& peers, const Blocks& in, const Blocks& out) {
        SP_RETURN_IF_ERROR(direct::CheckOffered(
            peers, root, ByteCount(in.Begin(rank) + in.Count(rank), dtype), 0));
        const int64_t touched = 2 * in.Total();
        direct::MoveOne(peers, dtype, in.Count(rank), root, in.Begin(rank),
                        rank, out.Begin(0),
                        direct::WalkOf(peers, touched, dtype));
        return OkStatus();
      });
}

}  // namespace

Status ScatterDirect(const Communicator& comm, const ScatterArgs& args) {
  SP_RETURN_IF_ERROR(CheckCount(args.count));
  SP_RETURN_IF_ERROR(CheckRoot(comm, args.root));
  return Run(comm, args, Blocks::Even(args.count, comm.size()),
             "scatter/direct");
}

Status ScatterVDirect(const Communicator& comm, const ScatterVArgs& args) {
  SP_RETURN_IF_ERROR(CheckCounts(comm, args.counts, args.offsets));
  SP_RETURN_IF_ERROR(CheckRoot(comm, args.root));
  return Run(comm, args, Blocks::Listed(args.counts, args.offsets),
             "scatter_v/direct");
}

}  // namespace shardproof
