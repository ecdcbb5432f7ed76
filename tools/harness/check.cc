#include "tools/harness/check.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <nlohmann/json.hpp>
#include <type_traits>

namespace shardproof {
namespace {

constexpr int64_t kBlock = 4096;  // Elements; Bounded are 32 bytes each.

ComparisonOptions Options(const OutputCheck& check, const Shape& shape) {
  const TensorSpec& spec = *check.spec;
  ComparisonOptions options;
  options.dtype = spec.dtype;
  options.shape = shape;
  options.exact = check.tier == Tier::kExact || IsInteger(spec.dtype);
  options.sign_of_zero = spec.sign_of_zero;
  options.check_gain = spec.gain_checked;
  options.population = check.population;
  options.probed_gain = check.expected->ProbedGain(spec, check.rank);
  return options;
}

// Elements that nobody may write: the poison must still be there.
class UntouchedElements {
 public:
  void Check(const OutputCheck& check, const TensorView& actual,
             int64_t index) {
    ++seen_;
    if (IsPoison(check.spec->dtype, actual.data, index)) return;
    if (first_ < 0) first_ = index;
    ++written_;
  }
  void Apply(const Shape& shape, Comparison& result) const {
    result.compared += seen_;
    if (first_ < 0) return;
    if (result.outcome != Outcome::kIncorrect) {
      result.reason = fmt::format(
          "{} elements that belong to no block were written, the first at {}",
          written_, Coordinates(shape, first_).ToString());
    }
    result.outcome = Outcome::kIncorrect;
    result.incorrect += written_;
  }
  bool any() const { return seen_ > 0; }

