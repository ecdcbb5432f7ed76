#include "layers/attention_block/kv_sharers.h"

#include <algorithm>
#include <utility>

#include "layers/attention_block/head_share.h"

namespace shardproof {

// A rank is in the groups of two shared heads at most, which follow one another:
// those with even numbers are groups that do not overlap, and so are those with
// odd ones.
StatusOr<std::vector<KvSharers>> FindKvSharers(const Communicator& comm,
                                               int64_t heads,
                                               int64_t kv_heads) {
  const HeadShare share =
      HeadShare::Of(heads, kv_heads, comm.size(), comm.rank());
  const std::vector<SharedKvHead> shared =
      SharedKvHeads(heads, kv_heads, comm.size());
  std::vector<KvSharers> sharers;
  for (size_t parity = 0; parity < std::min<size_t>(2, shared.size());
       ++parity) {
    int color = -1;
    for (size_t i = parity; i < shared.size(); i += 2) {
      if (share.Holds(shared[i].kv_head)) color = static_cast<int>(i);
    }
    SP_ASSIGN_OR_RETURN(Communicator group, comm.Split(color, comm.rank()));
    if (color < 0) continue;
    sharers.push_back(
        {.comm = std::move(group),
         .local_kv_head = shared[static_cast<size_t>(color)].kv_head -
                          share.kv_heads.begin});
  }
  std::sort(sharers.begin(), sharers.end(),
            [](const KvSharers& a, const KvSharers& b) {
              return a.local_kv_head < b.local_kv_head;
            });
  return sharers;
}

}  // namespace shardproof
