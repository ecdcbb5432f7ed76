#include "reference/embedding.h"

#include <map>
#include <vector>

#include "reference/product.h"

namespace shardproof {
namespace {

std::vector<double> RowOf(ConstTensorView matrix, int64_t row) {
  const int64_t columns = matrix.shape[1];
  std::vector<double> values(static_cast<size_t>(columns));
  const auto* bytes = static_cast<const char*>(matrix.data);
  ToDouble(matrix.dtype, bytes + row * columns * SizeOf(matrix.dtype), columns,
           values.data());
  return values;
}

}  // namespace

Matrix EmbeddingForward(ConstTensorView table, std::span<const int64_t> ids,
                        const Rows& tokens) {
  Matrix y;
  y.rows = tokens.empty() ? internal::AllRows(static_cast<int64_t>(ids.size()))
                          : tokens;
  y.cols = table.shape[1];
  for (const int64_t i : y.rows) {
    for (const double v : RowOf(table, ids[static_cast<size_t>(i)])) {
      y.values.push_back({.value = v});
    }
  }
  return y;
}

Matrix EmbeddingGrad(std::span<const int64_t> ids, ConstTensorView dy,
                     int64_t vocabulary, const Arithmetic& a, const Rows& rows,
                     const Matrix* onto) {
  Matrix dtable;
  dtable.rows = rows.empty() ? internal::AllRows(vocabulary) : rows;
  dtable.cols = dy.shape[1];
  std::map<int64_t, std::vector<std::vector<double>>> terms;
  for (const int64_t row : dtable.rows) terms[row] = {};
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto found = terms.find(ids[i]);
    if (found == terms.end()) continue;
    found->second.push_back(RowOf(dy, static_cast<int64_t>(i)));
  }
  std::vector<Bounded> sum;
  for (size_t k = 0; k < dtable.rows.size(); ++k) {
    for (int64_t j = 0; j < dtable.cols; ++j) {
      sum.clear();
      if (onto != nullptr) sum.push_back(onto->at(static_cast<int64_t>(k), j));
      for (const std::vector<double>& term : terms[dtable.rows[k]]) {
        sum.push_back({.value = term[static_cast<size_t>(j)]});
      }
      // What is added to nothing is not rounded: it is of the type already.
      dtable.values.push_back(
          sum.empty() ? Bounded{}
          : sum.size() == 1
              ? sum[0]
              : Rounded(Sum(sum, a.UAccumulate() + kSlack, 0, 0), a.store));
    }
  }
  return dtable;
}

}  // namespace shardproof
