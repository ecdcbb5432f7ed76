// Recursive halving and doubling over a group of a power of two: after lg P
// exchanges with partners at distance P/2, P/4, ..., 1 each member holds its
// region of the reduced vector; after lg P exchanges at distance 1, 2, ..., P/2
// each member holds all regions. (Thakur, Rabenseifner and Gropp, IJHPCA 19(1),
// 2005, section 4.) Excess ranks: fold.h.
#ifndef SHARDPROOF_COLLECTIVES_PATTERNS_HALVING_H_
#define SHARDPROOF_COLLECTIVES_PATTERNS_HALVING_H_

#include "collectives/chunks.h"
#include "collectives/communicator.h"
#include "collectives/patterns/binomial.h"
#include "collectives/patterns/fold.h"
#include "collectives/patterns/reducing_exchange.h"
#include "collectives/traffic.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof {

// The part of a vector that each member of a fold owns, and the ranks that
// take part, seen from a root.
class Regions {
 public:
  // A balanced cut of `count` elements among the members.
  static Regions Balanced(int ranks, int64_t count, int root = 0) {
    const Fold fold(ranks);
    return Regions(fold, Blocks::Balanced(count, fold.power()), false, root,
                   ranks);
  }
  // One block per rank, packed: a member owns those of the ranks it stands for.
  static Regions OfRanks(const Blocks& blocks) {
    return Regions(Fold(blocks.parts()), blocks, true, 0, blocks.parts());
  }

  const Fold& fold() const { return fold_; }
  int Virtual(int rank) const { return rooted_.Virtual(rank); }
  int Real(int v) const { return rooted_.Real(v); }
  // The communicator's rank that member `member` is.
  int RealMember(int member) const { return Real(fold_.RankOf(member)); }
  // The elements of members [first, last).
  Chunk Run(int first, int last) const {
    const int64_t begin = Begin(first);
    return {begin, Begin(last) - begin};
  }
  // Additions on the path of one contribution to a region: one per halving, and
  // one for folding.
  int Additions() const {
    return CeilLog2(fold_.power()) + (fold_.excess() > 0 ? 1 : 0);
  }
  int64_t Total() const { return Begin(fold_.power()); }

 private:
  Regions(const Fold& fold, const Blocks& blocks, bool of_ranks, int root,
          int ranks)
      : fold_(fold),
        blocks_(blocks),
        of_ranks_(of_ranks),
        rooted_(root, ranks) {}
  int64_t Begin(int member) const {
    return blocks_.Begin(of_ranks_ ? fold_.RankOf(member) : member);
  }

  Fold fold_;
  Blocks blocks_;
  bool of_ranks_;
  Rooted rooted_;
};

// Folds, then halves: afterwards a member's region of `vector` holds the
// finished reduction of all ranks' `send`. The rest of its `vector` is
// undefined. Ranks that fold away send and are done. `vector` may be `send`.
Status HalvingReduceScatter(const Communicator& comm, const Combine& combine,
                            const Regions& regions, const void* send,
                            void* vector);

// Members bring their region of `vector` and end with all of it. Ranks that
// fold away return at once; see Unfold.
Status DoublingAllGather(const Communicator& comm, DType dtype,
                         const Regions& regions, void* vector);

// Folding alone: adds the `send` of the rank that folds away to that of its
// partner, into the partner's `vector`. True where `vector` was written.
StatusOr<bool> FoldIn(const Communicator& comm, const Combine& combine,
                      const Regions& regions, const void* send, void* vector);

// Members hand all of `vector` to the rank they stand for.
Status Unfold(const Communicator& comm, DType dtype, const Regions& regions,
              void* vector);

// Each includes what its function does; HalvingReduceScatterCost that of
// FoldIn.
Cost HalvingReduceScatterCost(const Regions& regions, DType dtype);
Cost DoublingAllGatherCost(const Regions& regions, DType dtype);
Cost FoldInCost(const Regions& regions, DType dtype);
Cost UnfoldCost(const Regions& regions, DType dtype);

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_PATTERNS_HALVING_H_
