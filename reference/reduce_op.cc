#include "reference/reduce_op.h"

namespace shardproof {

StatusOr<ReduceOp> ParseReduceOp(std::string_view name) {
  for (ReduceOp op : kAllReduceOps) {
    if (Name(op) == name) return op;
  }
  return InvalidArgument(
      "unknown reduction '{}'; known: sum, prod, min, max, avg, premul_sum",
      name);
}

}  // namespace shardproof
