// Uneven layouts for tests and cases of the v forms.
#ifndef SHARDPROOF_COLLECTIVES_UNEVEN_H_
#define SHARDPROOF_COLLECTIVES_UNEVEN_H_

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace shardproof {

// A count for each of `ranks` ranks: all different but for some zeros, the
// largest near `scale`. Another `turn` gives another assignment to ranks.
inline std::vector<int64_t> UnevenCounts(int ranks, int64_t scale,
                                         int turn = 0) {
  constexpr int64_t kSixths[] = {3, 0, 6, 1, 5, 0, 2};
  std::vector<int64_t> counts;
  for (int r = 0; r < ranks; ++r) {
    const int64_t part = kSixths[(r + turn) % 7] * scale / 6;
    counts.push_back(part > 0 ? part + r : 0);
  }
  return counts;
}

// Offsets for `counts` that leave gaps and put later ranks first.
inline std::vector<int64_t> GappedOffsets(std::span<const int64_t> counts) {
  std::vector<int64_t> offsets(counts.size());
  int64_t next = 1;
  for (size_t r = counts.size(); r-- > 0;) {
    offsets[r] = next;
    next += counts[r] + 2;
  }
  return offsets;
}

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_UNEVEN_H_
