#include <array>

#include "collectives/all_reduce/all_reduce.h"
#include "collectives/direct/queue.h"
#include "collectives/tuning.h"

namespace shardproof {
namespace {

// Between nodes, where there is no shared memory: up to these sizes the variant
// named, beyond the last the ring. Estimated, not yet measured: the fewest steps
// win while a step costs more than its bytes.
constexpr int64_t kRecursiveDoublingBytes = int64_t{16} << 10;
constexpr int64_t kRabenseifnerBytes = int64_t{1} << 20;

// What a tuning table may name.
constexpr std::array<TunedVariant<AllReduceArgs>, 7> kVariants = {
    {{"direct", true, AllReduceDirect},
     {"one_shot", true, AllReduceOneShot},
     {"two_shot", true, AllReduceTwoShot},
     {"ring", false, AllReduceRing},
     {"recursive_doubling", false, AllReduceRecursiveDoubling},
     {"rabenseifner", false, AllReduceRabenseifner},
     {"hierarchical", false, AllReduceHierarchical}}};

Status Choose(const Communicator& comm, const AllReduceArgs& args) {
  static const Tuned<AllReduceArgs> tuned("all_reduce", kVariants);
  if (const auto run = tuned.Find(comm, args.count * SizeOf(args.dtype))) {
    return run(comm, args);
  }
  if (comm.SharesMemory()) return AllReduceDirect(comm, args);
  const int64_t bytes = args.count * SizeOf(args.dtype);
  if (bytes <= kRecursiveDoublingBytes) {
    return AllReduceRecursiveDoubling(comm, args);
  }
  if (comm.topology().nodes < comm.size()) {
    return AllReduceHierarchical(comm, args);
  }
  if (bytes <= kRabenseifnerBytes) return AllReduceRabenseifner(comm, args);
  return AllReduceRing(comm, args);
}

}  // namespace

Status AllReduce(const Communicator& comm, const AllReduceArgs& args,
                 const Stream& stream) {
  return direct::Enqueue(stream, comm, args, Choose);
}

}  // namespace shardproof
