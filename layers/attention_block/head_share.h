// Which heads of an attention a rank has.
//
// H query heads are cut into whole heads, BalancedChunk(H, t, r) for rank r of
// t, and every query head takes its KV head with it: head h uses KV head h /
// (H / G). Where G is a multiple of t, each rank has G / t of its own; where
// there are fewer KV heads than ranks, each is held by all the ranks that use
// it; and where a rank's heads end inside a group, the KV head at the border is
// held by both of its neighbours:
//
//     H = 12, G = 4, t = 5    heads 3 3 2 2 2    KV heads {0} {1} {2} {2 3} {3}
//
// A KV head that several ranks hold has the same weights on each of them, and
// its gradient is the sum of theirs. At most the first and the last KV head of a
// rank are shared, and ranks that share one are neighbours.
//
//     const HeadShare own = HeadShare::Of(heads, kv_heads, ranks, rank);
#ifndef SHARDPROOF_LAYERS_ATTENTION_BLOCK_HEAD_SHARE_H_
#define SHARDPROOF_LAYERS_ATTENTION_BLOCK_HEAD_SHARE_H_

#include <cstdint>
#include <vector>

#include "collectives/chunks.h"

namespace shardproof {

struct HeadShare {
  Chunk heads;
  Chunk kv_heads;

  // heads >= ranks, and a multiple of kv_heads.
  static HeadShare Of(int64_t heads, int64_t kv_heads, int64_t ranks,
                      int64_t rank) {
    const int64_t group = heads / kv_heads;
    HeadShare share;
    share.heads = BalancedChunk(heads, ranks, rank);
    share.kv_heads.begin = share.heads.begin / group;
    share.kv_heads.count = (share.heads.begin + share.heads.count - 1) / group +
                           1 - share.kv_heads.begin;
    return share;
  }

  bool Holds(int64_t kv_head) const {
    return kv_head >= kv_heads.begin &&
           kv_head < kv_heads.begin + kv_heads.count;
  }
  // Rows of its part of a fused QKV weight, in heads.
  int64_t FusedHeads() const { return heads.count + 2 * kv_heads.count; }
};

// A KV head that several ranks hold, [first, first + count) of them, count >= 2.
struct SharedKvHead {
  int64_t kv_head = 0;
  Chunk ranks;
};

// All of them, ascending.
inline std::vector<SharedKvHead> SharedKvHeads(int64_t heads, int64_t kv_heads,
                                               int64_t ranks) {
  std::vector<SharedKvHead> shared;
  for (int64_t g = 0; g < kv_heads; ++g) {
    SharedKvHead head{.kv_head = g, .ranks = {}};
    for (int64_t r = 0; r < ranks; ++r) {
      if (!HeadShare::Of(heads, kv_heads, ranks, r).Holds(g)) continue;
      if (head.ranks.count == 0) head.ranks.begin = r;
      ++head.ranks.count;
    }
    if (head.ranks.count > 1) shared.push_back(head);
  }
  return shared;
}

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_ATTENTION_BLOCK_HEAD_SHARE_H_
