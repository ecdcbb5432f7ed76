// Which part of which saved shard goes where: a plan is data, the same on every
// rank, made without a message.
//
//     const ReshardPlan plan = *PlanReshard(config, {0, 1, 0, 1}, 2);
//     plan.moves           // what is copied, in the order in which it is sent
//     plan.counts          // elements from rank s to rank r, at s ranks + r
//
// The rows (columns) of the parameter are cut wherever a piece of a saved shard
// begins or ends. Between two cuts the same saved shards hold all of it: one,
// or, where it is replicated, several. A new shard takes it of the one that lies
// on its own rank, if there is one; else of holder number (shard mod holders), so
// that replicas share the sending. Every element of the new layout is thus
// written once, by one move or as padding, and nothing is sent that the receiver
// does not keep.
#ifndef SHARDPROOF_LAYERS_RESHARD_RESHARD_PLAN_H_
#define SHARDPROOF_LAYERS_RESHARD_RESHARD_PLAN_H_

#include <cstdint>
#include <span>
#include <vector>

#include "collectives/traffic.h"
#include "layers/reshard/shard_layout.h"
#include "layers/tensor_parallel/collective_family.h"
#include "reference/status.h"

namespace shardproof {

struct ReshardConfig {
  ReshardedParameter parameter;
  ShardLayout from;  // Of the saved shards.
  ShardLayout to;    // New shard n is for rank n.
};

// What a shard holds, by its layout; another function than PartOf is another
// layout than those of shard_layout.h.
using ShardParts = ShardPart (*)(const ReshardedParameter&, const ShardLayout&,
                                 int shard);
struct ReshardRules {
  ShardParts from = PartOf;
  ShardParts to = PartOf;
};

// Where runs of elements lie in a shard, in elements.
struct StridedRuns {
  int64_t begin = 0;
  int64_t layer_stride = 0;
  int64_t row_stride = 0;
};

// `length` elements, `rows` times in each of `layers`; or as many zeros.
struct ReshardMove {
  int from_shard = -1;  // -1: zeros.
  int to_shard = 0;
  int64_t layers = 0;
  int64_t rows = 0;
  int64_t length = 0;
  StridedRuns from;
  StridedRuns to;

  int64_t elements() const { return layers * rows * length; }
};

struct ReshardPlan {
  std::vector<ReshardMove> moves;  // Ascending by to_shard.
  // [ranks, ranks], from the rank of the row to that of the column; what stays
  // on a rank is not in it.
  std::vector<int64_t> counts;
};

// `owners[n]` is the rank that has saved shard n. Errors as CheckLayout;
// kInvalidArgument where there are more new shards than ranks, or owners are not
// as many as saved shards, each a rank; kInternal for
// rules with which no saved shard holds what a new one wants.
StatusOr<ReshardPlan> PlanReshard(const ReshardConfig& config,
                                  std::span<const int> owners, int ranks,
                                  const ReshardRules& rules = {});

// What its execution sends. The family must have costs.
Cost ReshardCost(const ReshardPlan& plan, int ranks, DType dtype,
                 const CollectiveFamily& collectives);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_RESHARD_RESHARD_PLAN_H_
