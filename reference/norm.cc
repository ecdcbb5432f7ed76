#include "reference/norm.h"

#include <algorithm>
#include <cmath>
#include <span>
#include <vector>

#include "reference/probe.h"
#include "reference/product.h"
#include "reference/random.h"

namespace shardproof {
namespace {

using Row = std::vector<Bounded>;
using Span = std::span<const Bounded>;

// Values of sums are long double; what that leaves is a thousandth of a
// double's roundoff per addition.
constexpr double kSumSlack = kSlack * 0x1p-10;
// Lambda(1e11): likely errors that a token's elements share are bounded with it
// at once, and add linearly from there on.
constexpr double kSharedLambda = 9;

// An error that all elements of a token have in common.
Bounded Shared(const Bounded& x) {
  return internal::WithoutNaN({x.value, x.worst, x.Likely(kSharedLambda), 0});
}

// Adds up Bounded numbers, any order of additions in an implementation allowed.
class Adder {
 public:
  // A term, and an upper bound of its computed magnitude.
  void Add(const Bounded& term) {
    Add(term.value, std::abs(term.value) + term.worst, term.worst, term.likely,
        term.likely2);
  }
  void Add(long double value, double magnitude, double worst, double likely,
           double likely2) {
    value_ += value;
    magnitude_ += magnitude;
    worst_ += worst;
    likely_ += likely;
    squares_ += likely * likely;
    likely2_ += likely2;
    ++terms_;
  }
  long double value() const { return value_; }
  int64_t terms() const { return terms_; }
  // (sum + `more` terms of 0) / divisor; `roundings` on the path of each term.
  Bounded Finish(int64_t roundings, double u, double divisor = 1) const {
    const bool few = terms_ <= kFewRoundings;
    Bounded sum{static_cast<double>(value_ / divisor), worst_ / divisor,
                few ? likely_ / divisor : 0,
                (likely2_ + (few ? 0 : squares_)) / (divisor * divisor)};
    const double own = kSlack * std::abs(sum.value);
    sum.worst += own;
    sum.likely += own;
    return Accumulated(sum, magnitude_ / divisor, roundings, u + kSumSlack);
  }

 private:
  long double value_ = 0;
  double magnitude_ = 0, worst_ = 0, likely_ = 0, squares_ = 0, likely2_ = 0;
  int64_t terms_ = 0;
};

// 1 / sqrt(s), s positive.
Bounded InverseRoot(const Bounded& s, double u, double ulps) {
  const double r =
      static_cast<double>(1 / std::sqrt(static_cast<long double>(s.value)));
  const auto relative = [&](double error) {
    const double e = error / s.value;
    return e < 1 ? 1 / std::sqrt(1 - e) - 1 : HUGE_VAL;
  };
  const double own = ulps * u + kSlack;
  if (Probe::Active()) {
    return {r +
            r * own *
                internal::ProbedFunction(s.value, u, TensorId("inverse root"))};
  }
  const double worst = relative(s.worst);
  // Where s may be less by its likely error, the slope is steeper.
  const double least = s.value - s.Likely(kSharedLambda);
  const double slope = least > 0 ? 0.5 / (least * std::sqrt(least)) : HUGE_VAL;
  return internal::WithoutNaN({r, r * (worst + own * (1 + worst)),
                               slope * s.likely + r * own * (1 + worst),
                               slope * slope * s.likely2});
}

// One token: its statistics, and its normalised elements.
struct Token {
  std::vector<long double> d;  // x - m
  Bounded mean;
  Bounded r;
  Row n;  // d r
};

class Norm {
 public:
  Norm(const NormWeights& weights, const Arithmetic& a)
      : centered_(weights.kind == NormKind::kLayerNorm),
        epsilon_(weights.epsilon),
        u_(a.UAccumulate()),
        ulps_(a.function_ulps),
        store_(a.store),
        w_(Doubles(weights.weight)) {
    if (weights.bias) b_ = Doubles(*weights.bias);
  }

