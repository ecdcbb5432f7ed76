// The cross entropy of a softmax on one device, forward and backward, with
// bounds.
//
// Contract, with x = logits[i, 0 .. vocabulary) of token i (columns beyond are
// padding, and count as -inf), m their maximum, d = x - m <= 0, and weights q_j =
// smoothing / vocabulary, plus 1 - smoothing at the target:
//
//   loss[i]    = log S - sum_j q_j d_j            S = sum_j exp(d_j)
//   mean       = sum of loss over the tokens that count / their number
//   dlogits_j  = (exp(d_j) / S - q_j) w           w = upstream / number, or
//                                                 upstream[i]
//
// A token whose target is ignore_index does not count: its loss and its row of
// dlogits are 0. Without any that counts, the mean is 0.
//
// Bounds, u that of `accumulate`. An implementation subtracts the maximum (of
// whatever part it looks at, rescaling sums up to `rescalings` times until all
// are against m), which costs u |d_j| in the exponent however often it is done,
// since the parts of d_j have one sign. So with f = function_ulps, k rescalings
// and n additions in any order, to first order:
//
//   S:    sum_j exp(d_j) u (|d_j| + f (1 + k) + k)  + gamma(n) S
//   log:  that over S, + f u log S
//   q d:  u (5 + 2k + depth) and, of the smoothing's part, gamma(n)
//   p_j:  p_j (u |d_j| + f u + relative error of S + 2u)
//
// numerics.md bounds lse - x_t absolutely, by u max|x|, because it cancels. Here
// nothing cancels: both terms of the loss are positive, and only differences to
// m occur, so bounds do not grow when a constant is added to all logits. p_j - q_j
// does cancel, and is bounded absolutely, by u of p_j and q_j.
//
//   CrossEntropyResult r = CrossEntropyReference(
//       {.logits = x, .targets = targets, .vocabulary = 50257,
//        .upstream = dmean}, Arithmetic::For(DType::kBF16), {.tokens = rows});

#ifndef SHARDPROOF_REFERENCE_CROSS_ENTROPY_H_
#define SHARDPROOF_REFERENCE_CROSS_ENTROPY_H_

#include <cstdint>
#include <span>
#include <vector>

#include "reference/bounded.h"
#include "reference/linear.h"
#include "reference/tensor.h"

namespace shardproof {

struct CrossEntropyInputs {
  ConstTensorView logits;            // [tokens, columns], columns >= vocabulary
  std::span<const int64_t> targets;  // [tokens]
  int64_t vocabulary = 0;
  int64_t ignore_index = -100;
  double smoothing = 0;
  // One element: of the mean. As many as tokens: of each loss.
  ConstTensorView upstream;
  bool per_token = false;
};

struct CrossEntropySamples {
  Rows tokens = {};  // Of dlogits.
  // How often the implementation rescales a sum to a larger maximum.
  int rescalings = 1;
};

struct CrossEntropyResult {
  std::vector<Bounded> loss;  // Of every token: the mean needs them.
  Bounded mean;
  Matrix dlogits;  // tokens x columns
};

CrossEntropyResult CrossEntropyReference(
    const CrossEntropyInputs& inputs, const Arithmetic& a,
    const CrossEntropySamples& samples = {});

}  // namespace shardproof

#endif  // SHARDPROOF_REFERENCE_CROSS_ENTROPY_H_
