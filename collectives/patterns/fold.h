// How algorithms for powers of two serve any number of ranks: the excess ranks
// fold into a neighbour, and a group of a power of two goes on.
//
// With p = power + excess, the first 2 * excess ranks form pairs (0, 1), (2,
// 3), ...; the even one stays and stands for both, the odd one folds away.
// Members of the group are numbered in rank order, so that a run of members
// stands for a run of ranks:
//
//     p = 6:   ranks    0 1 2 3 4 5      power 4, excess 2
//              members  0 . 1 . 2 3
//
// Rank 0 always stays, so a root that is (virtual) rank 0 is in the group.
#ifndef SHARDPROOF_COLLECTIVES_PATTERNS_FOLD_H_
#define SHARDPROOF_COLLECTIVES_PATTERNS_FOLD_H_

#include <bit>

namespace shardproof {

class Fold {
 public:
  explicit Fold(int ranks)
      : power_(static_cast<int>(std::bit_floor(static_cast<unsigned>(ranks)))),
        excess_(ranks - power_) {}

  int power() const { return power_; }
  int excess() const { return excess_; }
  // Whether `rank` has a partner at rank ^ 1 that folds away or stays.
  bool InPair(int rank) const { return rank < 2 * excess_; }
  bool FoldsAway(int rank) const { return InPair(rank) && rank % 2 == 1; }
  // The member that stands for `rank`.
  int MemberOf(int rank) const {
    return InPair(rank) ? rank / 2 : rank - excess_;
  }
  // The rank that member `member` is; the first rank it stands for. power()
  // gives the number of ranks.
  int RankOf(int member) const {
    return member < excess_ ? 2 * member : member + excess_;
  }

 private:
  int power_, excess_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_PATTERNS_FOLD_H_
