#include "collectives/broadcast/message.h"
#include "collectives/chunks.h"
#include "collectives/kernels/copy.h"
#include "collectives/patterns/binomial.h"
#include "collectives/patterns/ring.h"

namespace shardproof {
namespace {

// Chunk v belongs to virtual rank v. The root needs none of what the ring
// brings it, but the ring needs the root: it takes part as the others do, and
// so gets its own copy.
Status ScatterAllGather(const Communicator& comm, const BroadcastArgs& args,
                        const Rooted& rooted, int v) {
  const Blocks chunks = Blocks::Balanced(args.count, comm.size());
  const TreeBlocks tree{chunks, 0};
  std::byte* own = At(args.recv, args.dtype, chunks.Begin(v));
  // The root only sends from its run.
  void* run = v == 0 ? const_cast<void*>(args.send) : own;
  SP_RETURN_IF_ERROR(
      BinomialScatter(comm, args.dtype, rooted.Real(0), tree, run));
  if (v == 0) {
    kernels::Copy(own, args.send,
                  static_cast<size_t>(chunks.Count(0) * SizeOf(args.dtype)));
  }
  return RingAllGather(comm, args.dtype, chunks, args.recv, rooted.Real(0));
}

}  // namespace

Status BroadcastScatterAllGather(const Communicator& comm,
                                 const BroadcastArgs& args) {
  return RunBroadcast(comm, args, "broadcast/scatter_all_gather",
                      ScatterAllGather);
}

}  // namespace shardproof
