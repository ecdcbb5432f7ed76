#include "reference/attention_core.h"

#include <algorithm>
#include <cmath>

#include "reference/probe.h"
#include "reference/product.h"
#include "reference/random.h"

namespace shardproof {

using internal::AllRows;
using internal::Operand;
using internal::Source;
using internal::SumOfProducts;
using internal::Term;
using internal::Whole;

namespace {

// Products whose results stay in the accumulator's type.
Arithmetic Unstored(const Arithmetic& a) {
  Arithmetic wide = a;
  wide.store = a.accumulate;
  wide.partials = 1;
  return wide;
}

// `n` products one after the other added to a sum of the accumulator's type.
Arithmetic OneAfterTheOther(const Arithmetic& a, size_t n) {
  Arithmetic sum = a;
  sum.partials = static_cast<int>(n);
  sum.wire = sum.reduce = a.accumulate;
  sum.wire_roundings = sum.depth = 0;
  return sum;
}

// Rows [begin, begin + count).
Matrix RowsAt(const Matrix& m, int64_t begin, int64_t count) {
  Matrix out;
  out.rows = AllRows(count);
  out.cols = m.cols;
  out.values.assign(m.values.begin() + begin * m.cols,
                    m.values.begin() + (begin + count) * m.cols);
  return out;
}

Matrix Sized(int64_t rows, int64_t cols) {
  Matrix m;
  m.rows = AllRows(rows);
  m.cols = cols;
  m.values.resize(static_cast<size_t>(rows * cols));
  return m;
}

// One sequence. Heads of a group come one after the other.
class Sequence {
 public:
  Sequence(const CoreInputs& in, const CoreArithmetic& a, int64_t number)
      : in_(in),
        a_(a),
        u_(a.local.UAccumulate()),
        queries_(static_cast<int64_t>(in.q.rows.size()) / in.sequences),
        keys_(static_cast<int64_t>(in.k.rows.size()) / in.sequences),
        number_(number) {}

  void Run(CoreResult& result) const {
    for (int64_t g = 0; g < in_.kv_heads; ++g) Group(g, result);
  }

 private:
  // The terms of the sums over a group's heads.
  struct Terms {
    std::vector<Operand> left;
    std::vector<Source> right;
  };

  void Group(int64_t g, CoreResult& result) const {
    const Matrix k = Head(in_.k, keys_, g), v = Head(in_.v, keys_, g);
    std::vector<Matrix> kept;  // What `right` views: q and dO of each head.
    kept.reserve(static_cast<size_t>(2 * in_.heads));
    Terms dk, dv;
    for (int64_t h = 0; h < in_.heads; ++h) {
      if ((h + in_.first_in_group) / in_.heads_per_kv != g) continue;
      const Matrix& q = kept.emplace_back(Head(in_.q, queries_, h));
      const Matrix p = Probabilities(q, k);
      Put(Product(Operand::Of(p), Source::Of(v), a_.local), queries_, h,
          result.o);
      if (!in_.d_o) continue;
      const Matrix& d_o = kept.emplace_back(Head(*in_.d_o, queries_, h));
      const Matrix ds = ScoreGradient(p, d_o, v);
      Put(Product(Operand::Of(ds), Source::Of(k), a_.local), queries_, h,
          result.dq);
      dk.left.push_back(Operand::ColumnsOf(ds, {}));
      dk.right.push_back(Source::Of(q));
      dv.left.push_back(Operand::ColumnsOf(p, {}));
      dv.right.push_back(Source::Of(d_o));
    }
    if (!in_.d_o) return;
    Put(Sum(dk), keys_, g, result.dk);
    Put(Sum(dv), keys_, g, result.dv);
  }

  Matrix Sum(const Terms& sum) const {
    std::vector<Term> terms;
    for (size_t i = 0; i < sum.left.size(); ++i) {
      terms.push_back(Whole(sum.left[i], sum.right[i]));
    }
    return SumOfProducts(terms, OneAfterTheOther(a_.local, terms.size()));
  }

