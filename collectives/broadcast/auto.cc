#include "collectives/broadcast/broadcast.h"
#include "collectives/direct/queue.h"

namespace shardproof {
namespace {

// Between nodes: a tree while steps cost more than bytes, then twice the bytes
// in pieces, then a pipeline.
constexpr int64_t kBinomialBytes = int64_t{32} << 10;
constexpr int64_t kScatterAllGatherBytes = int64_t{4} << 20;

Status Choose(const Communicator& comm, const BroadcastArgs& args) {
  if (comm.SharesMemory()) return BroadcastDirect(comm, args);
  const int64_t bytes = args.count * SizeOf(args.dtype);
  if (bytes <= kBinomialBytes) return BroadcastBinomial(comm, args);
  if (bytes <= kScatterAllGatherBytes) {
    return BroadcastScatterAllGather(comm, args);
  }
  return BroadcastChain(comm, args);
}

}  // namespace

Status Broadcast(const Communicator& comm, const BroadcastArgs& args,
                 const Stream& stream) {
  return direct::Enqueue(stream, comm, args, Choose);
}

}  // namespace shardproof
