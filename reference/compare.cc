#include "reference/compare.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <type_traits>

#include "reference/diagnose.h"
#include "reference/gain.h"

namespace shardproof {
namespace {

constexpr double kInf = std::numeric_limits<double>::infinity();
constexpr int64_t kBlock = 1024;
constexpr int64_t kMaxGroups = 65536;
constexpr size_t kMaxSample = 8192;
constexpr size_t kMaxFailedGroups = 16;

// The position of a value among all values of its type in increasing order; -0
// and +0 share one.
template <typename T>
int64_t Ordinal(const T* p) {
  if constexpr (std::is_integral_v<T>) {
    return static_cast<int64_t>(*p);
  } else {
    using Bits = std::conditional_t<
        sizeof(T) == 8, uint64_t,
        std::conditional_t<
            sizeof(T) == 4, uint32_t,
            std::conditional_t<sizeof(T) == 2, uint16_t, uint8_t>>>;
    Bits bits;
    std::memcpy(&bits, p, sizeof(T));
    constexpr Bits kSign = static_cast<Bits>(Bits{1} << (8 * sizeof(T) - 1));
    const auto magnitude =
        static_cast<int64_t>(bits & static_cast<Bits>(kSign - 1));
    return (bits & kSign) != 0 ? -magnitude : magnitude;
  }
}

double UlpDistance(DType dtype, const void* a, const void* b) {
  return Visit(dtype, [&]<typename T>(TypeTag<T>) {
    const int64_t x = Ordinal(static_cast<const T*>(a));
    const int64_t y = Ordinal(static_cast<const T*>(b));
    int64_t distance;
    // Opposite ends of f64 or i64 are further apart than 2^63.
    return __builtin_sub_overflow(x, y, &distance)
               ? std::abs(static_cast<double>(x) - static_cast<double>(y))
               : std::abs(static_cast<double>(distance));
  });
}

}  // namespace

std::string_view Name(Outcome outcome) {
  switch (outcome) {
    case Outcome::kPassed:
      return "passed";
    case Outcome::kSuspect:
      return "suspect";
    case Outcome::kIncorrect:
      return "incorrect";
  }
  return "unknown";
}

struct Comparator::State {
  ComparisonOptions options;
  double lambda;
  int64_t group;        // elements per group, after coarsening
  int64_t asked_group;  // before
  std::vector<GroupStats> groups;
  Comparison result;
  double squares = 0;  // sum of (e / B)^2
  internal::GainSums gain;
  std::vector<internal::WrongElement> sample;
  int64_t stride = 1;  // every stride-th wrong element is sampled
  std::vector<internal::WrongRange> ranges;

  explicit State(ComparisonOptions o) : options(std::move(o)) {
    const int64_t n = std::max<int64_t>(1, options.shape.NumElements());
    const int64_t population = options.population > 0 ? options.population : n;
    lambda = Lambda(static_cast<double>(population), options.delta);
    group = options.group;
    if (group <= 0) {
      group = options.shape.rank() > 0 ? options.shape[options.shape.rank() - 1]
                                       : 1;
    }
    group = asked_group = std::max<int64_t>(1, group);
    while ((n + group - 1) / group > kMaxGroups) group *= 2;
    groups.resize(static_cast<size_t>((n + group - 1) / group));
    for (size_t g = 0; g < groups.size(); ++g) {
      groups[g].group = static_cast<int64_t>(g);
    }
  }

  GroupStats& GroupOf(int64_t index) {
    const auto g = static_cast<size_t>(index / group);
    return groups[std::min(g, groups.size() - 1)];
  }

  void AddWrong(int64_t index, const void* raw, double actual,
                const Bounded& expected, Outcome outcome) {
    (outcome == Outcome::kSuspect ? result.suspect : result.incorrect) += 1;
    ++GroupOf(index).failed;
    const double bound = options.exact         ? 0
                         : options.probed_gain ? expected.Likely(lambda)
                                               : expected.worst;
    if (static_cast<int>(result.mismatches.size()) < options.max_mismatches) {
      result.mismatches.push_back({index, Coordinates(options.shape, index),
                                   expected.value, actual, bound, outcome});
    }
    if (!ranges.empty() && ranges.back().end == index) {
      ranges.back().end = index + 1;
    } else if (ranges.size() < internal::kMaxRanges) {
      ranges.push_back({index, index + 1});
    } else {
      ranges.back().end = std::max(ranges.back().end, index + 1);
    }
    const int64_t wrong = result.suspect + result.incorrect - 1;
    if (wrong % stride == 0) {
      sample.push_back({index, actual, expected.value, bound,
                        IsPoison(options.dtype, raw, 0)});
      if (sample.size() > kMaxSample) {
        // Keep every other one, so that the sample covers the whole buffer.
        for (size_t i = 0; 2 * i < sample.size(); ++i)
          sample[i] = sample[2 * i];
        sample.resize((sample.size() + 1) / 2);
        stride *= 2;
      }
    }
  }

