// A language model as plain loops over numbers of any type, doubles or floats on
// a tape, with faults: for the test of trained_language_model.
#ifndef SHARDPROOF_REFERENCE_TRAINED_LANGUAGE_MODEL_TESTING_H_
#define SHARDPROOF_REFERENCE_TRAINED_LANGUAGE_MODEL_TESTING_H_

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <map>
#include <numeric>
#include <string>
#include <vector>

#include "reference/trained_language_model.h"

namespace shardproof::testing {

using Doubles = std::vector<double>;

enum class Fault { kNone, kNoPositions, kScale, kLostUse };

struct Batch {
  std::vector<int64_t> ids, targets;  // [sequences, length]
};

// A float that remembers what it was made of: a, and perhaps b.
struct Taped {
  struct Node {
    float value = 0, gradient = 0;
    int64_t a = -1, b = -1;
    float by_a = 0, by_b = 0;
  };
  static std::vector<Node>& Tape() {
    static std::vector<Node> tape;
    return tape;
  }
  Taped(double x = 0)  // NOLINT(google-explicit-constructor)
      : Taped({.value = static_cast<float>(x)}) {}
  explicit Taped(const Node& node) : at(static_cast<int64_t>(Tape().size())) {
    Tape().push_back(node);
  }
  Node& node() const { return Tape()[static_cast<size_t>(at)]; }
  float value() const { return node().value; }

  // The gradient of the sum of `losses` in everything on the tape.
  static void Backward(const std::vector<Taped>& losses) {
    for (const Taped& loss : losses) loss.node().gradient = 1;
    for (size_t i = Tape().size(); i-- > 0;) {
      const Node n = Tape()[i];
      const auto add = [&](int64_t to, float by) {
        if (to >= 0)
          Tape()[static_cast<size_t>(to)].gradient += n.gradient * by;
      };
      add(n.a, n.by_a);
      add(n.b, n.by_b);
    }
  }

  int64_t at;
};

inline Taped Of(float value, Taped a, float by_a) {
  return Taped({.value = value, .a = a.at, .by_a = by_a});
}
inline Taped Of(float value, Taped a, float by_a, Taped b, float by_b) {
  return Taped(
      {.value = value, .a = a.at, .b = b.at, .by_a = by_a, .by_b = by_b});
}
inline Taped operator+(Taped a, Taped b) {
  return Of(a.value() + b.value(), a, 1, b, 1);
}
inline Taped operator-(Taped a, Taped b) {
  return Of(a.value() - b.value(), a, 1, b, -1);
}
inline Taped operator*(Taped a, Taped b) {
  return Of(a.value() * b.value(), a, b.value(), b, a.value());
}
inline Taped operator/(Taped a, Taped b) {
  const float q = a.value() / b.value();
  return Of(q, a, 1 / b.value(), b, -q / b.value());
}
inline Taped Exp(Taped x) {
  const float e = std::exp(x.value());
  return Of(e, x, e);
}
inline Taped Tanh(Taped x) {
  const float t = std::tanh(x.value());
  return Of(t, x, 1 - t * t);
}
inline Taped Log(Taped x) { return Of(std::log(x.value()), x, 1 / x.value()); }
inline Taped Sqrt(Taped x) {
  const float r = std::sqrt(x.value());
  return Of(r, x, 0.5F / r);
}
inline double Number(Taped x) { return x.value(); }
inline double Exp(double x) { return std::exp(x); }
inline double Tanh(double x) { return std::tanh(x); }
inline double Log(double x) { return std::log(x); }
inline double Sqrt(double x) { return std::sqrt(x); }
inline double Number(double x) { return x; }

// The model, in numbers of type R.
template <class R>
class Plain {
 public:
  using Row = std::vector<R>;
  Plain(const LanguageModelConfig& c, const Doubles& parameters, Fault fault)
      : c_(c), fault_(fault) {
    for (const double w : parameters) flat_.push_back(R{w});
    for (const LanguageModelParameter& p : LanguageModelParameters(c)) {
      w_[p.name] = {flat_.begin() + p.begin, flat_.begin() + p.end()};
    }
  }
  const Row& parameters() const { return flat_; }

