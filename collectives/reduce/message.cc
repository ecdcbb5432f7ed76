#include "collectives/reduce/message.h"

#include "collectives/checks.h"
#include "collectives/kernels/copy.h"
#include "collectives/patterns/input.h"

namespace shardproof {

Status RunReduce(const Communicator& comm, const ReduceArgs& args,
                 OpLabel label, ReduceAlgorithm* algorithm) {
  SP_RETURN_IF_ERROR(CheckCount(args.count));
  SP_RETURN_IF_ERROR(CheckRoot(comm, args.root));
  const OpScope op(comm, {.label = label,
                          .dtype = args.dtype,
                          .count = args.count,
                          .root = args.root});
  SP_RETURN_IF_ERROR(op.status());
  SP_ASSIGN_OR_RETURN(const void* input,
                      ReductionInput(comm, args.send, args.count, args.dtype,
                                     args.op, args.scale));
  if (comm.size() == 1) {
    kernels::Copy(args.recv, input,
                  static_cast<size_t>(args.count * SizeOf(args.dtype)));
    return OkStatus();
  }
  ReduceArgs actual = args;
  actual.root = op.root();
  return algorithm(comm, Combine::For(args.dtype, args.op, comm.size()), input,
                   actual);
}

}  // namespace shardproof
