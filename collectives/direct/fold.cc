#include "collectives/direct/fold.h"

#include <cstring>

#include "collectives/direct/slices.h"

namespace shardproof::direct {

StatusOr<Fold> Fold::Prepare(const Communicator& comm, DType dtype, ReduceOp op,
                             double scale) {
  Fold fold(dtype, op, op == ReduceOp::kAvg ? comm.size() : 1);
  if (op == ReduceOp::kPremulSum) [[unlikely]] {
    SP_ASSIGN_OR_RETURN(const Peers peers,
                        comm.MeetEager(&scale, sizeof(scale)));
    fold.scales_.resize(static_cast<size_t>(comm.size()));
    for (int r = 0; r < comm.size(); ++r) {
      std::memcpy(&fold.scales_[static_cast<size_t>(r)], peers.Read(r, 0, 0),
                  sizeof(scale));
    }
  }
  return fold;
}

void Fold::Run(const Peers& peers, const Chunk& range,
               std::span<void* const> destinations,
               const kernels::Walk& walk) const {
  if (range.count == 0) return;
  const size_t begin = ByteCount(range.begin, dtype_);
  const size_t bytes = ByteCount(range.count, dtype_);
  RankArray<const void*> sources(peers.size());
  for (int r = 0; r < peers.size(); ++r) {
    sources[r] = peers.Read(r, begin, bytes);
  }
  kernels::Reduce(dtype_, op_, sources.view(), range.count, destinations,
                  {.scales = scales_, .divisor = divisor_, .walk = walk});
}

}  // namespace shardproof::direct
