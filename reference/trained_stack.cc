#include "reference/trained_stack.h"

#include <algorithm>
#include <cmath>
#include <utility>

namespace shardproof {
namespace {

Bounded Within(double value, double error) { return {value, error, error, 0}; }

}  // namespace

TrainedStackReference::TrainedStackReference(std::vector<int64_t> widths,
                                             DType dtype,
                                             const OptimizerSettings& settings,
                                             std::span<const double> initial)
    : widths_(std::move(widths)),
      dtype_(dtype),
      optimizer_(settings, dtype, initial) {
  int64_t begin = 0;
  for (size_t l = 0; l + 1 < widths_.size(); ++l) {
    begins_.push_back(begin);
    begin += (widths_[l] + 1) * widths_[l + 1];
  }
}

TrainedStackReference::Plane TrainedStackReference::Make(int64_t rows,
                                                         int64_t columns) {
  const auto n = static_cast<size_t>(rows * columns);
  return {rows, columns, std::vector<double>(n), std::vector<double>(n)};
}

TrainedStackReference::Plane TrainedStackReference::Transposed(const Plane& a) {
  Plane out = Make(a.columns, a.rows);
  for (int64_t i = 0; i < a.rows; ++i) {
    for (int64_t j = 0; j < a.columns; ++j) {
      const auto to = static_cast<size_t>(j * a.rows + i);
      const auto from = static_cast<size_t>(i * a.columns + j);
      out.value[to] = a.value[from];
      out.error[to] = a.error[from];
    }
  }
  return out;
}

TrainedStackReference::Plane TrainedStackReference::RowsOf(const Plane& a,
                                                           int64_t begin,
                                                           int64_t count) {
  Plane out = Make(count, a.columns);
  const auto from = begin * a.columns, n = count * a.columns;
  std::copy_n(a.value.begin() + from, n, out.value.begin());
  std::copy_n(a.error.begin() + from, n, out.error.begin());
  return out;
}

std::vector<Bounded> TrainedStackReference::BoundedOf(const Plane& a) {
  std::vector<Bounded> out;
  for (size_t i = 0; i < a.value.size(); ++i) {
    out.push_back(Within(a.value[i], a.error[i]));
  }
  return out;
}

TrainedStackReference::Plane TrainedStackReference::Product(
    const Plane& a, const Plane& b, const std::vector<Bounded>& bias) const {
  const int64_t k = a.columns;
  const DType computed = Accumulator(dtype_);
  const double gamma = Gamma(static_cast<double>(k + (bias.empty() ? 0 : 1)),
                             UnitRoundoff(computed) + kSlack);
  Plane out = Make(a.rows, b.rows);
  for (int64_t i = 0; i < a.rows; ++i) {
    const double* const av = a.value.data() + i * k;
    const double* const ae = a.error.data() + i * k;
    for (int64_t j = 0; j < b.rows; ++j) {
      const double* const bv = b.value.data() + j * k;
      const double* const be = b.error.data() + j * k;
      double value = 0, carried = 0, magnitude = 0;
      for (int64_t n = 0; n < k; ++n) {
        const double x = std::abs(av[n]), y = std::abs(bv[n]);
        value += av[n] * bv[n];
        carried += x * be[n] + ae[n] * (y + be[n]);
        magnitude += x * y;
      }
      if (!bias.empty()) {
        const Bounded& c = bias[static_cast<size_t>(j)];
        value += c.value;
        carried += c.worst;
        magnitude += std::abs(c.value);
      }
      const Bounded stored = Rounded(
          Within(value, carried + gamma * (magnitude + carried)), dtype_);
      const auto at = static_cast<size_t>(i * b.rows + j);
      out.value[at] = stored.value;
      out.error[at] = stored.worst;
    }
  }
  return out;
}

TrainedStackReference::Plane TrainedStackReference::WeightsOf(
    const std::vector<Bounded>& parameters, size_t layer) const {
  Plane w = Make(widths_[layer + 1], widths_[layer]);
  for (size_t i = 0; i < w.value.size(); ++i) {
    const Bounded& p = parameters[static_cast<size_t>(begins_[layer]) + i];
    w.value[i] = p.value;
    w.error[i] = p.worst;
  }
  return w;
}

std::vector<Bounded> TrainedStackReference::BiasOf(
    const std::vector<Bounded>& parameters, size_t layer) const {
  const auto first =
      parameters.begin() + begins_[layer] + widths_[layer] * widths_[layer + 1];
  return {first, first + widths_[layer + 1]};
}

std::vector<Bounded> TrainedStackReference::GradientOf(
    const Plane& x, const Plane& dy, const Parts& parts) const {
  const int64_t in = x.columns, out = dy.columns;
  const auto n = static_cast<size_t>((in + 1) * out);
  std::vector<std::vector<Bounded>> terms(n);
  int64_t begin = 0;
  for (const int64_t tokens : parts.tokens) {
    const Plane own = Transposed(RowsOf(dy, begin, tokens));
    const Plane dw = Product(own, Transposed(RowsOf(x, begin, tokens)), {});
    Plane ones = Make(1, tokens);
    std::fill(ones.value.begin(), ones.value.end(), 1.0);
    const Plane db = Product(own, ones, {});
    begin += tokens;
    for (size_t i = 0; i < dw.value.size(); ++i) {
      terms[i].push_back(Within(dw.value[i], dw.error[i]));
    }
    for (size_t i = 0; i < db.value.size(); ++i) {
      terms[dw.value.size() + i].push_back(Within(db.value[i], db.error[i]));
    }
  }
  std::vector<Bounded> gradient;
  for (const std::vector<Bounded>& t : terms) {
    const Bounded sum =
        Sum(t, UnitRoundoff(Accumulator(dtype_)), UnitRoundoff(dtype_),
            parts.roundings, SmallestSubnormal(dtype_));
    gradient.push_back(Within(sum.value, sum.worst));
  }
  return gradient;
}

void TrainedStackReference::Step(std::span<const double> x,
                                 std::span<const double> dy, const Parts& parts,
                                 double factor) {
  const size_t layers = begins_.size();
  const auto tokens = static_cast<int64_t>(x.size()) / widths_.front();
  const auto exactly = [&](std::span<const double> values, int64_t columns) {
    Plane a = Make(tokens, columns);
    a.value.assign(values.begin(), values.end());
    return a;
  };
  const std::vector<Bounded> parameters = optimizer_.parameters();
  std::vector<Plane> inputs = {exactly(x, widths_.front())};
  for (size_t l = 0; l < layers; ++l) {
    inputs.push_back(
        Product(inputs[l], WeightsOf(parameters, l), BiasOf(parameters, l)));
  }
  y_ = BoundedOf(inputs.back());
  gradient_.resize(parameters.size());
  Plane above = exactly(dy, widths_.back());
  for (size_t l = layers; l-- > 0;) {
    const std::vector<Bounded> g = GradientOf(inputs[l], above, parts);
    std::copy(g.begin(), g.end(), gradient_.begin() + begins_[l]);
    above = Product(above, Transposed(WeightsOf(parameters, l)), {});
  }
  dx_ = BoundedOf(above);
  optimizer_.Step(gradient_, factor);
}

}  // namespace shardproof
