#include <algorithm>
#include <array>

#include "collectives/direct/queue.h"
#include "collectives/gather/gather.h"
#include "collectives/tuning.h"

namespace shardproof {
namespace {

// Between nodes: a tree while steps cost more than bytes. In a tree the bytes of
// the other half pass through every second rank.
constexpr int64_t kBinomialBytes = int64_t{16} << 10;  // Of one block.

// What a tuning table may name.
constexpr std::array<TunedVariant<GatherArgs>, 3> kVariants = {
    {{"direct", true, GatherDirect},
     {"binomial", false, GatherBinomial},
     {"linear", false, GatherLinear}}};

Status Choose(const Communicator& comm, const GatherArgs& args) {
  static const Tuned<GatherArgs> tuned("gather", kVariants);
  if (const auto run = tuned.Find(comm, args.count * SizeOf(args.dtype))) {
    return run(comm, args);
  }
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
