// The part of moe that decides: logits, choices, capacities, losses.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <span>

#include "reference/moe.h"
#include "reference/product.h"

namespace shardproof {

using internal::AllRows;
using internal::Operand;
using internal::Source;

namespace {

// Stands for lambda, as in bounded.cc.
constexpr double kTypicalLambda = 8;

// The same number with errors that only add linearly. Everything that follows
// the logits depends on all of a token's logits at once, so that errors are
// shared between the terms of a sum and may not be added in squares.
Bounded Shared(const Bounded& x) {
  return {x.value, x.worst, x.Likely(kTypicalLambda), 0};
}

Bounded Quotient(const Bounded& a, const Bounded& b) {
  const double q = a.value / b.value;
  const double size = std::abs(b.value);
  return {q, (a.worst + std::abs(q) * b.worst) / (size - b.worst),
          (a.likely + std::abs(q) * b.likely) / (size - b.likely), 0};
}

Bounded Logarithm(const Bounded& x, double u, double ulps) {
  const double v = std::log(x.value);
  const double own = ulps * u * std::abs(v);
  return {v, -std::log1p(-x.worst / x.value) + own,
          -std::log1p(-x.likely / x.value) + own, 0};
}

// Added in any order, each addition rounded.
Bounded Total(std::span<const Bounded> terms, double u) {
  return Sum(terms, u, 0, 0);
}

std::vector<double> Doubles(const ConstTensorView& v) {
  std::vector<double> out(static_cast<size_t>(v.num_elements()));
  ToDouble(v.dtype, v.data, v.num_elements(), out.data());
  return out;
}

// The k largest and, if there is one, the next, in order.
std::vector<int32_t> Order(std::span<const Bounded> z, int64_t k) {
  std::vector<int32_t> order(z.size());
  std::iota(order.begin(), order.end(), 0);
  const auto n = std::min(static_cast<size_t>(k) + 1, z.size());
  std::partial_sort(order.begin(), order.begin() + static_cast<ptrdiff_t>(n),
                    order.end(), [&](int32_t a, int32_t b) {
                      return z[a].value > z[b].value ||
                             (z[a].value == z[b].value && a < b);
                    });
  order.resize(n);
  return order;
}

// Choices of one expert beyond its capacity are dropped, in the order of
// tokens.
std::vector<bool> Kept(const MoeInputs& in, const std::vector<int32_t>& chosen,
                       int64_t experts) {
  std::vector<bool> kept(chosen.size(), true);
  if (in.capacities.empty()) return kept;
  std::vector<int64_t> held(static_cast<size_t>(experts));
  size_t choice = 0;
  for (size_t r = 0; r < in.tokens.size(); ++r) {
    const bool own = in.capacities.size() > 1;
    if (own) std::fill(held.begin(), held.end(), 0);
    const int64_t capacity = in.capacities[own ? r : 0];
    for (int64_t i = 0; i < in.tokens[r] * in.top_k; ++i, ++choice) {
      kept[choice] = held[static_cast<size_t>(chosen[choice])]++ < capacity;
    }
  }
  return kept;
}

// d z_te / d dw_ts: of the softmax over all experts, p_s (1[e = c_s] - p_e), or
// over the chosen ones, w_s (1[e = c_s] - w_e), where those that were not chosen
// do not take part.
Bounded Slope(bool renormalised, const MoeRouting& routing, int64_t t,
              int64_t k, int64_t e, int64_t s) {
  const int32_t* chosen = &routing.chosen[static_cast<size_t>(t * k)];
  Bounded of_e = routing.probabilities.at(t, e);
  if (renormalised) {
    of_e = {};
    for (int64_t j = 0; j < k; ++j) {
      if (chosen[j] == e) of_e = routing.weights.at(t, j);
    }
  }
  const Bounded one{chosen[s] == e ? 1.0 : 0.0};
  return routing.weights.at(t, s) * (one - of_e);
}

}  // namespace

StatusOr<MoeRouting> MoeRoute(const MoeInputs& in, const Arithmetic& a) {
  const int64_t tokens = in.x.shape[0], experts = in.router.shape[0];
  const int64_t k = in.top_k;
  const double u = a.UAccumulate(), ulps = a.function_ulps;
  MoeRouting r;
  r.margin = std::numeric_limits<double>::infinity();
  r.load.resize(static_cast<size_t>(experts));
  r.weights.rows = AllRows(tokens);
  r.weights.cols = k;
  Matrix z =
      Product(Operand::RowsOf(in.x, {}), Source::TransposeOf(in.router), a);
  std::vector<double> noise;
  if (in.noise) noise = Doubles(*in.noise);
  for (size_t i = 0; i < z.values.size(); ++i) {
    z.values[i] = Shared(z.values[i]);
    if (in.noise) z.values[i] = Rounded(z.values[i] + Bounded{noise[i]}, u);
  }
  r.probabilities = z;
  std::vector<Bounded> squares;
  for (int64_t t = 0; t < tokens; ++t) {
    const std::span<Bounded> row(&z.at(t, 0), static_cast<size_t>(experts));
    const std::vector<int32_t> order = Order(row, k);
    for (size_t s = 0; s + 1 < order.size(); ++s) {
      const Bounded &one = row[order[s]], &next = row[order[s + 1]];
      const double gap = one.value - next.value, both = one.worst + next.worst;
      if (!(gap > both)) {
        return InvalidArgument(
            "token {}: whether expert {} or {} comes first is not determined, "
            "their logits are {:g} apart and known to {:g}",
            t, order[s], order[s + 1], gap, both);
      }
      r.margin = std::min(r.margin, gap / both);
    }
    const Bounded top = row[order[0]];
    std::vector<Bounded> exps;
    for (int64_t e = 0; e < experts; ++e) {
      // The largest less itself is 0, whatever its error.
      exps.push_back(e == order[0] ? Bounded{1}
                                   : Exp(Rounded(row[e] - top, u), u, ulps));
    }
    const Bounded sum = Total(exps, u);
    r.lse.push_back(Rounded(top + Logarithm(sum, u, ulps), u));
    squares.push_back(r.lse.back() * r.lse.back());
    std::vector<Bounded> of_chosen;
    for (int64_t e = 0; e < experts; ++e) {
      r.probabilities.at(t, e) = Rounded(Quotient(exps[e], sum), a.store);
    }
    for (int64_t s = 0; s < k; ++s) {
      r.chosen.push_back(order[s]);
      ++r.load[static_cast<size_t>(order[s])];
      of_chosen.push_back(r.probabilities.at(t, order[s]));
    }
    const Bounded share = Total(of_chosen, u);
    for (const Bounded& p : of_chosen) {
      r.weights.values.push_back(
          in.renormalise ? Rounded(Quotient(p, share), a.store) : p);
    }
  }
  r.kept = Kept(in, r.chosen, experts);
  if (tokens == 0) return r;
  // The losses are summed in double and stored in the router's type.
  const auto n = static_cast<double>(tokens);
  std::vector<Bounded> terms;
  for (int64_t e = 0; e < experts; ++e) {
    std::vector<Bounded> column;
    for (int64_t t = 0; t < tokens; ++t) {
      column.push_back(r.probabilities.at(t, e));
    }
    terms.push_back(static_cast<double>(r.load[static_cast<size_t>(e)]) *
                    Total(column, kSlack));
  }
  const double scale = in.auxiliary_coefficient * static_cast<double>(experts) /
                       (static_cast<double>(k) * n * n);
  // Products, quotients and sums in double: a handful of roundings more.
  const auto stored = [&](const Bounded& x) {
    return Rounded(Rounded(x, 8 * kSlack), a.store);
  };
  r.auxiliary = stored(scale * Total(terms, kSlack));
  r.z = stored(in.z_coefficient / n * Total(squares, kSlack));
  return r;
}

Matrix MoeRouteGradient(const MoeInputs& in, const MoeRouting& routing,
                        const Matrix& d_weights, const Arithmetic& a) {
  const int64_t experts = in.router.shape[0], k = in.top_k;
  const auto tokens = static_cast<double>(in.x.shape[0]);
  const double u = a.UAccumulate();
  const std::vector<double> d_losses = Doubles(in.d_losses);
  const auto lane = [&](const Bounded& x) { return Rounded(x, u); };
  // Of the losses: to every probability of an expert, and to lse over lse.
  std::vector<Bounded> d_probability;
  for (const int64_t n : routing.load) {
    d_probability.push_back(
        Rounded(lane({d_losses[0] * in.auxiliary_coefficient *
                      static_cast<double>(experts) * static_cast<double>(n) /
                      (static_cast<double>(k) * tokens * tokens)}),
                4 * kSlack));
  }
  const Bounded d_lse = lane({2 * d_losses[1] * in.z_coefficient / tokens});
  Matrix dz;
  dz.rows = d_weights.rows;
  dz.cols = experts;
  for (size_t i = 0; i < dz.rows.size(); ++i) {
    const auto row = static_cast<int64_t>(i), t = dz.rows[i];
    const std::span<const Bounded> p = routing.probabilities.row(t);
    const int32_t* chosen = &routing.chosen[static_cast<size_t>(t * k)];
    // First as if the dw were exact.
    std::vector<Bounded> dw, through_weights, of_chosen, terms, of_mean;
    for (int64_t s = 0; s < k; ++s) {
      dw.push_back(Shared(d_weights.at(row, s)));
      of_mean.push_back(lane(Bounded{dw[s].value} * routing.weights.at(t, s)));
      of_chosen.push_back(p[chosen[s]]);
    }
    const Bounded mean = Total(of_mean, u), share = Total(of_chosen, u);
    for (int64_t s = 0; s < k; ++s) {
      Bounded d{dw[s].value};
      if (in.renormalise) d = lane(Quotient(lane(d - mean), share));
      through_weights.push_back(lane(d * p[chosen[s]]));
      terms.push_back(through_weights.back());
    }
    for (int64_t e = 0; e < experts; ++e) {
      terms.push_back(lane(d_probability[e] * p[e]));
    }
    const Bounded c = Total(terms, u);
    const Bounded offset = lane(lane(d_lse * routing.lse[t]) - c);
    for (int64_t e = 0; e < experts; ++e) {
      dz.values.push_back(lane(p[e] * lane(d_probability[e] + offset)));
    }
    for (int64_t s = 0; s < k; ++s) {
      Bounded& d = dz.at(row, chosen[s]);
      d = lane(d + through_weights[s]);
    }
    // Then their errors, which may be large (bf16) and enter dz in more than
    // one place: through the derivative, in which they cancel as they do in the
    // implementation.
    for (int64_t e = 0; e < experts; ++e) {
      for (int64_t s = 0; s < k; ++s) {
        const Bounded slope = Slope(in.renormalise, routing, t, k, e, s);
        // What every rounding above adds to an error is of second order.
        const double size = std::abs(slope.value) + slope.worst +
                            static_cast<double>(experts + 16) * u;
        dz.at(row, e).worst += size * dw[s].worst;
        dz.at(row, e).likely += size * dw[s].likely;
      }
    }
  }
  return dz;
}

}  // namespace shardproof
