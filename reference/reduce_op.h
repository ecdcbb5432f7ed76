// The reductions of the collectives.

#ifndef SHARDPROOF_REFERENCE_REDUCE_OP_H_
#define SHARDPROOF_REFERENCE_REDUCE_OP_H_

#include <cstdint>
#include <string_view>

#include "reference/status.h"

namespace shardproof {

// With x_r the element of rank r, and p ranks:
enum class ReduceOp : uint8_t {
  kSum,   // sum_r x_r
  kProd,  // prod_r x_r
  kMin,   // min_r x_r; a NaN in any rank gives NaN (IEEE 754-2019 minimum, not
          // minNum)
  kMax,   // max_r x_r; likewise
  kAvg,  // (sum_r x_r) / p; integers: truncated towards zero, after the sum has
         // wrapped
  kPremulSum,  // sum_r s_r x_r with a factor s_r chosen by each rank
};

inline constexpr ReduceOp kAllReduceOps[] = {
    ReduceOp::kSum, ReduceOp::kProd, ReduceOp::kMin,
    ReduceOp::kMax, ReduceOp::kAvg,  ReduceOp::kPremulSum};

constexpr std::string_view Name(ReduceOp op) {
  constexpr std::string_view kNames[] = {"sum", "prod", "min",
                                         "max", "avg",  "premul_sum"};
  return kNames[static_cast<int>(op)];
}

StatusOr<ReduceOp> ParseReduceOp(std::string_view name);

}  // namespace shardproof

#endif  // SHARDPROOF_REFERENCE_REDUCE_OP_H_
