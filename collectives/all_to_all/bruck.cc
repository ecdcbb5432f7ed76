#include "collectives/all_to_all/all_to_all.h"
#include "collectives/checks.h"
#include "collectives/chunks.h"
#include "collectives/kernels/copy.h"
#include "collectives/patterns/scratch.h"

namespace shardproof {
namespace {

// Place i of rank r first holds the block for rank r + i, which has i ranks to
// go. The step of distance d = 1, 2, 4, ... moves the blocks in all places with
// bit d set d ranks ahead, to the same place there. In the end place i holds
// the block that has come i ranks far: that of rank r - i. Places are below p,
// so ceil(lg p) steps do.
Status Bruck(const Communicator& comm, const AllToAllArgs& args) {
  const int p = comm.size(), r = comm.rank();
  const int64_t count = args.count;
  const auto block = static_cast<size_t>(count * SizeOf(args.dtype));
  const int half = p / 2;  // No bit is set in more of the numbers below p.
  SP_ASSIGN_OR_RETURN(
      std::byte * places,
      Scratch(comm, ScratchSlot::kVector, (p + 2 * half) * count, args.dtype));
  std::byte* const packed = At(places, args.dtype, p * count);
  std::byte* const arrived = At(packed, args.dtype, half * count);
  for (int i = 0; i < p; ++i) {
    kernels::Copy(places + i * block,
                  At(args.send, args.dtype, (r + i) % p * count), block);
  }
  for (int d = 1; d < p; d *= 2) {
    size_t size = 0;
    for (int i = d; i < p; ++i) {
      if ((i & d) == 0) continue;
      kernels::Copy(packed + size, places + i * block, block);
      size += block;
    }
    SP_RETURN_IF_ERROR(comm.SendRecv(packed, size, (r + d) % p, arrived, size,
                                     (r + p - d) % p));
    size = 0;
    for (int i = d; i < p; ++i) {
      if ((i & d) == 0) continue;
      kernels::Copy(places + i * block, arrived + size, block);
      size += block;
    }
  }
  for (int i = 0; i < p; ++i) {
    kernels::Copy(At(args.recv, args.dtype, (r + p - i) % p * count),
                  places + i * block, block);
  }
  return OkStatus();
}

}  // namespace

Status AllToAllBruck(const Communicator& comm, const AllToAllArgs& args) {
  SP_RETURN_IF_ERROR(CheckCount(args.count));
  const OpScope op(
      comm,
      {.label = "all_to_all/bruck", .dtype = args.dtype, .count = args.count});
  SP_RETURN_IF_ERROR(op.status());
  return Bruck(comm, args);
}

}  // namespace shardproof
