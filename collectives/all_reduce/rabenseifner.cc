#include "collectives/all_reduce/message.h"
#include "collectives/patterns/halving.h"

namespace shardproof {
namespace {

Status Rabenseifner(const Communicator& comm, const Combine& combine,
                    const void* input, const AllReduceArgs& args) {
  const Regions regions = Regions::Balanced(comm.size(), args.count);
  SP_RETURN_IF_ERROR(
      HalvingReduceScatter(comm, combine, regions, input, args.recv));
  SP_RETURN_IF_ERROR(DoublingAllGather(comm, args.dtype, regions, args.recv));
  return Unfold(comm, args.dtype, regions, args.recv);
}

}  // namespace

Status AllReduceRabenseifner(const Communicator& comm,
                             const AllReduceArgs& args) {
  return RunAllReduce(comm, args, "all_reduce/rabenseifner", Rabenseifner);
}

}  // namespace shardproof
