// A number that carries its own tolerance: the exact value of a computation,
// and how far an honest implementation may be from it.
//
// Contract: let `value` be the mathematical result on the given inputs, and c
// what an implementation computes that performs the declared roundings
// (Arithmetic) in any order. Then
//
//   |c - value| <= worst             always,
//   |c - value| <= Likely(lambda)    with probability 1 - delta for all N
//                                    elements together, where
//
//   Likely(lambda) = min(worst, likely + lambda sqrt(likely2))
//   lambda         = sqrt(2 ln(2 N / delta))
//
// Likely rests on rounding errors being mean-independent (Hallman and Ipsen,
// arXiv:2203.15928; Azuma's inequality): n roundings of size c contribute n c
// to `worst` and n c^2 to `likely2`. Up to kFewRoundings roundings are tighter
// added linearly, so those go to `likely`. Keeping one of the two sums only
// would either lose the cancellation of 14336 roundings or inflate a single one
// by lambda.
//
//   Bounded y = Dot(a, b, UnitRoundoff(DType::kF32));  // spans of Bounded
//   y = Rounded(y, DType::kBF16);                      // stored as bf16
//   bool wrong = !(std::abs(got - y.value) <= y.worst);
//
// The bounds are themselves computed in double, which is below every unit
// roundoff under test but f64's; there the references add kSlack.
//
// A bound may be infinite: nothing is known. It is never a NaN, with which every
// comparison is false: where infinities meet that would make one (0 times what
// may be infinite, or a difference of such), it is infinite again.
//
// In chains both bounds grow far beyond the errors; probe.h narrows `likely`.

#ifndef SHARDPROOF_REFERENCE_BOUNDED_H_
#define SHARDPROOF_REFERENCE_BOUNDED_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>

#include "reference/dtype.h"

namespace shardproof {

struct Bounded {
  double value = 0;
  double worst = 0;    // deterministic bound of |computed - value|
  double likely = 0;   // the part of the likely bound that adds linearly
  double likely2 = 0;  // the part that adds in squares

  double Likely(double lambda) const {
    return std::min(worst, likely + lambda * std::sqrt(likely2));
  }
};

// The arithmetic that an implementation declares. Bounds are derived from it
// and from nothing else.
struct Arithmetic {
  DType accumulate = DType::kF32;  // in which dot products and sums are added
  DType wire = DType::kF32;        // in which partial sums travel between ranks
  DType store = DType::kF32;  // in which results and intermediates are stored
  // Ranks over which the sum is split (t of a row-parallel product); each sends
  // one partial sum. 1: nothing travels.
  int partials = 1;
  // Roundings to `wire` on the path of one contribution (one-shot and two-shot
  // 1, ring partials - 1). 0: 1.
  int wire_roundings = 0;
  // Additions between ranks on the path of one contribution (ring partials - 1,
  // tree ceil(lg partials)). 0: partials - 1.
  int depth = 0;
  // The type of those additions.
  DType reduce = DType::kF32;
  // Unit roundoff of `accumulate` where it is not that of the type: 2^-23 for
  // tensor cores, which need not round to nearest. 0: the type's.
  double u_accumulate = 0;
  // Error of one exp or tanh in units of the roundoff of `accumulate`.
  double function_ulps = 4;

