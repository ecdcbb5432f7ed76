// Matrix products that carry bounds: the core of the layers' references.
// Internal to reference/.
//
// Contract: C = sum over terms r of A_r B_r, with A_r [rows, K_r] and B_r [K_r,
// n] of Bounded or exact numbers; each rank adds up one term, s_r = A_r B_r:
//
//   worst   = sum_k worst(A) |B| + |A| worst(B) + worst(A) worst(B)
//             + sum_r gamma(K_r, u_acc) |A_r||B_r|
//             + q u_wire sum_r |s_r| + gamma(depth, u_reduce) sum_r |s_r|
//   likely2 = sum_k v(A) B^2 + A^2 v(B) + v(A) v(B), v = likely^2 + likely2,
//             + sum_r K_r u_acc^2 (|A_r||B_r|)^2
//
// and then Rounded(store). The errors of the elements of A and B are taken to be
// independent of each other (each was rounded by itself), so they add in
// squares. Where the accumulator is f64, values are summed in twice its
// precision (Ogita, Rump and Oishi, Dot2, SIAM J. Sci. Comput. 26(6), 2005).

#ifndef SHARDPROOF_REFERENCE_PRODUCT_H_
#define SHARDPROOF_REFERENCE_PRODUCT_H_

#include <cstdint>
#include <functional>
#include <span>
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
  static Operand RowsOf(const Matrix& matrix, const Rows& rows);
  static Operand ColumnsOf(const Matrix& matrix, const Rows& columns);
  static Operand RowsOf(const BoundedView& matrix, const Rows& rows);
  static Operand ColumnsOf(const BoundedView& matrix, const Rows& columns);
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
  void Set(int64_t at, const Bounded& x);

  int64_t rows_ = 0;
  int64_t terms_ = 0;
  std::vector<double> value_, size_, worst_, square_;
};

// B: writes B[k, n..n + kColumns) for k in [k0, k1) to out[(k - k0) *
// kColumns], zeros beyond the last column. Views what it is made of.
inline constexpr int64_t kColumns = 32;
struct Source {
  using Block =
      std::function<void(int64_t k0, int64_t k1, int64_t n, double* out)>;
  int64_t terms = 0;
  int64_t columns = 0;
  Block block;
  // worst(B), and v(B) = likely^2 + likely2; unset where B is exact.
  Block worst = {};
  Block square = {};

  static Source Of(ConstTensorView matrix);  // B = matrix [K, n]
  static Source TransposeOf(
      ConstTensorView matrix);  // B = matrix^T, matrix [n, K]
  // B = the given rows of the matrix.
  static Source RowsOf(ConstTensorView matrix, const Rows& rows);
  static Source Of(const Matrix& matrix);
  static Source TransposeOf(const Matrix& matrix);
  static Source Of(const BoundedView& matrix);
  static Source TransposeOf(const BoundedView& matrix);
  static Source Ones(int64_t terms);  // B = ones [K, 1]
};

// Terms [k0, k1) of a product: what one rank adds up. Not owned.
struct Term {
  const Operand* a = nullptr;
  const Source* b = nullptr;
  int64_t k0 = 0;
  int64_t k1 = 0;
};
// All of it.
inline Term Whole(const Operand& a, const Source& b) {
  return {&a, &b, 0, a.terms()};
}

// The rows of the result are numbered 0..A.rows(); the caller renames them. One
// rank per term: `arithmetic.partials` is the number of terms.
Matrix SumOfProducts(std::span<const Term> terms, const Arithmetic& arithmetic);
// A B, its terms cut into a.partials balanced contiguous parts.
Matrix Product(const Operand& a, const Source& b, const Arithmetic& arithmetic);

// y + b for each row, rounded to store once more (a bias added after y was
// stored).
void AddBias(Matrix& y, ConstTensorView bias, const Rows& columns,
             const Arithmetic& arithmetic);

// 0..n-1
Rows AllRows(int64_t n);

}  // namespace shardproof::internal

#endif  // SHARDPROOF_REFERENCE_PRODUCT_H_