  Matrix Head(const Matrix& all, int64_t length, int64_t head) const {
    return ColumnsOf(RowsAt(all, number_ * length, length), head * in_.head_dim,
                     in_.head_dim);
  }
  void Put(const Matrix& from, int64_t length, int64_t head,
           Matrix& all) const {
    for (int64_t i = 0; i < length; ++i) {
      for (int64_t j = 0; j < in_.head_dim; ++j) {
        all.at(number_ * length + i, head * in_.head_dim + j) = from.at(i, j);
      }
    }
  }

  // How many keys query i sees.
  int64_t Seen(int64_t i) const {
    if (!in_.causal) return keys_;
    return std::clamp<int64_t>(i + in_.diagonal + 1, 0, keys_);
  }

  Matrix Probabilities(const Matrix& q, const Matrix& k) const {
    Matrix p =
        Product(Operand::Of(q), Source::TransposeOf(k), Unstored(a_.local));
    for (int64_t i = 0; i < queries_; ++i) {
      const int64_t n = Seen(i);
      std::vector<Bounded> x;
      for (int64_t j = 0; j < n; ++j) {
        x.push_back(Rounded(in_.scale * p.at(i, j), u_ + kSlack));
      }
      const std::vector<Bounded> row =
          SoftmaxRow(x, u_, a_.local.function_ulps);
      for (int64_t j = 0; j < keys_; ++j) {
        p.at(i, j) =
            j < n ? Rounded(row[static_cast<size_t>(j)], a_.probabilities)
                  : Bounded{};
      }
    }
    return p;
  }

  Matrix ScoreGradient(const Matrix& p, const Matrix& d_o,
                       const Matrix& v) const {
    Matrix ds =
        Product(Operand::Of(d_o), Source::TransposeOf(v), Unstored(a_.local));
    for (int64_t i = 0; i < queries_; ++i) {
      const auto n = static_cast<size_t>(Seen(i));
      const std::vector<Bounded> row =
          SoftmaxRowGrad(p.row(i).first(n), ds.row(i).first(n), in_.scale, u_);
      for (int64_t j = 0; j < keys_; ++j) {
        ds.at(i, j) = j < static_cast<int64_t>(n) ? row[static_cast<size_t>(j)]
                                                  : Bounded{};
      }
    }
    return ds;
  }

