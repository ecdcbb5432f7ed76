#include "reference/flash_attention.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>

namespace shardproof {
namespace {

// Beyond the precision of any type under test.
using Wide = long double;

// An error: what adds linearly, what adds in squares, and the most that it is.
struct Error {
  double worst = 0;
  double linear = 0;
  double squares = 0;

  // `n` roundings of at most `each`.
  static Error Roundings(double n, double each, double u) {
    const double c = u * std::abs(each);
    return {Gamma(n, u) * std::abs(each), 0, n * c * c};
  }
  static Error Systematic(double e) { return {e, e, 0}; }
  Error operator*(double f) const {
    f = std::abs(f);
    return {worst * f, linear * f, squares * f * f};
  }
  // Of things that know nothing of one another.
  Error& operator+=(const Error& o) {
    worst += o.worst;
    linear += o.linear;
    squares += o.squares;
    return *this;
  }
  Error operator+(const Error& o) const { return Error(*this) += o; }
  // Of e^x, relative: to second order and more in `worst` only.
  Error OfExponent() const { return {std::expm1(worst), linear, squares}; }
};

Bounded With(Wide value, const Error& e) {
  return {static_cast<double>(value), e.worst, e.linear, e.squares};
}
Error Of(const Bounded& x) { return {x.worst, x.likely, x.likely2}; }

std::vector<double> Elements(ConstTensorView t) {
  std::vector<double> out(static_cast<size_t>(t.num_elements()));
  ToDouble(t.dtype, t.data, t.num_elements(), out.data());
  return out;
}

Matrix Sized(int64_t rows, int64_t cols) {
  Matrix m;
  m.rows.resize(static_cast<size_t>(rows));
  std::iota(m.rows.begin(), m.rows.end(), 0);
  m.cols = cols;
  m.values.resize(static_cast<size_t>(rows * cols));
  return m;
}

// A product and the sum of its absolute terms.
struct Dotted {
  Wide value = 0;
  double size = 0;
};
Dotted DotOf(const double* a, const double* b, int64_t n) {
  Dotted out;
  for (int64_t i = 0; i < n; ++i) {
    const Wide term = static_cast<Wide>(a[i]) * b[i];
    out.value += term;
    out.size += std::abs(static_cast<double>(term));
  }
  return out;
}

// A sum of terms that err, each by itself.
struct Sum {
  Wide value = 0;
  double size = 0;
  Error error;

  void Add(Wide term, const Error& e) {
    value += term;
    size += std::abs(static_cast<double>(term));
    error += e;
  }
};

// A query with a key that it sees.
struct Pair {
  int64_t key = 0;
  Wide x = 0;  // The score,
  Error dot;   // what its sum errs, and
  Wide p = 0;  // the probability.
};

// What an exp below the normal range may be instead, and become: it is rounded to
// the type of products, twice where it makes a dS, and further, up to 2^14 times,
// by less than a 2^-9th in f32.
double Tiny(const FlashArithmetic& a) {
  const double least = a.accumulate == DType::kF64 ? 0x1p-1022 : 0x1p-126;
  const double rounded = 1 + UnitRoundoff(a.products);
  return least * rounded * rounded * (1 + 0x1p-9);
}

class Computation {
 public:
  Computation(const FlashInputs& in, const FlashArithmetic& a)
      : in_(in),
        a_(a),
        u_(UnitRoundoff(a.accumulate) + kSlack),
        tiny_(Tiny(a)),
        rounding_(a.products == a.accumulate ? 0 : UnitRoundoff(a.products)),
        least_(a.products == a.accumulate ? 0
                                          : SmallestSubnormal(a.products) / 2),
        d_(in.head_dim),
        queries_(in.q.shape[0] / std::max<int64_t>(in.sequences, 1)),
        keys_(in.k.shape[0] / std::max<int64_t>(in.sequences, 1)),
        q_(Elements(in.q)),
        k_(Elements(in.k)),
        v_(Elements(in.v)) {
    if (in.d_o) d_o_ = Elements(*in.d_o);
  }

  FlashResult Run() {
    result_.o = Sized(in_.q.shape[0], in_.q.shape[1]);
    result_.lse = Sized(in_.sequences * in_.heads, queries_);
    if (in_.d_o) {
      result_.dq = Sized(in_.q.shape[0], in_.q.shape[1]);
      dk_.resize(k_.size());
      dv_.resize(v_.size());
    }
    for (int64_t s = 0; s < in_.sequences; ++s) {
      for (int64_t h = 0; h < in_.heads; ++h) {
        for (int64_t i = 0; i < queries_; ++i) Query(s, h, i);
      }
    }
    if (in_.d_o) {
      result_.dk = Stored(dk_, in_.scale);
      result_.dv = Stored(dv_, 1);
    }
    return std::move(result_);
  }