  Token Normalise(Span x) const {
    const auto h = static_cast<int64_t>(x.size());
    const auto n = static_cast<double>(h);
    Token t;
    if (centered_) {
      Adder sum;
      for (const Bounded& xi : x) sum.Add(xi);
      t.mean = sum.Finish(h + 1, u_, n);
      Deviations(x, Probe::Active() ? t.mean.value : sum.value() / n, t);
    } else {
      Deviations(x, 0, t);
    }
    t.r = InverseRoot(Variance(x, t), u_, ulps_);
    for (size_t i = 0; i < x.size(); ++i) {
      t.n.push_back(Normal(t.d[i], x[i], t.mean, t.r));
    }
    return t;
  }

  void Forward(const Token& t, Row& y) const {
    for (size_t i = 0; i < t.n.size(); ++i) {
      Bounded v = Rounded(t.n[i] * Bounded{w_[i]}, u_);
      if (!b_.empty()) v = Rounded(v + Bounded{b_[i]}, u_);
      y.push_back(Rounded(v, store_));
    }
  }

  // dz may be empty.
  void Backward(const Token& t, Span x, Span dy, Span dz, Row& dx) const {
    const size_t h = t.n.size();
    Row g;
    for (size_t i = 0; i < h; ++i) {
      g.push_back(Rounded(dy[i] * Bounded{w_[i]}, u_));
    }
    const Bounded mean = Shared(t.mean), r = Shared(t.r);
    const Bounded p = MeanGradient(g);
    const Bounded q = MeanProduct(t, x, g, p);
    for (size_t i = 0; i < h; ++i) {
      const Bounded n = Normal(t.d[i], x[i], mean, r);
      Bounded v = centered_ ? Rounded(g[i] - p, u_) : g[i];
      v = Rounded(v - Rounded(n * q, u_), u_);
      v = Rounded(r * v, u_);
      if (!dz.empty()) v = Rounded(DependentSum(v, dz[i]), u_);
      dx.push_back(Rounded(v, store_));
    }
  }

 private:
  static std::vector<double> Doubles(ConstTensorView v) {
    std::vector<double> out(static_cast<size_t>(v.num_elements()));
    ToDouble(v.dtype, v.data, v.num_elements(), out.data());
    return out;
  }

  // (x - mean) r, x as inexact as it says and `mean` and `r` with their errors.
  Bounded Normal(long double d, const Bounded& x, const Bounded& mean,
                 const Bounded& r) const {
    Bounded v{static_cast<double>(d), x.worst + mean.worst,
              x.likely + mean.likely, x.likely2 + mean.likely2};
    if (centered_) v = Rounded(v, u_ + kSlack);
    return Rounded(v * r, u_);
  }

  static void Deviations(Span x, long double mean, Token& t) {
    for (const Bounded& xi : x) t.d.push_back(xi.value - mean);
  }

  // v + epsilon.
  Bounded Variance(Span x, const Token& t) const {
    const auto h = static_cast<int64_t>(x.size());
    const auto n = static_cast<double>(h);
    const double m = t.mean.worst, m_likely = t.mean.Likely(kSharedLambda);
    Adder squares;
    for (size_t i = 0; i < x.size(); ++i) {
      const long double d = t.d[i];
      const auto twice = static_cast<double>(2 * std::abs(d));
      const double e = x[i].worst;
      const auto v = static_cast<double>(d * d);
      squares.Add(d * d, v + twice * e + e * e + m * m, twice * e + e * e,
                  twice * x[i].likely +
                      x[i].Likely(kSharedLambda) * x[i].Likely(kSharedLambda),
                  twice * twice * x[i].likely2);
    }
    Bounded v = squares.Finish(h + 3, u_, n);
    v.worst += m * m;
    v.likely += m_likely * m_likely;
    const Bounded epsilon = Rounded(Bounded{epsilon_}, u_);
    return Rounded(v + epsilon, u_);
  }

  // p.
  Bounded MeanGradient(const Row& g) const {
    if (!centered_) return {};
    Adder sum;
    for (const Bounded& gi : g) sum.Add(gi);
    const auto h = static_cast<int64_t>(g.size());
    return Shared(sum.Finish(h + 1, u_, static_cast<double>(h)));
  }

