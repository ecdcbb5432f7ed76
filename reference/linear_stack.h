// A stack of linear layers on one device, and the gradients of its parameters
// from tokens that are shared out among ranks and micro-batches, with bounds.
//
// Contract, with x [tokens, n_0], prefix [n_0], w_l [n_(l+1), n_l], b_l
// [n_(l+1)] and dy [tokens, n_L]:
//
//   h_0 = x (+ prefix, for the first `prefixed` tokens)
//   h_(l+1) = h_l w_l^T + b_l          d_L = dy       d_l = d_(l+1) w_l
//   dw_l = d_(l+1)^T h_l               db_l = sum over tokens of d_(l+1)
//   dprefix = sum over the first `prefixed` tokens of d_0
//
// and every gradient divided by `divisor`, if that is above 0.
//
// Values do not depend on the parts. Bounds do: a rank adds up its micro-batches
// one after another and stores the sum each time; the ranks' sums are then added
// as `summed` says, and the quotient is rounded to `accumulate` and to `store`.
// With s_rm the stored sum of rank r after micro-batch m, of K_rm tokens:
//
//   worst = sum_r sum_m (gamma(K_rm, u_acc) |D_rm||H_rm| + (u_acc + u_store) |s_rm|)
//           + (q - 1) u_wire sum_r |s_r| + gamma(depth, u_reduce) sum_r |s_r|
//           + u_store |G|
//
// (q - 1: the first of the roundings to the wire's type is the store.)

#ifndef SHARDPROOF_REFERENCE_LINEAR_STACK_H_
#define SHARDPROOF_REFERENCE_LINEAR_STACK_H_

#include <cstdint>
#include <span>
#include <vector>

#include "reference/bounded.h"
#include "reference/linear.h"
#include "reference/tensor.h"

namespace shardproof {

struct LinearStackInputs {
  ConstTensorView x;
  ConstTensorView prefix;
  int64_t prefixed = 0;
  std::vector<ConstTensorView> w = {}, b = {};
  ConstTensorView dy;
};

// Parameters that are themselves only known to within a bound, as those of a
// model that has been trained for some steps: prefix [1, n_0], w_l, b_l [1,
// n_(l+1)].
struct LinearStackWeights {
  Matrix prefix;
  std::vector<Matrix> w, b;
};
LinearStackWeights ExactWeights(const LinearStackInputs& inputs);

// Tokens [begin, end).
struct TokenRange {
  int64_t begin = 0;
  int64_t end = 0;
};
// parts[r][m]: what rank r takes in micro-batch m.
using TokenParts = std::vector<std::vector<TokenRange>>;

// Each of rows x columns.
struct LinearStackGradients {
  Matrix prefix;               // [1, n_0]
  std::vector<Matrix> dw, db;  // [rows asked for, n_l], [1, n_(l+1)]
};

// The gradients of all parts together. `rows`, if not empty, are those of each
// dw to evaluate; an empty entry stands for all.
LinearStackGradients LinearStackReference(const LinearStackInputs& inputs,
                                          const TokenParts& parts,
                                          const Arithmetic& summed,
                                          double divisor,
                                          const std::vector<Rows>& rows = {});
// The same with weights that have bounds, instead of those of `inputs`; all rows.
// Errors of different elements may depend on each other here: likely bounds are
// sound as long as no sum has more than kFewRoundings terms, which are then all
// added linearly.
LinearStackGradients LinearStackReference(const LinearStackInputs& inputs,
                                          const LinearStackWeights& weights,
                                          const TokenParts& parts,
                                          const Arithmetic& summed,
                                          double divisor);
// The gradients of each rank alone: nothing is summed over ranks, or divided.
std::vector<LinearStackGradients> LinearStackPartials(
    const LinearStackInputs& inputs, const TokenParts& parts,
    const Arithmetic& local, const std::vector<Rows>& rows = {});

}  // namespace shardproof

#endif  // SHARDPROOF_REFERENCE_LINEAR_STACK_H_
