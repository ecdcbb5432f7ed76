#include "reference/cross_entropy.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "reference/product.h"

namespace shardproof {
namespace {

// What follows from one row of logits. Relative errors are those of S.
struct Row {
  std::vector<double> x;
  double max = 0;
  Bounded sum;  // S
  Bounded loss;
};

class CrossEntropy {
 public:
  CrossEntropy(const CrossEntropyInputs& in, const Arithmetic& a,
               int rescalings)
      : in_(in),
        a_(a),
        // Values of f64 are computed in long double, and rounded once.
        u_(a.UAccumulate()),
        ulps_(a.function_ulps),
        rescalings_(rescalings),
        columns_(in.logits.shape[1]),
        share_(in.smoothing / static_cast<double>(in.vocabulary)) {}

  bool Counts(int64_t token) const { return Target(token) != in_.ignore_index; }

  Row Evaluate(int64_t token) const {
    Row row;
    row.x.resize(static_cast<size_t>(in_.vocabulary));
    const auto* bytes = static_cast<const char*>(in_.logits.data);
    ToDouble(in_.logits.dtype,
             bytes + token * columns_ * SizeOf(in_.logits.dtype),
             in_.vocabulary, row.x.data());
    row.max = *std::max_element(row.x.begin(), row.x.end());
    if (a_.accumulate == DType::kF64) {
      Add<long double>(row, token);
    } else {
      Add<double>(row, token);
    }
    return row;
  }

  Bounded Gradient(const Row& row, int64_t token, int64_t j) const {
    const double x = row.x[static_cast<size_t>(j)];
    const long double d = static_cast<long double>(x) - row.max;
    const auto e = static_cast<double>(std::exp(d));
    const double p = e / row.sum.value;
    const double depth = std::abs(static_cast<double>(d));
    // Of exp, its argument, the reciprocal and the product.
    const double own =
        std::expm1(u_ * depth + (ulps_ + 2) * std::log1p(u_)) + 3 * kSlack;
    const double sum = row.sum.worst / row.sum.value;
    const Bounded softmax = {
        .value = p,
        .worst = p * ((1 + own) / (1 - sum) - 1) + Underflow(),
        .likely = p * (own + row.sum.likely / row.sum.value) + Underflow(),
        .likely2 = p * p * row.sum.likely2 / (row.sum.value * row.sum.value)};
    const double q = share_ + (j == Target(token) ? 1 - in_.smoothing : 0);
    const Bounded difference =
        q == 0 ? softmax
               : Rounded(softmax - Rounded(Bounded{q}, u_ + 2 * kSlack), u_);
    return Rounded(Rounded(difference * upstream_[Upstream(token)], u_),
                   a_.store);
  }

  // Of the number of tokens that count.
  void SetUpstream(int64_t count) {
    const int64_t n = in_.upstream.num_elements();
    std::vector<double> values(static_cast<size_t>(n));
    ToDouble(in_.upstream.dtype, in_.upstream.data, n, values.data());
    for (const double v : values) {
      upstream_.push_back(
          in_.per_token
              ? Bounded{v}
              : Rounded(Bounded{v / static_cast<double>(count)}, u_ + kSlack));
    }
  }

 private:
  int64_t Target(int64_t token) const {
    return in_.targets[static_cast<size_t>(token)];
  }
  size_t Upstream(int64_t token) const {
    return in_.per_token ? static_cast<size_t>(token) : 0;
  }
  // Of an exp that is not a normal number.
  double Underflow() const {
    return a_.accumulate == DType::kF64
               ? std::numeric_limits<double>::min()
               : double{std::numeric_limits<float>::min()};
  }

