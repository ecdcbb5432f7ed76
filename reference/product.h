// Matrix products that carry bounds: the core of the layers' references.
// Internal to reference/.
//
// Contract: C = A B with A [rows, K] of Bounded (or exact) numbers, B [K, n]
// exact, and K cut into a.partials contiguous parts, of which each rank adds
// one; A_r, B_r the parts, s_r = A_r B_r:
//
//   worst   = sum_k worst(A) |B| + sum_r gamma(K_r, u_acc) |A_r||B_r|
//             + q u_wire sum_r |s_r| + gamma(depth, u_reduce) sum_r |s_r|
//   likely2 = sum_k (likely(A)^2 + likely2(A)) B^2
//             + sum_r K_r u_acc^2 (|A_r||B_r|)^2
//
// and then Rounded(store). The errors of the elements of A are taken to be
// independent of each other (each was rounded by itself), so they add in
// squares. Where the accumulator is f64, values are summed in twice its
// precision (Ogita, Rump and Oishi, Dot2, SIAM J. Sci. Comput. 26(6), 2005).

#ifndef SHARDPROOF_REFERENCE_PRODUCT_H_
#define SHARDPROOF_REFERENCE_PRODUCT_H_

#include <cstdint>
#include <functional>
#include <vector>

#include "reference/bounded.h"
#include "reference/linear.h"
#include "reference/tensor.h"

namespace shardproof::internal {

// A: rows of length K, as planes of doubles.
class Operand {
 public:
  // The given rows of a matrix; empty: all.
  static Operand RowsOf(ConstTensorView matrix, const Rows& rows);
  // The given columns of a matrix, as rows.
  static Operand ColumnsOf(ConstTensorView matrix, const Rows& columns);
  static Operand Of(const Matrix& matrix);

  int64_t rows() const { return rows_; }
  int64_t terms() const { return terms_; }
  bool exact() const { return worst_.empty(); }
  const double* value(int64_t i) const { return value_.data() + i * terms_; }
  // |value| + worst
  const double* size(int64_t i) const { return size_.data() + i * terms_; }
  const double* worst(int64_t i) const { return worst_.data() + i * terms_; }
  const double* square(int64_t i) const { return square_.data() + i * terms_; }

 private:
  void Resize(int64_t rows, int64_t terms, bool exact);

  int64_t rows_ = 0;
  int64_t terms_ = 0;
  std::vector<double> value_, size_, worst_, square_;
};

// B: writes B[k, n..n + kColumns) for k in [k0, k1) to out[(k - k0) *
// kColumns], zeros beyond the last column.
inline constexpr int64_t kColumns = 32;
struct Source {
  int64_t terms = 0;
  int64_t columns = 0;
  std::function<void(int64_t k0, int64_t k1, int64_t n, double* out)> block;

  static Source Of(ConstTensorView matrix);  // B = matrix [K, n]
  static Source TransposeOf(
      ConstTensorView matrix);        // B = matrix^T, matrix [n, K]
  static Source Ones(int64_t terms);  // B = ones [K, 1]
};

// The rows of the result are numbered 0..A.rows(); the caller renames them.
Matrix Product(const Operand& a, const Source& b, const Arithmetic& arithmetic);

// y + b for each row, rounded to store once more (a bias added after y was
// stored).
void AddBias(Matrix& y, ConstTensorView bias, const Rows& columns,
             const Arithmetic& arithmetic);

// 0..n-1
Rows AllRows(int64_t n);

}  // namespace shardproof::internal

#endif  // SHARDPROOF_REFERENCE_PRODUCT_H_
