#include "reports/fitting/piecewise.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace shardproof {
namespace {

// Squared relative errors that rounding makes: no fit is better.
constexpr double kRounding = 1e-24;

// First sample of each size, and the end.
std::vector<size_t> SizesOf(const std::vector<CostSample>& samples) {
  std::vector<size_t> starts;
  for (size_t i = 0; i < samples.size(); ++i) {
    if (i == 0 || samples[i].bytes != samples[i - 1].bytes) starts.push_back(i);
  }
  starts.push_back(samples.size());
  return starts;
}

// Over sizes a..b-1, for each a < b; infinite where there are too few.
class Segments {
 public:
  Segments(const std::vector<CostSample>& samples,
           const std::vector<size_t>& starts)
      : samples_(samples), starts_(starts), sizes_(starts.size() - 1) {
    squares_.assign((sizes_ + 1) * (sizes_ + 1),
                    std::numeric_limits<double>::infinity());
    for (size_t a = 0; a < sizes_; ++a) {
      for (size_t b = a + kLeastSizes; b <= sizes_; ++b) {
        if (const auto fit = Fit(a, b); fit.ok()) {
          squares_[a * (sizes_ + 1) + b] = fit->squares;
        }
      }
    }
  }
  StatusOr<LinearFit> Fit(size_t a, size_t b) const {
    return FitLinear(
        std::span(samples_).subspan(starts_[a], starts_[b] - starts_[a]));
  }
  double squares(size_t a, size_t b) const {
    return squares_[a * (sizes_ + 1) + b];
  }
  size_t sizes() const { return sizes_; }

 private:
  const std::vector<CostSample>& samples_;
  const std::vector<size_t>& starts_;
  size_t sizes_;
  std::vector<double> squares_;
};

// Where the pieces begin, the end last; empty where there are not as many.
std::vector<size_t> BestCuts(const Segments& segments, int pieces) {
  const size_t n = segments.sizes();
  const double inf = std::numeric_limits<double>::infinity();
  std::vector<std::vector<double>> best(static_cast<size_t>(pieces) + 1,
                                        std::vector<double>(n + 1, inf));
  std::vector<std::vector<size_t>> cut(static_cast<size_t>(pieces) + 1,
                                       std::vector<size_t>(n + 1, 0));
  best[0][0] = 0;
  for (size_t m = 1; m <= static_cast<size_t>(pieces); ++m) {
    for (size_t b = 1; b <= n; ++b) {
      for (size_t a = 0; a < b; ++a) {
        const double squares = best[m - 1][a] + segments.squares(a, b);
        if (squares < best[m][b]) {
          best[m][b] = squares;
          cut[m][b] = a;
        }
      }
    }
  }
  if (best.back()[n] == inf) return {};
  std::vector<size_t> cuts = {n};
  for (size_t m = static_cast<size_t>(pieces); m > 0; --m) {
    cuts.push_back(cut[m][cuts.back()]);
  }
  std::ranges::reverse(cuts);
  return cuts;
}

}  // namespace

const Piecewise::Piece& Piecewise::At(int64_t bytes) const {
  size_t i = pieces.size() - 1;
  while (i > 0 && bytes < pieces[i].from_bytes) --i;
  return pieces[i];
}

StatusOr<Piecewise> FitPiecewise(std::vector<CostSample> samples,
                                 int most_pieces) {
  std::ranges::stable_sort(samples, {}, &CostSample::bytes);
  const std::vector<size_t> starts = SizesOf(samples);
  if (starts.size() <= kLeastSizes) {
    return InvalidArgument("a fit takes at least {} sizes, and there are {}",
                           kLeastSizes, starts.size() - 1);
  }
  const Segments segments(samples, starts);
  // Says what is wrong where something is.
  SP_RETURN_IF_ERROR(segments.Fit(0, segments.sizes()).status());

  const auto n = static_cast<double>(samples.size());
  double best = std::numeric_limits<double>::infinity();
  std::vector<size_t> cuts;
  for (int m = 1; m <= most_pieces; ++m) {
    const std::vector<size_t> tried = BestCuts(segments, m);
    double squares = 0, parameters = m - 1;
    for (size_t i = 0; i + 1 < tried.size(); ++i) {
      const auto fit = segments.Fit(tried[i], tried[i + 1]);
      squares += fit->squares;
      parameters += fit->gamma_us_per_mib.has_value() ? 3 : 2;
    }
    // A model of as many parameters as times fits anything.
    if (tried.empty() || (m > 1 && parameters >= n)) continue;
    const double bic = n * std::log(std::max(squares / n, kRounding)) +
                       parameters * std::log(n);
    if (bic < best) {
      best = bic;
      cuts = tried;
    }
  }
  Piecewise out;
  for (size_t i = 0; i + 1 < cuts.size(); ++i) {
    const size_t first = starts[cuts[i]], end = starts[cuts[i + 1]];
    SP_ASSIGN_OR_RETURN(const LinearFit fit,
                        segments.Fit(cuts[i], cuts[i + 1]));
    out.pieces.push_back({.from_bytes = samples[first].bytes,
                          .to_bytes = samples[end - 1].bytes,
                          .fit = fit,
                          .points = static_cast<int>(end - first)});
  }
  return out;
}

Bandwidth BandwidthOf(const Piecewise& fit,
                      std::span<const CostSample> samples) {
  // The time as a line of the operation's bytes over each piece; costs other
  // than bytes hardly change within one.
  struct Line {
    double start = 0, slope = 0;
  };
  const auto line = [&](const Piecewise::Piece& piece) {
    const CostSample *low = nullptr, *high = nullptr;
    for (const CostSample& s : samples) {
      if (s.bytes == piece.from_bytes) low = &s;
      if (s.bytes == piece.to_bytes) high = &s;
    }
    if (low == nullptr || high == nullptr || low->bytes == high->bytes) {
      return Line();
    }
    const double slope = (piece.fit.TimeUs(*high) - piece.fit.TimeUs(*low)) /
                         static_cast<double>(high->bytes - low->bytes);
    return Line{
        piece.fit.TimeUs(*low) - slope * static_cast<double>(low->bytes),
        slope};
  };
  Bandwidth out;
  const Line last = line(fit.pieces.back());
  if (!(last.slope > 0)) return out;
  out.asymptotic_gbps = 1e-3 / last.slope;  // Bytes per us are MB/s.
  out.half_bandwidth_bytes = std::max(0.0, last.start / last.slope);
  // Half the rate is bytes / (2 slope) in time; the first piece that has it.
  for (const Piecewise::Piece& piece : fit.pieces) {
    const Line l = line(piece);
    const double denominator = 2 * last.slope - l.slope;
    if (!(denominator > 0)) continue;
    const double bytes = l.start / denominator;
    if (bytes <= static_cast<double>(piece.to_bytes)) {
      out.half_bandwidth_bytes =
          std::max(bytes, &piece == fit.pieces.data()
                              ? 0.0
                              : static_cast<double>(piece.from_bytes));
      break;
    }
  }
  return out;
}

}  // namespace shardproof
