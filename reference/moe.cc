#include "reference/moe.h"

#include <algorithm>
#include <cmath>

#include "reference/activated.h"
#include "reference/product.h"

namespace shardproof {

using internal::Activated;
using internal::AllRows;
using internal::Operand;
using internal::Source;

namespace {

const void* At(const ConstTensorView& v, int64_t index) {
  return static_cast<const char*>(v.data) + index * SizeOf(v.dtype);
}

// Matrix `i` of a stack.
ConstTensorView Layer(const ConstTensorView& stack, int64_t i) {
  const Shape shape = {stack.shape[1], stack.shape[2]};
  return {stack.dtype, shape, At(stack, i * shape.NumElements())};
}

// The rows of `count` tokens from `begin`.
ConstTensorView Slice(const ConstTensorView& v, int64_t begin, int64_t count) {
  return {v.dtype, {count, v.shape[1]}, At(v, begin * v.shape[1])};
}

Tensor RowsOf(const ConstTensorView& v, const Rows& rows) {
  const int64_t columns = v.shape[1];
  Tensor out(v.dtype, {static_cast<int64_t>(rows.size()), columns});
  auto* to = static_cast<char*>(out.raw());
  const auto bytes = static_cast<size_t>(columns * SizeOf(v.dtype));
  for (const int64_t row : rows) {
    std::copy_n(static_cast<const char*>(At(v, row * columns)), bytes, to);
    to += bytes;
  }
  return out;
}

Tensor ColumnsOf(const ConstTensorView& v, const Rows& columns) {
  const auto n = static_cast<int64_t>(columns.size());
  Tensor out(v.dtype, {v.shape[0], n});
  auto* to = static_cast<char*>(out.raw());
  const int size = SizeOf(v.dtype);
  for (int64_t i = 0; i < v.shape[0]; ++i) {
    for (const int64_t column : columns) {
      std::copy_n(static_cast<const char*>(At(v, i * v.shape[1] + column)),
                  size, to);
      to += size;
    }
  }
  return out;
}

Matrix Transposed(const Matrix& m) {
  Matrix out;
  out.rows = AllRows(m.cols);
  out.cols = static_cast<int64_t>(m.rows.size());
  out.values.resize(m.values.size());
  for (int64_t i = 0; i < out.cols; ++i) {
    for (int64_t j = 0; j < m.cols; ++j) out.at(j, i) = m.at(i, j);
  }
  return out;
}

// A choice of a token: token * k + s.
using Choices = std::vector<int64_t>;

// An expert's pass over some choices: activations for some of its features.
struct Pass {
  Tensor x, dy;  // Of the choices' tokens.
  std::vector<Bounded> weights;
  Activated act;
};

class Moe {
 public:
  Moe(const MoeInputs& in, const MoeArithmetic& a, const MoeSamples& samples)
      : in_(in),
        a_(a),
        samples_(samples),
        tokens_(samples.tokens.empty() ? AllRows(in.x.shape[0])
                                       : samples.tokens),
        gated_(in.activation == Activation::kSwiGlu) {}

  StatusOr<MoeResult> Run() {
    SP_ASSIGN_OR_RETURN(r_.routing, MoeRoute(in_, a_.router));
    const int64_t h = in_.x.shape[1];
    const bool sampled = static_cast<int64_t>(tokens_.size()) < in_.x.shape[0];
    const bool all_choices = in_.dy && samples_.router_gradient;
    evaluated_ = sampled && all_choices ? AllRows(in_.x.shape[0]) : tokens_;
    Start(r_.y, evaluated_, h);
    if (in_.dy) {
      Start(r_.dx, evaluated_, h);
      Start(r_.d_weights, evaluated_, in_.top_k);
    }
    sizes_y_.resize(r_.y.values.size());
    sizes_dx_.resize(r_.dx.values.size());
    for (int64_t e = 0; e < in_.router.shape[0]; ++e) Expert(e);
    if (in_.shared) SharedExpert();
    if (in_.dy) RouterGradient();
    Finish(r_.y, sizes_y_, 2 * in_.top_k + 1);
    if (in_.dy) Finish(r_.dx, sizes_dx_, in_.top_k + 2);
    for (Matrix* m : {&r_.y, &r_.dx, &r_.d_weights}) Keep(*m);
    return std::move(r_);
  }

 private:
  static void Start(Matrix& m, const Rows& rows, int64_t cols) {
    m.rows = rows;
    m.cols = cols;
    m.values.assign(rows.size() * static_cast<size_t>(cols), Bounded{});
  }

  // One more term of a sum that is taken in the accumulator's type.
  static void AddTerm(Bounded& sum, double& size, const Bounded& term) {
    sum = sum + term;
    size += std::abs(term.value) + term.worst;
  }

