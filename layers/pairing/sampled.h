// Which rows of a reference's results a sample of the outputs asks for, where
// several outputs are evaluated together.
#ifndef SHARDPROOF_LAYERS_PAIRING_SAMPLED_H_
#define SHARDPROOF_LAYERS_PAIRING_SAMPLED_H_

#include <string_view>
#include <vector>

#include "reference/bounded.h"
#include "reference/linear.h"
#include "tools/harness/case_reference.h"

namespace shardproof {

// What of `outputs` is asked for, together; where one of them is not sampled,
// nothing, which stands for all.
Rows SampledTogether(const Sample& sample,
                     const std::vector<std::string_view>& outputs);

// Appends to `out`, of the rows of `m`, which are `evaluated` (empty: all),
// those that are wanted for `output`; transposed, as columns.
void AppendSampled(const Sample& sample, std::string_view output,
                   const Rows& evaluated, const Matrix& m, bool transposed,
                   std::vector<Bounded>& out);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_PAIRING_SAMPLED_H_
