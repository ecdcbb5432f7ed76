#include "collectives/patterns/halving.h"
#include "collectives/patterns/scratch.h"
#include "collectives/reduce/message.h"

namespace shardproof {
namespace {

// The root is virtual rank 0 and so member 0, which no fold sends away; the
// gather is the binomial tree over the members.
Status ScatterGather(const Communicator& comm, const Combine& combine,
                     const void* input, const ReduceArgs& args) {
  const DType dtype = args.dtype;
  const Regions regions = Regions::Balanced(comm.size(), args.count, args.root);
  const Fold& fold = regions.fold();
  const int v = regions.Virtual(comm.rank());
  void* vector = args.recv;
  if (v != 0 && !fold.FoldsAway(v)) {
    SP_ASSIGN_OR_RETURN(vector,
                        Scratch(comm, ScratchSlot::kVector, args.count, dtype));
  }
  SP_RETURN_IF_ERROR(
      HalvingReduceScatter(comm, combine, regions, input, vector));
  if (fold.FoldsAway(v)) return OkStatus();
  const int g = fold.MemberOf(v);
  for (int mask = 1; mask < fold.power(); mask *= 2) {
    const bool sends = (g & mask) != 0;
    const int first = sends ? g : g + mask;
    const Chunk run = regions.Run(first, first + mask);
    std::byte* data = At(vector, dtype, run.begin);
    const auto bytes = static_cast<size_t>(run.count * SizeOf(dtype));
    if (sends) return comm.Send(data, bytes, regions.RealMember(g - mask));
    SP_RETURN_IF_ERROR(comm.Recv(data, bytes, regions.RealMember(first)));
  }
  return OkStatus();
}

}  // namespace

Status ReduceScatterGather(const Communicator& comm, const ReduceArgs& args) {
  return RunReduce(comm, args, "reduce/scatter_gather", ScatterGather);
}

}  // namespace shardproof
