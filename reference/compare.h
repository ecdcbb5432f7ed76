// Is this buffer what the reference says it is, and if not, what went wrong?
//
// Contract, per element, with c the actual and y the expected value:
//
//   exact tier    passed     c and Round(dtype, y) are the same bits. +0 and -0
//                            are equal unless sign_of_zero; any NaN equals any
//                            NaN.
//   bounded tier  passed     e = |c - y| <= y.Likely(lambda)
//                 incorrect  !(e <= y.worst), or one of c, y is NaN or Inf and
//                            the other is not the same
//                 suspect    otherwise
//   probed        the same, but nothing is suspect: beyond y.Likely(lambda) it is
//                 incorrect. In the chains that are probed `worst` says nothing,
//                 and may be infinite.
//
// For the whole: the worst of all elements; and incorrect when the gain
// <c, y> / <y, y> is not 1 within its own tolerance, or nothing was compared.
// Each test is written !(e <= bound), so that NaN fails.
//
//   Comparator comparator({.dtype = DType::kF32, .shape = {n}, .exact = true});
//   for (begin..) comparator.Add(begin, actual + begin, expected_block);
//   Comparison result = comparator.Finish();
//   if (!result.passed()) Print(result.reason, result.diagnosis);
//
// A Comparator that has compared something and is destroyed before Finish() or
// Cancel() aborts: a discarded comparison is a test that cannot fail.

#ifndef SHARDPROOF_REFERENCE_COMPARE_H_
#define SHARDPROOF_REFERENCE_COMPARE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "reference/bounded.h"
#include "reference/dtype.h"
#include "reference/status.h"
#include "reference/tensor.h"

namespace shardproof {

enum class Outcome : uint8_t { kPassed, kSuspect, kIncorrect };
std::string_view Name(Outcome outcome);

// What rank `rank` contributed to elements [begin, begin + out.size()) of the
// expected output.
using TermFn =
    std::function<void(int rank, int64_t begin, std::span<double> out)>;
// The expected output again, at any place.
using ExpectedFn = std::function<void(int64_t begin, std::span<Bounded> out)>;

struct ComparisonOptions {
  DType dtype = DType::kF32;
  Shape shape = {};
  bool exact = false;
  // Exact tier: -0 differs from +0. For pure data movement; arithmetic may give
  // either (0 * -1).
  bool sign_of_zero = false;
  // N of lambda: how many elements the whole case compares. 0: the shape's.
  int64_t population = 0;
  double delta = 1e-6;
  // Bounded tier: the gain must be 1.
  bool check_gain = true;
  // Set where the bounds were narrowed by probes (probe.h): no element may then
  // be beyond its likely bound, which has delta in it, and |<c - y, y>| not
  // beyond this times sqrt(sum (likely y)^2). Unset: Lambda(1, delta) times
  // that, for errors that are independent.
  std::optional<double> probed_gain = {};
  // Relative bias of the accumulator that is allowed for in the gain
  // (truncating tensor cores); 0 for round-to-nearest.
  double gain_bias = 0;
  int max_mismatches = 8;
  // Elements per group of the localisation, and what a group is called. 0: the
  // last dimension, "row".
  int64_t group = 0;
  std::string group_name = "row";
  // For the diagnosis; each may be left out. chunk: elements per chunk (0: no
  // chunks). ranks and term: what each rank contributed. expected: the output
  // anywhere, to recognise what was misplaced.
  int64_t chunk = 0;
  int ranks = 0;
  TermFn term = {};
  ExpectedFn expected = {};
};

struct Mismatch {
  int64_t index = 0;
  Shape coordinates;
  double expected = 0;
  double actual = 0;
  double bound = 0;  // worst; 0 in the exact tier
  Outcome outcome = Outcome::kIncorrect;
};

// e / B over one group (row, head, shard), B the likely bound. In the exact
// tier 0 or infinity.
struct GroupStats {
  int64_t group = 0;
  int64_t compared = 0;
  int64_t failed = 0;
  double worst_ratio = 0;
  double rms_ratio = 0;
};

struct [[nodiscard]] Comparison {
  Outcome outcome = Outcome::kIncorrect;
  std::string reason;     // one sentence; empty when passed
  std::string diagnosis;  // what pattern the mismatches form; empty when none
                          // is recognised
  int64_t compared = 0;
  int64_t suspect = 0;
  int64_t incorrect = 0;
  double worst_ratio = 0;  // max e / Likely; at most 1 when passed
  double rms_ratio = 0;
  double max_abs = 0;  // max e; infinite when NaN or Inf are misplaced
  double max_ulp =
      0;  // max distance in representable values from the rounded expectation
  // gain = <c, y> / <y, y>, over the finite elements. NaN when <y, y> = 0.
  double gain = 0;
  double gain_tolerance = 0;
  bool gain_ok = true;
  std::vector<Mismatch> mismatches;       // the first ones
  GroupStats worst_group;                 // by worst_ratio, then by rms_ratio
  std::vector<GroupStats> failed_groups;  // the first 16 with a failure

