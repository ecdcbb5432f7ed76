#include <algorithm>
#include <array>

#include "collectives/all_gather/all_gather.h"
#include "collectives/direct/queue.h"
#include "collectives/tuning.h"

namespace shardproof {
namespace {

// Between nodes: up to this many bytes of all blocks together the fewest steps,
// beyond it the ring, which sends every byte to a neighbour.
constexpr int64_t kBruckBytes = int64_t{64} << 10;

// What a tuning table may name.
constexpr std::array<TunedVariant<AllGatherArgs>, 4> kVariants = {
    {{"direct", true, AllGatherDirect},
     {"ring", false, AllGatherRing},
     {"recursive_doubling", false, AllGatherRecursiveDoubling},
     {"bruck", false, AllGatherBruck}}};

Status Choose(const Communicator& comm, const AllGatherArgs& args) {
  static const Tuned<AllGatherArgs> tuned("all_gather", kVariants);
  if (const auto run = tuned.Find(comm, args.count * SizeOf(args.dtype))) {
    return run(comm, args);
  }
  if (comm.SharesMemory()) return AllGatherDirect(comm, args);
  const int64_t bytes = comm.size() * args.count * SizeOf(args.dtype);
  return bytes <= kBruckBytes ? AllGatherBruck(comm, args)
                              : AllGatherRing(comm, args);
}

Status ChooseV(const Communicator& comm, const AllGatherVArgs& args) {
  if (comm.SharesMemory()) return AllGatherVDirect(comm, args);
  int64_t count = 0;
  for (const int64_t one : args.counts) count += std::max(one, int64_t{0});
  return count * SizeOf(args.dtype) <= kBruckBytes ? AllGatherVBruck(comm, args)
                                                   : AllGatherVRing(comm, args);
}

}  // namespace

Status AllGather(const Communicator& comm, const AllGatherArgs& args,
                 const Stream& stream) {
  return direct::Enqueue(stream, comm, args, Choose);
}

Status AllGatherV(const Communicator& comm, const AllGatherVArgs& args,
                  const Stream& stream) {
  return direct::Enqueue(stream, comm, args, ChooseV);
}

}  // namespace shardproof