  void Finish(Matrix& m, const std::vector<double>& sizes,
              int64_t roundings) const {
    for (size_t i = 0; i < m.values.size(); ++i) {
      m.values[i] = Rounded(Accumulated(m.values[i], sizes[i], roundings,
                                        a_.expert.UAccumulate() + kSlack),
                            a_.expert.store);
    }
  }

  // Of the rows that were evaluated those that were asked for.
  void Keep(Matrix& m) const {
    if (m.rows.size() == tokens_.size()) return;
    Matrix kept;
    kept.rows = tokens_;
    kept.cols = m.cols;
    for (const int64_t t : tokens_) {
      kept.values.insert(kept.values.end(), m.row(t).begin(), m.row(t).end());
    }
    m = std::move(kept);
  }

  // The choices of expert e that are kept, of these tokens.
  Choices ChoicesOf(int64_t e, const Rows& tokens) const {
    Choices choices;
    for (const int64_t t : tokens) {
      for (int64_t s = 0; s < in_.top_k; ++s) {
        const auto i = static_cast<size_t>(t * in_.top_k + s);
        if (r_.routing.chosen[i] == e && r_.routing.kept[i]) {
          choices.push_back(static_cast<int64_t>(i));
        }
      }
    }
    return choices;
  }

  // Through the matrices up and gate [features, h] and down [h, features].
  Pass PassOf(const Choices& choices, const ConstTensorView& up,
              const std::optional<ConstTensorView>& gate,
              const ConstTensorView& down) const {
    Pass pass;
    Rows tokens;
    for (const int64_t c : choices) {
      tokens.push_back(c / in_.top_k);
      pass.weights.push_back(
          r_.routing.weights.at(c / in_.top_k, c % in_.top_k));
    }
    pass.x = RowsOf(in_.x, tokens);
    const Operand x = Operand::RowsOf(ConstTensorView(pass.x.view()), {});
    const Matrix z = Product(x, Source::TransposeOf(up), a_.expert);
    Matrix g, da;
    if (gated_) g = Product(x, Source::TransposeOf(*gate), a_.expert);
    if (in_.dy) {
      pass.dy = RowsOf(*in_.dy, tokens);
      da = Product(Operand::Of(Weighted(pass)), Source::Of(down), a_.expert);
      // The error of a weight is shared by all that it multiplies.
      for (int64_t i = 0; i < static_cast<int64_t>(da.rows.size()); ++i) {
        const Bounded& w = pass.weights[static_cast<size_t>(i)];
        if (w.value == 0) continue;
        const Bounded relative = {1, w.worst / w.value, w.likely / w.value, 0};
        for (int64_t j = 0; j < da.cols; ++j)
          da.at(i, j) = da.at(i, j) * relative;
      }
    }
    pass.act = internal::Activate(gated_, g, z, da, a_.expert);
    return pass;
  }

  // w dy, as it is sent: rounded, and with the exact w.
  Matrix Weighted(const Pass& pass) const {
    Matrix d;
    const int64_t h = in_.dy->shape[1];
    d.rows = AllRows(static_cast<int64_t>(pass.weights.size()));
    d.cols = h;
    std::vector<double> dy(static_cast<size_t>(pass.dy.num_elements()));
    ToDouble(pass.dy.dtype(), pass.dy.raw(), pass.dy.num_elements(), dy.data());
    for (size_t i = 0; i < dy.size(); ++i) {
      const double w = pass.weights[i / static_cast<size_t>(h)].value;
      d.values.push_back(
          Rounded(Rounded(Bounded{w} * Bounded{dy[i]}, a_.expert.UAccumulate()),
                  a_.expert.store));
    }
    return d;
  }

  void Expert(int64_t e) {
    const ConstTensorView up = Layer(in_.experts.up, e);
    const ConstTensorView down = Layer(in_.experts.down, e);
    std::optional<ConstTensorView> gate;
    if (gated_) gate = Layer(*in_.experts.gate, e);
    const Choices all = ChoicesOf(e, AllRows(in_.x.shape[0]));
    const Choices some = ChoicesOf(e, evaluated_);
    Pass pass;
    if (!some.empty()) {
      pass = PassOf(some, up, gate, down);
      TokensOf(some, pass, up, gate, down);
    }
    if (!in_.dy) return;
    if (samples_.features.empty() && some.size() == all.size()) {
      return FeaturesOf(pass, up.shape[0]);
    }
    const Rows features =
        samples_.features.empty() ? AllRows(up.shape[0]) : samples_.features;
    Pass narrow;
    if (!all.empty()) {
      const Tensor up_rows = RowsOf(up, features);
      const Tensor down_columns = ColumnsOf(down, features);
      Tensor gate_rows;
      std::optional<ConstTensorView> gate_view;
      if (gated_) {
        gate_rows = RowsOf(*gate, features);
        gate_view = std::as_const(gate_rows).view();
      }
      narrow = PassOf(all, up_rows.view(), gate_view, down_columns.view());
    }
    FeaturesOf(narrow, static_cast<int64_t>(features.size()));
  }

