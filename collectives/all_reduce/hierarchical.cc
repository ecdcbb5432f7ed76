#include <algorithm>
#include <utility>

#include "collectives/all_gather/all_gather.h"
#include "collectives/all_reduce/hierarchy.h"
#include "collectives/all_reduce/message.h"
#include "collectives/chunks.h"
#include "collectives/kernels/reduce.h"
#include "collectives/reduce_scatter/reduce_scatter.h"

namespace shardproof {

std::vector<int> HierarchyGroups(const Topology& topology) {
  if (topology.nodes > 1) return topology.node_of;
  const int p = static_cast<int>(topology.node_of.size());
  int size = 1;
  for (int g = 1; g * g <= p; ++g) {
    if (p % g == 0) size = g;
  }
  std::vector<int> group_of(static_cast<size_t>(p));
  for (int r = 0; r < p; ++r) group_of[static_cast<size_t>(r)] = r / size;
  return group_of;
}

StatusOr<const Hierarchy*> GetHierarchy(const Communicator& comm) {
  const auto make = [&comm]() -> StatusOr<Hierarchy> {
    const std::vector<int> group_of = HierarchyGroups(comm.topology());
    Hierarchy hierarchy;
    int groups = 0;
    for (int group : group_of) groups = std::max(groups, group + 1);
    hierarchy.chunks = comm.size();
    for (int group = 0; group < groups; ++group) {
      hierarchy.chunks = std::min(
          hierarchy.chunks, static_cast<int>(std::count(
                                group_of.begin(), group_of.end(), group)));
    }
    const int mine = group_of[static_cast<size_t>(comm.rank())];
    SP_ASSIGN_OR_RETURN(hierarchy.inside, comm.Split(mine, comm.rank()));
    const int number = hierarchy.inside.rank();
    SP_ASSIGN_OR_RETURN(
        hierarchy.across,
        comm.Split(number < hierarchy.chunks ? number : -1, mine));
    return hierarchy;
  };
  SP_ASSIGN_OR_RETURN(Hierarchy * hierarchy,
                      comm.Attribute<Hierarchy>("all_reduce/hierarchy", make));
  return static_cast<const Hierarchy*>(hierarchy);
}

namespace {

// Groups of unequal size are served by cutting the vector into as many chunks
// as the smallest group has ranks. In larger groups the ranks beyond give their
// input and get the result, and stay out of the step across.
Status Hierarchical(const Communicator& comm, const Combine& combine,
                    const void* input, const AllReduceArgs& args) {
  SP_ASSIGN_OR_RETURN(const Hierarchy* hierarchy, GetHierarchy(comm));
  const Communicator& inside = hierarchy->inside;
  using Counts = std::vector<int64_t>;
  SP_ASSIGN_OR_RETURN(
      Counts * counts, inside.Attribute<Counts>("hierarchy/counts", [&inside] {
        return StatusOr<Counts>(Counts(static_cast<size_t>(inside.size())));
      }));
  for (int i = 0; i < hierarchy->chunks; ++i) {
    (*counts)[static_cast<size_t>(i)] =
        BalancedChunk(args.count, hierarchy->chunks, i).count;
  }
  const Blocks blocks = Blocks::Listed(*counts);
  void* mine = At(args.recv, args.dtype, blocks.Begin(inside.rank()));
  const int64_t count = blocks.Count(inside.rank());
  // Divided once, below: group averages of groups of unequal size would have to
  // be weighted.
  const bool scaled =
      args.op == ReduceOp::kAvg || args.op == ReduceOp::kPremulSum;
  const ReduceOp op = scaled ? ReduceOp::kSum : args.op;
  SP_RETURN_IF_ERROR(ReduceScatterVPairwise(inside, {.send = input,
                                                     .recv = mine,
                                                     .counts = *counts,
                                                     .dtype = args.dtype,
                                                     .op = op}));
  if (hierarchy->across.valid()) {
    const AllReduceArgs across = {.send = mine,
                                  .recv = mine,
                                  .count = count,
                                  .dtype = args.dtype,
                                  .op = op};
    SP_RETURN_IF_ERROR(
        count * SizeOf(args.dtype) < kRingAcrossBytes
            ? AllReduceRecursiveDoubling(hierarchy->across, across)
            : AllReduceRing(hierarchy->across, across));
    if (combine.divisor != 1) {
      const void* sum = mine;
      kernels::Reduce(args.dtype, op, {&sum, 1}, count, {&mine, 1},
                      {.divisor = combine.divisor});
    }
  }
  return AllGatherVRing(inside, {.send = mine,
                                 .recv = args.recv,
                                 .counts = *counts,
                                 .dtype = args.dtype});
}

}  // namespace

Status AllReduceHierarchical(const Communicator& comm,
                             const AllReduceArgs& args) {
  return RunAllReduce(comm, args, "all_reduce/hierarchical", Hierarchical);
}

}  // namespace shardproof
