#include "reference/linear.h"

#include <algorithm>

#include "reference/product.h"
#include "reference/random.h"

namespace shardproof {

using internal::AllRows;
using internal::Operand;
using internal::Source;

namespace {

Rows Chosen(const Rows& rows, int64_t total) {
  return rows.empty() ? AllRows(total) : rows;
}

}  // namespace

Rows SampleRows(int64_t total, int64_t n, uint64_t seed) {
  if (n >= total) return AllRows(total);
  // One row out of each of n equal stretches, with both ends pinned: edges are
  // where sharding goes wrong.
  Rows rows;
  for (int64_t i = 0; i < n; ++i) {
    const int64_t first = total * i / n;
    const int64_t width = total * (i + 1) / n - first;
    const auto offset = static_cast<int64_t>(
        RandomBits({.seed = seed, .tensor = TensorId("rows")},
                   static_cast<uint64_t>(i)) %
        static_cast<uint64_t>(width));
    rows.push_back(i == 0 ? 0 : i == n - 1 ? total - 1 : first + offset);
  }
  return rows;
}

Matrix LinearForward(const LinearInputs& inputs, const Arithmetic& a,
                     const Rows& tokens) {
  Matrix y = Product(Operand::RowsOf(inputs.x, tokens),
                     Source::TransposeOf(inputs.w), a);
  y.rows = Chosen(tokens, inputs.x.rows());
  if (inputs.b.has_value()) internal::AddBias(y, *inputs.b, {}, a);
  return y;
}

Matrix LinearInputGrad(const BoundedView& dy, ConstTensorView w,
                       const Arithmetic& a, const Rows& tokens) {
  Matrix dx = Product(Operand::RowsOf(dy, tokens), Source::Of(w), a);
  dx.rows = Chosen(tokens, dy.rows());
  return dx;
}

Matrix LinearWeightGrad(const BoundedView& dy, const BoundedView& x,
                        const Arithmetic& a, const Rows& outputs) {
  Matrix dw = Product(Operand::ColumnsOf(dy, outputs), Source::Of(x), a);
  dw.rows = Chosen(outputs, dy.cols());
  return dw;
}

Matrix LinearBiasGrad(const BoundedView& dy, const Arithmetic& a) {
  Matrix db = Product(Operand::ColumnsOf(dy, {}), Source::Ones(dy.rows()), a);
  db.rows = {0};
  db.cols = dy.cols();
  return db;
}

}  // namespace shardproof