  // Of the tokens that count.
  Row Losses(const Batch& batch) const {
    Row losses;
    const auto length = static_cast<size_t>(c_.length);
    for (size_t s = 0; s < batch.ids.size(); s += length) {
      std::vector<Row> x;
      for (size_t t = 0; t < length; ++t) {
        x.push_back(Embedded(batch.ids[s + t], t));
      }
      for (int l = 0; l < c_.blocks; ++l) {
        x = Block("block" + std::to_string(l) + "_", x);
      }
      for (size_t t = 0; t < length; ++t) {
        const int64_t target = batch.targets[s + t];
        if (target == kIgnoredTarget) continue;
        Row head = w_.at(c_.tied ? "table" : "head");
        if (fault_ == Fault::kLostUse) {
          for (R& v : head) v = R{Number(v)};
        }
        const Row z = Linear(Norm("norm", x[t]), head);
        losses.push_back(CrossEntropy(z, static_cast<size_t>(target)));
      }
    }
    return losses;
  }

 private:
  const Row* Find(const std::string& name) const {
    const auto found = w_.find(name);
    return found == w_.end() ? nullptr : &found->second;
  }
  static R Sum(const Row& terms) {
    R sum = terms[0];
    for (size_t i = 1; i < terms.size(); ++i) sum = sum + terms[i];
    return sum;
  }
  static R Dot(const R* a, const R* b, size_t n) {
    Row terms;
    for (size_t i = 0; i < n; ++i) terms.push_back(a[i] * b[i]);
    return Sum(terms);
  }
  static Row Linear(const Row& x, const Row& w, const Row* b = nullptr) {
    Row y;
    for (size_t j = 0; j * x.size() < w.size(); ++j) {
      y.push_back(Dot(x.data(), w.data() + j * x.size(), x.size()));
      if (b != nullptr) y.back() = y.back() + (*b)[j];
    }
    return y;
  }
  static Row Add(Row a, const Row& b) {
    for (size_t i = 0; i < a.size(); ++i) a[i] = a[i] + b[i];
    return a;
  }
  static Row Softmax(Row x, R* sum) {
    const double top = Number(*std::max_element(
        x.begin(), x.end(),
        [](const R& a, const R& b) { return Number(a) < Number(b); }));
    for (R& v : x) v = Exp(v - R{top});
    *sum = Sum(x);
    for (R& v : x) v = v / *sum;
    return x;
  }
  static R CrossEntropy(const Row& x, size_t target) {
    double top = -HUGE_VAL;
    for (const R& v : x) top = std::max(top, Number(v));
    R sum(0);
    Softmax(x, &sum);
    return Log(sum) - (x[target] - R{top});
  }