 private:
  int64_t KvHeadOf(int64_t h) const {
    return (h + in_.first_in_group) / in_.heads_per_kv;
  }
  // Where the elements of a token's head begin.
  int64_t QueryAt(int64_t s, int64_t h, int64_t i) const {
    return (s * queries_ + i) * in_.heads * d_ + h * d_;
  }
  int64_t KeyAt(int64_t s, int64_t h, int64_t j) const {
    return (s * keys_ + j) * in_.kv_heads * d_ + KvHeadOf(h) * d_;
  }

  void Query(int64_t s, int64_t h, int64_t i) {
    const std::vector<int64_t>& seen = in_.seen[static_cast<size_t>(i)];
    Bounded& lse = result_.lse.at(s * in_.heads + h, i);
    if (seen.empty()) {
      lse.value = -std::numeric_limits<double>::infinity();
      return;  // O, dQ: 0.
    }
    std::vector<Pair> pairs;
    const double* const q = q_.data() + QueryAt(s, h, i);
    for (const int64_t j : seen) {
      const Dotted dot = DotOf(q, k_.data() + KeyAt(s, h, j), d_);
      pairs.push_back({j, static_cast<Wide>(in_.scale) * dot.value,
                       Error::Roundings(static_cast<double>(d_),
                                        in_.scale * dot.size, u_)});
    }
    Wide top = pairs[0].x, sum = 0;
    for (const Pair& p : pairs) top = std::max(top, p.x);
    for (const Pair& p : pairs) sum += std::exp(p.x - top);
    const Wide exact = top + std::log(sum);
    for (Pair& p : pairs) p.p = std::exp(p.x - exact);
    lse = LogSum(pairs, top, exact);
    Output(s, h, i, pairs, top);
    if (in_.d_o) Gradients(s, h, i, pairs, lse);
  }

  // Roundings of a sum over n keys, its rescaling and its end.
  double Steps(size_t n) const {
    return static_cast<double>(n) + 2 * static_cast<double>(a_.tiles) + 2;
  }
  double Below(const Pair& p, Wide top) const {
    return static_cast<double>(top - p.x);
  }
  // The exponential's own error, and the factors' that it is rescaled by.
  double Exponential() const {
    return a_.exp_error + 3 * static_cast<double>(a_.tiles) * u_;
  }

  Bounded LogSum(const std::vector<Pair>& pairs, Wide top, Wide exact) const {
    Error e = Error::Roundings(Steps(pairs.size()), 1, u_);
    for (const Pair& p : pairs) {
      Error of = p.dot + Error::Roundings(1, Below(p, top), u_);
      of += Error::Systematic(u_ * std::abs(static_cast<double>(p.x)) +
                              Exponential());
      e += of.OfExponent() * static_cast<double>(p.p);
    }
    const double size = LargestLog(pairs, top);
    const auto merges = static_cast<double>(a_.merges);
    e += Error::Systematic(merges * u_ * (size + 6));
    return Rounded(With(exact, e), u_);
  }

  // The most that an lse of some of the keys can be.
  static double LargestLog(const std::vector<Pair>& pairs, Wide top) {
    Wide least = top;
    for (const Pair& p : pairs) least = std::min(least, p.x);
    return static_cast<double>(
        std::max(std::abs(least),
                 std::abs(top) + std::log(static_cast<Wide>(pairs.size()))));
  }

  void Output(int64_t s, int64_t h, int64_t i, const std::vector<Pair>& pairs,
              Wide top) {
    // Of each exponential; and the least that their sum becomes.
    std::vector<Error> relative;
    double largest = 0;
    Error most;
    for (const Pair& p : pairs) {
      Error e = p.dot + Error::Roundings(1, Below(p, top), u_);
      if (e.squares > most.squares) most = e;
      e += Error::Systematic(u_ * Below(p, top) + Exponential());
      largest = std::max(largest, e.worst);
      relative.push_back(e.OfExponent());
    }
    const auto merges = static_cast<double>(a_.merges);
    // The weights of two parts: their lse, and the roundings between.
    Error weight = Error::Systematic(merges * (2 * u_ * LargestLog(pairs, top) +
                                               2 * Exponential() + 10 * u_));
    weight += Error::Roundings(2 * merges * Steps(pairs.size()), 1, u_);
    weight += Error{2 * merges * largest, 0, 4 * merges * most.squares};
    for (int64_t e = 0; e < d_; ++e) {
      Sum o;
      for (const Pair& p : pairs) {
        o.Add(p.p * v_[static_cast<size_t>(KeyAt(s, h, p.key) + e)], {});
      }
      for (size_t j = 0; j < pairs.size(); ++j) {
        const double v = v_[static_cast<size_t>(KeyAt(s, h, pairs[j].key) + e)];
        const auto p = static_cast<double>(pairs[j].p);
        o.error += relative[j] * (p * (v - static_cast<double>(o.value)));
        o.error +=
            Error::Roundings(1, p * v, rounding_) * std::exp(relative[j].worst);
        o.error += Error::Systematic(tiny_ * (1 + std::abs(v)));
        o.error += Error::Systematic(least_ * std::abs(v));
      }
      o.error.worst *= std::exp(largest);
      o.error += Error::Roundings(2 * Steps(pairs.size()), o.size, u_);
      o.error += weight * o.size;
      Bounded& out = result_.o.at(s * queries_ + i, h * d_ + e);
      out = With(o.value, o.error);
      if (a_.o != a_.accumulate) out = Rounded(out, a_.o);
    }
  }

