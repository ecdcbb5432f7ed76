// The stack on one device: all tokens at once, and bounds for any order of the
// micro-batches.
//
// A gradient is a sum of products S_m over micro-batches m, each added to what is
// there and stored. In any order and in any two parts every partial sum is at most
// M = sum_m |S_m|, so that with K_m tokens and n micro-batches
//
//     worst = sum_m worst(S_m) + (gamma(sum_m (K_m + 1), u_acc) + gamma(n + 2,
//             u_store)) M
//
// where the two further roundings are those of the sums of copies and of both uses
// of a tied weight.
#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "collectives/chunks.h"
#include "layers/pairing/layer_case.h"
#include "pipeline/execution/case_setup.h"
#include "reference/linear.h"

namespace shardproof::pipeline_execution {
namespace {

Matrix RowsBetween(const Matrix& m, int64_t begin, int64_t end) {
  Matrix part;
  part.cols = m.cols;
  for (int64_t t = begin; t < end; ++t) {
    part.rows.push_back(t - begin);
    const std::span<const Bounded> row = m.row(t);
    part.values.insert(part.values.end(), row.begin(), row.end());
  }
  return part;
}

Matrix Exactly(ConstTensorView v) {
  std::vector<double> values(static_cast<size_t>(v.num_elements()));
  ToDouble(v.dtype, v.data, v.num_elements(), values.data());
  Matrix m;
  m.cols = v.shape[1];
  for (int64_t r = 0; r < v.shape[0]; ++r) m.rows.push_back(r);
  for (const double x : values) m.values.push_back({x});
  return m;
}

// Gradients of a layer, summed up as said above.
class Summed {
 public:
  Summed(const P& p, const Arithmetic& a) : p_(p), a_(a) {
    products_ = a;
    products_.partials = 1;
    products_.store = DType::kF64;
  }

  std::vector<Bounded> Weight(const Matrix& d, const Matrix& h) const {
    return Of([&](int64_t begin, int64_t end) {
      return LinearWeightGrad(RowsBetween(d, begin, end),
                              RowsBetween(h, begin, end), products_);
    });
  }
  std::vector<Bounded> Bias(const Matrix& d) const {
    return Of([&](int64_t begin, int64_t end) {
      return LinearBiasGrad(RowsBetween(d, begin, end), products_);
    });
  }

 private:
  template <class Product>
  std::vector<Bounded> Of(const Product& product) const {
    std::vector<Bounded> sums;
    std::vector<double> magnitudes;
    int64_t at = 0, additions = 0;
    for (int m = 0; m < p_.micro_batches(); ++m) {
      const int64_t n = p_.TokensIn(m);
      if (n == 0) continue;
      const Matrix term = product(at, at + n);
      at += n;
      additions += n + 1;
      sums.resize(term.values.size());
      magnitudes.resize(term.values.size());
      for (size_t i = 0; i < sums.size(); ++i) {
        sums[i] = sums[i] + term.values[i];
        magnitudes[i] += std::abs(term.values[i].value) + term.values[i].worst;
      }
    }
    for (size_t i = 0; i < sums.size(); ++i) {
      sums[i] = Accumulated(sums[i], magnitudes[i], additions,
                            a_.UAccumulate() + kSlack);
      sums[i] = Accumulated(sums[i], magnitudes[i], p_.micro_batches() + 2,
                            a_.UStore());
    }
    return sums;
  }

  const P& p_;
  Arithmetic a_;
  Arithmetic products_;
};

void Append(std::vector<Bounded>& to, const std::vector<Bounded>& more) {
  to.insert(to.end(), more.begin(), more.end());
}

}  // namespace

StatusOr<DenseOutputs> Expected(const P& p, const Arithmetic& a,
                                const Inputs& in, const Sample& /*sample*/) {
  const ConstTensorView w = in.Global("w");
  const std::vector<double> bias = in.All("b");
  const int64_t width = p.width;
  const auto weight = [&](int l) {
    return ConstTensorView{p.dtype,
                           {width, width},
                           At(w.data, p.dtype, p.WeightOf(l) * width * width)};
  };
  Arithmetic unrounded = a;
  unrounded.store = DType::kF64;
  std::vector<Matrix> h = {Exactly(in.Global("x"))};
  for (int l = 0; l < p.layers; ++l) {
    Matrix next = LinearForward({h.back(), weight(l)}, unrounded);
    for (size_t i = 0; i < next.values.size(); ++i) {
      const auto column = static_cast<int64_t>(i) % width + int64_t{l} * width;
      Bounded& v = next.values[i];
      v = Rounded(v + Bounded{bias[static_cast<size_t>(column)]},
                  a.UAccumulate());
      v = Rounded(v, a.store);
    }
    h.push_back(std::move(next));
  }
  DenseOutputs out;
  const Summed summed(p, a);
  std::vector<std::vector<Bounded>> dw(static_cast<size_t>(p.layers)), db = dw;
  Matrix d = Exactly(in.Global("dy"));
  for (int l = p.layers - 1; l >= 0; --l) {
    const auto at = static_cast<size_t>(l);
    dw[at] = summed.Weight(d, h[at]);
    db[at] = summed.Bias(d);
    d = LinearInputGrad(d, weight(l), a);
  }
  if (p.tied && p.layers > 1) {
    std::vector<Bounded>& first = dw.front();
    for (size_t i = 0; i < first.size(); ++i) {
      first[i] = Rounded(DependentSum(first[i], dw.back()[i]), a.store);
    }
    dw.back() = first;
  }
  for (const std::vector<Bounded>& of_layer : dw) Append(out["dw"], of_layer);
  for (const std::vector<Bounded>& of_layer : db) Append(out["db"], of_layer);
  out["y"] = h.back().values;
  out["dx"] = d.values;
  return out;
}

}  // namespace shardproof::pipeline_execution