  void AddRatio(int64_t index, double ratio, double error) {
    GroupStats& g = GroupOf(index);
    ++g.compared;
    g.worst_ratio = std::max(g.worst_ratio, ratio);
    g.rms_ratio += ratio * ratio;  // the sum of squares until Finish()
    result.worst_ratio = std::max(result.worst_ratio, ratio);
    result.max_abs = std::max(result.max_abs, error);
    squares += ratio * ratio;
  }

  void CountUlps(const void* actual, const void* rounded) {
    result.max_ulp =
        std::max(result.max_ulp, UlpDistance(options.dtype, actual, rounded));
  }

  // `actual` and `rounded` point at the element in its own type.
  void Exact(int64_t index, const void* actual, const void* rounded, double c,
             const Bounded& y) {
    const auto size = static_cast<size_t>(SizeOf(options.dtype));
    double r;
    ToDouble(options.dtype, rounded, 1, &r);
    const bool same = std::memcmp(actual, rounded, size) == 0 ||
                      (std::isnan(c) && std::isnan(r)) ||
                      (c == 0 && r == 0 && !options.sign_of_zero);
    if (same) {
      AddRatio(index, 0, 0);
      return;
    }
    const double error = std::abs(c - r);
    AddRatio(index, kInf, std::isnan(error) ? kInf : error);
    CountUlps(actual, rounded);
    AddWrong(index, actual, c, y, Outcome::kIncorrect);
  }

  void WithinBounds(int64_t index, const void* actual, const void* rounded,
                    double c, const Bounded& y) {
    if (!std::isfinite(c) || !std::isfinite(y.value)) {
      double r;
      ToDouble(options.dtype, rounded, 1, &r);
      // An overflow is right where the bound reaches beyond the largest number.
      const bool overflows =
          !std::isfinite(Round(options.dtype, std::abs(y.value) + y.worst));
      const bool same =
          (std::isnan(c) && std::isnan(r)) || c == r ||
          (overflows && std::isfinite(y.value) &&
           (std::isnan(c)
                ? options.dtype == DType::kE4M3
                : std::isinf(c) && std::signbit(c) == std::signbit(y.value)));
      AddRatio(index, same ? 0 : kInf, same ? 0 : kInf);
      if (!same) AddWrong(index, actual, c, y, Outcome::kIncorrect);
      return;
    }
    const double error = std::abs(c - y.value);
    const double likely = y.Likely(lambda);
    const double ratio = error == 0 ? 0 : error / likely;
    AddRatio(index, ratio, error);
    CountUlps(actual, rounded);
    gain.Add(c, y, likely);
    if (!(error <= (options.probed_gain ? likely : y.worst))) {
      AddWrong(index, actual, c, y, Outcome::kIncorrect);
    } else if (!(error <= likely)) {
      AddWrong(index, actual, c, y, Outcome::kSuspect);
    }
  }

  void AddBlock(int64_t begin, const char* actual,
                std::span<const Bounded> expected) {
    alignas(64) double values[kBlock] = {};
    alignas(64) char rounded[kBlock * 8];
    const auto n = static_cast<int64_t>(expected.size());
    const int size = SizeOf(options.dtype);
    for (int64_t i = 0; i < n; ++i) values[i] = expected[i].value;
    FromDouble(options.dtype, values, n, rounded);
    result.compared += n;
    if (options.exact &&
        std::memcmp(actual, rounded, static_cast<size_t>(n * size)) == 0) {
      for (int64_t i = 0; i < n;) {
        const int64_t take = std::min(n - i, group - (begin + i) % group);
        GroupOf(begin + i).compared += take;
        i += take;
      }
      return;
    }
    ToDouble(options.dtype, actual, n, values);
    for (int64_t i = 0; i < n; ++i) {
      if (options.exact) {
        Exact(begin + i, actual + i * size, rounded + i * size, values[i],
              expected[i]);
      } else {
        WithinBounds(begin + i, actual + i * size, rounded + i * size,
                     values[i], expected[i]);
      }
    }
  }