  void Gradients(int64_t s, int64_t h, int64_t i,
                 const std::vector<Pair>& pairs, const Bounded& lse) {
    const int64_t at = QueryAt(s, h, i);
    const double* const d_o = d_o_.data() + at;
    Sum delta;
    for (int64_t e = 0; e < d_; ++e) {
      const Bounded& o = result_.o.at(s * queries_ + i, h * d_ + e);
      delta.Add(static_cast<Wide>(d_o[e]) * o.value, Of(o) * d_o[e]);
    }
    delta.error += Error::Roundings(static_cast<double>(d_), delta.size, u_);
    // Of every exponential of the row alike.
    const Error row = Of(lse) + Error::Roundings(1, std::abs(lse.value), u_);
    std::vector<Sum> dq(static_cast<size_t>(d_)), kept(dq);
    for (const Pair& pair : pairs) {
      const int64_t key = KeyAt(s, h, pair.key);
      const auto p = static_cast<double>(pair.p);
      const double from_lse = std::abs(static_cast<double>(pair.x) - lse.value);
      const Error own =
          (pair.dot + Error::Roundings(1, from_lse, u_) +
           Error::Systematic(u_ * std::abs(static_cast<double>(pair.x)) +
                             a_.exp_error))
              .OfExponent();
      const Error rounded = Error::Roundings(1, 1, rounding_);
      const Dotted dot = DotOf(d_o, v_.data() + key, d_);
      const Wide centred = dot.value - delta.value;
      const Wide ds = pair.p * centred;
      const auto size = static_cast<double>(std::abs(ds));
      // What errs by itself for each pair.
      Error of_ds = (own + rounded + Error::Roundings(2, 1, u_)) * size +
                    Error::Roundings(static_cast<double>(d_), dot.size, u_) * p;
      of_ds.worst *= 1 + own.worst + rounded.worst + row.worst;
      of_ds +=
          Error::Systematic(tiny_ * std::abs(static_cast<double>(centred)));
      of_ds += Error::Systematic(least_);
      const Error shared = row * size + delta.error * p;
      Error of_p = (own + rounded) * p;
      of_p += Error::Systematic(tiny_ + least_);
      for (int64_t e = 0; e < d_; ++e) {
        const auto n = static_cast<size_t>(e), m = static_cast<size_t>(key + e);
        const double k = k_[m], q = q_[static_cast<size_t>(at + e)];
        dq[n].Add(ds * k, of_ds * k);
        kept[n].Add(pair.p * k, {});
        dk_[m].Add(ds * q, (of_ds + shared) * q);
        dv_[m].Add(pair.p * d_o[e], (of_p + row.OfExponent() * p) * d_o[e]);
      }
    }
    for (size_t e = 0; e < dq.size(); ++e) {
      dq[e].error += row.OfExponent() * static_cast<double>(dq[e].value);
      dq[e].error += delta.error * static_cast<double>(kept[e].value);
      result_.dq.at(s * queries_ + i, h * d_ + static_cast<int64_t>(e)) =
          Summed(dq[e], in_.scale, static_cast<double>(pairs.size()));
    }
  }

  // Added up in the accumulator, and scaled there.
  Bounded Summed(const Sum& sum, double scale, double terms) const {
    const Error e =
        sum.error + Error::Roundings(terms + 3 + static_cast<double>(a_.merges),
                                     sum.size, u_);
    return With(static_cast<Wide>(scale) * sum.value, e * scale);
  }

  Matrix Stored(const std::vector<Sum>& sums, double scale) const {
    Matrix out = Sized(in_.k.shape[0], in_.k.shape[1]);
    const auto terms =
        static_cast<double>(queries_ * in_.heads_per_kv + in_.heads_per_kv);
    for (size_t i = 0; i < sums.size(); ++i) {
      out.values[i] = Summed(sums[i], scale, terms);
    }
    return out;
  }

  const FlashInputs& in_;
  const FlashArithmetic& a_;
  double u_;
  double tiny_;  // Below the normal range anything may become 0.
  double rounding_;
  // What rounding to products may change at the least: f16 ends at 2^-24.
  double least_;
  int64_t d_, queries_, keys_;
  std::vector<double> q_, k_, v_, d_o_;
  std::vector<Sum> dk_, dv_;
  FlashResult result_;
};

}  // namespace

FlashArithmetic FlashArithmetic::For(DType dtype) {
  const DType wide = shardproof::Accumulator(dtype);
  return {
      .accumulate = wide,
      .products = dtype,
      .o = dtype,
      .exp_error = dtype == DType::kBF16 ? 0x1p-18 : 4 * UnitRoundoff(wide)};
}

FlashResult FlashReference(const FlashInputs& inputs,
                           const FlashArithmetic& a) {
  return Computation(inputs, a).Run();
}

}  // namespace shardproof
