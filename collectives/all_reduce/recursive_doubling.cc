#include "collectives/all_reduce/message.h"
#include "collectives/patterns/halving.h"

namespace shardproof {
namespace {

Status RecursiveDoubling(const Communicator& comm, const Combine& combine,
                         const void* input, const AllReduceArgs& args) {
  const Regions regions = Regions::Balanced(comm.size(), args.count);
  const Fold& fold = regions.fold();
  SP_ASSIGN_OR_RETURN(const bool folded,
                      FoldIn(comm, combine, regions, input, args.recv));
  if (!fold.FoldsAway(comm.rank())) {
    const int member = fold.MemberOf(comm.rank());
    const void* own = folded ? args.recv : input;
    for (int mask = 1; mask < fold.power(); mask *= 2) {
      const int partner = fold.RankOf(member ^ mask);
      SP_RETURN_IF_ERROR(
          ReducingExchange(comm, combine,
                           {.to = partner,
                            .out = own,
                            .out_count = args.count,
                            .from = partner,
                            .own = own,
                            .result = args.recv,
                            .count = args.count,
                            .finishes = 2 * mask == fold.power()}));
      own = args.recv;
    }
  }
  return Unfold(comm, args.dtype, regions, args.recv);
}

}  // namespace

Status AllReduceRecursiveDoubling(const Communicator& comm,
                                  const AllReduceArgs& args) {
  return RunAllReduce(comm, args, "all_reduce/recursive_doubling",
                      RecursiveDoubling);
}

}  // namespace shardproof