  void CheckGain() {
    if (options.exact || !options.check_gain) return;
    if (!gain.defined()) {
      result.gain = std::numeric_limits<double>::quiet_NaN();
      return;
    }
    result.gain = gain.Gain();
    result.gain_tolerance =
        gain.Tolerance(options.probed_gain.value_or(Lambda(1, options.delta)),
                       options.dtype, options.gain_bias);
    result.gain_ok = gain.Within(result.gain_tolerance);
  }

  void FinishGroups() {
    for (GroupStats& g : groups) {
      if (g.compared > 0) {
        g.rms_ratio = std::sqrt(g.rms_ratio / static_cast<double>(g.compared));
      }
      if (g.failed > 0 && result.failed_groups.size() < kMaxFailedGroups) {
        result.failed_groups.push_back(g);
      }
      const GroupStats& w = result.worst_group;
      if (g.compared > 0 &&
          (w.compared == 0 || g.worst_ratio > w.worst_ratio ||
           (g.worst_ratio == w.worst_ratio && g.rms_ratio > w.rms_ratio))) {
        result.worst_group = g;
      }
    }
  }

  void Judge() {
    const bool empty = options.shape.NumElements() == 0;
    if (result.compared == 0 && !empty) {
      result.outcome = Outcome::kIncorrect;
      result.reason =
          fmt::format("nothing of {} was compared", options.shape.ToString());
    } else if (result.incorrect > 0) {
      const Mismatch& m =
          result.mismatches.empty() ? Mismatch{} : result.mismatches[0];
      result.outcome = Outcome::kIncorrect;
      result.reason = fmt::format(
          "{} of {} elements are wrong, the first at {}: {:.9g} instead of "
          "{:.9g}",
          result.incorrect, result.compared, m.coordinates.ToString(), m.actual,
          m.expected);
      if (!options.exact) result.reason += fmt::format(" +- {:.3g}", m.bound);
      if (groups.size() > 1 && group == asked_group) {
        result.reason += fmt::format("; worst in {} {}", options.group_name,
                                     result.worst_group.group);
      }
    } else if (!result.gain_ok) {
      result.outcome = Outcome::kIncorrect;
      result.reason = fmt::format(
          "each element is in bounds, but all are scaled by {:.9g} (1 +- "
          "{:.2g} is allowed)",
          result.gain, result.gain_tolerance);
    } else if (result.suspect > 0) {
      result.outcome = Outcome::kSuspect;
      result.reason = fmt::format(
          "{} of {} elements exceed the likely bound by up to {:.3g}",
          result.suspect, result.compared, result.worst_ratio);
    } else {
      result.outcome = Outcome::kPassed;
    }
  }
};

Comparator::Comparator(ComparisonOptions options)
    : state_(std::make_unique<State>(std::move(options))) {}

Comparator::Comparator(Comparator&&) noexcept = default;

Comparator::~Comparator() {
  if (state_ == nullptr || state_->result.compared == 0) return;
  // A comparison nobody looks at is a test that cannot fail.
  std::fputs("a Comparator was destroyed before Finish()\n", stderr);
  std::abort();
}

void Comparator::Add(int64_t begin, const void* actual,
                     std::span<const Bounded> expected) {
  const char* raw = static_cast<const char*>(actual);
  const int size = SizeOf(state_->options.dtype);
  const auto n = static_cast<int64_t>(expected.size());
  for (int64_t i = 0; i < n; i += kBlock) {
    const int64_t take = std::min(kBlock, n - i);
    state_->AddBlock(
        begin + i, raw + i * size,
        expected.subspan(static_cast<size_t>(i), static_cast<size_t>(take)));
  }
}

Comparison Comparator::Finish() {
  State& s = *state_;
  s.result.rms_ratio =
      s.result.compared > 0
          ? std::sqrt(s.squares / static_cast<double>(s.result.compared))
          : 0;
  s.CheckGain();
  s.FinishGroups();
  s.Judge();
  s.result.diagnosis = internal::Diagnose(
      s.options, s.sample, s.ranges, s.result.incorrect + s.result.suspect);
  Comparison result = std::move(s.result);
  state_.reset();
  return result;
}

void Comparator::Cancel() { state_.reset(); }

Comparison Compare(const ComparisonOptions& options, const void* actual,
                   std::span<const Bounded> expected) {
  Comparator comparator(options);
  comparator.Add(0, actual, expected);
  return comparator.Finish();
}

}  // namespace shardproof
