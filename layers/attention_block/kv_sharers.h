// The groups of ranks that hold the same KV head (head_share.h), for the sums of
// its gradients.
//
//     SP_ASSIGN_OR_RETURN(const std::vector<KvSharers> all,
//                         FindKvSharers(comm, heads, kv_heads));
//     for (const KvSharers& sharers : all) {
//       ... all_reduce of the gradient of sharers.local_kv_head
//           over sharers.comm ...
//     }
#ifndef SHARDPROOF_LAYERS_ATTENTION_BLOCK_KV_SHARERS_H_
#define SHARDPROOF_LAYERS_ATTENTION_BLOCK_KV_SHARERS_H_

#include <cstdint>
#include <vector>

#include "collectives/communicator.h"
#include "reference/status.h"

namespace shardproof {

struct KvSharers {
  Communicator comm;
  int64_t local_kv_head = 0;  // Among those of this rank.
};

// Collective; heads >= ranks, and a multiple of kv_heads. Those that this rank is
// in, in the order of KV heads, at most two. All ranks that sum in this order
// wait for one another in no circle.
StatusOr<std::vector<KvSharers>> FindKvSharers(const Communicator& comm,
                                               int64_t heads, int64_t kv_heads);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_ATTENTION_BLOCK_KV_SHARERS_H_