  bool passed() const { return outcome == Outcome::kPassed; }
};

class Comparator {
 public:
  explicit Comparator(ComparisonOptions options);
  ~Comparator();
  Comparator(Comparator&&) noexcept;
  Comparator& operator=(Comparator&&) = delete;

  // Compares elements [begin, begin + expected.size()); `actual` points at
  // element `begin`. Any order; gaps are allowed (sampled rows).
  void Add(int64_t begin, const void* actual,
           std::span<const Bounded> expected);
  Comparison Finish();
  // Gives up without a result, where an error has ended the run.
  void Cancel();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// All at once, for small tensors.
Comparison Compare(const ComparisonOptions& options, const void* actual,
                   std::span<const Bounded> expected);

// Would a wrong result pass? Used when a case is registered: a case that cannot
// see a planted fault is refused. Each Add makes the comparison that one rank
// would make, and a fault is seen where one of them says incorrect (suspect is
// not enough): for an element, or for the gain. The gain counts where products
// of many bf16 terms cancel: certain bounds, which add without cancellation,
// are then larger than the values. It sees the less, the fewer elements a
// comparison has, so comparisons are never put together.
//
//   PowerCheck power(DType::kBF16);
//   power.Add("all zero", expected, zeros);
//   power.Add("rank 3 dropped", expected, without_rank_3);
//   SP_RETURN_IF_ERROR(power.Check());
//
class PowerCheck {
 public:
  explicit PowerCheck(DType dtype, bool exact = false)
      : dtype_(dtype), exact_(exact) {}
  // `probed_gain` as in ComparisonOptions.
  void Add(std::string_view fault, std::span<const Bounded> expected,
           std::span<const double> faulty,
           std::optional<double> probed_gain = std::nullopt);
  // The smallest share of elements, over the faults, that would be found
  // incorrect. 1 when no fault was added.
  double Power() const;
  // kInvalidArgument naming the first fault that no comparison finds.
  Status Check() const;

 private:
  struct Fault {
    std::string name;
    int64_t elements = 0;
    int64_t seen = 0;
    bool found = false;
  };
  DType dtype_;
  bool exact_;
  std::vector<Fault> faults_;
};

// Fills with what no honest result holds: a NaN, or for integers bytes of 0xA5.
void Poison(DType dtype, void* data, int64_t n);
// Whether element i holds exactly the poison.
bool IsPoison(DType dtype, const void* data, int64_t i);
// Guard bands: a pattern that depends on the position. CheckGuard: kDataLoss
// with the first damaged offset; `what` names the band.
void FillGuard(void* data, int64_t bytes);
Status CheckGuard(const void* data, int64_t bytes, std::string_view what);

}  // namespace shardproof

#endif  // SHARDPROOF_REFERENCE_COMPARE_H_
