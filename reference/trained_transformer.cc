#include "reference/trained_transformer.h"

#include <cmath>
#include <utility>

#include "reference/tensor.h"

namespace shardproof {
namespace {

// Of the constants of a step (a corrected rate, a clipped factor), in double.
constexpr int64_t kConstantRoundings = 8;
// Of doubles, for a probe in f64 to be seen.
constexpr int64_t kOwnRoundings = 64;

Bounded Unknown(double value) { return {value, HUGE_VAL, HUGE_VAL, 0}; }

std::vector<Bounded> Unknown(std::span<const Bounded> values) {
  std::vector<Bounded> out;
  for (const Bounded& v : values) out.push_back(Unknown(v.value));
  return out;
}

Tensor Numbers(const Shape& shape, std::span<const double> values) {
  Tensor tensor(DType::kF64, shape);
  std::copy(values.begin(), values.end(), tensor.data<double>());
  return tensor;
}

// The weights of a block, in the numbers of the reference; those that it does
// not have are empty.
struct Weights {
  Tensor norm1_w, norm1_b, w_qkv, b_qkv, w_out, b_out;
  Tensor norm2_w, norm2_b, w_gate, w_up, b_up, w_down, b_down;

  Weights(const TrainedTransformerConfig& c, std::span<const double> flat) {
    const bool centred = c.norm == NormKind::kLayerNorm;
    const int64_t h = c.hidden, f = c.intermediate, w = c.heads * c.head_dim;
    const int64_t fused = (c.heads + 2 * c.kv_heads) * c.head_dim;
    size_t at = 0;
    const auto take = [&](Tensor& to, const Shape& shape, bool has = true) {
      if (!has) return;
      const auto n = static_cast<size_t>(shape.NumElements());
      to = Numbers(shape, flat.subspan(at, n));
      at += n;
    };
    take(norm1_w, {h});
    take(norm1_b, {h}, centred);
    take(w_qkv, {fused, h});
    take(b_qkv, {fused}, c.bias);
    take(w_out, {h, w});
    take(b_out, {h}, c.bias);
    take(norm2_w, {h});
    take(norm2_b, {h}, centred);
    take(w_gate, {f, h}, c.activation == Activation::kSwiGlu);
    take(w_up, {f, h});
    take(b_up, {f}, c.bias);
    take(w_down, {h, f});
    take(b_down, {h}, c.bias);
  }

