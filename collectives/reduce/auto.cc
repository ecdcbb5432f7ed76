#include <array>

#include "collectives/direct/queue.h"
#include "collectives/reduce/reduce.h"
#include "collectives/tuning.h"

namespace shardproof {
namespace {

// Between nodes: a tree while steps cost more than bytes.
constexpr int64_t kBinomialBytes = int64_t{64} << 10;

// What a tuning table may name.
constexpr std::array<TunedVariant<ReduceArgs>, 3> kVariants = {
    {{"direct", true, ReduceDirect},
     {"binomial", false, ReduceBinomial},
     {"scatter_gather", false, ReduceScatterGather}}};

Status Choose(const Communicator& comm, const ReduceArgs& args) {
  static const Tuned<ReduceArgs> tuned("reduce", kVariants);
  if (const auto run = tuned.Find(comm, args.count * SizeOf(args.dtype))) {
    return run(comm, args);
  }
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
