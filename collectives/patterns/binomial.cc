#include "collectives/patterns/binomial.h"

#include "collectives/patterns/reducing_exchange.h"
#include "collectives/patterns/requests.h"

namespace shardproof {

// The farthest child has the largest subtree and is served first: its part of
// the tree has the longest way to go.
Status BinomialScatter(const Communicator& comm, DType dtype, int root,
                       const TreeBlocks& blocks, void* run) {
  const int p = comm.size();
  const Rooted rooted(root, p);
  const int v = rooted.Virtual(comm.rank());
  if (v != 0) {
    const int64_t count = blocks.Sum(v, v + SubtreeSize(v, p));
    SP_RETURN_IF_ERROR(
        comm.Recv(run, count * SizeOf(dtype), rooted.Real(Parent(v))));
  }
  Requests sends(comm);
  for (int mask = Reach(v, p) / 2; mask >= 1; mask /= 2) {
    const int child = v + mask;
    if (child >= p) continue;
    const int64_t count = blocks.Sum(child, child + SubtreeSize(child, p));
    SP_RETURN_IF_ERROR(
        sends.Add(comm.Isend(At(run, dtype, blocks.Sum(v, child)),
                             count * SizeOf(dtype), rooted.Real(child))));
  }
  return sends.WaitAll();
}

Status BinomialGather(const Communicator& comm, DType dtype, int root,
                      const TreeBlocks& blocks, void* run) {
  const int p = comm.size();
  const Rooted rooted(root, p);
  const int v = rooted.Virtual(comm.rank());
  Requests receives(comm);
  for (int mask = 1; mask < Reach(v, p) && v + mask < p; mask *= 2) {
    const int child = v + mask;
    const int64_t count = blocks.Sum(child, child + SubtreeSize(child, p));
    SP_RETURN_IF_ERROR(
        receives.Add(comm.Irecv(At(run, dtype, blocks.Sum(v, child)),
                                count * SizeOf(dtype), rooted.Real(child))));
  }
  SP_RETURN_IF_ERROR(receives.WaitAll());
  if (v == 0) return OkStatus();
  const int64_t count = blocks.Sum(v, v + SubtreeSize(v, p));
  return comm.Send(run, count * SizeOf(dtype), rooted.Real(Parent(v)));
}

namespace {

// In the step of each distance, all edges of that length are used at once.
template <class Edge>
Cost TreeCost(int ranks, const Edge& edge) {
  Cost cost;
  for (int mask = 1; mask < ranks; mask *= 2) {
    Traffic largest;
    for (int v = mask; v < ranks; v += 2 * mask) {
      const Traffic traffic = edge(v);
      cost.total += traffic;
      if (traffic.bytes >= largest.bytes) largest = traffic;
    }
    cost.alpha_count += static_cast<double>(largest.messages);
    cost.beta_bytes += static_cast<double>(largest.bytes);
  }
  return cost;
}

}  // namespace

Cost BinomialRunsCost(const TreeBlocks& blocks, DType dtype) {
  const int p = blocks.blocks.parts();
  return TreeCost(p, [&](int v) {
    return InOneMessage(blocks.Sum(v, v + SubtreeSize(v, p)), dtype);
  });
}

Cost BinomialCost(int ranks, const Traffic& edge) {
  return TreeCost(ranks, [&](int) { return edge; });
}

Cost LinearCost(const Blocks& blocks, DType dtype, int root) {
  Cost cost;
  for (int r = 0; r < blocks.parts(); ++r) {
    if (r != root) cost.total += InOneMessage(blocks.Count(r), dtype);
  }
  cost.alpha_count = static_cast<double>(cost.total.messages);
  cost.beta_bytes = static_cast<double>(cost.total.bytes);
  return cost;
}

}  // namespace shardproof
