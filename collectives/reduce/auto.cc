#include "collectives/direct/queue.h"
#include "collectives/reduce/reduce.h"

namespace shardproof {
namespace {

// Between nodes: a tree while steps cost more than bytes.
constexpr int64_t kBinomialBytes = int64_t{64} << 10;

Status Choose(const Communicator& comm, const ReduceArgs& args) {
  if (comm.SharesMemory()) return ReduceDirect(comm, args);
  return args.count * SizeOf(args.dtype) <= kBinomialBytes
             ? ReduceBinomial(comm, args)
             : ReduceScatterGather(comm, args);
}

}  // namespace

Status Reduce(const Communicator& comm, const ReduceArgs& args,
              const Stream& stream) {
  return direct::Enqueue(stream, comm, args, Choose);
}

}  // namespace shardproof
