// The gain of a computed output over the expected one: <c, y> / <y, y>, and how
// far from 1 honest rounding can bring it. Internal to reference/.
//
// With honest errors e_i that are independent, of mean zero and |e_i| <= B_i,
// Hoeffding gives
//   P(|sum e_i y_i| > z sqrt(sum B_i^2 y_i^2)) <= 2 exp(-z^2 / 2),   z =
//   sqrt(2 ln(2 / delta)),
// and never more than sum worst_i |y_i|. Division by <y, y> turns it into the
// tolerance of gain - 1. Errors that are not independent, those of a biased exp
// for instance, are of the order of the accumulator's roundoff; 16 of those are
// allowed on top.
#ifndef SHARDPROOF_REFERENCE_GAIN_H_
#define SHARDPROOF_REFERENCE_GAIN_H_

#include <algorithm>
#include <cmath>

#include "reference/bounded.h"
#include "reference/dtype.h"

namespace shardproof::internal {

struct GainSums {
  double yy = 0;    // <y, y>
  double ey = 0;    // <c - y, y>: the gain less one, without cancellation
  double b2y2 = 0;  // sum likely^2 y^2
  double wy = 0;    // sum worst |y|

  // One finite element, `likely` its likely bound.
  void Add(double c, const Bounded& y, double likely) {
    if (y.value == 0) return;  // No product of an infinite bound with 0.
    yy += y.value * y.value;
    ey += (c - y.value) * y.value;
    b2y2 += likely * likely * y.value * y.value;
    wy += y.worst * std::abs(y.value);
  }
  bool defined() const { return yy > 0; }
  double Gain() const { return 1 + ey / yy; }
  // `lambda` is z, or what takes its place where errors are not independent.
  double Tolerance(double lambda, DType dtype, double bias) const {
    return std::min(lambda * std::sqrt(b2y2), wy) / yy + bias +
           16 * UnitRoundoff(Accumulator(dtype));
  }
  bool Within(double tolerance) const { return std::abs(ey / yy) <= tolerance; }
};

}  // namespace shardproof::internal

#endif  // SHARDPROOF_REFERENCE_GAIN_H_
