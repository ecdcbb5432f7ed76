#include <algorithm>

#include "collectives/all_gather/message.h"
#include "collectives/kernels/copy.h"
#include "collectives/patterns/binomial.h"
#include "collectives/patterns/scratch.h"

namespace shardproof {
namespace {

// Rank r collects the blocks r, r + 1, ... mod p, in this order, in scratch
// memory. It has the first `have` of them at the start of a step, and gets the
// next ones from rank r + have, whose first blocks they are: as many as that
// rank has, or as are still missing. have doubles from 1, so there are ceil(lg
// p) steps. At the end blocks go to their places.
Status Bruck(const Communicator& comm, DType dtype, const Blocks& blocks,
             void* recv) {
  const int p = comm.size(), r = comm.rank();
  const TreeBlocks rotated{blocks, r};
  SP_ASSIGN_OR_RETURN(std::byte * collected, Scratch(comm, ScratchSlot::kVector,
                                                     blocks.Total(), dtype));
  const auto bytes = [&](int64_t count) {
    return static_cast<size_t>(count * SizeOf(dtype));
  };
  kernels::Copy(collected, At(recv, dtype, blocks.Begin(r)),
                bytes(blocks.Count(r)));
  for (int have = 1; have < p; have *= 2) {
    const int get = std::min(have, p - have);
    SP_RETURN_IF_ERROR(
        comm.SendRecv(collected, bytes(rotated.Sum(0, get)), (r + p - have) % p,
                      At(collected, dtype, rotated.Sum(0, have)),
                      bytes(rotated.Sum(have, have + get)), (r + have) % p));
  }
  int64_t begin = blocks.Count(r);
  for (int i = 1; i < p; ++i) {
    const int block = (r + i) % p;
    const int64_t count = blocks.Count(block);
    kernels::Copy(At(recv, dtype, blocks.Begin(block)),
                  At(collected, dtype, begin), bytes(count));
    begin += count;
  }
  return OkStatus();
}

}  // namespace

Status AllGatherBruck(const Communicator& comm, const AllGatherArgs& args) {
  return RunAllGather(comm, args, "all_gather/bruck", Bruck);
}

Status AllGatherVBruck(const Communicator& comm, const AllGatherVArgs& args) {
  return RunAllGather(comm, args, "all_gather_v/bruck", Bruck);
}

}  // namespace shardproof
