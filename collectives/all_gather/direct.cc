// all_gather over shared memory: every rank stores its block to all outputs.
//
// A rank that pushes loads its block once, n bytes of its own; one that pulls
// would load the blocks of all. Where the block stays in a second-level cache it
// is stored to the own output meanwhile, before and after the others'. Small
// blocks travel with the flags.
#include "collectives/all_gather/all_gather.h"
#include "collectives/checks.h"
#include "collectives/direct/eager.h"
#include "collectives/direct/move.h"
#include "collectives/direct/slices.h"
#include "collectives/direct/staged.h"
#include "collectives/direct/walk.h"
#include "collectives/kernels/copy.h"

namespace shardproof {
namespace {

using direct::ByteCount;

// Up to this size of a block, loading it once more costs less than waiting for a
// flag.
constexpr size_t kLoadedTwice = size_t{128} << 10;

Status Eager(const Communicator& comm, const void* send, void* recv,
             const Blocks& blocks, DType dtype) {
  const int rank = comm.rank();
  SP_ASSIGN_OR_RETURN(
      const Peers peers,
      comm.MeetEager(send, ByteCount(blocks.Count(rank), dtype)));
  for (int r = 0; r < peers.size(); ++r) {
    const size_t bytes = ByteCount(blocks.Count(r), dtype);
    if (bytes == 0) continue;
    kernels::Copy(At(recv, dtype, blocks.Begin(r)), peers.Read(r, 0, bytes),
                  bytes);
  }
  return OkStatus();
}

Status Run(const Communicator& comm, const void* send, void* recv,
           const Blocks& blocks, DType dtype, OpLabel label) {
  const int rank = comm.rank();
  const int64_t count = blocks.Count(rank);
  const OpScope op(comm, {.label = label, .dtype = dtype, .count = count});
  SP_RETURN_IF_ERROR(op.status());
  if (ByteCount(blocks.Largest(), dtype) <= direct::kEagerLimit) {
    return Eager(comm, send, recv, blocks, dtype);
  }
  const auto push = [&](int except) {
    return
        [&, except](const Peers& peers, const Blocks& in, const Blocks& out) {
          const int64_t touched = out.Total() * (peers.size() + 1);
          direct::MoveToAll(peers, dtype, in.Count(0), rank, in.Begin(0),
                            out.Begin(rank),
                            direct::WalkOf(peers, touched, dtype), except);
          return OkStatus();
        };
  };
  const direct::Ends ends = {send, Blocks::Even(count, 1), recv, blocks, dtype};
  // Each rank for itself: blocks may differ.
  if (ByteCount(count, dtype) > kLoadedTwice) {
    return direct::RunDirect(comm, ends, push(/*except=*/-1));
  }
  return direct::RunDirect(comm, ends, {.sent = 0, .received = rank},
                           direct::WalkOf(op.sequence(), 0, dtype),
                           push(/*except=*/rank));
}

}  // namespace

Status AllGatherDirect(const Communicator& comm, const AllGatherArgs& args) {
  SP_RETURN_IF_ERROR(CheckCount(args.count));
  return Run(comm, args.send, args.recv, Blocks::Even(args.count, comm.size()),
             args.dtype, "all_gather/direct");
}

Status AllGatherVDirect(const Communicator& comm, const AllGatherVArgs& args) {
  SP_RETURN_IF_ERROR(CheckCounts(comm, args.counts, args.offsets));
  return Run(comm, args.send, args.recv,
             Blocks::Listed(args.counts, args.offsets), args.dtype,
             "all_gather_v/direct");
}

}  // namespace shardproof
