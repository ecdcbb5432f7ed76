#include "layers/tensor_parallel/parallel_region.h"

#include <string>

#include "collectives/chunks.h"
#include "collectives/direct/queue.h"

namespace shardproof {
namespace {

std::vector<int64_t> CountsOf(int ranks, const RegionShape& shape) {
  std::vector<int64_t> counts;
  for (int r = 0; r < ranks; ++r) {
    counts.push_back(BalancedChunk(shape.tokens, ranks, r).count * shape.width);
  }
  return counts;
}

}  // namespace

StatusOr<ParallelRegion> ParallelRegion::Create(
    const Communicator& comm, const RegionShape& shape,
    const CollectiveFamily& collectives) {
  ParallelRegion region;
  region.comm_ = comm;
  region.shape_ = shape;
  region.collectives_ = collectives;
  region.gathers_ = shape.sequence_parallel && comm.size() > 1;
  region.local_tokens_ = shape.tokens;
  if (!region.gathers_) return region;
  region.counts_ = CountsOf(comm.size(), shape);
  region.local_tokens_ =
      BalancedChunk(shape.tokens, comm.size(), comm.rank()).count;
  SP_ASSIGN_OR_RETURN(region.workspace_,
                      comm.Allocate(static_cast<size_t>(
                          shape.tokens * shape.width * SizeOf(shape.dtype))));
  return region;
}

StatusOr<const void*> ParallelRegion::Enter(const Stream& stream,
                                            const void* x) const {
  if (!gathers_) return x;
  SP_RETURN_IF_ERROR(direct::Enqueue<AllGatherVArgs>(stream, comm_,
                                                     {.send = x,
                                                      .recv = workspace_.data(),
                                                      .counts = counts_,
                                                      .dtype = shape_.dtype},
                                                     collectives_.all_gather));
  return static_cast<const void*>(workspace_.data());
}

Status ParallelRegion::Leave(const Stream& stream, void* y) const {
  if (gathers_) {
    return direct::Enqueue<ReduceScatterVArgs>(stream, comm_,
                                               {.send = workspace_.data(),
                                                .recv = y,
                                                .counts = counts_,
                                                .dtype = shape_.dtype},
                                               collectives_.reduce_scatter);
  }
  return direct::Enqueue<AllReduceArgs>(stream, comm_,
                                        {.send = y,
                                         .recv = y,
                                         .count = shape_.tokens * shape_.width,
                                         .dtype = shape_.dtype},
                                        collectives_.all_reduce);
}

Cost EnterCost(int ranks, const RegionShape& shape,
               const CollectiveFamily& collectives) {
  if (!shape.sequence_parallel || ranks == 1) return {};
  return collectives.all_gather_cost(CountsOf(ranks, shape), shape.dtype,
                                     collectives.memory);
}

Cost LeaveCost(int ranks, const RegionShape& shape,
               const CollectiveFamily& collectives) {
  if (shape.sequence_parallel && ranks > 1) {
    return collectives.reduce_scatter_cost(CountsOf(ranks, shape), shape.dtype,
                                           collectives.memory);
  }
  return collectives.all_reduce_cost(ranks, shape.tokens * shape.width,
                                     shape.dtype, collectives.memory);
}

Status AgreeOnLayer(const Communicator& comm, std::string_view description) {
  SP_ASSIGN_OR_RETURN(const std::vector<std::string> all,
                      comm.ExchangeControl(description));
  for (size_t r = 1; r < all.size(); ++r) {
    if (all[r] != all[0]) {
      return InvalidArgument(
          "ranks 0 and {} make different layers: \"{}\" and \"{}\"", r, all[0],
          all[r]);
    }
  }
  return OkStatus();
}

Status CheckLayerType(DType dtype) {
  if (dtype == DType::kF64 || dtype == DType::kF32 || dtype == DType::kBF16 ||
      dtype == DType::kF16) {
    return OkStatus();
  }
  return Unsupported("layers compute in f64, f32, bf16 or f16, not {}",
                     Name(dtype));
}

}  // namespace shardproof
