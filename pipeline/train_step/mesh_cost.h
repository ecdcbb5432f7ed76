// What the ranks of a training step send along each dimension of their mesh, and
// what of it leaves a node where the dimensions come in another order.
//
// Contract: for one Step of TrainStep, without Create, Load and Collect,
//
//     total     = the traffic of all ranks, as Communicator::traffic counts it
//     rows      one for each set of dimensions along which groups of ranks send to
//               one another; they add up to total
//
//     tp            in the layers
//     cp            attention, and gradients where nothing else shares them
//     ep            tokens to experts and back
//     pp            activations, their gradients; gradients of what stages share
//     cp,ep,dp      gradients and parameters, as ZeRO's stage says; only those of
//     (cp,dp)       more than one rank are named. In brackets: those of experts
//     all           the norm and the losses
//
// Two things are not known before the step: which experts tokens choose, so each
// counts as chosen equally often (and `exact` is false); and the algorithms
// that attention chooses for gathered keys and for Ulysses, which count as those
// of `collectives`: as many bytes, perhaps in other messages.
//
//     SP_ASSIGN_OR_RETURN(const MeshCost cost, PredictMeshCost(config));
//     cost.total.bytes;
//     BytesBetweenNodes(cost, 4);      // Of nodes of ranks 0..3, 4..7, ...
//
// Source: Narayanan et al., arXiv:2104.04473, section 3 (which dimension is worth
// which links).
#ifndef SHARDPROOF_PIPELINE_TRAIN_STEP_MESH_COST_H_
#define SHARDPROOF_PIPELINE_TRAIN_STEP_MESH_COST_H_

#include <cstdint>
#include <string>
#include <vector>

#include "collectives/traffic.h"
#include "layers/tensor_parallel/collective_family.h"
#include "pipeline/train_step/train_step.h"
#include "reference/status.h"

namespace shardproof {

// What ranks send among themselves.
struct GroupTraffic {
  std::vector<int> ranks;  // Of the world, ascending.
  bool around = true;      // To the next one, else between all pairs.
  Traffic sent;            // Of all of them.
};

struct DimensionCost {
  std::string name;  // "tp", "cp,dp", "all"
  int size = 1;      // Ranks of a group.
  int stride = 1;    // From a rank to the next one along it.
  int64_t bytes = 0;
  int64_t messages = 0;  // These two of all ranks together.
  std::vector<GroupTraffic> groups;
};

struct MeshCost {
  std::vector<DimensionCost> dimensions;
  Traffic total;
  bool exact = true;
};

// Local. Errors are those of CheckTrainStep; kInvalidArgument for a family without
// costs.
StatusOr<MeshCost> PredictMeshCost(
    const TrainStepConfig& config,
    const CollectiveFamily& collectives = kRingCollectives);

// Bytes that go from one node to another, with nodes of `ranks_per_node`
// consecutive ranks: collectives send as much over every edge of their ring, and
// an all-to-all as much between every pair. That is the ring's way, and off by
// what does not divide evenly; of messages between stages it is exact.
double BytesBetweenNodes(const DimensionCost& cost, int ranks_per_node);
double BytesBetweenNodes(const MeshCost& cost, int ranks_per_node);

}  // namespace shardproof

#endif  // SHARDPROOF_PIPELINE_TRAIN_STEP_MESH_COST_H_
