#include <algorithm>

#include "collectives/direct/queue.h"
#include "collectives/gather/gather.h"

namespace shardproof {
namespace {

// Between nodes: a tree while steps cost more than bytes. In a tree the bytes of
// the other half pass through every second rank.
constexpr int64_t kBinomialBytes = int64_t{16} << 10;  // Of one block.

Status Choose(const Communicator& comm, const GatherArgs& args) {
  if (comm.SharesMemory()) return GatherDirect(comm, args);
  return args.count * SizeOf(args.dtype) <= kBinomialBytes
             ? GatherBinomial(comm, args)
             : GatherLinear(comm, args);
}

Status ChooseV(const Communicator& comm, const GatherVArgs& args) {
  if (comm.SharesMemory()) return GatherVDirect(comm, args);
  int64_t largest = 0;
  for (const int64_t one : args.counts) largest = std::max(largest, one);
  return largest * SizeOf(args.dtype) <= kBinomialBytes
             ? GatherVBinomial(comm, args)
             : GatherVLinear(comm, args);
}

}  // namespace

Status Gather(const Communicator& comm, const GatherArgs& args,
              const Stream& stream) {
  return direct::Enqueue(stream, comm, args, Choose);
}

Status GatherV(const Communicator& comm, const GatherVArgs& args,
               const Stream& stream) {
  return direct::Enqueue(stream, comm, args, ChooseV);
}

}  // namespace shardproof
