// What goes around, for schemes whose ranks all have all heads, and how often
// results are merged.
#include "attention/sharded/rotating_attention.h"

namespace shardproof {

int64_t RotationMerges(const RotationConfig& config) {
  size_t parts = 0;
  for (const std::vector<TokenRun>& runs : config.runs) parts += runs.size();
  return static_cast<int64_t>(parts);
}

RotationConfig RotationOver(int64_t ranks, const ShardedAttentionConfig& c,
                            RingMode mode) {
  return {.shape = {.sequences = c.sequences,
                    .heads = c.heads,
                    .kv_heads = c.kv_heads,
                    .heads_per_kv = c.heads_per_kv(),
                    .head_dim = c.head_dim,
                    .scale = c.Scale(),
                    .dtype = c.dtype,
                    .backward = c.backward},
          .visibility = c.visibility,
          .runs = RunsOfRanks(c.LayoutOver(ranks)),
          .mode = mode};
}

}  // namespace shardproof