  // What an expert adds to y, dx and dw of the tokens that chose it.
  void TokensOf(const Choices& choices, const Pass& pass,
                const ConstTensorView& up,
                const std::optional<ConstTensorView>& gate,
                const ConstTensorView& down) {
    const int64_t h = r_.y.cols;
    const Matrix out =
        Product(Operand::Of(pass.act.a), Source::TransposeOf(down), a_.expert);
    Matrix dx;
    std::vector<double> dy;
    if (in_.dy) {
      dx = InputGradient(pass.act, up, gate);
      dy.resize(static_cast<size_t>(pass.dy.num_elements()));
      ToDouble(pass.dy.dtype(), pass.dy.raw(), pass.dy.num_elements(),
               dy.data());
    }
    for (size_t c = 0; c < choices.size(); ++c) {
      const auto i = static_cast<int64_t>(c);
      const int64_t t = choices[c] / in_.top_k;
      const int64_t row =
          std::lower_bound(evaluated_.begin(), evaluated_.end(), t) -
          evaluated_.begin();
      for (int64_t j = 0; j < h; ++j) {
        const auto at = static_cast<size_t>(row * h + j);
        AddTerm(r_.y.values[at], sizes_y_[at], pass.weights[c] * out.at(i, j));
        if (in_.dy) AddTerm(r_.dx.values[at], sizes_dx_[at], dx.at(i, j));
      }
      if (!in_.dy) continue;
      std::vector<Bounded> exact;
      for (int64_t j = 0; j < h; ++j) exact.push_back({dy[c * h + j]});
      r_.d_weights.at(row, choices[c] % in_.top_k) = Rounded(
          Dot(exact, out.row(i), a_.expert.UAccumulate()), a_.router.store);
    }
  }

  Matrix InputGradient(const Activated& act, const ConstTensorView& up,
                       const std::optional<ConstTensorView>& gate) const {
    Matrix dx = Product(Operand::Of(act.dz), Source::Of(up), a_.expert);
    if (!gated_) return dx;
    const Matrix more =
        Product(Operand::Of(act.dg), Source::Of(*gate), a_.expert);
    for (size_t i = 0; i < dx.values.size(); ++i) {
      dx.values[i] = Rounded(dx.values[i] + more.values[i], a_.expert.store);
    }
    return dx;
  }

  // The gradients of an expert's weights, from all its choices.
  void FeaturesOf(const Pass& pass, int64_t features) {
    Matrix zero;
    Start(zero, AllRows(features), in_.x.shape[1]);
    if (pass.weights.empty()) {
      r_.d_up.push_back(zero);
      r_.d_down_t.push_back(zero);
      if (gated_) r_.d_gate.push_back(zero);
      return;
    }
    const auto gradient = [&](const Matrix& d, const Tensor& by) {
      return Product(Operand::Of(Transposed(d)), Source::Of(by.view()),
                     a_.expert);
    };
    r_.d_up.push_back(gradient(pass.act.dz, pass.x));
    if (gated_) r_.d_gate.push_back(gradient(pass.act.dg, pass.x));
    // sum over choices of a round(w dy): the rounding of w dy, which is
    // relative, is taken with a w, what underflows by itself.
    Matrix a = pass.act.a;
    std::vector<double> size(static_cast<size_t>(a.cols));
    for (int64_t i = 0; i < static_cast<int64_t>(a.rows.size()); ++i) {
      for (int64_t j = 0; j < a.cols; ++j) {
        Bounded& v = a.at(i, j);
        size[static_cast<size_t>(j)] += std::abs(v.value) + v.worst;
        v = Rounded(Rounded(v * pass.weights[static_cast<size_t>(i)],
                            a_.expert.UAccumulate()),
                    a_.expert.UStore());
      }
    }
    Matrix down = gradient(a, pass.dy);
    for (int64_t j = 0; j < a.cols; ++j) {
      const double lost = 0.5 * SmallestSubnormal(a_.expert.store) *
                          size[static_cast<size_t>(j)];
      for (int64_t i = 0; i < down.cols; ++i) {
        down.at(j, i).worst += lost;
        down.at(j, i).likely += lost;
      }
    }
    r_.d_down_t.push_back(std::move(down));
  }

  // What each rank made of its tokens, added up.
  Matrix OverRanks(const std::vector<Matrix>& parts,
                   const Arithmetic& a) const {
    Matrix sum = parts.front();
    if (a.partials <= 1) return sum;
    for (size_t i = 0; i < sum.values.size(); ++i) {
      Bounded total;
      double sent = 0;
      for (const Matrix& part : parts) {
        // Stored once where it was made.
        Bounded s = part.values[i];
        for (int q = 1; q < a.WireRoundings(); ++q) s = Rounded(s, a.wire);
        AddTerm(total, sent, s);
      }
      sum.values[i] = Rounded(
          Accumulated(total, sent, a.Depth(), a.UReduce() + kSlack), a.store);
    }
    return sum;
  }

