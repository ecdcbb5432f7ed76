// Whether a kernel computed what the host's kernel computes: every checked operand of a point, element by element.
#ifndef SHARDPROOF_TOOLS_CLI_ROOFLINE_OPERAND_CHECK_H_
#define SHARDPROOF_TOOLS_CLI_ROOFLINE_OPERAND_CHECK_H_

#include <string>

#include "layers/kernels/cuda/benchmark/point.h"
#include "reports/record.h"

namespace shardproof {

struct OperandCheck {
  bool passed = false;
  std::string reason = {};  // Empty if passed.
  Record::Error error = {};
};

// `got` and `want` hold operand.count elements; what lies outside of its ranges is not read. The bound of an element is the
// one of Operand, as `worst` and as `likely`, so that nothing is suspect.
OperandCheck CompareOperand(const cuda::Operand& operand, const void* got,
                            const void* want);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_ROOFLINE_OPERAND_CHECK_H_
