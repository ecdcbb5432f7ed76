// From tensors that every rank has whole to tensors that are cut by feature, and
// back: the ends of a linear layer that does not leave its result cut, or does
// not find its input cut.
//
//     Slice     whole [tokens, width] -> part [tokens, own]     nothing is sent
//     Gather    part -> whole                                   all_gather
//     Scatter   sum over ranks of whole -> part                 reduce_scatter
//
// with own = BalancedChunk(width, ranks, rank). Slice and Gather are each other's
// backward pass where every rank does the same with what it has whole: every
// rank then has the gradient, and there is nothing to sum. Where ranks do
// different things with it, each has a term of the gradient, and the backward
// pass of Gather is Scatter.
//
//     SP_ASSIGN_OR_RETURN(const void* x_r, split.Slice(stream, x));
//     ...
//     ... this rank's columns, into split.Part(y) ...
//     SP_RETURN_IF_ERROR(split.Gather(stream, y));
//
// Source: Shoeybi et al., Megatron-LM, arXiv:1909.08053 (scatter_to and
// gather_from_tensor_model_parallel_region of its code).
#ifndef SHARDPROOF_LAYERS_TENSOR_PARALLEL_FEATURE_SPLIT_H_
#define SHARDPROOF_LAYERS_TENSOR_PARALLEL_FEATURE_SPLIT_H_

#include <cstdint>
#include <vector>

#include "collectives/chunks.h"
#include "collectives/communicator.h"
#include "collectives/device.h"
#include "collectives/traffic.h"
#include "layers/tensor_parallel/collective_family.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof {

struct FeatureShape {
  int64_t tokens = 0;
  int64_t width = 0;
  DType dtype = DType::kF32;
};

class FeatureSplit {
 public:
  // Where parts lie: in a workspace, for Slice, Part and Gather; or only where
  // GatherFrom and Scatter are told, and the three must not be called.
  enum class Parts : uint8_t { kWorkspace, kElsewhere };

  FeatureSplit() = default;
  // A local call. Workspaces are made here, of tokens x width and, if so asked,
  // of tokens x own (none on one rank).
  static StatusOr<FeatureSplit> Create(const Communicator& comm,
                                       const FeatureShape& shape,
                                       const CollectiveFamily& collectives,
                                       Parts parts = Parts::kWorkspace);

  // This rank's columns of `whole`: a workspace, or `whole` itself on one rank.
  // Valid until the next Slice or Part.
  StatusOr<const void*> Slice(const Stream& stream, const void* whole) const;

  // Where this rank's columns are to be made, [tokens, own], before Gather.
  void* Part(void* whole) const { return ranks_ > 1 ? part_.data() : whole; }
  // Collective. `whole` from the Part of every rank.
  Status Gather(const Stream& stream, void* whole) const;
  // The same from parts that lie elsewhere.
  Status GatherFrom(const Stream& stream, const void* part, void* whole) const;
  // Collective. This rank's columns of the sum of every rank's `whole`.
  Status Scatter(const Stream& stream, const void* whole, void* part) const;

 private:
  Communicator comm_;
  FeatureShape shape_;
  CollectiveFamily collectives_;
  int ranks_ = 1;
  std::vector<int64_t> counts_;  // Elements of each rank's part.
  Buffer part_, gathered_;
};

// What Gather and Scatter send. The family must have costs.
Cost GatherCost(int ranks, const FeatureShape& shape,
                const CollectiveFamily& collectives);
Cost ScatterCost(int ranks, const FeatureShape& shape,
                 const CollectiveFamily& collectives);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_TENSOR_PARALLEL_FEATURE_SPLIT_H_