  // Everything natural for tensors of `dtype`: accumulated and reduced in
  // Accumulator(dtype), sent and stored in `dtype`.
  static Arithmetic For(DType dtype, int partials = 1) {
    Arithmetic a;
    a.accumulate = a.reduce = shardproof::Accumulator(dtype);
    a.wire = a.store = dtype;
    a.partials = partials;
    return a;
  }
  double UAccumulate() const {
    return u_accumulate > 0 ? u_accumulate : UnitRoundoff(accumulate);
  }
  double UWire() const { return partials > 1 ? UnitRoundoff(wire) : 0; }
  double UStore() const { return UnitRoundoff(store); }
  double UReduce() const { return UnitRoundoff(reduce); }
  int WireRoundings() const {
    return partials <= 1 ? 0 : wire_roundings > 0 ? wire_roundings : 1;
  }
  int Depth() const {
    return partials <= 1 ? 0 : depth > 0 ? depth : partials - 1;
  }
};

// The reference's own roundoff: one rounding of a double. Added to bounds, so
// that they also hold for f64 under test.
inline constexpr double kSlack = 0x1p-53;
// n roundings or fewer are bounded linearly. lambda^2 is 45 to 70 for N of 1e3
// to 1e9.
inline constexpr int64_t kFewRoundings = 32;

// gamma(n, u) = n u / (1 - n u); infinite from n u >= 1 (Higham, Accuracy and
// Stability, 3.1).
inline double Gamma(double n, double u) {
  return n * u < 1 ? n * u / (1 - n * u) : HUGE_VAL;
}
// lambda = sqrt(2 ln(2 N / delta)).
double Lambda(double population, double delta = 1e-6);

namespace internal {

inline double WithoutNaN(double bound) {
  return std::isnan(bound) ? HUGE_VAL : bound;
}
// Infinite bounds where they are NaN.
inline Bounded WithoutNaN(const Bounded& x) {
  return {x.value, WithoutNaN(x.worst), WithoutNaN(x.likely),
          WithoutNaN(x.likely2)};
}

}  // namespace internal

Bounded operator+(const Bounded& a, const Bounded& b);
// a + b, whose errors may come of the same ones (x and f(x)), where operator+
// has two that know nothing of one another: roots of squares add up.
Bounded DependentSum(const Bounded& a, const Bounded& b);
Bounded operator-(const Bounded& a, const Bounded& b);
Bounded operator*(const Bounded& a, const Bounded& b);
Bounded operator*(double s, const Bounded& a);

// One rounding of the implementation: to a type of unit roundoff u, absolute
// error at least half of `smallest_subnormal` when it underflows.
Bounded Rounded(const Bounded& x, double u, double smallest_subnormal = 0);
Bounded Rounded(const Bounded& x, DType dtype);
// `roundings` errors of at most u * magnitude each: what adding n terms with
// sum of absolute values `magnitude` leaves, gamma(n, u) magnitude.
Bounded Accumulated(const Bounded& x, double magnitude, int64_t roundings,
                    double u);

// sum_k a_k b_k, added in any order with unit roundoff u (products rounded too:
// n roundings on each path).
Bounded Dot(std::span<const Bounded> a, std::span<const Bounded> b, double u);
// sum_r x_r over p = x.size() contributions, each through p - 1 additions in
// `accumulate` and q roundings to `store`:
//   worst = [(1 + u_a)^(p-1) (1 + u_T)^q - 1] sum|x_r| + underflow
// One would expect q eta / 2 for the underflow, eta the smallest subnormal. But
// a tree has q = ceil(lg p) on each path and p - 1 stored partial sums, each of
// which may underflow, so the bound used here is (q <= 1 ? q : p - 1) eta / 2.
// (Sums of numbers of the stored type are multiples of eta and never underflow
// at all; the term matters for products and averages only.)
Bounded Sum(std::span<const Bounded> x, double u_accumulate, double u_store,
            int store_roundings, double smallest_subnormal = 0);

// One function evaluation each. `u` is the unit roundoff of the type that
// evaluates, `ulps` the error of its exp or tanh in u. The input's error e is
// propagated to second order: |f'(v)| e + sup|f''| e^2 / 2.
Bounded Exp(const Bounded& x, double u, double ulps);
Bounded Tanh(const Bounded& x, double u, double ulps);
Bounded Sigmoid(const Bounded& x, double u, double ulps);
// x sigmoid(x), and its derivative.
Bounded Silu(const Bounded& x, double u, double ulps);
Bounded SiluGrad(const Bounded& x, double u, double ulps);
// x/2 (1 + tanh(sqrt(2/pi) (x + 0.044715 x^3))), and its derivative.
Bounded GeluTanh(const Bounded& x, double u, double ulps);
Bounded GeluTanhGrad(const Bounded& x, double u, double ulps);

}  // namespace shardproof

#endif  // SHARDPROOF_REFERENCE_BOUNDED_H_
