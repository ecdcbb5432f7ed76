#include "reference/diagnose.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <optional>

namespace shardproof::internal {
namespace {

using Sample = std::span<const WrongElement>;

constexpr double kShare =
    0.9;  // of the wrong elements a hypothesis must explain
constexpr size_t kPerChunk = 64;    // wrong elements looked at
constexpr int64_t kMaxShift = 8;    // elements
constexpr int64_t kMaxChunks = 64;  // chunks tried as the origin of another

// Finds what happened inside one chunk.
class Chunk {
 public:
  Chunk(const ComparisonOptions& o, Sample sample, int64_t chunk)
      : o_(o), sample_(sample), chunk_(chunk) {}

  // Empty when nothing explains it.
  std::string Explain() const {
    if (Most([](const WrongElement& w) { return w.poison; })) {
      return "still poison (never written)";
    }
    if (Most([](const WrongElement& w) { return std::isnan(w.actual); })) {
      return "NaN";
    }
    if (Most([](const WrongElement& w) { return w.actual == 0; })) {
      return "all zero";
    }
    if (std::string s = Ranks(); !s.empty()) return s;
    if (std::string s = Moved(); !s.empty()) return s;
    return Scaled();
  }

 private:
  bool Most(const std::function<bool(const WrongElement&)>& matches) const {
    size_t hits = 0;
    for (const WrongElement& w : sample_) hits += matches(w) ? 1 : 0;
    return static_cast<double>(hits) >=
           kShare * static_cast<double>(sample_.size());
  }

  // Whether `predicted` is what was found, up to honest rounding.
  bool Same(const WrongElement& w, double predicted) const {
    if (o_.exact) return w.actual == Round(o_.dtype, predicted);
    const double slack =
        w.worst +
        4 * UnitRoundoff(o_.dtype) * (std::abs(predicted) + std::abs(w.actual));
    return std::abs(w.actual - predicted) <= slack;
  }

  double Term(int rank, int64_t index) const {
    double term = 0;
    o_.term(rank, index, std::span(&term, 1));
    return term;
  }

  std::string Ranks() const {
    if (!o_.term) return "";
    for (int r = 0; r < o_.ranks; ++r) {
      std::vector<double> term;
      for (const WrongElement& w : sample_) term.push_back(Term(r, w.index));
      const auto most = [&](auto predict) {
        size_t hits = 0;
        for (size_t i = 0; i < sample_.size(); ++i) {
          hits += Same(sample_[i], predict(sample_[i].expected, term[i]));
        }
        return static_cast<double>(hits) >=
               kShare * static_cast<double>(sample_.size());
      };
      if (most([](double y, double x) { return y - x; })) {
        return fmt::format("rank {} missing", r);
      }
      if (most([](double y, double x) { return y + x; })) {
        return fmt::format("rank {} counted twice", r);
      }
      if (o_.ranks > 1 && most([](double, double x) { return x; })) {
        return fmt::format("rank {}'s input alone", r);
      }
    }
    return "";
  }

  std::optional<double> Expected(int64_t index) const {
    if (index < 0 || index >= o_.shape.NumElements()) return std::nullopt;
    Bounded y;
    o_.expected(index, std::span(&y, 1));
    return y.value;
  }

  bool MovedBy(int64_t distance) const {
    return Most([&](const WrongElement& w) {
      const std::optional<double> y = Expected(w.index + distance);
      return y.has_value() && Same(w, *y);
    });
  }

  std::string Moved() const {
    if (!o_.expected) return "";
    if (o_.chunk > 0) {
      const int64_t here = sample_.front().index / o_.chunk;
      const int64_t chunks = std::min(
          kMaxChunks, (o_.shape.NumElements() + o_.chunk - 1) / o_.chunk);
      for (int64_t there = 0; there < chunks; ++there) {
        if (there != here && MovedBy((there - here) * o_.chunk)) {
          return fmt::format("holds chunk {}", there);
        }
      }
    }
    for (int64_t d = 1; d <= kMaxShift; ++d) {
      if (MovedBy(d)) return fmt::format("shifted by {} towards the front", d);
      if (MovedBy(-d)) return fmt::format("shifted by {} towards the end", d);
    }
    return "";
  }

  std::string Scaled() const {
    double ay = 0;
    double yy = 0;
    for (const WrongElement& w : sample_) {
      ay += w.actual * w.expected;
      yy += w.expected * w.expected;
    }
    const double scale = ay / yy;
    // One element is always a multiple of another.
    if (sample_.size() < 3 || !std::isfinite(scale)) return "";
    const auto matches = [&](double s) {
      return Most([&](const WrongElement& w) {
        const double slack = (o_.exact ? 1e-9 : 4 * UnitRoundoff(o_.dtype)) *
                                 std::abs(w.actual) +
                             w.worst * (1 + std::abs(s));
        return std::abs(w.actual - s * w.expected) <= slack;
      });
    };
    // A round number is more telling than the fit.
    for (int p = 1; p <= 16; ++p) {
      for (double s : {1.0 / p, static_cast<double>(p), -1.0 / p,
                       -static_cast<double>(p)}) {
        if (s != 1 && std::abs(scale - s) <= 0.02 * std::abs(s) && matches(s)) {
          return fmt::format("scaled by {:.6g}", s);
        }
      }
    }
    if (matches(scale)) return fmt::format("scaled by {:.6g}", scale);
    return "";
  }

