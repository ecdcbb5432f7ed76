#include <array>

#include "collectives/all_to_all/all_to_all.h"
#include "collectives/direct/queue.h"
#include "collectives/tuning.h"

namespace shardproof {
namespace {

// Between nodes: the fewest steps while blocks are small.
constexpr int64_t kBruckBytes = 1024;  // Of one block.

// What a tuning table may name.
constexpr std::array<TunedVariant<AllToAllArgs>, 3> kVariants = {
    {{"direct", true, AllToAllDirect},
     {"pairwise", false, AllToAllPairwise},
     {"bruck", false, AllToAllBruck}}};

Status Choose(const Communicator& comm, const AllToAllArgs& args) {
  static const Tuned<AllToAllArgs> tuned("all_to_all", kVariants);
  if (const auto run = tuned.Find(comm, args.count * SizeOf(args.dtype))) {
    return run(comm, args);
  }
  if (comm.SharesMemory()) return AllToAllDirect(comm, args);
  return args.count * SizeOf(args.dtype) <= kBruckBytes
             ? AllToAllBruck(comm, args)
             : AllToAllPairwise(comm, args);
}

Status ChooseV(const Communicator& comm, const AllToAllVArgs& args) {
  return comm.SharesMemory() ? AllToAllVDirect(comm, args)
                             : AllToAllVPairwise(comm, args);
}

}  // namespace

Status AllToAll(const Communicator& comm, const AllToAllArgs& args,
                const Stream& stream) {
  return direct::Enqueue(stream, comm, args, Choose);
}

Status AllToAllV(const Communicator& comm, const AllToAllVArgs& args,
                 const Stream& stream) {
  return direct::Enqueue(stream, comm, args, ChooseV);
}

}  // namespace shardproof
