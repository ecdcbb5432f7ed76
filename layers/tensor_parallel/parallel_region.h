// The two ends of the stretch of a layer in which ranks hold different parts of
// the weights. What is [tokens, width] outside is, inside, either needed whole
// by every rank or made by every rank as a term of a sum:
//
//     Enter    plain               X = x                     nothing is sent
//              sequence-parallel   X = concat over ranks of x    all_gather
//     Leave    plain               y = sum over ranks of s       all_reduce
//              sequence-parallel   y = own tokens of that sum    reduce_scatter
//
// Sequence-parallel, a rank holds BalancedChunk(tokens, ranks, rank) of the
// tokens outside; plain, all of them. The backward pass of Enter is Leave and
// that of Leave is Enter, so these two are all that a layer sends:
//
//     SP_ASSIGN_OR_RETURN(const void* all, region.Enter(stream, x));
//     ... a product of `all` with this rank's part of the weights ...
//     void* partial = other.Partial(y);
//     ... this rank's term of the result, into `partial` ...
//     SP_RETURN_IF_ERROR(other.Leave(stream, y));
//
// Sources: f and g of Megatron-LM (Shoeybi et al., arXiv:1909.08053, section
// 3); g and g-bar of sequence parallelism (Korthikanti et al.,
// arXiv:2205.05198, section 4.2.2).
#ifndef SHARDPROOF_LAYERS_TENSOR_PARALLEL_PARALLEL_REGION_H_
#define SHARDPROOF_LAYERS_TENSOR_PARALLEL_PARALLEL_REGION_H_

#include <cstdint>
#include <string_view>
#include <vector>

#include "collectives/communicator.h"
#include "collectives/device.h"
#include "collectives/traffic.h"
#include "layers/tensor_parallel/collective_family.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof {

struct RegionShape {
  int64_t tokens = 0;
  int64_t width = 0;
  DType dtype = DType::kF32;
  bool sequence_parallel = false;
};

class ParallelRegion {
 public:
  // A local call. Sequence-parallel, one workspace of tokens x width is made
  // here, the only memory of a region; kOutOfMemory says how much that is.
  static StatusOr<ParallelRegion> Create(const Communicator& comm,
                                         const RegionShape& shape,
                                         const CollectiveFamily& collectives);

  // All tokens, [tokens, width], from those that this rank holds: `x` itself,
  // or the workspace. Valid until the next Enter or Partial.
  StatusOr<const void*> Enter(const Stream& stream, const void* x) const;

  // Where this rank's term of the sum that leaves into `y` is to be made,
  // [tokens, width]: `y` itself, or the workspace.
  void* Partial(void* y) const { return gathers_ ? workspace_.data() : y; }
  // The sum of all ranks' terms, of the tokens that this rank holds.
  Status Leave(const Stream& stream, void* y) const;

  // How many tokens this rank holds outside.
  int64_t local_tokens() const { return local_tokens_; }
  // How much memory it has: none, or that of the gathered tokens.
  int64_t workspace_bytes() const {
    return static_cast<int64_t>(workspace_.bytes());
  }

 private:
  ParallelRegion() = default;

  Communicator comm_;
  RegionShape shape_;
  CollectiveFamily collectives_;
  bool gathers_ = false;         // Sequence-parallel, on several ranks.
  std::vector<int64_t> counts_;  // Elements of each rank's tokens.
  int64_t local_tokens_ = 0;
  Buffer workspace_;
};

// What each of them sends. The family must have costs.
Cost EnterCost(int ranks, const RegionShape& shape,
               const CollectiveFamily& collectives);
Cost LeaveCost(int ranks, const RegionShape& shape,
               const CollectiveFamily& collectives);

// Collective. kInvalidArgument, on every rank alike, unless all ranks describe
// the layer that they make in the same words.
Status AgreeOnLayer(const Communicator& comm, std::string_view description);
// kUnsupported for types that layers do not compute in.
Status CheckLayerType(DType dtype);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_TENSOR_PARALLEL_PARALLEL_REGION_H_
