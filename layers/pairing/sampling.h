// How a case gives the parts of outputs that are asked for, where several
// outputs come of one evaluation: it evaluates at all indices that any of them
// wants, and gives each its own.
//
//     const Rows tokens = Together(sample, {"y", "dx"});
//     const MlpResult r = MlpReference(inputs, a, {.tokens = tokens});
//     out["y"] = RowsAt(r.y, Places(sample, "y", tokens, p.tokens));
//
// For case.cc files; nothing else includes this.
#ifndef SHARDPROOF_LAYERS_PAIRING_SAMPLING_H_
#define SHARDPROOF_LAYERS_PAIRING_SAMPLING_H_

#include <cstdint>
#include <initializer_list>
#include <string_view>
#include <vector>

#include "reference/bounded.h"
#include "reference/linear.h"
#include "tools/harness/case_reference.h"

namespace shardproof {

// What of `outputs` is asked for, together; where one of them is not sampled,
// nothing, which stands for all.
Rows Together(const Sample& sample,
              std::initializer_list<std::string_view> outputs);

// Which of `evaluated` (empty: all of `extent`) are wanted for `output`.
std::vector<int64_t> Places(const Sample& sample, std::string_view output,
                            const Rows& evaluated, int64_t extent);

// Rows of a matrix, the columns of one that has one row, and rows transposed.
std::vector<Bounded> RowsAt(const Matrix& m, const std::vector<int64_t>& rows);
std::vector<Bounded> ColumnsAt(const Matrix& m,
                               const std::vector<int64_t>& columns);
std::vector<Bounded> Transposed(const Matrix& m,
                                const std::vector<int64_t>& rows);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_PAIRING_SAMPLING_H_
