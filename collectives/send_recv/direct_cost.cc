#include "collectives/direct/cost.h"
#include "collectives/direct/eager.h"
#include "collectives/direct/slices.h"
#include "collectives/send_recv/send_recv.h"

namespace shardproof {

Cost SendRecvDirectCost(int ranks, int64_t count, DType dtype, int distance,
                        Memory memory) {
  if (distance % ranks == 0) return {};
  if (direct::ByteCount(count, dtype) <= direct::kEagerLimit) {
    memory = Memory::kShared;
  }
  return direct::InMemory(
      memory, Blocks::Even(count, 1), 1, dtype, [&](const Blocks& b) {
        Cost cost;
        cost.alpha_count = 1;
        cost.beta_bytes = static_cast<double>(b.Count(0) * SizeOf(dtype));
        cost.total = direct::Accesses(ranks, b.Count(0), dtype);
        return cost;
      });
}

}  // namespace shardproof