  const ComparisonOptions& o_;
  Sample sample_;
  int64_t chunk_;
};

struct Finding {
  int64_t first_chunk;
  int64_t last_chunk;
  std::string what;
};

std::string Chunks(const Finding& f) {
  if (f.first_chunk == f.last_chunk) {
    return fmt::format("chunk {}", f.first_chunk);
  }
  return fmt::format("chunks {} to {}", f.first_chunk, f.last_chunk);
}

// Two chunks that hold each other are one finding.
void MergeSwaps(std::vector<Finding>& findings) {
  for (size_t i = 0; i < findings.size(); ++i) {
    for (size_t j = i + 1; j < findings.size(); ++j) {
      if (findings[i].what == fmt::format("holds {}", Chunks(findings[j])) &&
          findings[j].what == fmt::format("holds {}", Chunks(findings[i]))) {
        findings[i].what =
            fmt::format("chunks {} and {} swapped", findings[i].first_chunk,
                        findings[j].first_chunk);
        findings[i].first_chunk = findings[i].last_chunk = -1;
        findings.erase(findings.begin() + static_cast<ptrdiff_t>(j));
        break;
      }
    }
  }
}

// Where all wrong elements lie.
std::string Place(const ComparisonOptions& o,
                  const std::vector<WrongRange>& ranges, int64_t wrong) {
  const int64_t n = o.shape.NumElements();
  const int64_t begin = ranges.front().begin;
  const int64_t end = ranges.back().end;
  if (wrong == n) return "everywhere";
  if (wrong == 1) return fmt::format("in element {}", begin);
  if (ranges.size() == 1 && end - begin == wrong) {
    if (end == n) return fmt::format("in the last {} elements", wrong);
    return fmt::format("in elements {}..{}", begin, end - 1);
  }
  return fmt::format("in {} elements of {}..{}", wrong, begin, end - 1);
}

std::string Sentence(const std::string& what, const std::string& place) {
  return what.empty() ? fmt::format("wrong {}", place)
                      : fmt::format("{} {}", what, place);
}

Sample FirstOf(Sample sample) {
  return sample.first(std::min(sample.size(), kPerChunk));
}

}  // namespace

std::string Diagnose(const ComparisonOptions& options,
                     const std::vector<WrongElement>& sample,
                     const std::vector<WrongRange>& ranges, int64_t wrong) {
  if (sample.empty() || ranges.empty()) return "";
  std::vector<WrongElement> sorted = sample;
  std::sort(sorted.begin(), sorted.end(),
            [](const auto& a, const auto& b) { return a.index < b.index; });

  // One run of wrong elements that respects no chunk border is described by its
  // indices; so is everything when there are no chunks.
  const int64_t n = options.shape.NumElements();
  const int64_t chunk = options.chunk;
  const bool aligned =
      chunk > 0 &&
      std::any_of(ranges.begin(), ranges.end(), [&](const auto& r) {
        return r.begin % chunk == 0 && (r.end % chunk == 0 || r.end == n);
      });
  const bool one_run =
      ranges.size() == 1 && ranges[0].end - ranges[0].begin == wrong;
  if (chunk <= 0 || wrong == n || (one_run && !aligned)) {
    const std::string what = Chunk(options, FirstOf(sorted), 0).Explain();
    if (!what.empty() || chunk <= 0 || wrong != n) {
      return Sentence(what, Place(options, ranges, wrong));
    }
  }

  std::vector<Finding> findings;
  for (size_t i = 0; i < sorted.size();) {
    const int64_t c = sorted[i].index / chunk;
    size_t j = i;
    while (j < sorted.size() && sorted[j].index / chunk == c) ++j;
    const Sample here(sorted.data() + i, j - i);
    std::string what = Chunk(options, FirstOf(here), c).Explain();
    if (!findings.empty() && findings.back().what == what &&
        findings.back().last_chunk == c - 1) {
      findings.back().last_chunk = c;
    } else {
      findings.push_back({c, c, std::move(what)});
    }
    i = j;
  }
  MergeSwaps(findings);
  std::string text;
  constexpr size_t kMaxFindings = 4;
  for (size_t i = 0; i < std::min(findings.size(), kMaxFindings); ++i) {
    const Finding& f = findings[i];
    if (i > 0) text += "; ";
    if (f.first_chunk < 0) {
      text += f.what;
    } else if (f.what.starts_with("holds")) {
      text += fmt::format("{} {}", Chunks(f), f.what);
    } else {
      text += Sentence(f.what, "in " + Chunks(f));
    }
  }
  if (findings.size() > kMaxFindings) {
    text += fmt::format("; and {} more places", findings.size() - kMaxFindings);
  }
  return text;
}

}  // namespace shardproof::internal
