// The linear layer on one device, forward and backward, in double and with
// bounds.
//
// Contract, with x [tokens, in], w [out, in] (PyTorch's layout), b [out] and
// dy [tokens, out]:
//
//   y = x w^T + b      dx = dy w      dw = dy^T x      db = sum_tokens dy
//
// Bounds, for an Arithmetic a and K terms in t = a.partials contiguous parts of
// K_r terms, A_r, B_r the operands' parts and s_r the partial results:
//
//   worst = sum_r gamma(K_r, u_acc) |A_r||B_r| + q u_wire sum_r |s_r|
//           + gamma(depth, u_reduce) sum_r |s_r| + u_store |Y|
//
// each grown by the roundings that follow it. The likely bound replaces
// gamma(K_r, u) by lambda sqrt(K_r) u. A bias is added after y was stored and
// the sum stored again: u_store (|Y| + |b|) more. q = a.WireRoundings(): on a
// ring a partial sum is rounded to the wire's type at each hop.
//
// Results may be sampled: a few rows of y cost rows * out * in instead of
// tokens * out * in.
//
//   Matrix y = LinearForward({x, w, b}, Arithmetic::For(DType::kBF16),
//                            /*tokens=*/{0, 17, 511});
//   y.at(1, j)  // token 17, output j

#ifndef SHARDPROOF_REFERENCE_LINEAR_H_
#define SHARDPROOF_REFERENCE_LINEAR_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "reference/bounded.h"
#include "reference/dtype.h"
#include "reference/tensor.h"

namespace shardproof {

// Sampled rows of a matrix of Bounded, in the order asked for.
struct Matrix {
  std::vector<int64_t> rows;  // row indices in the full matrix
  int64_t cols = 0;
  std::vector<Bounded> values;  // [rows.size(), cols]

  const Bounded& at(int64_t i, int64_t j) const { return values[i * cols + j]; }
  Bounded& at(int64_t i, int64_t j) { return values[i * cols + j]; }
  std::span<const Bounded> row(int64_t i) const {
    return {values.data() + i * cols, static_cast<size_t>(cols)};
  }
};

// A matrix as a reference takes it: exact numbers in a tensor, or all rows of a
// result with its bounds, for layers made of several.
//
//   LinearWeightGrad(dy.view(), LinearForward({x, w}, a), a)
//
// A view: what it was made of must outlive it.
class BoundedView {
 public:
  BoundedView() = default;
  BoundedView(ConstTensorView exact)  // NOLINT(google-explicit-constructor)
      : exact_(exact) {}
  BoundedView(TensorView exact)  // NOLINT(google-explicit-constructor)
      : exact_(exact) {}
  BoundedView(const Matrix& bounded)  // NOLINT(google-explicit-constructor)
      : bounded_(&bounded) {}

  int64_t rows() const {
    return bounded_ != nullptr ? static_cast<int64_t>(bounded_->rows.size())
                               : exact_.shape[0];
  }
  int64_t cols() const {
    return bounded_ != nullptr ? bounded_->cols : exact_.shape[1];
  }
  // Null where the numbers are exact.
  const Matrix* bounded() const { return bounded_; }
  const ConstTensorView& exact() const { return exact_; }

 private:
  ConstTensorView exact_;
  const Matrix* bounded_ = nullptr;
};

// Which rows to evaluate; empty: all.
using Rows = std::vector<int64_t>;
// `n` rows out of `total`, the first and the last among them, the rest spread
// by the seed; all when n >= total.
Rows SampleRows(int64_t total, int64_t n, uint64_t seed);

struct LinearInputs {
  BoundedView x;                          // [tokens, in]
  ConstTensorView w;                      // [out, in]
  std::optional<ConstTensorView> b = {};  // [out]
};

// y at the given tokens.
Matrix LinearForward(const LinearInputs& inputs, const Arithmetic& a,
                     const Rows& tokens = {});
// dx at the given tokens.
Matrix LinearInputGrad(const BoundedView& dy, ConstTensorView w,
                       const Arithmetic& a, const Rows& tokens = {});
// dw at the given outputs (rows of w).
Matrix LinearWeightGrad(const BoundedView& dy, const BoundedView& x,
                        const Arithmetic& a, const Rows& outputs = {});
// db, one row of `out` columns.
Matrix LinearBiasGrad(const BoundedView& dy, const Arithmetic& a);

}  // namespace shardproof

#endif  // SHARDPROOF_REFERENCE_LINEAR_H_