 private:
  int64_t seen_ = 0, written_ = 0, first_ = -1;
};

Comparison CompareSegments(const OutputCheck& check,
                           const ComparisonOptions& options,
                           const TensorView& actual, const Segments& segments) {
  Comparator comparator(options);
  UntouchedElements untouched;
  std::vector<Bounded> expected;
  const auto* bytes = static_cast<const std::byte*>(actual.data);
  const int size = SizeOf(actual.dtype);
  int64_t added = 0;
  for (const Interval& segment : segments) {
    for (int64_t at = segment.begin; at < segment.end; at += kBlock) {
      const int64_t n = std::min(kBlock, segment.end - at);
      expected.resize(static_cast<size_t>(n));
      check.expected->Read(*check.spec, check.rank, at, expected);
      // Stretches of elements to compare, between those to leave alone.
      for (int64_t i = 0; i < n;) {
        int64_t stop = i;
        while (stop < n && !Expectation::IsUntouched(expected[stop])) ++stop;
        if (stop > i) {
          comparator.Add(
              at + i, bytes + (at + i) * size,
              std::span(expected).subspan(static_cast<size_t>(i),
                                          static_cast<size_t>(stop - i)));
          added += stop - i;
        }
        for (; stop < n && Expectation::IsUntouched(expected[stop]); ++stop) {
          untouched.Check(check, actual, at + stop);
        }
        i = stop;
      }
    }
  }
  // "Nothing was compared" is a failure, unless there was nothing to compare:
  // an empty share of a replica, or blocks of which none is written.
  if (added == 0 && (segments.empty() || untouched.any())) {
    comparator.Cancel();
    Comparison nothing;
    nothing.outcome = Outcome::kPassed;
    untouched.Apply(actual.shape, nothing);
    return nothing;
  }
  Comparison result = comparator.Finish();
  untouched.Apply(actual.shape, result);
  return result;
}

template <class T>
void Put(std::string& out, const T& value) {
  static_assert(std::is_trivially_copyable_v<T>);
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void PutText(std::string& out, std::string_view text) {
  Put(out, static_cast<uint64_t>(text.size()));
  out += text;
}

// Takes what Put put, in the same order.
class Taker {
 public:
  explicit Taker(std::string_view bytes) : bytes_(bytes) {}
  template <class T>
  void Take(T& value) {
    if (bytes_.size() < sizeof(value)) {
      ok_ = false;
      return;
    }
    std::memcpy(static_cast<void*>(&value), bytes_.data(), sizeof(value));
    bytes_.remove_prefix(sizeof(value));
  }
  std::string TakeText() {
    uint64_t size = 0;
    Take(size);
    if (size > bytes_.size()) {
      ok_ = false;
      return {};
    }
    std::string text(bytes_.substr(0, size));
    bytes_.remove_prefix(size);
    return text;
  }
  bool ok() const { return ok_ && bytes_.empty(); }
  size_t left() const { return bytes_.size(); }

 private:
  std::string_view bytes_;
  bool ok_ = true;
};

}  // namespace

void Figures::Add(const Figures& other) {
  outcome = std::max(outcome, other.outcome);
  worst_ratio = std::max(worst_ratio, other.worst_ratio);
  max_abs = std::max(max_abs, other.max_abs);
  max_ulp = std::max(max_ulp, other.max_ulp);
  compared += other.compared;
  if (other.has_gain &&
      (!has_gain || std::abs(other.gain - 1) > std::abs(gain - 1))) {
    gain = other.gain;
    has_gain = true;
  }
}

void Figures::Add(const Comparison& c) {
  const bool has = std::isfinite(c.gain) && c.gain_tolerance > 0;
  Add(Figures{.outcome = c.outcome,
              .worst_ratio = c.worst_ratio,
              .max_abs = c.max_abs,
              .max_ulp = c.max_ulp,
              .gain = has ? c.gain : 1,
              .has_gain = has,
              .compared = c.compared});
}

std::string Account::Serialize() const {
  std::string out;
  Put(out, status.code());
  Put(out, traffic);
  Put(out, figures);
  PutText(out, status.message());
  PutText(out, fault);
  for (const uint64_t h : hashes) Put(out, h);
  return out;
}

StatusOr<Account> Account::Parse(std::string_view bytes) {
  Taker in(bytes);
  Account a;
  StatusCode code = StatusCode::kOk;
  in.Take(code);
  in.Take(a.traffic);
  in.Take(a.figures);
  const std::string message = in.TakeText();
  a.fault = in.TakeText();
  while (in.left() >= sizeof(uint64_t)) in.Take(a.hashes.emplace_back());
  if (!in.ok()) {
    return Internal("a rank sent an account that makes no sense");
  }
  if (code != StatusCode::kOk) a.status = Status(code, message);
  return a;
}

Comparison CompareOutput(const OutputCheck& check, const TensorView& actual,
                         const Segments& segments) {
  return CompareSegments(check, Options(check, actual.shape), actual, segments);
}

Comparison DiagnoseOutput(const OutputCheck& check, const TensorView& actual,
                          const Segments& segments, const Inputs& inputs,
                          const Tensors& tensors) {
  ComparisonOptions options = Options(check, actual.shape);
  const Expectation& expected = *check.expected;
  const int64_t n = actual.num_elements();
  const ShardKind kind = check.spec->sharding.kind;
  if (kind != ShardKind::kSharded && check.ranks > 1) {
    options.chunk = (n + check.ranks - 1) / check.ranks;
  }
  options.ranks = check.ranks;
  const auto covered = [&segments](int64_t begin, size_t count) {
    for (const Interval& s : segments) {
      if (begin >= s.begin && begin + static_cast<int64_t>(count) <= s.end) {
        return true;
      }
    }
    return false;
  };
  options.expected = [&](int64_t begin, std::span<Bounded> out) {
    if (covered(begin, out.size())) {
      expected.Read(*check.spec, check.rank, begin, out);
    } else {
      std::fill(out.begin(), out.end(), Expectation::Untouched());
    }
  };
  if (!expected.is_dense()) {
    // What a rank contributed is what is missing without it.
    options.term = [&](int rank, int64_t begin, std::span<double> out) {
      std::vector<Bounded> with(out.size()), without(out.size());
      expected.Read(*check.spec, check.rank, begin, with);
      const WithoutRank dropped(inputs, tensors, rank, check.ranks);
      expected.With(dropped).Read(*check.spec, check.rank, begin, without);
      for (size_t i = 0; i < out.size(); ++i) {
        out[i] = with[i].value - without[i].value;
      }
    };
  }
  return CompareSegments(check, options, actual, segments);
}

int64_t Population(const Tensors& tensors, int ranks) {
  int64_t population = 0;
  for (const TensorSpec& spec : tensors) {
    if (spec.role == TensorRole::kOutput) {
      population += spec.shape.NumElements() * ranks;
    }
  }
  return std::max<int64_t>(population, 1);
}

int64_t ElementsOf(const Tensors& tensors) {
  int64_t elements = 0;
  for (const TensorSpec& spec : tensors) elements += spec.shape.NumElements();
  return elements;
}

Finding MakeFinding(const TensorSpec& spec, int rank,
                    const Comparison& comparison) {
  Finding f;
  if (comparison.passed()) return f;
  f.reason =
      fmt::format("{} on rank {}: {}", spec.name, rank, comparison.reason);
  f.diagnosis = comparison.diagnosis;
  for (const shardproof::Mismatch& m : comparison.mismatches) {
    f.mismatches.push_back({.tensor = spec.name,
                            .rank = rank,
                            .index = std::vector<int64_t>(m.coordinates.begin(),
                                                          m.coordinates.end()),
                            .expected = m.expected,
                            .got = m.actual});
  }
  return f;
}

std::string Finding::Serialize() const {
  std::string out;
  PutText(out, reason);
  PutText(out, diagnosis);
  for (const Record::Mismatch& m : mismatches) {
    PutText(out, m.tensor);
    Put(out, m.rank);
    Put(out, m.expected);
    Put(out, m.got);
    Put(out, static_cast<uint64_t>(m.index.size()));
    for (const int64_t i : m.index) Put(out, i);
  }
  return out;
}

StatusOr<Finding> Finding::Parse(std::string_view text) {
  Taker in(text);
  Finding f;
  f.reason = in.TakeText();
  f.diagnosis = in.TakeText();
  while (in.left() > 0 && f.mismatches.size() < 64) {
    Record::Mismatch& m = f.mismatches.emplace_back();
    m.tensor = in.TakeText();
    in.Take(m.rank);
    in.Take(m.expected);
    in.Take(m.got);
    uint64_t rank = 0;
    in.Take(rank);
    for (uint64_t i = 0; i < rank && i < Shape::kMaxRank; ++i) {
      in.Take(m.index.emplace_back());
    }
  }
  if (!in.ok()) return Internal("a rank sent a finding that makes no sense");
  return f;
}

}  // namespace shardproof
