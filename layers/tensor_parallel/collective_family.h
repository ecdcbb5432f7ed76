// Which algorithms carry what a tensor-parallel layer sends.
//
// A layer is written over a few operations and does not know how they work. A
// family names an algorithm for each, what each costs, and how it rounds:
//
//     auto layer = MlpLayer::Create(comm, config, kRingCollectives);
//     Cost cost = MlpForwardCost(ranks, config, kRingCollectives);
#ifndef SHARDPROOF_LAYERS_TENSOR_PARALLEL_COLLECTIVE_FAMILY_H_
#define SHARDPROOF_LAYERS_TENSOR_PARALLEL_COLLECTIVE_FAMILY_H_

#include <cstdint>
#include <span>

#include "collectives/all_gather/all_gather.h"
#include "collectives/all_reduce/all_reduce.h"
#include "collectives/all_to_all/all_to_all.h"
#include "collectives/broadcast/broadcast.h"
#include "collectives/communicator.h"
#include "collectives/reduce/reduce.h"
#include "collectives/reduce_scatter/reduce_scatter.h"
#include "collectives/traffic.h"
#include "reference/bounded.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof {

struct CollectiveFamily {
  const char* name = "";
  Status (*all_reduce)(const Communicator&, const AllReduceArgs&) = nullptr;
  Status (*all_gather)(const Communicator&, const AllGatherVArgs&) = nullptr;
  Status (*reduce_scatter)(const Communicator&,
                           const ReduceScatterVArgs&) = nullptr;
  // Null where the algorithm is chosen by size and place.
  Cost (*all_reduce_cost)(int, int64_t, DType, Memory) = nullptr;
  Cost (*all_gather_cost)(std::span<const int64_t>, DType, Memory) = nullptr;
  Cost (*reduce_scatter_cost)(std::span<const int64_t>, DType,
                              Memory) = nullptr;
  // Where the tensors that callers pass lie, for the costs.
  Memory memory = Memory::kShared;
  // Of a product that is summed over the ranks of the group: each rank rounds
  // its partial sum to `dtype` once, and the algorithm adds and rounds further.
  Arithmetic (*summed)(int ranks, DType dtype) = nullptr;
  // Moves only, so it rounds nothing.
  Status (*all_to_all)(const Communicator&, const AllToAllVArgs&) = nullptr;
  Cost (*all_to_all_cost)(int, std::span<const int64_t>, DType,
                          Memory) = nullptr;
  // From one rank, and to one rank.
  Status (*broadcast)(const Communicator&, const BroadcastArgs&) = nullptr;
  Cost (*broadcast_cost)(int, int64_t, DType, Memory) = nullptr;
  Status (*reduce)(const Communicator&, const ReduceArgs&) = nullptr;
  Cost (*reduce_cost)(int, int64_t, DType, Memory) = nullptr;
  // As `summed`, where `reduce` adds.
  Arithmetic (*reduced)(int ranks, DType dtype) = nullptr;

  bool has_cost() const { return all_reduce_cost != nullptr; }
};

// The fastest for the size and the place; rounds at most as often as the ring.
inline constexpr CollectiveFamily kAutoCollectives = {
    .name = "auto",
    .all_reduce =
        [](const Communicator& comm, const AllReduceArgs& args) {
          return AllReduce(comm, args);
        },
    .all_gather =
        [](const Communicator& comm, const AllGatherVArgs& args) {
          return AllGatherV(comm, args);
        },
    .reduce_scatter =
        [](const Communicator& comm, const ReduceScatterVArgs& args) {
          return ReduceScatterV(comm, args);
        },
    .summed =
        [](int ranks, DType dtype) {
          return AllReduceRingArithmetic(ranks, dtype, ReduceOp::kSum);
        },
    .all_to_all =
        [](const Communicator& comm, const AllToAllVArgs& args) {
          return AllToAllV(comm, args);
        },
    .broadcast =
        [](const Communicator& comm, const BroadcastArgs& args) {
          return Broadcast(comm, args);
        },
    .reduce = [](const Communicator& comm,
                 const ReduceArgs& args) { return Reduce(comm, args); },
    .reduced =
        [](int ranks, DType dtype) {
          return AllReduceRingArithmetic(ranks, dtype, ReduceOp::kSum);
        }};

// Loads and stores in shared memory.
inline constexpr CollectiveFamily kDirectCollectives = {
    .name = "direct",
    .all_reduce = AllReduceDirect,
    .all_gather = AllGatherVDirect,
    .reduce_scatter = ReduceScatterVDirect,
    .all_reduce_cost = AllReduceDirectCost,
    .all_gather_cost = AllGatherVDirectCost,
    .reduce_scatter_cost = ReduceScatterVDirectCost,
    .summed = [](int ranks,
                 DType dtype) { return Arithmetic::For(dtype, ranks); },
    .all_to_all = AllToAllVDirect,
    .all_to_all_cost = AllToAllVDirectCost,
    .broadcast = BroadcastDirect,
    .broadcast_cost = BroadcastDirectCost,
    .reduce = ReduceDirect,
    .reduce_cost = ReduceDirectCost,
    .reduced = [](int ranks,
                  DType dtype) { return Arithmetic::For(dtype, ranks); }};

// Messages around a ring; all_to_all between pairs, broadcast along the ring in
// segments, reduce up a tree. A partial sum is rounded
// before its first hop as well, and the last rounding is that of the result:
// ranks - 1 on the way.
inline constexpr CollectiveFamily kRingCollectives = {
    .name = "ring",
    .all_reduce = AllReduceRing,
    .all_gather = AllGatherVRing,
    .reduce_scatter = ReduceScatterVRing,
    .all_reduce_cost =
        [](int ranks, int64_t count, DType dtype, Memory) {
          return AllReduceRingCost(ranks, count, dtype);
        },
    .all_gather_cost = [](std::span<const int64_t> counts, DType dtype,
                          Memory) { return AllGatherVRingCost(counts, dtype); },
    .reduce_scatter_cost =
        [](std::span<const int64_t> counts, DType dtype, Memory) {
          return ReduceScatterVRingCost(counts, dtype);
        },
    .summed =
        [](int ranks, DType dtype) {
          return AllReduceRingArithmetic(ranks, dtype, ReduceOp::kSum);
        },
    .all_to_all = AllToAllVPairwise,
    .all_to_all_cost =
        [](int ranks, std::span<const int64_t> counts, DType dtype, Memory) {
          return AllToAllVPairwiseCost(ranks, counts, dtype);
        },
    .broadcast = BroadcastChain,
    .broadcast_cost =
        [](int ranks, int64_t count, DType dtype, Memory) {
          return BroadcastChainCost(ranks, count, dtype);
        },
    .reduce = ReduceBinomial,
    .reduce_cost =
        [](int ranks, int64_t count, DType dtype, Memory) {
          return ReduceBinomialCost(ranks, count, dtype);
        },
    .reduced =
        [](int ranks, DType dtype) {
          return ReduceBinomialArithmetic(ranks, dtype, ReduceOp::kSum);
        }};

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_TENSOR_PARALLEL_COLLECTIVE_FAMILY_H_