  // q. What the elements of n share does not add up element by element: an
  // error of r scales q, one of m shifts it by r p.
  Bounded MeanProduct(const Token& t, Span x, const Row& g,
                      const Bounded& p) const {
    const auto h = static_cast<int64_t>(g.size());
    const Bounded mean = Shared(t.mean), r = Shared(t.r);
    const double rho = r.worst / r.value;
    const double rho_likely = r.likely / r.value;
    Adder sum;
    for (size_t i = 0; i < g.size(); ++i) {
      const double n = std::abs(t.n[i].value), a = std::abs(g[i].value);
      const Bounded own = Normal(t.d[i], x[i], {}, {r.value});
      const Bounded& e = g[i];
      const double size = (a + e.worst) * (n + t.n[i].worst);
      sum.Add(static_cast<long double>(g[i].value) * t.d[i] * r.value, size,
              n * e.worst + a * own.worst * (1 + rho) + e.worst * t.n[i].worst,
              n * e.likely + a * own.likely * (1 + rho_likely) +
                  e.likely * t.n[i].Likely(kSharedLambda),
              n * n * e.likely2 + a * a * own.likely2);
    }
    Bounded q = sum.Finish(h + 2, u_, static_cast<double>(h));
    const double value = std::abs(q.value);
    const double slope = r.value * (std::abs(p.value) + p.worst);
    q.worst += rho * value + slope * mean.worst * (1 + rho);
    q.likely += rho_likely * value + slope * mean.likely * (1 + rho_likely);
    return Shared(q);
  }

  bool centered_;
  double epsilon_;
  double u_;
  double ulps_;
  DType store_;
  std::vector<double> w_, b_;
};

// Sums over tokens, by column, split over ranks as reference/product.h says.
class TokenSums {
 public:
  TokenSums(int64_t tokens, int64_t columns, const Arithmetic& a)
      : a_(a),
        tokens_(tokens),
        parts_(std::max(1, a.partials)),
        part_(static_cast<size_t>(columns)),
        total_(part_.size()),
        sent_(part_.size()) {
    EndParts();
  }
  void Add(size_t column, const Bounded& term) { part_[column].Add(term); }
  void EndToken() {
    ++token_;
    EndParts();
  }
  Matrix Finish() const {
    Matrix m{{0}, static_cast<int64_t>(total_.size()), {}};
    for (size_t j = 0; j < total_.size(); ++j) {
      const Bounded sum =
          Accumulated(total_[j], sent_[j], a_.Depth(), a_.UReduce() + kSlack);
      m.values.push_back(Rounded(sum, a_.store));
    }
    return m;
  }

 private:
  // Every part whose last token has been added.
  void EndParts() {
    while (ended_ < parts_ && End(ended_) == token_) {
      for (size_t j = 0; j < part_.size(); ++j) {
        // A product and the additions.
        Bounded s = part_[j].Finish(part_[j].terms(), a_.UAccumulate());
        for (int i = 0; i < a_.WireRoundings(); ++i) {
          s = Rounded(s, a_.UWire(), SmallestSubnormal(a_.wire));
        }
        sent_[j] += std::abs(s.value) + s.worst;
        total_[j] = total_[j] + s;
      }
      std::fill(part_.begin(), part_.end(), Adder());
      ++ended_;
    }
  }
  int64_t End(int part) const {
    return (part + 1) * (tokens_ / parts_) +
           std::min<int64_t>(part + 1, tokens_ % parts_);
  }

