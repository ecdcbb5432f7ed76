#include "layers/pairing/sampling.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace shardproof {

Rows Together(const Sample& sample,
              std::initializer_list<std::string_view> outputs) {
  Rows rows;
  for (const std::string_view output : outputs) {
    const auto found = sample.find(output);
    if (found == sample.end()) return {};
    Rows both;
    std::set_union(rows.begin(), rows.end(), found->second.begin(),
                   found->second.end(), std::back_inserter(both));
    rows = std::move(both);
  }
  return rows;
}

std::vector<int64_t> Places(const Sample& sample, std::string_view output,
                            const Rows& evaluated, int64_t extent) {
  std::vector<int64_t> places;
  const auto found = sample.find(output);
  const auto n =
      evaluated.empty() ? extent : static_cast<int64_t>(evaluated.size());
  for (int64_t i = 0; i < n; ++i) {
    const int64_t index = evaluated.empty() ? i : evaluated[i];
    if (found == sample.end() ||
        std::binary_search(found->second.begin(), found->second.end(), index)) {
      places.push_back(i);
    }
  }
  return places;
}

std::vector<Bounded> RowsAt(const Matrix& m, const std::vector<int64_t>& rows) {
  std::vector<Bounded> out;
  for (const int64_t i : rows) {
    out.insert(out.end(), m.row(i).begin(), m.row(i).end());
  }
  return out;
}

std::vector<Bounded> ColumnsAt(const Matrix& m,
                               const std::vector<int64_t>& columns) {
  std::vector<Bounded> out;
  for (const int64_t j : columns) out.push_back(m.at(0, j));
  return out;
}

std::vector<Bounded> Transposed(const Matrix& m,
                                const std::vector<int64_t>& rows) {
  std::vector<Bounded> out;
  for (int64_t j = 0; j < m.cols; ++j) {
    for (const int64_t i : rows) out.push_back(m.at(i, j));
  }
  return out;
}

}  // namespace shardproof
