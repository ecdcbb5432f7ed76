// What pattern do the wrong elements form? Internal to the comparison.
//
// Contract: each hypothesis ("rank 3 missing", "chunk 2 holds chunk 5", ..)
// predicts a value for every wrong element. In each chunk, the first hypothesis
// that predicts nine in ten of the sampled wrong elements is taken; equal
// findings of neighbouring chunks are merged:
//
//   "rank 3 counted twice in chunks 4 to 7"

#ifndef SHARDPROOF_REFERENCE_DIAGNOSE_H_
#define SHARDPROOF_REFERENCE_DIAGNOSE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "reference/compare.h"

namespace shardproof::internal {

struct WrongElement {
  int64_t index;
  double actual;
  double expected;
  double worst;  // bound of an honest error; 0 in the exact tier
  bool poison;
};

// Closed-open intervals of wrong elements, merged; the last one swallows all
// that follows once there are kMaxRanges.
struct WrongRange {
  int64_t begin;
  int64_t end;
};
inline constexpr size_t kMaxRanges = 1024;

std::string Diagnose(const ComparisonOptions& options,
                     const std::vector<WrongElement>& sample,
                     const std::vector<WrongRange>& ranges, int64_t wrong);

}  // namespace shardproof::internal

#endif  // SHARDPROOF_REFERENCE_DIAGNOSE_H_
