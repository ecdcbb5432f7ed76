#include "collectives/reduce_scatter/message.h"

#include "collectives/checks.h"
#include "collectives/kernels/copy.h"
#include "collectives/patterns/input.h"

namespace shardproof {
namespace {

template <class Args>
Status Run(const Communicator& comm, const Args& args, const Blocks& blocks,
           OpLabel label, ReduceScatterAlgorithm* algorithm) {
  const OpScope op(comm, {.label = label,
                          .dtype = args.dtype,
                          .count = blocks.Count(comm.rank())});
  SP_RETURN_IF_ERROR(op.status());
  SP_ASSIGN_OR_RETURN(const void* input,
                      ReductionInput(comm, args.send, blocks.Total(),
                                     args.dtype, args.op, args.scale));
  if (comm.size() == 1) {
    kernels::Copy(args.recv, input,
                  static_cast<size_t>(blocks.Total() * SizeOf(args.dtype)));
    return OkStatus();
  }
  return algorithm(comm, Combine::For(args.dtype, args.op, comm.size()), blocks,
                   input, args.recv);
}

}  // namespace

Status RunReduceScatter(const Communicator& comm, const ReduceScatterArgs& args,
                        OpLabel label, ReduceScatterAlgorithm* algorithm) {
  SP_RETURN_IF_ERROR(CheckCount(args.count));
  return Run(comm, args, Blocks::Even(args.count, comm.size()), label,
             algorithm);
}

Status RunReduceScatter(const Communicator& comm,
                        const ReduceScatterVArgs& args, OpLabel label,
                        ReduceScatterAlgorithm* algorithm) {
  SP_RETURN_IF_ERROR(CheckCounts(comm, args.counts));
  return Run(comm, args, Blocks::Listed(args.counts), label, algorithm);
}

}  // namespace shardproof
