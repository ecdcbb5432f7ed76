#include <cstddef>

#include "collectives/barrier/barrier.h"
#include "collectives/patterns/binomial.h"

namespace shardproof {

// After round k a rank has heard of the 2^(k+1) - 1 ranks before it. The token
// is a byte and not an empty message, which would not travel.
Status BarrierDissemination(const Communicator& comm) {
  const OpScope op(comm, {.label = "barrier/dissemination"});
  SP_RETURN_IF_ERROR(op.status());
  const int p = comm.size(), r = comm.rank();
  const std::byte token{1};
  std::byte heard{0};
  for (int distance = 1; distance < p; distance *= 2) {
    SP_RETURN_IF_ERROR(comm.SendRecv(&token, 1, (r + distance) % p, &heard, 1,
                                     (r + p - distance) % p));
  }
  return OkStatus();
}

Cost BarrierDisseminationCost(int ranks) {
  Cost cost;
  const int rounds = CeilLog2(ranks);
  cost.alpha_count = rounds;
  cost.beta_bytes = rounds;
  cost.total = {int64_t{rounds} * ranks, int64_t{rounds} * ranks};
  return cost;
}

}  // namespace shardproof
