// reduce_scatter over shared memory: every rank folds its block of all inputs,
// in rank order. In place needs no care: block r of anything is touched by rank
// r alone. Small vectors travel with the flags.
#include "collectives/checks.h"
#include "collectives/direct/eager.h"
#include "collectives/direct/fold.h"
#include "collectives/direct/slices.h"
#include "collectives/direct/staged.h"
#include "collectives/direct/walk.h"
#include "collectives/reduce_scatter/reduce_scatter.h"

namespace shardproof {
namespace {

using direct::ByteCount;
using direct::Fold;

Chunk BlockOf(const Blocks& blocks, int rank) {
  return {blocks.Begin(rank), blocks.Count(rank)};
}

template <class Args>
Status Run(const Communicator& comm, const Args& args, const Blocks& blocks,
           OpLabel label) {
  const int rank = comm.rank();
  const DType dtype = args.dtype;
  const int64_t count = blocks.Count(rank);
  const OpScope op(comm, {.label = label, .dtype = dtype, .count = count});
  SP_RETURN_IF_ERROR(op.status());
  SP_ASSIGN_OR_RETURN(const Fold fold,
                      Fold::Prepare(comm, dtype, args.op, args.scale));
  const size_t bytes = ByteCount(blocks.Total(), dtype);
  if (bytes <= direct::kEagerLimit) {
    SP_ASSIGN_OR_RETURN(const Peers peers, comm.MeetEager(args.send, bytes));
    void* const recv = args.recv;
    fold.Run(peers, BlockOf(blocks, rank), {&recv, 1});
    return OkStatus();
  }
  return direct::RunDirect(
      comm, {args.send, blocks, args.recv, Blocks::Even(count, 1), dtype},
      [&](const Peers& peers, const Blocks& in, const Blocks& out) {
        const int64_t touched = in.Total() * (peers.size() + 1);
        void* const destination =
            peers.Write(rank, ByteCount(out.Begin(0), dtype),
                        ByteCount(out.Count(0), dtype));
        fold.Run(peers, BlockOf(in, rank), {&destination, 1},
                 direct::WalkOf(peers, touched, dtype));
        return OkStatus();
      });
}

}  // namespace

Status ReduceScatterDirect(const Communicator& comm,
                           const ReduceScatterArgs& args) {
  SP_RETURN_IF_ERROR(CheckCount(args.count));
  return Run(comm, args, Blocks::Even(args.count, comm.size()),
             "reduce_scatter/direct");
}

Status ReduceScatterVDirect(const Communicator& comm,
                            const ReduceScatterVArgs& args) {
  SP_RETURN_IF_ERROR(CheckCounts(comm, args.counts));
  return Run(comm, args, Blocks::Listed(args.counts),
             "reduce_scatter_v/direct");
}

}  // namespace shardproof
