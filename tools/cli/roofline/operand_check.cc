#include "tools/cli/roofline/operand_check.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <string>
#include <vector>

#include "reference/bounded.h"
#include "reference/compare.h"

namespace shardproof {
namespace {

constexpr int64_t kBlock = 65536;

// f(begin, values of `data` from there on), block by block through all ranges.
template <class F>
void ForBlocks(const cuda::Operand& operand, const void* data, const F& f) {
  std::vector<double> values;
  const auto run = [&](int64_t begin, int64_t end) {
    for (int64_t at = begin; at < end; at += kBlock) {
      const int64_t n = std::min(kBlock, end - at);
      values.resize(static_cast<size_t>(n));
      ToDouble(operand.dtype,
               static_cast<const std::byte*>(data) + at * SizeOf(operand.dtype),
               n, values.data());
      f(at, values);
    }
  };
  if (operand.ranges.empty()) run(0, operand.count);
  for (const auto& [begin, end] : operand.ranges) run(begin, end);
}

double RootMeanSquare(const cuda::Operand& operand, const void* data) {
  double sum = 0;
  int64_t n = 0;
  ForBlocks(operand, data, [&](int64_t, const std::vector<double>& values) {
    for (const double v : values) sum += v * v;
    n += static_cast<int64_t>(values.size());
  });
  return n == 0 ? 0 : std::sqrt(sum / static_cast<double>(n));
}

}  // namespace

OperandCheck CompareOperand(const cuda::Operand& operand, const void* got,
                            const void* want) {
  const bool exact =
      operand.relative == 0 && operand.absolute == 0 && operand.of_rms == 0;
  const double absolute =
      operand.absolute + (operand.of_rms == 0
                              ? 0
                              : operand.of_rms * RootMeanSquare(operand, want));
  Comparator comparator({.dtype = operand.dtype,
                         .shape = {operand.count},
                         .exact = exact,
                         .check_gain = false});
  std::vector<Bounded> expected;
  ForBlocks(operand, want, [&](int64_t at, const std::vector<double>& values) {
    expected.clear();
    for (const double v : values) {
      const double bound = operand.relative * std::abs(v) + absolute;
      expected.push_back({.value = v, .worst = bound, .likely = bound});
    }
    comparator.Add(
        at, static_cast<const std::byte*>(got) + at * SizeOf(operand.dtype),
        expected);
  });
  const Comparison found = comparator.Finish();
  OperandCheck check;
  check.passed = found.passed();
  if (!check.passed) check.reason = operand.name + ": " + found.reason;
  check.error = {.tier = exact ? "exact" : "bounded",
                 .worst_ratio = found.worst_ratio,
                 .max_abs = found.max_abs,
                 .compared = found.compared,
                 .diagnosis = found.diagnosis};
  for (const Mismatch& m : found.mismatches) {
    check.error.mismatches.push_back({.tensor = operand.name,
                                      .index = {m.index},
                                      .expected = m.expected,
                                      .got = m.actual});
  }
  return check;
}

}  // namespace shardproof
