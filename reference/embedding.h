// The embedding on one device, forward and backward, with bounds.
//
// Contract, with table [vocabulary, hidden], ids [tokens], all in [0,
// vocabulary), and dy [tokens, hidden]:
//
//   y[i]      = table[ids[i]]
//   dtable[k] = sum over i with ids[i] == k of dy[i]   (+ onto[k])
//
// Bounds: y is a copy, so its bound is 0. n terms of dtable are added in
// `accumulate` and rounded to `store` once:
//
//   worst = [(1 + u_acc)^(n-1) - 1] sum |terms| + u_store |dtable|
//
// (the second grown by the first), and 0 for one term, which is stored as it is, or none. `onto` is what another
// use of the table has left in its gradient (a tied output projection): one
// term more, with a bound of its own.
//
//   Matrix dtable = EmbeddingGrad(ids, dy, vocabulary,
//                                 Arithmetic::For(DType::kBF16));

#ifndef SHARDPROOF_REFERENCE_EMBEDDING_H_
#define SHARDPROOF_REFERENCE_EMBEDDING_H_

#include <cstdint>
#include <span>

#include "reference/bounded.h"
#include "reference/linear.h"
#include "reference/tensor.h"

namespace shardproof {

// y at the given tokens; empty: all.
Matrix EmbeddingForward(ConstTensorView table, std::span<const int64_t> ids,
                        const Rows& tokens = {});

// dtable at the given rows; empty: all of `vocabulary`. `onto`, if any, has the
// same rows.
Matrix EmbeddingGrad(std::span<const int64_t> ids, ConstTensorView dy,
                     int64_t vocabulary, const Arithmetic& a,
                     const Rows& rows = {}, const Matrix* onto = nullptr);

}  // namespace shardproof

#endif  // SHARDPROOF_REFERENCE_EMBEDDING_H_
