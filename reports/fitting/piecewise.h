// Times of an operation over sizes, in pieces between the sizes where
// protocols switch.
//
//     SP_ASSIGN_OR_RETURN(const Piecewise fit, FitPiecewise(samples));
//     fit.pieces[0].fit.alpha_us, fit.half_bandwidth_bytes
//
// Each piece is a FitLinear over at least kLeastSizes sizes. Which pieces: the
// least sum of squares for every number of pieces by dynamic programming over
// the sorted sizes, and the number of pieces, at most kMostPieces, by the least
//     BIC = n ln(squares / n) + k ln n,
// k counting coefficients and breakpoints. Where squares / n is below what
// double precision resolves, fewer pieces win.
// Sources: Bellman and Roth, JASA 64(327), 1969; Schwarz, Annals of Statistics
// 6(2), 1978.
#ifndef SHARDPROOF_REPORTS_FITTING_PIECEWISE_H_
#define SHARDPROOF_REPORTS_FITTING_PIECEWISE_H_

#include <cstdint>
#include <span>
#include <vector>

#include "reference/status.h"
#include "reports/fitting/least_squares.h"

namespace shardproof {

inline constexpr int kMostPieces = 3;
inline constexpr int kLeastSizes = 3;

struct Piecewise {
  struct Piece {
    int64_t from_bytes = 0, to_bytes = 0;  // Inclusive; of the operation.
    LinearFit fit = {};
    int points = 0;
  };
  std::vector<Piece> pieces = {};

  // The piece whose sizes hold `bytes`; between two and beyond the last, the
  // one below; before the first, the first.
  const Piece& At(int64_t bytes) const;
  double TimeUs(const CostSample& sample) const {
    return At(sample.bytes).fit.TimeUs(sample);
  }
};

// Errors: FitLinear's; fewer sizes than kLeastSizes.
StatusOr<Piecewise> FitPiecewise(std::vector<CostSample> samples,
                                 int most_pieces = kMostPieces);

// What sizes make of a link: the rate that is approached by large ones, from
// the slope over the last piece, and the size at which half of it is had
// (Hockney's n_1/2). 0 where the time does not rise over the last piece.
struct Bandwidth {
  double asymptotic_gbps = 0;  // 1e9 bytes of the operation per second.
  double half_bandwidth_bytes = 0;
};
Bandwidth BandwidthOf(const Piecewise& fit,
                      std::span<const CostSample> samples);

}  // namespace shardproof

#endif  // SHARDPROOF_REPORTS_FITTING_PIECEWISE_H_
