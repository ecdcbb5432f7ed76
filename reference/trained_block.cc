#include "reference/trained_block.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <utility>

#include "reference/activated.h"
#include "reference/linear.h"
#include "reference/product.h"

namespace shardproof {
namespace {

using internal::AllRows;
using Values = std::vector<double>;

Values ValuesOf(const Matrix& m) {
  Values out;
  out.reserve(m.values.size());
  for (const Bounded& v : m.values) out.push_back(v.value);
  return out;
}

Matrix MatrixOf(int64_t cols, std::span<const double> values) {
  Matrix m;
  m.rows = AllRows(static_cast<int64_t>(values.size()) / cols);
  m.cols = cols;
  for (const double v : values) m.values.push_back({v});
  return m;
}

// Without what the bounds of an operation would cost the next one.
Matrix Boundless(Matrix m) {
  for (Bounded& v : m.values) v = {v.value};
  return m;
}

Matrix Transposed(const Matrix& m) {
  Matrix out;
  out.rows = AllRows(m.cols);
  out.cols = static_cast<int64_t>(m.rows.size());
  for (int64_t i = 0; i < m.cols; ++i) {
    for (int64_t j = 0; j < out.cols; ++j) out.values.push_back(m.at(j, i));
  }
  return out;
}

// A layer and its residual, as transformer_block adds them.
Tensor Sum(const Tensor& a, const Matrix& b, const Arithmetic& arithmetic) {
  Tensor sum(DType::kF64, a.shape());
  for (size_t i = 0; i < b.values.size(); ++i) {
    const Bounded s = {a.data<double>()[i] + b.values[i].value};
    sum.data<double>()[i] =
        Rounded(Rounded(s, arithmetic.UAccumulate()), arithmetic.store).value;
  }
  return sum;
}

}  // namespace

std::vector<TrainedBlockParameter> TrainedBlockParameters(
    const TrainedBlockConfig& c) {
  const bool centred = c.norm == NormKind::kLayerNorm;
  const int64_t h = c.hidden, f = c.intermediate, e = c.experts;
  const int64_t fused = (c.heads + 2 * c.kv_heads) * c.head_dim;
  std::vector<TrainedBlockParameter> all;
  const auto add = [&](const char* name, const Shape& shape, bool has = true) {
    if (has) all.push_back({name, shape});
  };
  add("norm1_w", {h});
  add("norm1_b", {h}, centred);
  add("w_qkv", {fused, h});
  add("b_qkv", {fused}, c.bias);
  add("w_out", {h, c.heads * c.head_dim});
  add("b_out", {h}, c.bias);
  add("norm2_w", {h});
  add("norm2_b", {h}, centred);
  if (e > 0) {
    add("router", {e, h});
    add("w_gate", {e, f, h});
    add("w_up", {e, f, h});
    add("w_down", {e, h, f});
    return all;
  }
  add("w_gate", {f, h}, c.activation == Activation::kSwiGlu);
  add("w_up", {f, h});
  add("b_up", {f}, c.bias);
  add("w_down", {h, f});
  add("b_down", {h}, c.bias);
  return all;
}

Tensor DoubleTensor(const Shape& shape, std::span<const double> values) {
  Tensor tensor(DType::kF64, shape);
  std::copy(values.begin(), values.end(), tensor.data<double>());
  return tensor;
}

Tensor DoubleTensor(const Matrix& matrix) {
  Tensor tensor(DType::kF64,
                {static_cast<int64_t>(matrix.rows.size()), matrix.cols});
  double* to = tensor.data<double>();
  for (const Bounded& v : matrix.values) *to++ = v.value;
  return tensor;
}

TrainedBlock::TrainedBlock(const TrainedBlockConfig& config,
                           std::span<const double> parameters)
    : config_(config),
      a_(TransformerBlockArithmetic::For(config.dtype)),
      order_(TrainedBlockParameters(config)) {
  size_t at = 0;
  for (const TrainedBlockParameter& p : order_) {
    const auto n = static_cast<size_t>(p.shape.NumElements());
    weights_[p.name] = DoubleTensor(p.shape, parameters.subspan(at, n));
    at += n;
  }
}

ConstTensorView TrainedBlock::View(std::string_view name) const {
  return weights_.find(name)->second.view();
}

std::optional<ConstTensorView> TrainedBlock::Bias(std::string_view name) const {
  const auto found = weights_.find(name);
  if (found == weights_.end()) return std::nullopt;
  return found->second.view();
}

NormWeights TrainedBlock::Norm(std::string_view weight,
                               std::string_view bias) const {
  return {config_.norm, config_.epsilon, View(weight), Bias(bias)};
}

void TrainedBlock::Put(std::string_view name, const Matrix& gradient) {
  const auto found = weights_.find(name);
  if (found == weights_.end()) return;
  std::vector<double>& to = gradients_[found->first];
  for (const Bounded& g : gradient.values) {
    to.push_back(Rounded({g.value}, config_.dtype).value);
  }
}

Matrix TrainedBlock::Turned(const Matrix& columns, bool back) const {
  if (config_.rope_theta == 0) return columns;
  return RopeReference(columns, config_.head_dim, config_.rope_theta,
                       AllRows(config_.length), back, a_.attention.local);
}

// Of normed1_.
Matrix TrainedBlock::Attention() {
  const int64_t queries = config_.heads * config_.head_dim;
  const int64_t keys = config_.kv_heads * config_.head_dim;
  const Matrix qkv = Boundless(LinearForward(
      {normed1_.view(), View("w_qkv"), Bias("b_qkv")}, a_.attention.local));
  core_.emplace(
      CausalCoreShape{.sequences = normed1_.shape()[0] / config_.length,
                      .heads = config_.heads,
                      .kv_heads = config_.kv_heads,
                      .head_dim = config_.head_dim},
      a_.attention.core);
  const Values o =
      core_->Forward(ValuesOf(Turned(ColumnsOf(qkv, 0, queries), false)),
                     ValuesOf(Turned(ColumnsOf(qkv, queries, keys), false)),
                     ValuesOf(ColumnsOf(qkv, queries + keys, keys)));
  o_ = DoubleTensor({normed1_.shape()[0], queries}, o);
  return LinearForward({o_.view(), View("w_out"), Bias("b_out")},
                       a_.attention.out);
}

// The gradient of normed1_.
Matrix TrainedBlock::AttentionGradient(const Tensor& dy) {
  const Arithmetic& local = a_.attention.local;
  const int64_t queries = config_.heads * config_.head_dim;
  const int64_t keys = config_.kv_heads * config_.head_dim;
  const CausalCore::Gradients core = core_->Backward(
      ValuesOf(LinearInputGrad(dy.view(), View("w_out"), local)));
  Matrix d_qkv;
  d_qkv.rows = AllRows(dy.shape()[0]);
  d_qkv.cols = queries + 2 * keys;
  d_qkv.values.resize(d_qkv.rows.size() * static_cast<size_t>(d_qkv.cols));
  SetColumns(Turned(MatrixOf(queries, core.dq), true), 0, d_qkv);
  SetColumns(Turned(MatrixOf(keys, core.dk), true), queries, d_qkv);
  SetColumns(MatrixOf(keys, core.dv), queries + keys, d_qkv);
  const Tensor d = DoubleTensor(d_qkv);
  Put("w_qkv", LinearWeightGrad(d.view(), normed1_.view(), local));
  if (Bias("b_qkv")) Put("b_qkv", LinearBiasGrad(d.view(), local));
  Put("w_out", LinearWeightGrad(dy.view(), o_.view(), local));
  if (Bias("b_out")) Put("b_out", LinearBiasGrad(dy.view(), local));
  return LinearInputGrad(d.view(), View("w_qkv"), a_.attention.dx);
}

// Of normed2_, with the formulas of mlp.h.
Matrix TrainedBlock::Mlp() {
  const bool gated = config_.activation == Activation::kSwiGlu;
  if (gated) {
    gate_ =
        Boundless(LinearForward({normed2_.view(), View("w_gate")}, a_.mlp.up));
  }
  up_ = Boundless(
      LinearForward({normed2_.view(), View("w_up"), Bias("b_up")}, a_.mlp.up));
  const Tensor a =
      DoubleTensor(internal::Activate(gated, gate_, up_, {}, a_.mlp.up).a);
  return LinearForward({a.view(), View("w_down"), Bias("b_down")}, a_.mlp.down);
}

// The gradient of normed2_.
Matrix TrainedBlock::MlpGradient(const Tensor& dy) {
  const bool gated = config_.activation == Activation::kSwiGlu;
  const Matrix da =
      Boundless(LinearInputGrad(dy.view(), View("w_down"), a_.mlp.da));
  const internal::Activated act =
      internal::Activate(gated, gate_, up_, da, a_.mlp.up);
  const Tensor a = DoubleTensor(act.a), dz = DoubleTensor(act.dz);
  Put("w_up", LinearWeightGrad(dz.view(), normed2_.view(), a_.mlp.dw));
  if (Bias("b_up")) Put("b_up", LinearBiasGrad(dz.view(), a_.mlp.dw));
  Put("w_down", LinearWeightGrad(dy.view(), a.view(), a_.mlp.dw));
  if (Bias("b_down")) Put("b_down", LinearBiasGrad(dy.view(), a_.mlp.dw));
  Matrix dx = LinearInputGrad(dz.view(), View("w_up"), a_.mlp.dx);
  if (!gated) return dx;
  const Tensor dg = DoubleTensor(act.dg);
  Put("w_gate", LinearWeightGrad(dg.view(), normed2_.view(), a_.mlp.dw));
  const Matrix more = LinearInputGrad(dg.view(), View("w_gate"), a_.mlp.dx);
  for (size_t i = 0; i < dx.values.size(); ++i) {
    dx.values[i] = Rounded(dx.values[i] + more.values[i], a_.mlp.dx.store);
  }
  return dx;
}

MoeInputs TrainedBlock::MixtureInputs() const {
  return {.activation = Activation::kSwiGlu,
          .top_k = config_.top_k,
          .renormalise = true,
          .tokens = {normed2_.shape()[0]},
          .x = normed2_.view(),
          .router = View("router"),
          .experts = {.gate = View("w_gate"),
                      .up = View("w_up"),
                      .down = View("w_down")},
          .d_losses = {}};
}

// Logits differ as the logarithms of probabilities do.
void TrainedBlock::NoteChoices(const MoeRouting& routing) {
  const int64_t tokens = normed2_.shape()[0], k = config_.top_k;
  choices_ = routing.chosen;
  gaps_.clear();
  for (int64_t t = 0; t < tokens; ++t) {
    const auto begin = choices_.begin() + t * k;
    std::sort(begin, begin + k);
    double chosen = HUGE_VAL, other = 0;
    for (int32_t e = 0; e < config_.experts; ++e) {
      const double p = routing.probabilities.at(t, e).value;
      if (std::binary_search(begin, begin + k, e)) {
        chosen = std::min(chosen, p);
      } else {
        other = std::max(other, p);
      }
    }
    gaps_.push_back(other > 0 ? std::log(chosen / other) : HUGE_VAL);
  }
}

StatusOr<Matrix> TrainedBlock::Mixture() {
  const Arithmetic local = Arithmetic::For(config_.dtype);
  SP_ASSIGN_OR_RETURN(
      MoeResult moe,
      MoeReference(MixtureInputs(), {local, local, local, local}));
  NoteChoices(moe.routing);
  return std::move(moe.y);
}

// The gradient of normed2_.
StatusOr<Matrix> TrainedBlock::MixtureGradient(const Tensor& dy) {
  const Arithmetic local = Arithmetic::For(config_.dtype);
  const Tensor none = Tensor::Zeros(DType::kF64, {2});
  MoeInputs in = MixtureInputs();
  in.dy = dy.view();
  in.d_losses = none.view();
  SP_ASSIGN_OR_RETURN(MoeResult r,
                      MoeReference(in, {local, local, local, local}));
  Put("router", r.d_router);
  for (size_t e = 0; e < r.d_up.size(); ++e) {
    Put("w_gate", r.d_gate[e]);
    Put("w_up", r.d_up[e]);
    Put("w_down", Transposed(r.d_down_t[e]));
  }
  return std::move(r.dx);
}

StatusOr<Tensor> TrainedBlock::Forward(Tensor x) {
  const Arithmetic& stored = a_.norm.local;
  x_ = std::move(x);
  normed1_ = DoubleTensor(
      NormForward(ExactMatrix(x_.view()), Norm("norm1_w", "norm1_b"), stored));
  z_ = Sum(x_, Attention(), stored);
  normed2_ = DoubleTensor(
      NormForward(ExactMatrix(z_.view()), Norm("norm2_w", "norm2_b"), stored));
  if (config_.experts == 0) return Sum(z_, Mlp(), stored);
  SP_ASSIGN_OR_RETURN(const Matrix y, Mixture());
  return Sum(z_, y, stored);
}

StatusOr<Tensor> TrainedBlock::Backward(const Tensor& dy,
                                        std::vector<Bounded>& gradient) {
  gradients_.clear();
  Matrix d_normed2;
  if (config_.experts == 0) {
    d_normed2 = MlpGradient(dy);
  } else {
    SP_ASSIGN_OR_RETURN(d_normed2, MixtureGradient(dy));
  }
  const Matrix above = ExactMatrix(dy.view());
  const NormGradients norm2 =
      NormBackward(ExactMatrix(z_.view()), Boundless(d_normed2), &above,
                   Norm("norm2_w", "norm2_b"), a_.norm);
  Put("norm2_w", norm2.dw);
  Put("norm2_b", norm2.db);
  const Matrix dz = Boundless(norm2.dx);
  const Matrix d_normed1 = Boundless(AttentionGradient(DoubleTensor(dz)));
  const NormGradients norm1 =
      NormBackward(ExactMatrix(x_.view()), d_normed1, &dz,
                   Norm("norm1_w", "norm1_b"), a_.norm);
  Put("norm1_w", norm1.dw);
  Put("norm1_b", norm1.db);
  for (const TrainedBlockParameter& p : order_) {
    for (const double g : gradients_.at(p.name)) gradient.push_back({g});
  }
  return DoubleTensor(norm1.dx);
}

}  // namespace shardproof
