// The binomial tree over p ranks, rank 0 its root: the parent of v is v without
// its lowest set bit, and v's subtree is the run [v, v + SubtreeSize(v)).
//
//     p = 6:     0 - 1            depth ceil(lg p)
//                0 - 2 - 3
//                0 - 4 - 5
//
// Trees with another root use virtual ranks v = (rank - root) mod p.
#ifndef SHARDPROOF_COLLECTIVES_PATTERNS_BINOMIAL_H_
#define SHARDPROOF_COLLECTIVES_PATTERNS_BINOMIAL_H_

#include <algorithm>
#include <bit>

#include "collectives/chunks.h"
#include "collectives/communicator.h"
#include "collectives/traffic.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof {

// ceil(lg ranks); 0 for one rank.
inline int CeilLog2(int ranks) {
  return std::bit_width(static_cast<unsigned>(ranks) - 1);
}

// v's lowest set bit; for the root, the least power of two that is at least p.
// Its children are v + 1, v + 2, v + 4, ... below v + Reach(v) and below p.
inline int Reach(int v, int ranks) {
  return v == 0 ? 1 << CeilLog2(ranks) : v & -v;
}
inline int Parent(int v) { return v & (v - 1); }
inline int SubtreeSize(int v, int ranks) {
  return std::min(Reach(v, ranks), ranks - v);
}

// Ranks as seen from the root of a tree.
class Rooted {
 public:
  Rooted(int root, int ranks) : root_(root), ranks_(ranks) {}
  int Virtual(int rank) const { return (rank - root_ + ranks_) % ranks_; }
  int Real(int v) const { return (v + root_) % ranks_; }

 private:
  int root_, ranks_;
};

// Blocks in the order of a tree: that of virtual rank v is block (first + v)
// mod p of `blocks`.
struct TreeBlocks {
  Blocks blocks;
  int first = 0;

  // Elements of virtual ranks [begin, end).
  int64_t Sum(int begin, int end) const {
    int64_t sum = 0;
    for (int v = begin; v < end; ++v) {
      sum += blocks.Count((first + v) % blocks.parts());
    }
    return sum;
  }
};

// Down the tree: the `run` of the root holds all blocks, in tree order; every
// other rank's gets the blocks of its subtree.
Status BinomialScatter(const Communicator& comm, DType dtype, int root,
                       const TreeBlocks& blocks, void* run);
// Up the tree: the `run` of every rank starts with its own block and ends with
// those of its subtree.
Status BinomialGather(const Communicator& comm, DType dtype, int root,
                      const TreeBlocks& blocks, void* run);
// Of either.
Cost BinomialRunsCost(const TreeBlocks& blocks, DType dtype);

// The cost of a binomial tree whose every edge carries `edge`.
Cost BinomialCost(int ranks, const Traffic& edge);

// For comparison: the root sends to, or receives from, every other rank itself.
Cost LinearCost(const Blocks& blocks, DType dtype, int root);

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_PATTERNS_BINOMIAL_H_