  TransformerBlockInputs Inputs(const TrainedTransformerConfig& c,
                                int64_t sequences, const BoundedView& x) const {
    TransformerBlockInputs in{.x = x};
    in.norm1 = {c.norm, c.epsilon, norm1_w.view()};
    in.norm2 = {c.norm, c.epsilon, norm2_w.view()};
    in.attention = {.sequences = sequences,
                    .heads = c.heads,
                    .kv_heads = c.kv_heads,
                    .head_dim = c.head_dim,
                    .rope_theta = c.rope_theta,
                    .x = {},
                    .w_qkv = w_qkv.view(),
                    .w_out = w_out.view()};
    in.mlp = {.activation = c.activation,
              .x = {},
              .w_up = w_up.view(),
              .w_down = w_down.view()};
    if (c.norm == NormKind::kLayerNorm) {
      in.norm1.bias = norm1_b.view();
      in.norm2.bias = norm2_b.view();
    }
    if (c.activation == Activation::kSwiGlu) in.mlp.w_gate = w_gate.view();
    if (c.bias) {
      in.attention.b_qkv = b_qkv.view();
      in.attention.b_out = b_out.view();
      in.mlp.b_up = b_up.view();
      in.mlp.b_down = b_down.view();
    }
    return in;
  }
};

// In the order of Weights, and divided.
void Append(const TrainedTransformerConfig& c, const TransformerBlockResult& r,
            std::vector<Bounded>& to) {
  const auto put = [&](const Matrix& m, bool has = true) {
    if (!has) return;
    for (const Bounded& v : m.values) {
      to.push_back(Rounded({v.value}, c.dtype));
    }
  };
  const bool centred = c.norm == NormKind::kLayerNorm;
  put(r.norm1.dw);
  put(r.norm1.db, centred);
  put(r.attention.dw_qkv);
  put(r.attention.db_qkv, c.bias);
  put(r.attention.dw_out);
  put(r.attention.db_out, c.bias);
  put(r.norm2.dw);
  put(r.norm2.db, centred);
  put(r.mlp.dw_gate, c.activation == Activation::kSwiGlu);
  put(r.mlp.dw_up);
  put(r.mlp.db_up, c.bias);
  for (int64_t i = 0; i < c.hidden; ++i) {
    for (int64_t j = 0; j < c.intermediate; ++j) {
      to.push_back(Rounded({r.mlp.dw_down_t.at(j, i).value}, c.dtype));
    }
  }
  put(r.mlp.db_down, c.bias);
}

}  // namespace

int64_t TrainedTransformerConfig::parameters() const {
  const int64_t fused = (heads + 2 * kv_heads) * head_dim;
  const int64_t matrices =
      (fused + heads * head_dim +
       (activation == Activation::kSwiGlu ? 3 : 2) * intermediate) *
      hidden;
  return matrices + (norm == NormKind::kLayerNorm ? 4 : 2) * hidden +
         (bias ? fused + intermediate + 2 * hidden : 0);
}

TrainedTransformerReference::TrainedTransformerReference(
    const TrainedTransformerConfig& config, std::span<const double> initial)
    : config_(config),
      optimizer_(config.optimizer, config.dtype, initial),
      moved_(initial.size()),
      gradient_(initial.size()) {}

std::vector<Bounded> TrainedTransformerReference::GradientOf(
    std::span<const double> x, std::span<const double> dy,
    std::span<const double> parameters) const {
  const auto arithmetic = TransformerBlockArithmetic::For(config_.dtype);
  const auto numbers = static_cast<int64_t>(x.size());
  const Shape tokens = {numbers / config_.hidden, config_.hidden};
  const int64_t sequences = tokens[0] / config_.length;
  const Tensor first = Numbers(tokens, x), last = Numbers(tokens, dy);
  const auto blocks = static_cast<size_t>(config_.blocks);
  const auto count = static_cast<size_t>(config_.parameters());
  std::vector<Weights> weights;
  for (size_t l = 0; l < blocks; ++l) {
    weights.emplace_back(config_, parameters.subspan(l * count, count));
  }
  std::vector<Matrix> outputs(blocks);
  const auto inputs = [&](size_t l) {
    return weights[l].Inputs(
        config_, sequences,
        l == 0 ? BoundedView(first.view()) : BoundedView(outputs[l - 1]));
  };
  for (size_t l = 0; l + 1 < blocks; ++l) {
    outputs[l] = TransformerBlockReference(inputs(l), arithmetic).y;
  }
  std::vector<std::vector<Bounded>> gradients(blocks);
  Matrix above;
  for (size_t l = blocks; l-- > 0;) {
    TransformerBlockInputs in = inputs(l);
    in.dy = l + 1 == blocks ? BoundedView(last.view()) : BoundedView(above);
    TransformerBlockResult r = TransformerBlockReference(in, arithmetic);
    Append(config_, r, gradients[l]);
    above = std::move(r.dx);
  }
  std::vector<Bounded> all;
  for (const std::vector<Bounded>& g : gradients) {
    all.insert(all.end(), g.begin(), g.end());
  }
  return all;
}

void TrainedTransformerReference::Step(std::span<const double> x,
                                       std::span<const double> dy,
                                       double factor) {
  std::vector<double> at;
  for (const Bounded& w : parameters()) at.push_back(w.value);
  const std::vector<Bounded> gradient = GradientOf(x, dy, at);
  gradient_ = Unknown(gradient);
  std::vector<double> from;
  for (const Bounded& w : optimizer_.weights()) from.push_back(w.value);
  optimizer_.Step(gradient, factor);
  for (size_t i = 0; i < from.size(); ++i) {
    moved_[i] += std::abs(optimizer_.weights()[i].value - from[i]);
  }
}

Bounded TrainedTransformerReference::norm() const {
  const double norm = optimizer_.norm().value;
  return Unknown(Accumulated({norm}, norm, kOwnRoundings, kSlack).value);
}

std::vector<Bounded> TrainedTransformerReference::parameters() const {
  std::vector<Bounded> out;
  const std::vector<Bounded> weights = optimizer_.parameters();
  for (size_t i = 0; i < weights.size(); ++i) {
    const Bounded moved =
        Accumulated({weights[i].value}, moved_[i], kConstantRoundings, kSlack);
    out.push_back(
        Unknown(Accumulated(moved, std::abs(moved.value), kOwnRoundings, kSlack)
                    .value));
  }
  return out;
}

}  // namespace shardproof
