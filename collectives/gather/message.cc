#include "collectives/gather/message.h"

#include "collectives/checks.h"
#include "collectives/kernels/copy.h"

namespace shardproof {
namespace {

template <class Args>
Status Run(const Communicator& comm, const Args& args, const Blocks& blocks,
           OpLabel label, GatherAlgorithm* algorithm) {
  SP_RETURN_IF_ERROR(CheckRoot(comm, args.root));
  const int r = comm.rank();
  const OpScope op(comm, {.label = label,
                          .dtype = args.dtype,
                          .count = blocks.Count(r),
                          .root = args.root});
  SP_RETURN_IF_ERROR(op.status());
  if (r == op.root()) {
    kernels::Copy(At(args.recv, args.dtype, blocks.Begin(r)), args.send,
                  static_cast<size_t>(blocks.Count(r) * SizeOf(args.dtype)));
  }
  if (comm.size() == 1) return OkStatus();
  return algorithm(comm, {args.send, args.recv, blocks, args.dtype, op.root()});
}

}  // namespace

Status RunGather(const Communicator& comm, const GatherArgs& args,
                 OpLabel label, GatherAlgorithm* algorithm) {
  SP_RETURN_IF_ERROR(CheckCount(args.count));
  return Run(comm, args, Blocks::Even(args.count, comm.size()), label,
             algorithm);
}

Status RunGather(const Communicator& comm, const GatherVArgs& args,
                 OpLabel label, GatherAlgorithm* algorithm) {
  SP_RETURN_IF_ERROR(CheckCounts(comm, args.counts, args.offsets));
  return Run(comm, args, Blocks::Listed(args.counts, args.offsets), label,
             algorithm);
}

}  // namespace shardproof