  void SharedExpert() {
    const ExpertWeights& w = *in_.shared;
    const MlpArithmetic local = {a_.expert, a_.expert, a_.expert, a_.expert,
                                 a_.expert};
    std::vector<Matrix> up, gate, down;
    int64_t begin = 0;
    for (const int64_t count : in_.tokens) {
      MlpInputs mlp = {.activation = in_.activation,
                       .x = Slice(in_.x, begin, count),
                       .w_up = Layer(w.up, 0),
                       .w_down = Layer(w.down, 0)};
      if (gated_) mlp.w_gate = Layer(*w.gate, 0);
      if (in_.dy) mlp.dy = Slice(*in_.dy, begin, count);
      Rows own;
      for (const int64_t t : evaluated_) {
        if (t >= begin && t < begin + count) own.push_back(t - begin);
      }
      const MlpResult r = MlpReference(
          mlp, local, {.tokens = own, .features = samples_.shared_features});
      for (size_t i = 0; i < own.size(); ++i) {
        const auto from = static_cast<int64_t>(i);
        const int64_t row = std::lower_bound(evaluated_.begin(),
                                             evaluated_.end(), own[i] + begin) -
                            evaluated_.begin();
        for (int64_t j = 0; j < r_.y.cols; ++j) {
          const auto at = static_cast<size_t>(row * r_.y.cols + j);
          AddTerm(r_.y.values[at], sizes_y_[at], r.y.at(from, j));
          if (in_.dy) {
            AddTerm(r_.dx.values[at], sizes_dx_[at], r.dx.at(from, j));
          }
        }
      }
      up.push_back(r.dw_up);
      gate.push_back(r.dw_gate);
      down.push_back(r.dw_down_t);
      begin += count;
    }
    if (!in_.dy) return;
    r_.d_shared_up = OverRanks(up, a_.shared_summed);
    if (gated_) r_.d_shared_gate = OverRanks(gate, a_.shared_summed);
    r_.d_shared_down_t = OverRanks(down, a_.shared_summed);
  }

  void RouterGradient() {
    const Matrix dz =
        MoeRouteGradient(in_, r_.routing, r_.d_weights, a_.router);
    const int64_t h = in_.x.shape[1];
    std::vector<double> router(static_cast<size_t>(in_.router.num_elements()));
    ToDouble(in_.router.dtype, in_.router.data, in_.router.num_elements(),
             router.data());
    for (int64_t i = 0; i < static_cast<int64_t>(dz.rows.size()); ++i) {
      for (int64_t j = 0; j < h; ++j) {
        // The errors of a token's dz are shared: they add linearly, where
        // Product would add them in squares.
        Bounded sum;
        double size = 0;
        for (int64_t e = 0; e < dz.cols; ++e) {
          AddTerm(sum, size,
                  router[static_cast<size_t>(e * h + j)] * dz.at(i, e));
        }
        sum = Rounded(
            Accumulated(sum, size, dz.cols, a_.router.UAccumulate() + kSlack),
            a_.router.store);
        const auto at = static_cast<size_t>(i * h + j);
        AddTerm(r_.dx.values[at], sizes_dx_[at], sum);
      }
    }
    if (!samples_.router_gradient) return;
    std::vector<Matrix> parts;
    int64_t begin = 0;
    for (const int64_t count : in_.tokens) {
      Matrix own;
      own.rows = AllRows(count);
      own.cols = dz.cols;
      own.values.assign(dz.values.begin() + begin * dz.cols,
                        dz.values.begin() + (begin + count) * dz.cols);
      // The router's type may be wider than that of x.
      parts.push_back(Product(Operand::Of(Transposed(own)),
                              Source::Of(Slice(in_.x, begin, count)),
                              a_.router));
      begin += count;
    }
    r_.d_router = OverRanks(parts, a_.router_summed);
  }

  const MoeInputs& in_;
  const MoeArithmetic& a_;
  const MoeSamples& samples_;
  Rows tokens_;     // Asked for.
  Rows evaluated_;  // Those, or all.
  bool gated_;
  MoeResult r_;
  std::vector<double> sizes_y_, sizes_dx_;  // Sums of absolute terms.
};

}  // namespace

StatusOr<MoeResult> MoeReference(const MoeInputs& inputs,
                                 const MoeArithmetic& arithmetic,
                                 const MoeSamples& samples) {
  return Moe(inputs, arithmetic, samples).Run();
}

}  // namespace shardproof