  const Arithmetic& a_;
  int64_t tokens_;
  int parts_;
  std::vector<Adder> part_;
  Row total_;
  std::vector<double> sent_;
  int64_t token_ = 0;
  int ended_ = 0;
};

struct WeightGradients {
  WeightGradients(int64_t tokens, int64_t columns, const Arithmetic& a)
      : dw(tokens, columns, a), db(tokens, columns, a) {}
  void Add(const Token& t, Span dy) {
    for (size_t j = 0; j < dy.size(); ++j) {
      dw.Add(j, dy[j] * t.n[j]);
      db.Add(j, dy[j]);
    }
    dw.EndToken();
    db.EndToken();
  }
  TokenSums dw, db;
};

Row RowOf(ConstTensorView v, int64_t token) {
  const int64_t h = v.shape[1];
  std::vector<double> values(static_cast<size_t>(h));
  ToDouble(v.dtype,
           static_cast<const char*>(v.data) + token * h * SizeOf(v.dtype), h,
           values.data());
  Row row;
  for (const double x : values) row.push_back({x});
  return row;
}

}  // namespace

std::string_view Name(NormKind kind) {
  return kind == NormKind::kLayerNorm ? "layer_norm" : "rms_norm";
}

NormArithmetic NormArithmetic::For(DType dtype, int token_parallel) {
  NormArithmetic a{Arithmetic::For(dtype),
                   Arithmetic::For(dtype, token_parallel)};
  a.dw.wire = a.dw.accumulate;
  return a;
}

Matrix NormForward(const Matrix& x, const NormWeights& weights,
                   const Arithmetic& a) {
  const Norm norm(weights, a);
  Matrix y{x.rows, x.cols, {}};
  for (size_t i = 0; i < x.rows.size(); ++i) {
    norm.Forward(norm.Normalise(x.row(static_cast<int64_t>(i))), y.values);
  }
  return y;
}

NormGradients NormBackward(const Matrix& x, const Matrix& dy, const Matrix* dz,
                           const NormWeights& weights,
                           const NormArithmetic& a) {
  const Norm norm(weights, a.local);
  const auto tokens = static_cast<int64_t>(x.rows.size());
  WeightGradients gradients(tokens, x.cols, a.dw);
  NormGradients result;
  result.dx = {x.rows, x.cols, {}};
  for (int64_t i = 0; i < tokens; ++i) {
    const Token t = norm.Normalise(x.row(i));
    norm.Backward(t, x.row(i), dy.row(i), dz ? dz->row(i) : Span(),
                  result.dx.values);
    gradients.Add(t, dy.row(i));
  }
  result.dw = gradients.dw.Finish();
  result.db = gradients.db.Finish();
  return result;
}

NormResult NormReference(const NormInputs& in, const NormArithmetic& a,
                         const Rows& tokens) {
  const int64_t all = in.x.shape[0], h = in.x.shape[1];
  const Rows chosen = tokens.empty() ? internal::AllRows(all) : tokens;
  const Norm norm({in.kind, in.epsilon, in.weight, in.bias}, a.local);
  const auto z_of = [&](int64_t token) {
    Row z = RowOf(in.x, token);
    if (!in.residual) return z;
    const Row residual = RowOf(*in.residual, token);
    for (size_t j = 0; j < z.size(); ++j) {
      z[j] = Rounded(Rounded(z[j] + residual[j], a.local.UAccumulate()),
                     a.local.store);
    }
    return z;
  };
  NormResult result;
  for (Matrix* m : {&result.z, &result.y, &result.dx}) {
    if (m == &result.dx && !in.dy) continue;
    m->rows = chosen;
    m->cols = h;
  }
  for (const int64_t token : chosen) {
    const Row z = z_of(token);
    const Token t = norm.Normalise(z);
    result.z.values.insert(result.z.values.end(), z.begin(), z.end());
    norm.Forward(t, result.y.values);
    if (!in.dy) continue;
    norm.Backward(t, z, RowOf(*in.dy, token),
                  in.dz ? RowOf(*in.dz, token) : Row(), result.dx.values);
  }
  if (!in.dy) return result;
  WeightGradients gradients(all, h, a.dw);
  for (int64_t token = 0; token < all; ++token) {
    gradients.Add(norm.Normalise(z_of(token)), RowOf(*in.dy, token));
  }
  result.dw = gradients.dw.Finish();
  result.db = gradients.db.Finish();
  return result;
}

}  // namespace shardproof
