#include "collectives/all_reduce/message.h"

#include "collectives/checks.h"
#include "collectives/kernels/copy.h"
#include "collectives/patterns/input.h"

namespace shardproof {

Status RunAllReduce(const Communicator& comm, const AllReduceArgs& args,
                    OpLabel label, AllReduceAlgorithm* algorithm) {
  SP_RETURN_IF_ERROR(CheckCount(args.count));
  const OpScope op(comm,
                   {.label = label, .dtype = args.dtype, .count = args.count});
  SP_RETURN_IF_ERROR(op.status());
  SP_ASSIGN_OR_RETURN(const void* input,
                      ReductionInput(comm, args.send, args.count, args.dtype,
                                     args.op, args.scale, args.recv));
  if (comm.size() == 1) {
    kernels::Copy(args.recv, input,
                  static_cast<size_t>(args.count * SizeOf(args.dtype)));
    return OkStatus();
  }
  return algorithm(comm, Combine::For(args.dtype, args.op, comm.size()), input,
                   args);
}

}  // namespace shardproof
