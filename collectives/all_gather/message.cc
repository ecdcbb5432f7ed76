#include "collectives/all_gather/message.h"

#include "collectives/checks.h"
#include "collectives/kernels/copy.h"

namespace shardproof {
namespace {

template <class Args>
Status Run(const Communicator& comm, const Args& args, const Blocks& blocks,
           OpLabel label, AllGatherAlgorithm* algorithm) {
  const int64_t count = blocks.Count(comm.rank());
  const OpScope op(comm, {.label = label, .dtype = args.dtype, .count = count});
  SP_RETURN_IF_ERROR(op.status());
  kernels::Copy(At(args.recv, args.dtype, blocks.Begin(comm.rank())), args.send,
                static_cast<size_t>(count * SizeOf(args.dtype)));
  if (comm.size() == 1) return OkStatus();
  return algorithm(comm, args.dtype, blocks, args.recv);
}

}  // namespace

Status RunAllGather(const Communicator& comm, const AllGatherArgs& args,
                    OpLabel label, AllGatherAlgorithm* algorithm) {
  SP_RETURN_IF_ERROR(CheckCount(args.count));
  return Run(comm, args, Blocks::Even(args.count, comm.size()), label,
             algorithm);
}

Status RunAllGather(const Communicator& comm, const AllGatherVArgs& args,
                    OpLabel label, AllGatherAlgorithm* algorithm) {
  SP_RETURN_IF_ERROR(CheckCounts(comm, args.counts, args.offsets));
  return Run(comm, args, Blocks::Listed(args.counts, args.offsets), label,
             algorithm);
}

}  // namespace shardproof
