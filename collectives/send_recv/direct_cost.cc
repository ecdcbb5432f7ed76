#include "collectives/direct/cost.h"
#include "collectives/send_recv/send_recv.h"

namespace shardproof {

Cost SendRecvDirectCost(int ranks, int64_t count, DType dtype, int distance) {
  if (distance % ranks == 0) return {};
  Cost cost;
  cost.alpha_count = 1;
  cost.beta_bytes = static_cast<double>(count * SizeOf(dtype));
  cost.total = direct::Accesses(ranks, count, dtype);
  return cost;
}

}  // namespace shardproof
