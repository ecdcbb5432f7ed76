#include "reference/bounded.h"

#include <numbers>
#include <string_view>

#include "reference/probe.h"
#include "reference/random.h"

namespace shardproof {
namespace {

// Stands for lambda where a product of two likely errors, a second-order term,
// needs a number.
constexpr double kTypicalLambda = 8;

double Spread(const Bounded& x) { return x.Likely(kTypicalLambda); }

// The function of a probe, its value moved by as much as `own`, the bound of its
// evaluation.
Bounded ProbedValue(double x, double f, double own, double u,
                    std::string_view function) {
  return {f + own * internal::ProbedFunction(x, u, TensorId(function))};
}

struct Function {
  std::string_view name;
  double f = 0;
  double derivative = 0;
  double second_derivative_bound = 0;
  double evaluation = 0;  // The bound of its own error.
};

// |f(v + e) - f(v)| <= |f'(v)| e + sup|f''| e^2 / 2, plus the evaluation's own
// error.
Bounded Apply(const Bounded& x, double u, const Function& f) {
  if (Probe::Active()) {
    return ProbedValue(x.value, f.f, f.evaluation, u, f.name);
  }
  const double d = std::abs(f.derivative);
  const double half = 0.5 * f.second_derivative_bound;
  const double own = f.evaluation + kSlack * std::abs(f.f);
  return internal::WithoutNaN(
      {f.f, d * x.worst + half * x.worst * x.worst + own,
       d * x.likely + half * Spread(x) * Spread(x) + own, d * d * x.likely2});
}

// Values are computed in long double, so that they are good to a double's
// roundoff even for f64 under test.
struct GeluParts {
  long double t;   // tanh(w)
  long double w;   // sqrt(2/pi) (x + 0.044715 x^3)
  long double dw;  // w'
};

GeluParts Gelu(long double x) {
  const long double c = std::sqrt(2 / std::numbers::pi_v<long double>);
  const long double w = c * (x + 0.044715L * x * x * x);
  return {std::tanh(w), w, c * (1 + 3 * 0.044715L * x * x)};
}

long double SigmoidValue(long double x) {
  // Without cancellation or overflow on either side.
  if (x >= 0) return 1 / (1 + std::exp(-x));
  const long double e = std::exp(x);
  return e / (1 + e);
}

}  // namespace

double Lambda(double population, double delta) {
  return std::sqrt(2 * std::log(2 * std::max(population, 1.0) / delta));
}

Bounded operator+(const Bounded& a, const Bounded& b) {
  const double v = a.value + b.value;
  const double own = kSlack * std::abs(v);
  return {v, a.worst + b.worst + own, a.likely + b.likely + own,
          a.likely2 + b.likely2};
}

Bounded DependentSum(const Bounded& a, const Bounded& b) {
  Bounded sum = a + b;
  const double root = std::sqrt(a.likely2) + std::sqrt(b.likely2);
  sum.likely2 = root * root;
  return sum;
}

Bounded operator-(const Bounded& a, const Bounded& b) {
  return a + Bounded{-b.value, b.worst, b.likely, b.likely2};
}

Bounded operator*(const Bounded& a, const Bounded& b) {
  const double v = a.value * b.value;
  const double x = std::abs(a.value);
  const double y = std::abs(b.value);
  const double own = kSlack * std::abs(v);
  return internal::WithoutNaN(
      {v, x * b.worst + y * a.worst + a.worst * b.worst + own,
       x * b.likely + y * a.likely + Spread(a) * Spread(b) + own,
       x * x * b.likely2 + y * y * a.likely2});
}

Bounded operator*(double s, const Bounded& a) { return Bounded{s} * a; }

Bounded Rounded(const Bounded& x, double u, double smallest_subnormal) {
  const double v = std::abs(x.value);
  const double underflow = 0.5 * smallest_subnormal;
  if (Probe::Active()) {
    return {x.value +
            (u * v + underflow) * internal::ProbedRounding(x.value, u)};
  }
  // No product of an infinite bound with u = 0.
  return internal::WithoutNaN({x.value, x.worst + u * (v + x.worst) + underflow,
                               x.likely + u * (v + Spread(x)) + underflow,
                               x.likely2});
}

Bounded Rounded(const Bounded& x, DType dtype) {
  return Rounded(x, UnitRoundoff(dtype), SmallestSubnormal(dtype));
}

Bounded Accumulated(const Bounded& x, double magnitude, int64_t roundings,
                    double u) {
  if (roundings <= 0 || magnitude == 0) return x;
  const double n = static_cast<double>(roundings);
  Bounded result = x;
  if (Probe::Active()) {
    result.value +=
        std::sqrt(n) * u * magnitude * internal::ProbedRounding(x.value, u);
    return result;
  }
  result.worst += Gamma(n, u) * magnitude;
  if (roundings <= kFewRoundings) {
    result.likely += Gamma(n, u) * magnitude;
  } else {
    result.likely2 += n * u * u * magnitude * magnitude;
  }
  return internal::WithoutNaN(result);
}

Bounded Dot(std::span<const Bounded> a, std::span<const Bounded> b, double u) {
  const size_t n = std::min(a.size(), b.size());
  const bool few = n <= kFewRoundings;
  Bounded sum;
  double magnitude = 0;
  for (size_t k = 0; k < n; ++k) {
    const Bounded term = a[k] * b[k];
    sum.value += term.value;
    sum.worst += term.worst;
    sum.likely2 += term.likely2;
    // The errors of different elements are independent: in squares.
    if (few) {
      sum.likely += term.likely;
    } else {
      sum.likely2 += term.likely * term.likely;
    }
    magnitude += std::abs(term.value) + term.worst;
  }
  return Accumulated(sum, magnitude, static_cast<int64_t>(n), u + kSlack);
}

Bounded Sum(std::span<const Bounded> x, double u_accumulate, double u_store,
            int store_roundings, double smallest_subnormal) {
  const double additions = std::max(0.0, static_cast<double>(x.size()) - 1);
  double value = 0;
  double lost = 0;  // what rounding took from `value` (Knuth's two-sum)
  double magnitude = 0;
  Bounded result;
  for (const Bounded& term : x) {
    const double s = value + term.value;
    const double back = s - value;
    lost += (value - (s - back)) + (term.value - back);
    value = s;
    magnitude += std::abs(term.value) + term.worst;
    result.worst += term.worst;
    result.likely += term.likely;
    result.likely2 += term.likely2;
  }
  result.value = std::isfinite(value) ? value + lost : value;
  const double factor = std::expm1(additions * std::log1p(u_accumulate) +
                                   store_roundings * std::log1p(u_store));
  const double underflows =
      store_roundings <= 1 ? store_roundings : std::max(1.0, additions);
  const double underflow = 0.5 * underflows * smallest_subnormal * (1 + factor);
  const double own = kSlack * std::abs(result.value);
  if (Probe::Active()) {
    const double deviation = std::sqrt(additions * u_accumulate * u_accumulate +
                                       store_roundings * u_store * u_store) *
                             magnitude;
    const double u = std::max(u_accumulate, store_roundings > 0 ? u_store : 0);
    return {result.value + (deviation + underflow) *
                               internal::ProbedRounding(result.value, u)};
  }
  result.worst += factor * magnitude + underflow + own;
  if (additions + store_roundings <= kFewRoundings) {
    result.likely += factor * magnitude + underflow + own;
  } else {
    result.likely += underflow + own;
    result.likely2 += (additions * u_accumulate * u_accumulate +
                       store_roundings * u_store * u_store) *
                      magnitude * magnitude;
  }
  return internal::WithoutNaN(result);
}

Bounded Exp(const Bounded& x, double u, double ulps) {
  const double f =
      static_cast<double>(std::exp(static_cast<long double>(x.value)));
  const double own = (ulps * u + kSlack) * f;
  if (Probe::Active()) return ProbedValue(x.value, f, own, u, "exp");
  // Where e is large, the roundings of the bound itself show.
  const double own_far = own * std::exp(x.worst) * 4;
  return internal::WithoutNaN(
      {f, f * std::expm1(x.worst) + own_far,
       f * x.likely + f * (std::expm1(Spread(x)) - Spread(x)) + own_far,
       f * f * x.likely2});
}

Bounded Tanh(const Bounded& x, double u, double ulps) {
  const double f =
      static_cast<double>(std::tanh(static_cast<long double>(x.value)));
  // sup|tanh''| = 4 / (3 sqrt 3).
  return Apply(x, u, {"tanh", f, 1 - f * f, 0.7699, ulps * u * std::abs(f)});
}

Bounded Sigmoid(const Bounded& x, double u, double ulps) {
  const double f = static_cast<double>(SigmoidValue(x.value));
  // sup|sigmoid''| = 1 / (6 sqrt 3). Evaluated as 1 / (1 + exp(-x)) or through
  // tanh(x/2): at most ulps + 3 units of 1.
  return Apply(x, u, {"sigmoid", f, f * (1 - f), 0.09623, (ulps + 3) * u});
}

Bounded Silu(const Bounded& x, double u, double ulps) {
  const long double s = SigmoidValue(x.value);
  const double f = static_cast<double>(x.value * s);
  const double df = static_cast<double>(s + x.value * s * (1 - s));
  // sup|silu''| = 1/2, at 0.
  return Apply(
      x, u,
      {"silu", f, df, 0.5, (ulps + 4) * u * (std::abs(x.value) + x.worst)});
}

Bounded SiluGrad(const Bounded& x, double u, double ulps) {
  const long double s = SigmoidValue(x.value);
  const long double v = x.value;
  const double f = static_cast<double>(s + v * s * (1 - s));
  const double df = static_cast<double>(s * (1 - s) * (2 + v * (1 - 2 * s)));
  // As a function of the sigmoid, s + v s - v s^2 has slope at most 1 + |v|.
  const double evaluation =
      (ulps + 3) * u * (1 + std::abs(x.value) + x.worst) + 5 * u;
  return Apply(x, u, {"silu gradient", f, df, 0.31, evaluation});
}

Bounded GeluTanh(const Bounded& x, double u, double ulps) {
  const GeluParts g = Gelu(x.value);
  const long double v = x.value;
  const double f = static_cast<double>(0.5L * v * (1 + g.t));
  const double df =
      static_cast<double>(0.5L * (1 + g.t) + 0.5L * v * (1 - g.t * g.t) * g.dw);
  // tanh: `ulps` of its own and, for the argument's relative error of 3 u, |w|
  // sech^2(w) 3 u <= 1.4 u; 1 + t and the products: 3 u more. For negative x
  // the sum cancels, so this is relative to |x|, not to the result.
  return Apply(
      x, u,
      {"gelu", f, df, 0.81, (ulps + 5) * u * (std::abs(x.value) + x.worst)});
}

Bounded GeluTanhGrad(const Bounded& x, double u, double ulps) {
  const GeluParts g = Gelu(x.value);
  const long double v = x.value;
  const long double sech2 = 1 - g.t * g.t;
  const double f =
      static_cast<double>(0.5L * (1 + g.t) + 0.5L * v * sech2 * g.dw);
  // f'' of the gelu.
  const long double ddw =
      std::sqrt(2 / std::numbers::pi_v<long double>) * 6 * 0.044715L * v;
  const double df = static_cast<double>(
      sech2 * g.dw + 0.5L * v * sech2 * (ddw - 2 * g.t * g.dw * g.dw));
  // t carries (ulps + 1.4) u; 1 - t^2 twice that and a rounding; times x w'
  // / 2.
  const double weight = std::abs(static_cast<double>(v * g.dw)) + x.worst;
  const double evaluation =
      (ulps + 2) * u * (0.5 + weight) + 3 * u * (1 + weight);
  // sup|gelu'''| = 0.777.
  return Apply(x, u, {"gelu gradient", f, df, 0.78, evaluation});
}

}  // namespace shardproof