  Row Embedded(int64_t id, size_t position) const {
    const auto h = static_cast<size_t>(c_.hidden);
    const auto row = [&](const char* name, size_t i) {
      const Row& w = w_.at(name);
      return Row(w.begin() + static_cast<ptrdiff_t>(i * h),
                 w.begin() + static_cast<ptrdiff_t>((i + 1) * h));
    };
    const Row x = row("table", static_cast<size_t>(id));
    if (!c_.learned_positions || fault_ == Fault::kNoPositions) return x;
    return Add(x, row("positions", position));
  }
  Row Norm(const std::string& name, Row x) const {
    const R n(static_cast<double>(x.size()));
    const Row* const bias = Find(name + "_b");
    if (bias != nullptr) {
      const R mean = Sum(x) / n;
      for (R& v : x) v = v - mean;
    }
    const R variance = Dot(x.data(), x.data(), x.size()) / n;
    const R r = R{1} / Sqrt(variance + R{c_.epsilon});
    for (size_t i = 0; i < x.size(); ++i) {
      x[i] = x[i] * r * w_.at(name + "_w")[i];
      if (bias != nullptr) x[i] = x[i] + (*bias)[i];
    }
    return x;
  }
  void Turn(R* x, size_t position) const {
    if (c_.rope_theta == 0) return;
    const auto d = static_cast<size_t>(c_.head_dim);
    for (size_t i = 0; i < d / 2; ++i) {
      const double angle =
          static_cast<double>(position) *
          std::pow(c_.rope_theta,
                   -2.0 * static_cast<double>(i) / static_cast<double>(d));
      const R cosine(std::cos(angle)), sine(std::sin(angle));
      const R a = x[i], b = x[i + d / 2];
      x[i] = a * cosine - b * sine;
      x[i + d / 2] = b * cosine + a * sine;
    }
  }
  std::vector<Row> Block(const std::string& name, std::vector<Row> x) const {
    const auto d = static_cast<size_t>(c_.head_dim);
    const auto heads = static_cast<size_t>(c_.heads),
               kv_heads = static_cast<size_t>(c_.kv_heads);
    std::vector<Row> qkv;
    for (const Row& row : x) {
      qkv.push_back(Linear(Norm(name + "norm1", row), w_.at(name + "w_qkv"),
                           Find(name + "b_qkv")));
      for (size_t h = 0; h < heads + kv_heads; ++h) {
        Turn(&qkv.back()[h * d], qkv.size() - 1);
      }
    }
    const R scale((fault_ == Fault::kScale ? 1.001 : 1) /
                  std::sqrt(static_cast<double>(d)));
    for (size_t i = 0; i < x.size(); ++i) {
      Row o;
      for (size_t h = 0; h < heads; ++h) {
        const size_t k = (heads + h / (heads / kv_heads)) * d;
        Row scores;
        for (size_t j = 0; j <= i; ++j) {
          scores.push_back(scale * Dot(&qkv[i][h * d], &qkv[j][k], d));
        }
        R sum(0);
        const Row p = Softmax(scores, &sum);
        for (size_t c = 0; c < d; ++c) {
          Row terms;
          for (size_t j = 0; j <= i; ++j) {
            terms.push_back(p[j] * qkv[j][k + kv_heads * d + c]);
          }
          o.push_back(Sum(terms));
        }
      }
      x[i] = Add(x[i], Linear(o, w_.at(name + "w_out"), Find(name + "b_out")));
    }
    for (Row& row : x) {
      const Row normed = Norm(name + "norm2", row);
      row =
          Add(row, c_.experts > 0 ? Mixture(name, normed) : Mlp(name, normed));
    }
    return x;
  }
  Row Mlp(const std::string& name, const Row& x) const {
    const Row z = Linear(x, w_.at(name + "w_up"), Find(name + "b_up"));
    Row a;
    if (const Row* const gate = Find(name + "w_gate")) {
      a = Gated(Linear(x, *gate), z);
    } else {
      for (const R& v : z) {
        const R inner = R{std::sqrt(2 / M_PI)} * (v + R{0.044715} * v * v * v);
        a.push_back(R{0.5} * v * (R{1} + Tanh(inner)));
      }
    }
    return Linear(a, w_.at(name + "w_down"), Find(name + "b_down"));
  }
  static Row Gated(const Row& g, const Row& z) {
    Row a;
    for (size_t i = 0; i < z.size(); ++i) {
      a.push_back(g[i] / (R{1} + Exp(R{0} - g[i])) * z[i]);
    }
    return a;
  }
  Row Mixture(const std::string& name, const Row& x) const {
    const Row z = Linear(x, w_.at(name + "router"));
    R sum(0);
    const Row p = Softmax(z, &sum);
    std::vector<size_t> order(p.size());
    std::iota(order.begin(), order.end(), 0);
    std::sort(order.begin(), order.end(),
              [&](size_t a, size_t b) { return Number(z[a]) > Number(z[b]); });
    order.resize(static_cast<size_t>(c_.top_k));
    Row of_chosen, y;
    for (const size_t e : order) of_chosen.push_back(p[e]);
    const R share = Sum(of_chosen);
    for (const size_t e : order) {
      const auto expert = [&](const char* part) {
        const Row& all = w_.at(name + part);
        const auto n = static_cast<ptrdiff_t>(all.size() / p.size());
        const auto begin = all.begin() + static_cast<ptrdiff_t>(e) * n;
        return Row(begin, begin + n);
      };
      Row out =
          Linear(Gated(Linear(x, expert("w_gate")), Linear(x, expert("w_up"))),
                 expert("w_down"));
      for (R& v : out) v = p[e] / share * v;
      y = y.empty() ? out : Add(y, out);
    }
    return y;
  }

  const LanguageModelConfig& c_;
  Fault fault_;
  Row flat_;
  std::map<std::string, Row> w_;
};

}  // namespace shardproof::testing

#endif  // SHARDPROOF_REFERENCE_TRAINED_LANGUAGE_MODEL_TESTING_H_
