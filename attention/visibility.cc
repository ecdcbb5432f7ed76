#include "attention/visibility.h"

#include <algorithm>
#include <limits>

namespace shardproof {
namespace {

constexpr int64_t kEnd = std::numeric_limits<int64_t>::max();

// The document of a position, as positions; empty where there is none.
IndexRange DocumentOf(const Visibility& visibility, int64_t position) {
  const std::vector<int64_t>& cu = visibility.cu_seqlens;
  if (cu.empty()) return {0, kEnd};
  const auto next = std::upper_bound(cu.begin(), cu.end(), position);
  // Empty beyond the last end too, and not before it, so that ranges move
  // forward only.
  if (next == cu.end()) return {cu.back(), cu.back()};
  if (next == cu.begin()) return {cu.front(), cu.front()};
  return {*(next - 1), *next};
}

// How many tokens of the run are before `position`.
int64_t TokensBefore(const TokenRun& run, int64_t position) {
  if (position <= run.offset) return 0;
  const int64_t distance = position - run.offset;
  const int64_t tokens =
      distance / run.stride + (distance % run.stride != 0 ? 1 : 0);
  return std::min(tokens, run.count);
}

}  // namespace

Status CheckVisibility(const Visibility& visibility, int64_t length) {
  if (visibility.window < 0) {
    return InvalidArgument("a window of {} keys; 0 is none", visibility.window);
  }
  const std::vector<int64_t>& cu = visibility.cu_seqlens;
  if (cu.empty()) return OkStatus();
  if (cu.front() != 0) {
    return InvalidArgument("cu_seqlens begins with {}, not with 0", cu.front());
  }
  for (size_t i = 1; i < cu.size(); ++i) {
    if (cu[i] == cu[i - 1]) {
      return InvalidArgument(
          "document {} of cu_seqlens, at {}, has no tokens: leave it out",
          i - 1, cu[i]);
    }
    if (cu[i] < cu[i - 1]) {
      return InvalidArgument(
          "cu_seqlens is out of order: element {} is {} and element {} is {}",
          i - 1, cu[i - 1], i, cu[i]);
    }
  }
  if (cu.back() != length) {
    return InvalidArgument(
        "cu_seqlens ends with {}, but the sequence has {} tokens", cu.back(),
        length);
  }
  return OkStatus();
}

Status CheckRun(const TokenRun& run) {
  if (run.stride < 1 || run.offset < 0 || run.count < 0) {
    return InvalidArgument(
        "{} tokens from {} on by steps of {} are no part of a sequence",
        run.count, run.offset, run.stride);
  }
  return OkStatus();
}

IndexRange KeysSeen(const Visibility& visibility, int64_t position,
                    const TokenRun& keys) {
  IndexRange seen = DocumentOf(visibility, position);
  if (visibility.window > 0) {
    seen.first = std::max(seen.first, position - visibility.window + 1);
  }
  if (visibility.causal) seen.last = std::min(seen.last, position + 1);
  const int64_t first = TokensBefore(keys, seen.first);
  return {first, std::max(first, TokensBefore(keys, seen.last))};
}

int64_t CountPairs(const Visibility& visibility, const TokenRun& queries,
                   const TokenRun& keys) {
  int64_t pairs = 0;
  for (int64_t i = 0; i < queries.count; ++i) {
    pairs += KeysSeen(visibility, queries.Position(i), keys).size();
  }
  return pairs;
}

int64_t CountPairs(const Visibility& visibility,
                   std::span<const TokenRun> queries,
                   std::span<const TokenRun> keys) {
  int64_t pairs = 0;
  for (const TokenRun& q : queries) {
    for (const TokenRun& k : keys) pairs += CountPairs(visibility, q, k);
  }
  return pairs;
}

}  // namespace shardproof