  const CoreInputs& in_;
  const CoreArithmetic& a_;
  double u_;
  int64_t queries_, keys_;
  int64_t number_;
};

using Wide = long double;

// e^exponent times `factor`; infinite where nothing is known of either.
Wide Raised(Wide factor, double exponent) {
  const Wide raised = factor * std::exp(static_cast<Wide>(exponent));
  return std::isnan(raised) ? static_cast<Wide>(HUGE_VAL) : raised;
}

// What `whole` has more than `part`; infinite where neither is known.
double Rest(double whole, double part) {
  return std::max(0.0, internal::WithoutNaN(whole - part));
}

// The same as SoftmaxRow, in a probe: of the rounded differences to the
// maximum, the exponentials, the sum, the division and the product.
std::vector<Bounded> ProbedSoftmaxRow(std::span<const Bounded> x, double u,
                                      double ulps) {
  double top = -HUGE_VAL;
  for (const Bounded& v : x) top = std::max(top, v.value);
  const uint64_t id = TensorId("softmax");
  std::vector<Bounded> p;
  Wide sum = 0;
  for (const Bounded& v : x) {
    const double t = v.value - top;
    const double moved = t + u * std::abs(t) * internal::ProbedRounding(t, u) +
                         ulps * u * internal::ProbedFunction(t, u, id);
    sum += std::exp(static_cast<Wide>(moved));
    p.push_back({moved});
  }
  const auto total = static_cast<double>(sum);
  const double computed =
      Accumulated({total}, total, static_cast<int64_t>(x.size()), u).value;
  for (Bounded& v : p) {
    const Bounded e = {static_cast<double>(
        std::exp(static_cast<Wide>(v.value)) / static_cast<Wide>(computed))};
    v = Rounded(Rounded(e, u), u);
  }
  return p;
}

}  // namespace

std::vector<Bounded> SoftmaxRow(std::span<const Bounded> x, double u,
                                double ulps) {
  const size_t n = x.size();
  if (n == 0) return {};
  u += kSlack;
  if (Probe::Active()) return ProbedSoftmaxRow(x, u, ulps);
  double top = -HUGE_VAL, widest = 0;
  for (const Bounded& v : x) {
    top = std::max(top, v.value);
    widest = std::max(widest, v.worst);
  }
  // The exponents, with the rounding of x - max x, and what is made of them.
  std::vector<Bounded> exponent;
  std::vector<Wide> e, up, down;
  Wide sum = 0, sum_up = 0, sum_down = 0;
  for (const Bounded& v : x) {
    Bounded t = v;
    const double below = top - v.value;
    t.worst += u * (below + v.worst + widest);
    t.likely += u * (below + v.Likely(8) + widest);
    exponent.push_back(t);
    e.push_back(std::exp(static_cast<Wide>(v.value) - static_cast<Wide>(top)));
    up.push_back(Raised(e.back(), t.worst));
    down.push_back(Raised(e.back(), -t.worst));
    sum += e.back();
    sum_up += up.back();
    sum_down += down.back();
  }
  // The exponentials and scores of different keys err independently: in squares.
  const auto square = [&](const Bounded& t) {
    const double c = t.likely + ulps * u;
    return t.likely2 + c * c;
  };
  double all_worst = 0, all_squares = 0;
  std::vector<double> p;
  for (size_t j = 0; j < n; ++j) {
    p.push_back(static_cast<double>(e[j] / sum));
    all_worst += p[j] * exponent[j].worst;
    all_squares += p[j] * p[j] * square(exponent[j]);
  }
  const double terms = static_cast<double>(n);
  const double evaluation = Gamma(terms + 2 * ulps + 2, u);
  // Below the normal range exp may be 0.
  const double tiny = u > 1e-10 ? 0x1p-126 : 0x1p-1022;
  std::vector<Bounded> out;
  for (size_t j = 0; j < n; ++j) {
    const Bounded& t = exponent[j];
    const Wide others_down = std::max<Wide>(0, sum_down - down[j]);
    const Wide others_up = std::max<Wide>(0, sum_up - up[j]);
    // Whatever the scores are, a probability is one.
    const double high =
        std::isinf(up[j]) ? 1
                          : static_cast<double>(up[j] / (up[j] + others_down));
    const double low =
        std::isinf(sum_up) || down[j] == 0
            ? 0
            : static_cast<double>(down[j] / (down[j] + others_up));
    const double spread = std::max({high - p[j], p[j] - low, 0.0});
    const double rest = 1 - p[j];
    const double first =
        p[j] * (rest * t.worst + Rest(all_worst, p[j] * t.worst));
    Bounded b{.value = p[j]};
    b.worst = spread + evaluation * (p[j] + spread) + tiny;
    if (!std::isfinite(first)) {
      b.likely = b.worst;
      out.push_back(b);
      continue;
    }
    // Of its own: the exponential, which also counts in the sum, the division,
    // and what the first order does not see. The n additions are of at most the
    // sum each.
    b.likely = p[j] * (rest * (t.likely + ulps * u) + 2 * u) +
               std::max(0.0, spread - first) + tiny;
    b.likely2 = p[j] * p[j] *
                (rest * rest * t.likely2 +
                 Rest(all_squares, p[j] * p[j] * square(t)) + terms * u * u);
    out.push_back(internal::WithoutNaN(b));
  }
  return out;
}

std::vector<Bounded> SoftmaxRowGrad(std::span<const Bounded> p,
                                    std::span<const Bounded> dp, double scale,
                                    double u) {
  // Of independent terms, and what is made of it is added up again: in squares
  // from a few on, where Dot adds up to 32 linearly.
  Bounded mean = Dot(p, dp, u);
  if (p.size() > 4) {
    mean.likely = mean.likely2 = 0;
    double magnitude = 0;
    for (size_t k = 0; k < p.size(); ++k) {
      const Bounded term = p[k] * dp[k];
      mean.likely2 += term.likely2 + term.likely * term.likely;
      magnitude += std::abs(term.value) + term.worst;
    }
    const double lost = (u + kSlack) * magnitude;
    mean.likely2 += static_cast<double>(p.size()) * lost * lost;
  }
  std::vector<Bounded> out;
  for (size_t j = 0; j < p.size(); ++j) {
    const Bounded centred = Rounded(dp[j] - mean, u);
    out.push_back(Rounded(scale * Rounded(p[j] * centred, u), u));
  }
  return out;
}

CoreResult CoreReference(const CoreInputs& in, const CoreArithmetic& a) {
  CoreResult result;
  result.o = Sized(static_cast<int64_t>(in.q.rows.size()), in.q.cols);
  if (in.d_o) {
    result.dq = result.o;
    result.dk = result.dv =
        Sized(static_cast<int64_t>(in.k.rows.size()), in.k.cols);
  }
  for (int64_t s = 0; s < in.sequences; ++s) Sequence(in, a, s).Run(result);
  return result;
}

Matrix RopeReference(const Matrix& x, int64_t head_dim, double theta,
                     std::span<const int64_t> positions, bool back,
                     const Arithmetic& a) {
  const double u = a.UAccumulate() + kSlack;
  const int64_t half = head_dim / 2;
  Matrix y = x;
  for (size_t t = 0; t < x.rows.size(); ++t) {
    const auto position =
        static_cast<long double>(positions[t % positions.size()]);
    for (int64_t i = 0; i < half; ++i) {
      const long double angle =
          position * std::pow(static_cast<long double>(theta),
                              -2.0L * static_cast<long double>(i) /
                                  static_cast<long double>(head_dim));
      const Bounded c =
          Rounded({.value = static_cast<double>(std::cos(angle))}, u);
      const Bounded s = Rounded(
          {.value =
               static_cast<double>(back ? -std::sin(angle) : std::sin(angle))},
          u);
      const auto row = static_cast<int64_t>(t);
      for (int64_t low = i; low < x.cols; low += head_dim) {
        const Bounded& p = x.at(row, low);
        const Bounded& q = x.at(row, low + half);
        const auto turned = [&](const Bounded& f, const Bounded& g) {
          return Rounded(Rounded(Rounded(f, u) + g, u), a.store);
        };
        y.at(row, low) = turned(p * c, Bounded{} - q * s);
        y.at(row, low + half) = turned(q * c, p * s);
      }
    }
  }
  return y;
}

Matrix ColumnsOf(const Matrix& m, int64_t begin, int64_t count) {
  Matrix out;
  out.rows = m.rows;
  out.cols = count;
  for (size_t i = 0; i < m.rows.size(); ++i) {
    const auto from =
        m.values.begin() + static_cast<int64_t>(i) * m.cols + begin;
    out.values.insert(out.values.end(), from, from + count);
  }
  return out;
}

void SetColumns(const Matrix& from, int64_t begin, Matrix& m) {
  for (size_t i = 0; i < m.rows.size(); ++i) {
    const auto row = static_cast<int64_t>(i);
    for (int64_t j = 0; j < from.cols; ++j) {
      m.at(row, begin + j) = from.at(row, j);
    }
  }
}

Matrix ExactMatrix(ConstTensorView m) {
  Matrix out = Sized(m.shape[0], m.shape[1]);
  std::vector<double> values(out.values.size());
  ToDouble(m.dtype, m.data, m.num_elements(), values.data());
  for (size_t i = 0; i < values.size(); ++i) out.values[i].value = values[i];
  return out;
}

}  // namespace shardproof
