// reduce over shared memory: every rank folds its slice of all inputs, in rank
// order, and stores it at the root. Small vectors travel with the flags, and the
// root folds them alone.
#include "collectives/reduce/direct.h"

#include "collectives/checks.h"
#include "collectives/direct/fold.h"
#include "collectives/direct/move.h"
#include "collectives/direct/slices.h"
#include "collectives/direct/staged.h"
#include "collectives/direct/walk.h"
#include "collectives/reduce/reduce.h"

namespace shardproof {
namespace {

using direct::ByteCount;
using direct::Fold;

Status Eager(const Communicator& comm, const ReduceArgs& args, const Fold& fold,
             int root) {
  SP_ASSIGN_OR_RETURN(
      const Peers peers,
      comm.MeetEager(args.send, ByteCount(args.count, args.dtype)));
  void* const recv = args.recv;
  if (comm.rank() == root) {
    fold.Run(peers, {0, args.count}, {&recv, 1});
  }
  return OkStatus();
}

Status FoldSlice(const Peers& peers, const Fold& fold, int rank, int root,
                 const Blocks& in, const Blocks& out) {
  const int p = peers.size();
  const DType dtype = fold.dtype();
  const int64_t count = in.Count(0);
  SP_RETURN_IF_ERROR(direct::CheckOffered(
      peers, root, 0, ByteCount(out.Begin(0) + count, dtype)));
  // Counted from the root, so that the traffic does not depend on it.
  const Chunk slice = direct::Slice(count, dtype, p, (rank - root + p) % p);
  void* const destination =
      peers.Write(root, ByteCount(out.Begin(0) + slice.begin, dtype),
                  ByteCount(slice.count, dtype));
  fold.Run(peers, {in.Begin(0) + slice.begin, slice.count}, {&destination, 1},
           direct::WalkOf(peers, count * (p + 1), dtype));
  return OkStatus();
}

}  // namespace

Status ReduceDirect(const Communicator& comm, const ReduceArgs& args) {
  SP_RETURN_IF_ERROR(CheckCount(args.count));
  SP_RETURN_IF_ERROR(CheckRoot(comm, args.root));
  const OpScope op(comm, {.label = "reduce/direct",
                          .dtype = args.dtype,
                          .count = args.count,
                          .root = args.root});
  SP_RETURN_IF_ERROR(op.status());
  SP_ASSIGN_OR_RETURN(const Fold fold,
                      Fold::Prepare(comm, args.dtype, args.op, args.scale));
  const int rank = comm.rank(), root = op.root();
  if (ReduceIsEager(args.count, args.dtype)) {
    return Eager(comm, args, fold, root);
  }
  const Blocks whole = Blocks::Even(args.count, 1);
  return direct::RunDirect(
      comm,
      {args.send, whole, rank == root ? args.recv : nullptr, whole, args.dtype},
      [&](const Peers& peers, const Blocks& in, const Blocks& out) {
        return FoldSlice(peers, fold, rank, root, in, out);
      });
}

}  // namespace shardproof
