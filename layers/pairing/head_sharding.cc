#include "layers/pairing/head_sharding.h"

#include <utility>
#include <vector>

#include "layers/attention_block/head_share.h"

namespace shardproof {
namespace {

Interval Elements(int64_t begin, const Chunk& heads, int64_t head_dim) {
  return {(begin + heads.begin) * head_dim,
          (begin + heads.begin + heads.count) * head_dim};
}

}  // namespace

Sharding ByHead(int64_t heads, int64_t kv_heads, int64_t head_dim) {
  return ShardBy(
      "heads of Q, K and V", [=](const Shape& global, int rank, int ranks) {
        const HeadShare own = HeadShare::Of(heads, kv_heads, ranks, rank);
        std::vector<std::vector<Interval>> ranges = {
            {Elements(0, own.heads, head_dim),
             Elements(heads, own.kv_heads, head_dim),
             Elements(heads + kv_heads, own.kv_heads, head_dim)}};
        if (global.rank() == 2) ranges.push_back({{0, global[1]}});
        return MakeBlock(std::move(ranges));
      });
}

Sharding ByQueryHead(int64_t heads, int64_t kv_heads, int64_t head_dim) {
  return ShardBy("heads of Q", [=](const Shape& global, int rank, int ranks) {
    const HeadShare own = HeadShare::Of(heads, kv_heads, ranks, rank);
    return MakeBlock({{{0, global[0]}}, {Elements(0, own.heads, head_dim)}});
  });
}

}  // namespace shardproof
