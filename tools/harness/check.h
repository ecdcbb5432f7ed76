// What one rank finds out about one execution, and how the ranks put that
// together.
#ifndef SHARDPROOF_TOOLS_HARNESS_CHECK_H_
#define SHARDPROOF_TOOLS_HARNESS_CHECK_H_

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "collectives/traffic.h"
#include "reference/compare.h"
#include "reports/record.h"
#include "tools/harness/expectation.h"
#include "tools/harness/generated_inputs.h"

namespace shardproof {

// The figures of a comparison, or of several: the worst of them.
struct Figures {
  Outcome outcome = Outcome::kPassed;
  double worst_ratio = 0, max_abs = 0, max_ulp = 0;
  double gain = 1;  // The one furthest from 1.
  bool has_gain = false;
  int64_t compared = 0;

  void Add(const Comparison& comparison);
  void Add(const Figures& other);
};

// One rank's account of one execution. Sent to the others, so that all of them
// come to the same verdict.
struct Account {
  Status status;      // Of the operation.
  std::string fault;  // A guard band or an input that was written; else empty.
  std::optional<Traffic> traffic;  // Unset: nothing was run.
  Figures figures;
  // Of the bits of each output: for replicas, and for run to run equality.
  std::vector<uint64_t> hashes;

  std::string Serialize() const;
  static StatusOr<Account> Parse(std::string_view bytes);
};

// Compares `segments` of output `spec` on `rank` with `expected`.
struct OutputCheck {
  const Expectation* expected = nullptr;
  const TensorSpec* spec = nullptr;
  int rank = 0, ranks = 1;
  Tier tier = Tier::kExact;
  int64_t population = 0;  // Elements that the whole case compares.
};
Comparison CompareOutput(const OutputCheck& check, const TensorView& actual,
                         const Segments& segments);
// The same, with whatever helps to say what went wrong: what each rank
// contributed, and where else the values found are expected. Slower.
Comparison DiagnoseOutput(const OutputCheck& check, const TensorView& actual,
                          const Segments& segments, const Inputs& inputs,
                          const Tensors& tensors);

// The population of a case: every element of every output on every rank.
int64_t Population(const Tensors& tensors, int ranks);
// Of all tensors, each of them whole and counted once.
int64_t ElementsOf(const Tensors& tensors);

// What one rank has to say about wrong outputs, as text for the others.
struct Finding {
  std::string reason;  // Empty: nothing is wrong here.
  std::string diagnosis;
  std::vector<Record::Mismatch> mismatches;

  std::string Serialize() const;
  static StatusOr<Finding> Parse(std::string_view text);
};
Finding MakeFinding(const TensorSpec& spec, int rank,
                    const Comparison& comparison);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_HARNESS_CHECK_H_
