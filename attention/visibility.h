// Which query sees which key, where both are parts of a longer sequence.
//
// Contract: tokens of a part are runs, token i of a run at the position
//
//     position(i) = offset + i stride
//
// of the whole sequence: contiguous parts have stride 1, striped ones the number
// of ranks, zigzag ones are two contiguous runs. The query at position p sees
// the key at position j if and only if
//
//     j <= p            if causal
//     j > p - window    if window > 0
//     j and p are of one document: no element c of cu_seqlens has
//                       min(j, p) < c <= max(j, p)
//
// so the keys that a query sees are an interval of positions, and of the tokens
// of a run too, which moves forward with the query:
//
//     const TokenRun mine = {.offset = 4096, .count = 1024};
//     const IndexRange seen = KeysSeen({.causal = true}, 4100, mine);  // [0, 5)
//
// Rejected: masks of queries x keys elements, which are not linear in the
// sequence; a diagonal, which cannot say what a striped layout is.
//
// Sources: Beltagy et al., arXiv:2004.05150 (windows); Brandon et al.,
// arXiv:2311.09431 (striped); Krell et al., arXiv:2107.02027 (packing).
#ifndef SHARDPROOF_ATTENTION_VISIBILITY_H_
#define SHARDPROOF_ATTENTION_VISIBILITY_H_

#include <cstdint>
#include <span>
#include <vector>

#include "reference/status.h"

namespace shardproof {

// stride >= 1, offset and count >= 0.
struct TokenRun {
  int64_t offset = 0;
  int64_t stride = 1;
  int64_t count = 0;

  int64_t Position(int64_t i) const { return offset + i * stride; }
  bool operator==(const TokenRun&) const = default;
};

struct Visibility {
  bool causal = false;
  int64_t window = 0;  // Keys behind and with the query itself; 0: all.
  // Where documents begin, and the end of the last: 0, .., length, increasing.
  // Empty: one document without an end. Tokens from the end on are of none,
  // and see nothing.
  std::vector<int64_t> cu_seqlens = {};
};

// [first, last); empty where first == last.
struct IndexRange {
  int64_t first = 0;
  int64_t last = 0;

  int64_t size() const { return last - first; }
  bool operator==(const IndexRange&) const = default;
};

// kInvalidArgument, saying where, unless cu_seqlens is empty or begins with 0,
// increases (a document has a token) and ends with `length`; for a negative
// window.
Status CheckVisibility(const Visibility& visibility, int64_t length);
// kInvalidArgument for a run with a stride below 1, or a negative offset or
// count.
Status CheckRun(const TokenRun& run);

// The tokens of `keys` that the query at `position` sees. Neither end of the
// range decreases as the position increases. O(log documents).
IndexRange KeysSeen(const Visibility& visibility, int64_t position,
                    const TokenRun& keys);

// How many pairs of a query and a key that it sees: the work of a block, of
// which attention does 4 head_dim operations a pair forward and 10 backward.
int64_t CountPairs(const Visibility& visibility, const TokenRun& queries,
                   const TokenRun& keys);
// The same over every query run with every key run.
int64_t CountPairs(const Visibility& visibility,
                   std::span<const TokenRun> queries,
                   std::span<const TokenRun> keys);

}  // namespace shardproof

#endif  // SHARDPROOF_ATTENTION_VISIBILITY_H_
