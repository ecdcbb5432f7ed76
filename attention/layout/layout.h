// How the tokens of a sequence are dealt to the ranks that share it.
//
// Contract, for n tokens over P ranks:
//
//   contiguous   rank r has the r-th of P consecutive parts; the first n mod P
//                parts have one token more
//   striped      rank r has the tokens r, r + P, r + 2P, ..
//   zigzag       of 2P consecutive chunks of c = n / 2P tokens rank r has the
//                chunks r and 2P - 1 - r, in this order; refused unless 2P
//                divides n: pad the sequence to PaddedLength, and let
//                cu_seqlens end at n, so that nobody sees the padding
//
// A rank's tokens are runs, in the order of its rows, and every token has one
// rank. What a rank has to do with causal attention, in pairs:
//
//   contiguous   r c^2 + c (c + 1) / 2, so that the last rank has 2P - 1 times
//                as much as the first, and a ring is P / (2P - 1) efficient
//   striped      nearly the same on each rank
//   zigzag       2P c^2 + c on every rank
//
//     const LayoutShape shape = {SequenceLayout::kZigzag, 8192, 8};
//     SP_ASSIGN_OR_RETURN(const std::vector<TokenRun> runs,
//                         RunsOf(shape, rank));
//     SP_RETURN_IF_ERROR(ShardRows(runs, all.view(), mine.view()));
//
// Sources: Liu et al., arXiv:2310.01889 (contiguous rings); Brandon et al.,
// arXiv:2311.09431 (striped); Llama 3, arXiv:2407.21783, section 3.3.2 (zigzag).
#ifndef SHARDPROOF_ATTENTION_LAYOUT_LAYOUT_H_
#define SHARDPROOF_ATTENTION_LAYOUT_LAYOUT_H_

#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "attention/visibility.h"
#include "reference/status.h"
#include "reference/tensor.h"

namespace shardproof {

enum class SequenceLayout : uint8_t { kContiguous, kStriped, kZigzag };
// "contiguous", "striped", "zigzag".
std::string_view Name(SequenceLayout layout);

struct LayoutShape {
  SequenceLayout layout = SequenceLayout::kContiguous;
  int64_t tokens = 0;
  int64_t ranks = 1;

  bool operator==(const LayoutShape&) const = default;
};

// kInvalidArgument for no ranks or fewer than no tokens, and for a zigzag whose
// chunks would not be equal, with the length to pad to.
Status CheckLayout(const LayoutShape& shape);
// Of two tensors that are used together: kInvalidArgument, saying what differs.
Status CheckSameLayout(const LayoutShape& a, const LayoutShape& b);
// The least number of tokens, not below shape.tokens, that all ranks have
// equally many of and that the layout takes.
int64_t PaddedLength(const LayoutShape& shape);

// The tokens of a rank; runs of no token are left out. kInvalidArgument for a
// rank that there is not, and what CheckLayout refuses.
StatusOr<std::vector<TokenRun>> RunsOf(const LayoutShape& shape, int64_t rank);

int64_t CountTokens(std::span<const TokenRun> runs);
// Of each row of a rank: what its rotary embedding turns by.
std::vector<int64_t> Positions(std::span<const TokenRun> runs);

// Rows of `all` [tokens, width] to those of a rank, `mine` [its tokens, width],
// and back; the rows of others stay as they are. kInvalidArgument for shapes or
// types that do not fit together, or runs beyond the end.
Status ShardRows(std::span<const TokenRun> runs, ConstTensorView all,
                 TensorView mine);
Status UnshardRows(std::span<const TokenRun> runs, ConstTensorView mine,
                   TensorView all);

// Mean over largest number of pairs of a rank, which is what no schedule can do
// better than where queries stay. 1 without any pair.
StatusOr<double> Balance(const LayoutShape& shape,
                         const Visibility& visibility);
// The same of a ring, whose ranks wait for one another in each of its P steps:
// in step t rank r has the keys of rank r - t.
//
//   (sum of all pairs / P) / sum over t of (max over r of pairs in step t)
StatusOr<double> RingEfficiency(const LayoutShape& shape,
                                const Visibility& visibility);

}  // namespace shardproof

#endif  // SHARDPROOF_ATTENTION_LAYOUT_LAYOUT_H_
