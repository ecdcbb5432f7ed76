#include "collectives/reduce_scatter/message.h"

namespace shardproof {
namespace {

Status Pairwise(const Communicator& comm, const Combine& combine,
                const Blocks& blocks, const void* input, void* recv) {
  const int p = comm.size(), r = comm.rank();
  const DType dtype = combine.dtype;
  const void* own = At(input, dtype, blocks.Begin(r));
  for (int k = 1; k < p; ++k) {
    const int to = (r + k) % p, from = (r + p - k) % p;
    SP_RETURN_IF_ERROR(
        ReducingExchange(comm, combine,
                         {.to = to,
                          .out = At(input, dtype, blocks.Begin(to)),
                          .out_count = blocks.Count(to),
                          .from = from,
                          .own = own,
                          .result = recv,
                          .count = blocks.Count(r),
                          .finishes = k == p - 1}));
    own = recv;
  }
  return OkStatus();
}

}  // namespace

Status ReduceScatterPairwise(const Communicator& comm,
                             const ReduceScatterArgs& args) {
  return RunReduceScatter(comm, args, "reduce_scatter/pairwise", Pairwise);
}

Status ReduceScatterVPairwise(const Communicator& comm,
                              const ReduceScatterVArgs& args) {
  return RunReduceScatter(comm, args, "reduce_scatter_v/pairwise", Pairwise);
}

}  // namespace shardproof
