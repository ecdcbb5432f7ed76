#include "reference/linear_stack.h"

#include <cmath>
#include <functional>
#include <utility>

#include "reference/product.h"

namespace shardproof {
namespace {

using internal::Operand;
using internal::Source;

std::vector<double> Doubles(ConstTensorView v) {
  std::vector<double> out(static_cast<size_t>(v.num_elements()));
  ToDouble(v.dtype, v.data, v.num_elements(), out.data());
  return out;
}

Matrix Exactly(ConstTensorView v) {
  Matrix m;
  m.rows = internal::AllRows(v.shape[0]);
  m.cols = v.shape[1];
  for (const double x : Doubles(v)) m.values.push_back({x});
  return m;
}

std::vector<Bounded> Column(const Matrix& m, int64_t j) {
  std::vector<Bounded> column;
  for (size_t t = 0; t < m.rows.size(); ++t) {
    column.push_back(m.at(static_cast<int64_t>(t), j));
  }
  return column;
}

// C = A B without the rounding to store.
Matrix Unrounded(const Matrix& a, const Source& b, Arithmetic arithmetic) {
  arithmetic.partials = 1;
  arithmetic.store = DType::kF64;
  return internal::Product(Operand::Of(a), b, arithmetic);
}

// The same with both operands bounded, one dot product after another.
Matrix Unrounded(const Matrix& a, const Matrix& b, bool transpose_b,
                 const Arithmetic& arithmetic) {
  Matrix c;
  c.rows = a.rows;
  c.cols = transpose_b ? static_cast<int64_t>(b.rows.size()) : b.cols;
  for (size_t i = 0; i < a.rows.size(); ++i) {
    for (int64_t j = 0; j < c.cols; ++j) {
      const std::span<const Bounded> row = a.row(static_cast<int64_t>(i));
      if (transpose_b) {
        c.values.push_back(Dot(row, b.row(j), arithmetic.UAccumulate()));
      } else {
        c.values.push_back(Dot(row, Column(b, j), arithmetic.UAccumulate()));
      }
    }
  }
  return c;
}

// h + bias, added in `accumulate`, before the one rounding to store.
void AddAndStore(Matrix& m, std::span<const Bounded> bias, int64_t rows,
                 const Arithmetic& a) {
  for (int64_t i = 0; i < rows; ++i) {
    for (int64_t j = 0; j < m.cols; ++j) {
      Bounded& v = m.at(i, j);
      v = Rounded(v + bias[static_cast<size_t>(j)], a.UAccumulate());
      v = Rounded(v, a.store);
    }
  }
}

void Store(Matrix& m, const Arithmetic& a) {
  for (Bounded& v : m.values) v = Rounded(v, a.store);
}

// Activations and their gradients, of all tokens.
struct Passes {
  std::vector<Matrix> h, d;  // h_0 to h_(L-1); d_0 to d_L
  int64_t prefixed = 0;
};

// `product` makes h_l w_l^T and d_(l+1) w_l.
Passes Run(const LinearStackInputs& in, const LinearStackWeights& weights,
           const Arithmetic& a,
           const std::function<Matrix(const Matrix&, size_t l, bool forward)>&
               product) {
  const size_t layers = weights.b.size();
  Passes p;
  p.prefixed = in.prefixed;
  p.h.push_back(Exactly(in.x));
  AddAndStore(p.h[0], weights.prefix.values, in.prefixed, a);
  for (size_t l = 0; l + 1 < layers; ++l) {
    p.h.push_back(product(p.h[l], l, true));
    AddAndStore(p.h.back(), weights.b[l].values, in.x.shape[0], a);
  }
  p.d.resize(layers + 1);
  p.d[layers] = Exactly(in.dy);
  for (size_t l = layers; l-- > 0;) {
    p.d[l] = product(p.d[l + 1], l, false);
    Store(p.d[l], a);
  }
  return p;
}

Matrix AsRow(ConstTensorView v) {
  v.shape = {1, v.num_elements()};
  return Exactly(v);
}

Passes Run(const LinearStackInputs& in, const Arithmetic& a) {
  LinearStackWeights biases;
  biases.prefix = AsRow(in.prefix);
  for (const ConstTensorView& b : in.b) biases.b.push_back(AsRow(b));
  return Run(in, biases, a, [&](const Matrix& m, size_t l, bool forward) {
    return Unrounded(
        m, forward ? Source::TransposeOf(in.w[l]) : Source::Of(in.w[l]), a);
  });
}

// What one rank has stored after its last micro-batch: sum over its tokens of
// d h, token by token.
Bounded OfRank(std::span<const Bounded> d, std::span<const Bounded> h,
               const std::vector<TokenRange>& micro_batches,
               const Arithmetic& a) {
  Bounded stored;
  bool first = true;
  for (const TokenRange& tokens : micro_batches) {
    const auto begin = static_cast<size_t>(tokens.begin);
    const auto n = static_cast<size_t>(tokens.end - tokens.begin);
    const Bounded term =
        Dot(d.subspan(begin, n), h.subspan(begin, n), a.UAccumulate());
    // A product that adds to what there is may put it through all additions.
    if (!first) {
      stored = Accumulated(stored, std::abs(stored.value) + stored.worst,
                           tokens.end - tokens.begin, a.UAccumulate());
      stored = Rounded(stored + term, a.UAccumulate());
    }
    if (first) stored = term;
    first = false;
    stored = Rounded(stored, a.store);
  }
  return stored;
}

// The sum over ranks, divided.
Bounded OfAllRanks(const std::vector<Bounded>& ranks, const Arithmetic& a,
                   double divisor) {
  Bounded sum;
  double sent = 0;
  for (Bounded s : ranks) {
    for (int i = 1; i < a.WireRoundings(); ++i) {
      s = Rounded(s, a.UWire(), SmallestSubnormal(a.wire));
    }
    sum = sum + s;
    sent += std::abs(s.value) + s.worst;
  }
  sum = Accumulated(sum, sent, a.Depth(), a.UReduce() + kSlack);
  if (a.partials > 1) sum = Rounded(sum, a.store);
  if (divisor <= 0) return sum;
  const double scale = 1 / divisor;
  const Bounded quotient = {sum.value / divisor, sum.worst * scale,
                            sum.likely * scale, sum.likely2 * scale * scale};
  return Rounded(Rounded(quotient, a.UAccumulate() + kSlack), a.store);
}

// Makes every element of a gradient from the two columns that it is a product
// of.
using Finisher = std::function<Bounded(std::span<const Bounded> d,
                                       std::span<const Bounded> h)>;

LinearStackGradients Gather(const Passes& p, const std::vector<Rows>& rows,
                            const Finisher& finish) {
  LinearStackGradients out;
  const size_t tokens = p.h[0].rows.size();
  std::vector<Bounded> ones(tokens, Bounded{1});
  for (size_t l = 0; l < p.h.size(); ++l) {
    const Matrix& d = p.d[l + 1];
    const bool all = rows.empty() || rows[l].empty();
    Matrix dw, db;
    dw.rows = all ? internal::AllRows(d.cols) : rows[l];
    dw.cols = p.h[l].cols;
    std::vector<std::vector<Bounded>> h;
    for (int64_t j = 0; j < dw.cols; ++j) h.push_back(Column(p.h[l], j));
    for (const int64_t i : dw.rows) {
      const std::vector<Bounded> of_d = Column(d, i);
      for (const std::vector<Bounded>& of_h : h) {
        dw.values.push_back(finish(of_d, of_h));
      }
    }
    db.rows = {0};
    db.cols = d.cols;
    for (int64_t i = 0; i < d.cols; ++i) {
      db.values.push_back(finish(Column(d, i), ones));
    }
    out.dw.push_back(std::move(dw));
    out.db.push_back(std::move(db));
  }
  for (size_t t = static_cast<size_t>(p.prefixed); t < tokens; ++t) {
    ones[t] = Bounded{0};
  }
  out.prefix.rows = {0};
  out.prefix.cols = p.d[0].cols;
  for (int64_t j = 0; j < out.prefix.cols; ++j) {
    out.prefix.values.push_back(finish(Column(p.d[0], j), ones));
  }
  return out;
}

}  // namespace

LinearStackGradients LinearStackReference(const LinearStackInputs& inputs,
                                          const TokenParts& parts,
                                          const Arithmetic& summed,
                                          double divisor,
                                          const std::vector<Rows>& rows) {
  return Gather(Run(inputs, summed), rows,
                [&](std::span<const Bounded> d, std::span<const Bounded> h) {
                  std::vector<Bounded> ranks;
                  for (const auto& part : parts) {
                    ranks.push_back(OfRank(d, h, part, summed));
                  }
                  return OfAllRanks(ranks, summed, divisor);
                });
}

LinearStackWeights ExactWeights(const LinearStackInputs& inputs) {
  LinearStackWeights weights;
  weights.prefix = AsRow(inputs.prefix);
  for (const ConstTensorView& w : inputs.w) weights.w.push_back(Exactly(w));
  for (const ConstTensorView& b : inputs.b) weights.b.push_back(AsRow(b));
  return weights;
}

LinearStackGradients LinearStackReference(const LinearStackInputs& inputs,
                                          const LinearStackWeights& weights,
                                          const TokenParts& parts,
                                          const Arithmetic& summed,
                                          double divisor) {
  const Passes passes = Run(
      inputs, weights, summed, [&](const Matrix& m, size_t l, bool forward) {
        return Unrounded(m, weights.w[l], forward, summed);
      });
  return Gather(passes, {},
                [&](std::span<const Bounded> d, std::span<const Bounded> h) {
                  std::vector<Bounded> ranks;
                  for (const auto& part : parts) {
                    ranks.push_back(OfRank(d, h, part, summed));
                  }
                  return OfAllRanks(ranks, summed, divisor);
                });
}

std::vector<LinearStackGradients> LinearStackPartials(
    const LinearStackInputs& inputs, const TokenParts& parts,
    const Arithmetic& local, const std::vector<Rows>& rows) {
  const Passes passes = Run(inputs, local);
  std::vector<LinearStackGradients> ranks;
  for (const auto& part : parts) {
    ranks.push_back(
        Gather(passes, rows,
               [&](std::span<const Bounded> d, std::span<const Bounded> h) {
                 return OfRank(d, h, part, local);
               }));
  }
  return ranks;
}

}  // namespace shardproof
