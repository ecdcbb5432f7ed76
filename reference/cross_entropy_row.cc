#include "reference/cross_entropy_row.h"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>

#include "reference/probe.h"
#include "reference/random.h"

namespace shardproof {
namespace {

using Wide = long double;

class Row {
 public:
  explicit Row(const Arithmetic& a)
      : u_(a.UAccumulate()),
        ulps_(a.function_ulps),
        store_(a.store),
        least_(a.accumulate == DType::kF64
                   ? std::numeric_limits<double>::min()
                   : double{std::numeric_limits<float>::min()}),
        probed_(Probe::Active()) {}

  double Run(std::span<double> x, size_t target) const {
    const double top = *std::max_element(x.begin(), x.end());
    const double at_target = Round(x[target] - top);
    Wide sum = 0, shifted = 0;
    for (double& v : x) {
      const double d = v - top;
      const Wide e = Exponential(d);
      v = static_cast<double>(e);
      sum += e;
      shifted += e * std::abs(d);
    }
    const double s =
        Sum(static_cast<double>(sum), static_cast<double>(shifted), x.size());
    const double inverse = Round(1 / s);
    // Where exp is not a normal number, it may be 0.
    for (double& v : x) {
      v *= inverse;
      if (probed_) v = Rounded({v}, u_, 2 * least_).value;
    }
    x[target] = Round(x[target] - 1);
    if (probed_) {
      for (double& v : x) v = Rounded({v}, store_).value;
    }
    return Round(Logarithm(s) - at_target);
  }

 private:
  double Round(double x) const { return probed_ ? Rounded({x}, u_).value : x; }

  Wide Exponential(double d) const {
    if (!probed_) return std::exp(static_cast<Wide>(d));
    const double moved =
        Round(d) +
        ulps_ * u_ *
            internal::ProbedFunction(d, u_, TensorId("exp of a cross entropy"));
    return std::exp(static_cast<Wide>(moved));
  }

  // Of n exponentials.
  double Sum(double s, double shifted, size_t n) const {
    if (!probed_) return s;
    const double added =
        Accumulated({s}, s, static_cast<int64_t>(n) + 1, u_).value;
    return Accumulated({added}, shifted + (ulps_ + 1) * s, 1, u_).value;
  }

  double Logarithm(double s) const {
    const double l = std::log(s);
    if (!probed_) return l;
    return l + ulps_ * u_ * l *
                   internal::ProbedFunction(s, u_,
                                            TensorId("log of a cross entropy"));
  }

  double u_, ulps_;
  DType store_;
  double least_;  // The least normal number.
  bool probed_;
};

}  // namespace

double CrossEntropyRow(std::span<double> x, size_t target,
                       const Arithmetic& arithmetic) {
  return Row(arithmetic).Run(x, target);
}

}  // namespace shardproof
