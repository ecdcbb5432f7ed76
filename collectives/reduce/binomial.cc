#include "collectives/patterns/binomial.h"

#include "collectives/patterns/scratch.h"
#include "collectives/reduce/message.h"

namespace shardproof {
namespace {

Status Binomial(const Communicator& comm, const Combine& combine,
                const void* input, const ReduceArgs& args) {
  const int p = comm.size();
  const Rooted rooted(args.root, p);
  const int v = rooted.Virtual(comm.rank());
  void* sum = args.recv;
  if (v != 0 && SubtreeSize(v, p) > 1) {
    SP_ASSIGN_OR_RETURN(
        sum, Scratch(comm, ScratchSlot::kVector, args.count, args.dtype));
  }
  const void* own = input;
  for (int mask = 1; mask < Reach(v, p) && v + mask < p; mask *= 2) {
    SP_RETURN_IF_ERROR(ReducingExchange(comm, combine,
                                        {.from = rooted.Real(v + mask),
                                         .own = own,
                                         .result = sum,
                                         .count = args.count,
                                         .finishes = v == 0 && 2 * mask >= p}));
    own = sum;
  }
  if (v == 0) return OkStatus();
  return ReducingExchange(
      comm, combine,
      {.to = rooted.Real(Parent(v)), .out = own, .out_count = args.count});
}

}  // namespace

Status ReduceBinomial(const Communicator& comm, const ReduceArgs& args) {
  return RunReduce(comm, args, "reduce/binomial", Binomial);
}

}  // namespace shardproof
