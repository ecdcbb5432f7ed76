// all_reduce over shared memory.
//
// One-shot: every rank loads all inputs and folds them for itself.
// Two-shot: rank r folds slice r of all inputs and stores it to all outputs.
// With n bytes, a rank of the first loads p n and stores n; of the second it
// loads n and stores n, whatever p is, but waits for two flag rounds.
//
// In place, two-shot needs no copy: slice r of anything is touched by rank r
// alone. One-shot does, except for small vectors, whose payloads are copies.
#include "collectives/all_reduce/direct.h"

#include "collectives/all_reduce/all_reduce.h"
#include "collectives/checks.h"
#include "collectives/direct/eager.h"
#include "collectives/direct/fold.h"
#include "collectives/direct/slices.h"
#include "collectives/direct/staged.h"
#include "collectives/direct/walk.h"
#include "collectives/kernels/copy.h"

namespace shardproof {
namespace {

using direct::ByteCount;
using direct::Ends;
using direct::Fold;

Ends EndsOf(const AllReduceArgs& args) {
  const Blocks whole = Blocks::Even(args.count, 1);
  return {args.send, whole, args.recv, whole, args.dtype};
}

// All ranks read and write their whole vectors.
kernels::Walk WalkOf(const Peers& peers, int64_t count, DType dtype) {
  return direct::WalkOf(peers, 2 * count * peers.size(), dtype);
}

// The result in the staging memory of this rank until nobody reads its input
// any more.
Status OneShotInPlace(const Communicator& comm, const Fold& fold,
                      const AllReduceArgs& args, const Peers& peers) {
  SP_ASSIGN_OR_RETURN(const std::span<std::byte> result,
                      comm.Staging(ByteCount(args.count, args.dtype)));
  void* const destination = result.data();
  fold.Run(peers, {0, args.count}, {&destination, 1});
  SP_RETURN_IF_ERROR(comm.Depart(peers));
  kernels::Copy(args.recv, result.data(), ByteCount(args.count, args.dtype));
  return OkStatus();
}

Status OneShot(const Communicator& comm, const AllReduceArgs& args) {
  SP_ASSIGN_OR_RETURN(const Fold fold,
                      Fold::Prepare(comm, args.dtype, args.op, args.scale));
  void* const recv = args.recv;
  if (ByteCount(args.count, args.dtype) <= direct::kEagerLimit) {
    SP_ASSIGN_OR_RETURN(
        const Peers peers,
        comm.MeetEager(args.send, ByteCount(args.count, args.dtype)));
    fold.Run(peers, {0, args.count}, {&recv, 1});
    return OkStatus();
  }
  const Ends ends = EndsOf(args);
  SP_ASSIGN_OR_RETURN(const Peers peers, comm.Meet(ends.offer()));
  const auto core = [&](const Peers& met, const Blocks& in, const Blocks& out) {
    void* const destination =
        met.Write(comm.rank(), ByteCount(out.Begin(0), args.dtype), 0);
    fold.Run(met, {in.Begin(0), in.Count(0)}, {&destination, 1},
             WalkOf(met, in.Count(0), args.dtype));
    return OkStatus();
  };
  if (!peers.AllShared()) [[unlikely]] {
    SP_RETURN_IF_ERROR(comm.Depart(peers));
    return direct::RunStaged(comm, ends, core);
  }
  if (args.send == args.recv) return OneShotInPlace(comm, fold, args, peers);
  return direct::DepartAfter(core(peers, ends.send_blocks, ends.recv_blocks),
                             comm, peers);
}

Status TwoShot(const Communicator& comm, const AllReduceArgs& args) {
  SP_ASSIGN_OR_RETURN(const Fold fold,
                      Fold::Prepare(comm, args.dtype, args.op, args.scale));
  return direct::RunDirect(
      comm, EndsOf(args),
      [&](const Peers& peers, const Blocks& in, const Blocks& out) {
        const int p = peers.size();
        const Chunk slice =
            direct::Slice(in.Count(0), args.dtype, p, comm.rank());
        direct::RankArray<void*> destinations(p);
        for (int r = 0; r < p; ++r) {
          destinations[r] =
              peers.Write(r, ByteCount(out.Begin(0) + slice.begin, args.dtype),
                          ByteCount(slice.count, args.dtype));
        }
        fold.Run(peers, {in.Begin(0) + slice.begin, slice.count},
                 destinations.view(), WalkOf(peers, in.Count(0), args.dtype));
        return OkStatus();
      });
}

template <class Algorithm>
Status Run(const Communicator& comm, const AllReduceArgs& args, OpLabel label,
           const Algorithm& algorithm) {
  SP_RETURN_IF_ERROR(CheckCount(args.count));
  const OpScope op(comm,
                   {.label = label, .dtype = args.dtype, .count = args.count});
  SP_RETURN_IF_ERROR(op.status());
  return algorithm(comm, args);
}

}  // namespace

Status AllReduceOneShot(const Communicator& comm, const AllReduceArgs& args) {
  return Run(comm, args, "all_reduce/one_shot", OneShot);
}

Status AllReduceTwoShot(const Communicator& comm, const AllReduceArgs& args) {
  return Run(comm, args, "all_reduce/two_shot", TwoShot);
}

Status AllReduceDirect(const Communicator& comm, const AllReduceArgs& args) {
  return OneShotIsFaster(comm.size(), args.count, args.dtype)
             ? Run(comm, args, "all_reduce/direct", OneShot)
             : Run(comm, args, "all_reduce/direct", TwoShot);
}

}  // namespace shardproof
