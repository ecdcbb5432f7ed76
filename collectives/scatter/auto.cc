#include <algorithm>
#include <array>

#include "collectives/direct/queue.h"
#include "collectives/scatter/scatter.h"
#include "collectives/tuning.h"

namespace shardproof {
namespace {

// Between nodes: a tree while steps cost more than bytes. In a tree the bytes of
// the other half pass through every second rank.
constexpr int64_t kBinomialBytes = int64_t{16} << 10;  // Of one block.

// What a tuning table may name.
constexpr std::array<TunedVariant<ScatterArgs>, 3> kVariants = {
    {{"direct", true, ScatterDirect},
     {"binomial", false, ScatterBinomial},
     {"linear", false, ScatterLinear}}};

Status Choose(const Communicator& comm, const ScatterArgs& args) {
  static const Tuned<ScatterArgs> tuned("scatter", kVariants);
  if (const auto run = tuned.Find(comm, args.count * SizeOf(args.dtype))) {
    return run(comm, args);
  }
  if (comm.SharesMemory()) return ScatterDirect(comm, args);
  return args.count * SizeOf(args.dtype) <= kBinomialBytes
             ? ScatterBinomial(comm, args)
             : ScatterLinear(comm, args);
}

Status ChooseV(const Communicator& comm, const ScatterVArgs& args) {
  if (comm.SharesMemory()) return ScatterVDirect(comm, args);
  int64_t largest = 0;
  for (const int64_t one : args.counts) largest = std::max(largest, one);
  return largest * SizeOf(args.dtype) <= kBinomialBytes
             ? ScatterVBinomial(comm, args)
             : ScatterVLinear(comm, args);
}

}  // namespace

Status Scatter(const Communicator& comm, const ScatterArgs& args,
               const Stream& stream) {
  return direct::Enqueue(stream, comm, args, Choose);
}

Status ScatterV(const Communicator& comm, const ScatterVArgs& args,
                const Stream& stream) {
  return direct::Enqueue(stream, comm, args, ChooseV);
}

}  // namespace shardproof
