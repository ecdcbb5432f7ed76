#include "collectives/patterns/binomial.h"

#include "collectives/gather/message.h"
#include "collectives/kernels/copy.h"
#include "collectives/patterns/scratch.h"

namespace shardproof {
namespace {

// A rank collects its subtree in tree order, root first, in scratch memory. Two
// need none: a leaf, which only sends, and rank 0 as the root of packed blocks,
// for which tree order is the order of the result.
Status Binomial(const Communicator& comm, const GatherCall& call) {
  const void* const send = call.send;
  void* const recv = call.recv;
  const Blocks& blocks = call.blocks;
  const DType dtype = call.dtype;
  const int root = call.root;
  const int p = comm.size(), v = Rooted(root, p).Virtual(comm.rank());
  const TreeBlocks tree{blocks, root};
  if (SubtreeSize(v, p) == 1) {
    return BinomialGather(comm, dtype, root, tree, const_cast<void*>(send));
  }
  if (v == 0 && root == 0 && blocks.packed()) {
    return BinomialGather(comm, dtype, root, tree, recv);
  }
  SP_ASSIGN_OR_RETURN(std::byte * run,
                      Scratch(comm, ScratchSlot::kVector,
                              tree.Sum(v, v + SubtreeSize(v, p)), dtype));
  const auto bytes = [&](int rank) {
    return static_cast<size_t>(blocks.Count(rank) * SizeOf(dtype));
  };
  if (v != 0) kernels::Copy(run, send, bytes(comm.rank()));
  SP_RETURN_IF_ERROR(BinomialGather(comm, dtype, root, tree, run));
  for (int k = 1; v == 0 && k < p; ++k) {
    const int from = (root + k) % p;
    kernels::Copy(At(recv, dtype, blocks.Begin(from)),
                  At(run, dtype, tree.Sum(0, k)), bytes(from));
  }
  return OkStatus();
}

}  // namespace

Status GatherBinomial(const Communicator& comm, const GatherArgs& args) {
  return RunGather(comm, args, "gather/binomial", Binomial);
}

Status GatherVBinomial(const Communicator& comm, const GatherVArgs& args) {
  return RunGather(comm, args, "gather_v/binomial", Binomial);
}

}  // namespace shardproof
