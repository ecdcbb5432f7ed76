#include <array>

#include "collectives/broadcast/broadcast.h"
#include "collectives/direct/queue.h"
#include "collectives/tuning.h"

namespace shardproof {
namespace {

// Between nodes: a tree while steps cost more than bytes, then twice the bytes
// in pieces, then a pipeline.
constexpr int64_t kBinomialBytes = int64_t{32} << 10;
constexpr int64_t kScatterAllGatherBytes = int64_t{4} << 20;

// What a tuning table may name.
constexpr std::array<TunedVariant<BroadcastArgs>, 4> kVariants = {
    {{"direct", true, BroadcastDirect},
     {"binomial", false, BroadcastBinomial},
     {"scatter_all_gather", false, BroadcastScatterAllGather},
     {"chain", false, BroadcastChain}}};

Status Choose(const Communicator& comm, const BroadcastArgs& args) {
  static const Tuned<BroadcastArgs> tuned("broadcast", kVariants);
  if (const auto run = tuned.Find(comm, args.count * SizeOf(args.dtype))) {
    return run(comm, args);
  }
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
