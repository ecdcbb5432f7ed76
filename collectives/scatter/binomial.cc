#include "collectives/patterns/binomial.h"

#include "collectives/kernels/copy.h"
#include "collectives/patterns/scratch.h"
#include "collectives/scatter/message.h"

namespace shardproof {
namespace {

// A rank holds the blocks of its subtree in tree order, its own first, in
// scratch memory. Two need none: a leaf, which only receives, and rank 0 as the
// root of packed blocks, which lie in tree order already.
Status Binomial(const Communicator& comm, const ScatterCall& call) {
  const auto& [send, recv, blocks, dtype, root] = call;
  const int p = comm.size(), v = Rooted(root, p).Virtual(comm.rank());
  const TreeBlocks tree{blocks, root};
  if (v != 0 && SubtreeSize(v, p) == 1) {
    return BinomialScatter(comm, dtype, root, tree, recv);
  }
  if (v == 0 && root == 0 && blocks.packed()) {
    // The root only sends from its run.
    return BinomialScatter(comm, dtype, root, tree, const_cast<void*>(send));
  }
  SP_ASSIGN_OR_RETURN(std::byte * run,
                      Scratch(comm, ScratchSlot::kVector,
                              tree.Sum(v, v + SubtreeSize(v, p)), dtype));
  const auto bytes = [&blocks = blocks, dtype = dtype](int rank) {
    return static_cast<size_t>(blocks.Count(rank) * SizeOf(dtype));
  };
  for (int k = 1; v == 0 && k < p; ++k) {
    const int to = (root + k) % p;
    kernels::Copy(At(run, dtype, tree.Sum(0, k)),
                  At(send, dtype, blocks.Begin(to)), bytes(to));
  }
  SP_RETURN_IF_ERROR(BinomialScatter(comm, dtype, root, tree, run));
  if (v != 0) kernels::Copy(recv, run, bytes(comm.rank()));
  return OkStatus();
}

}  // namespace

Status ScatterBinomial(const Communicator& comm, const ScatterArgs& args) {
  return RunScatter(comm, args, "scatter/binomial", Binomial);
}

Status ScatterVBinomial(const Communicator& comm, const ScatterVArgs& args) {
  return RunScatter(comm, args, "scatter_v/binomial", Binomial);
}

}  // namespace shardproof
