#include "collectives/all_gather/message.h"
#include "collectives/patterns/halving.h"

namespace shardproof {
namespace {

Status RecursiveDoubling(const Communicator& comm, DType dtype,
                         const Blocks& blocks, void* recv) {
  const Regions regions = Regions::OfRanks(blocks);
  const int r = comm.rank();
  if (regions.fold().InPair(r)) {
    const int odd = r | 1;
    std::byte* block = At(recv, dtype, blocks.Begin(odd));
    const auto bytes = static_cast<size_t>(blocks.Count(odd) * SizeOf(dtype));
    SP_RETURN_IF_ERROR(r == odd ? comm.Send(block, bytes, r ^ 1)
                                : comm.Recv(block, bytes, odd));
  }
  SP_RETURN_IF_ERROR(DoublingAllGather(comm, dtype, regions, recv));
  return Unfold(comm, dtype, regions, recv);
}

}  // namespace

Status AllGatherRecursiveDoubling(const Communicator& comm,
                                  const AllGatherArgs& args) {
  return RunAllGather(comm, args, "all_gather/recursive_doubling",
                      RecursiveDoubling);
}

}  // namespace shardproof