  template <class Real>
  void Add(Row& row, int64_t token) const {
    const double unit = std::log1p(u_);  // Of one rounding, in an exponent.
    const auto n = static_cast<double>(in_.vocabulary) + a_.Depth();
    const double k = rescalings_;
    const double own = (ulps_ * (1 + k) + k) * unit;
    Real sum = 0, spread = 0;
    double worst = 0, likely = 0;
    for (const double x : row.x) {
      const Real d = static_cast<Real>(x) - row.max;
      const Real e = std::exp(d);
      sum += e;
      spread -= d;
      const double depth = u_ * static_cast<double>(-d);
      likely += static_cast<double>(e) * std::expm1(depth + own);
      worst += static_cast<double>(e) * std::expm1(depth + own + n * unit);
    }
    const auto s = static_cast<double>(sum);
    // Of the reference itself, where it adds in double.
    const double reference =
        (n + 2) * kSlack * (std::is_same_v<Real, double> ? 1 : 0x1p-10);
    row.sum = {.value = s,
               .worst = worst + reference * s + n * Underflow(),
               .likely = likely + reference * s + n * Underflow()};
    AddLikely(row.sum, s, n);

    const Real log_sum = std::log(sum);
    const double f = ulps_ * u_ * static_cast<double>(log_sum);
    const double relative = row.sum.worst / s;
    const Bounded logarithm = {
        .value = static_cast<double>(log_sum),
        .worst = -std::log1p(-relative) * (1 + ulps_ * u_) + f,
        .likely = row.sum.likely / s + f,
        .likely2 = row.sum.likely2 / (s * s)};
    const Real target =
        row.max - static_cast<Real>(row.x[static_cast<size_t>(Target(token))]);
    const Bounded weighted = Weighted(
        static_cast<double>((1 - static_cast<Real>(in_.smoothing)) * target),
        static_cast<double>(static_cast<Real>(share_) * spread), n);
    row.loss = Rounded(logarithm + weighted, u_);
    row.loss.value = static_cast<double>(
        log_sum + (1 - static_cast<Real>(in_.smoothing)) * target +
        static_cast<Real>(share_) * spread);
  }

  // The two terms of the sum of q (m - x), which have one sign.
  Bounded Weighted(double target, double smoothed, double n) const {
    const double unit = std::log1p(u_);
    const double few = (5 + 2 * rescalings_ + a_.Depth()) * unit;
    const double reference = (n + 4) * kSlack;
    Bounded b = {.value = target + smoothed};
    b.worst = target * std::expm1(few) + smoothed * std::expm1(few + n * unit) +
              reference * b.value;
    b.likely = b.value * (std::expm1(few) + reference);
    if (smoothed > 0) AddLikely(b, smoothed, n);
    return b;
  }

  // n additions of terms of one sign, with sum s.
  void AddLikely(Bounded& b, double s, double n) const {
    if (n <= kFewRoundings) {
      b.likely += s * std::expm1(n * std::log1p(u_));
    } else {
      b.likely2 += n * u_ * u_ * s * s;
    }
  }

  const CrossEntropyInputs& in_;
  const Arithmetic& a_;
  double u_;
  double ulps_;
  int rescalings_;
  int64_t columns_;
  double share_;
  std::vector<Bounded> upstream_;
};

}  // namespace

CrossEntropyResult CrossEntropyReference(const CrossEntropyInputs& inputs,
                                         const Arithmetic& a,
                                         const CrossEntropySamples& samples) {
  CrossEntropy reference(inputs, a, samples.rescalings);
  CrossEntropyResult result;
  const int64_t tokens = inputs.logits.shape[0];
  std::vector<Bounded> counted;
  for (int64_t i = 0; i < tokens; ++i) {
    result.loss.push_back(reference.Counts(i) ? reference.Evaluate(i).loss
                                              : Bounded{});
    if (reference.Counts(i)) counted.push_back(result.loss.back());
  }
  const auto count = static_cast<int64_t>(counted.size());
  if (count > 0) {
    // Added and divided in f64, whatever the type.
    const Bounded total = Sum(counted, 2 * kSlack, 0, 0);
    const Bounded mean = (1.0 / static_cast<double>(count)) * total;
    result.mean = Rounded(Rounded(mean, 2 * kSlack), a.accumulate);
  }
  reference.SetUpstream(count);
  result.dlogits.rows =
      samples.tokens.empty() ? internal::AllRows(tokens) : samples.tokens;
  result.dlogits.cols = inputs.logits.shape[1];
  for (const int64_t i : result.dlogits.rows) {
    Row row;
    if (reference.Counts(i)) row = reference.Evaluate(i);
    for (int64_t j = 0; j < result.dlogits.cols; ++j) {
      const bool counts = reference.Counts(i) && j < inputs.vocabulary;
      result.dlogits.values.push_back(counts ? reference.Gradient(row, i, j)
                                             : Bounded{});
    }
  }
  return result;
}

}  // namespace shardproof
