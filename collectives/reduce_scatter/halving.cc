#include "collectives/patterns/halving.h"

#include "collectives/kernels/copy.h"
#include "collectives/patterns/scratch.h"
#include "collectives/reduce_scatter/message.h"

namespace shardproof {
namespace {

// The input must not change, so partial sums lie in scratch memory; a member
// that stands for two ranks sends the second its block at the end.
Status Halving(const Communicator& comm, const Combine& combine,
               const Blocks& blocks, const void* input, void* recv) {
  const Regions regions = Regions::OfRanks(blocks);
  const Fold& fold = regions.fold();
  const DType dtype = combine.dtype;
  const int r = comm.rank();
  const auto bytes = static_cast<size_t>(blocks.Count(r) * SizeOf(dtype));
  std::byte* vector = nullptr;
  if (!fold.FoldsAway(r)) {
    SP_ASSIGN_OR_RETURN(
        vector, Scratch(comm, ScratchSlot::kVector, blocks.Total(), dtype));
  }
  SP_RETURN_IF_ERROR(
      HalvingReduceScatter(comm, combine, regions, input, vector));
  if (fold.FoldsAway(r)) return comm.Recv(recv, bytes, r ^ 1);
  kernels::Copy(recv, At(vector, dtype, blocks.Begin(r)), bytes);
  if (!fold.InPair(r)) return OkStatus();
  return comm.Send(At(vector, dtype, blocks.Begin(r ^ 1)),
                   static_cast<size_t>(blocks.Count(r ^ 1) * SizeOf(dtype)),
                   r ^ 1);
}

}  // namespace

Status ReduceScatterHalving(const Communicator& comm,
                            const ReduceScatterArgs& args) {
  return RunReduceScatter(comm, args, "reduce_scatter/halving", Halving);
}

Status ReduceScatterVHalving(const Communicator& comm,
                             const ReduceScatterVArgs& args) {
  return RunReduceScatter(comm, args, "reduce_scatter_v/halving", Halving);
}

}  // namespace shardproof
