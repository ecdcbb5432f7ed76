#include <algorithm>
#include <array>

#include "collectives/direct/queue.h"
#include "collectives/reduce_scatter/reduce_scatter.h"
#include "collectives/tuning.h"

namespace shardproof {
namespace {

// Between nodes: up to this many bytes of all blocks together the fewest steps,
// beyond it pairwise, which loads no link twice.
constexpr int64_t kHalvingBytes = int64_t{256} << 10;

// What a tuning table may name.
constexpr std::array<TunedVariant<ReduceScatterArgs>, 4> kVariants = {
    {{"direct", true, ReduceScatterDirect},
     {"ring", false, ReduceScatterRing},
     {"pairwise", false, ReduceScatterPairwise},
     {"halving", false, ReduceScatterHalving}}};

Status Choose(const Communicator& comm, const ReduceScatterArgs& args) {
  static const Tuned<ReduceScatterArgs> tuned("reduce_scatter", kVariants);
  if (const auto run = tuned.Find(comm, args.count * SizeOf(args.dtype))) {
    return run(comm, args);
  }
  if (comm.SharesMemory()) return ReduceScatterDirect(comm, args);
  const int64_t bytes = comm.size() * args.count * SizeOf(args.dtype);
  return bytes <= kHalvingBytes ? ReduceScatterHalving(comm, args)
                                : ReduceScatterPairwise(comm, args);
}

Status ChooseV(const Communicator& comm, const ReduceScatterVArgs& args) {
  if (comm.SharesMemory()) return ReduceScatterVDirect(comm, args);
  int64_t count = 0;
  for (const int64_t one : args.counts) count += std::max(one, int64_t{0});
  return count * SizeOf(args.dtype) <= kHalvingBytes
             ? ReduceScatterVHalving(comm, args)
             : ReduceScatterVPairwise(comm, args);
}

}  // namespace

Status ReduceScatter(const Communicator& comm, const ReduceScatterArgs& args,
                     const Stream& stream) {
  return direct::Enqueue(stream, comm, args, Choose);
}

Status ReduceScatterV(const Communicator& comm, const ReduceScatterVArgs& args,
                      const Stream& stream) {
  return direct::Enqueue(stream, comm, args, ChooseV);
}

}  // namespace shardproof
