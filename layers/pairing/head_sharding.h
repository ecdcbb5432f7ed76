// How the weights of an attention lie on its ranks (attention_block.h). For
// case.cc files; nothing else includes this.
#ifndef SHARDPROOF_LAYERS_PAIRING_HEAD_SHARDING_H_
#define SHARDPROOF_LAYERS_PAIRING_HEAD_SHARDING_H_

#include <cstdint>

#include "tools/harness/sharding.h"

namespace shardproof {

// Rows of the fused weight, or elements of its bias: three intervals.
Sharding ByHead(int64_t heads, int64_t kv_heads, int64_t head_dim);
// Columns of the output projection.
Sharding ByQueryHead(int64_t heads, int64_t kv_heads, int64_t head_dim);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_PAIRING_HEAD_SHARDING_H_
