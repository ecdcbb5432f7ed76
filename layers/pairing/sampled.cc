#include "layers/pairing/sampled.h"

#include <algorithm>
#include <iterator>
#include <utility>

namespace shardproof {

Rows SampledTogether(const Sample& sample,
                     const std::vector<std::string_view>& outputs) {
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

void AppendSampled(const Sample& sample, std::string_view output,
                   const Rows& evaluated, const Matrix& m, bool transposed,
                   std::vector<Bounded>& out) {
  const auto found = sample.find(output);
  std::vector<int64_t> places;
  for (int64_t i = 0; i < static_cast<int64_t>(m.rows.size()); ++i) {
    const int64_t index =
        evaluated.empty() ? i : evaluated[static_cast<size_t>(i)];
    if (found == sample.end() ||
        std::binary_search(found->second.begin(), found->second.end(), index)) {
      places.push_back(i);
    }
  }
  if (!transposed) {
    for (const int64_t i : places) {
      out.insert(out.end(), m.row(i).begin(), m.row(i).end());
    }
    return;
  }
  for (int64_t j = 0; j < m.cols; ++j) {
    for (const int64_t i : places) out.push_back(m.at(i, j));
  }
}

}  // namespace shardproof
