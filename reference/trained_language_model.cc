#include "reference/trained_language_model.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "reference/cross_entropy_row.h"
#include "reference/embedding.h"
#include "reference/linear.h"
#include "reference/norm.h"

namespace shardproof {

TrainedBlockConfig LanguageModelConfig::block() const {
  return {.length = length,
          .hidden = hidden,
          .heads = heads,
          .kv_heads = kv_heads,
          .head_dim = head_dim,
          .intermediate = intermediate,
          .norm = norm,
          .epsilon = epsilon,
          .activation = activation,
          .rope_theta = rope_theta,
          .bias = bias,
          .experts = experts,
          .top_k = top_k,
          .dtype = dtype};
}

std::vector<LanguageModelParameter> LanguageModelParameters(
    const LanguageModelConfig& c) {
  std::vector<LanguageModelParameter> all;
  const auto add = [&](std::string name, const Shape& shape, bool has = true) {
    if (!has) return;
    const int64_t begin = all.empty() ? 0 : all.back().end();
    all.push_back({std::move(name), shape, begin});
  };
  add("table", {c.vocabulary, c.hidden});
  add("positions", {c.length, c.hidden}, c.learned_positions);
  const std::vector<TrainedBlockParameter> block =
      TrainedBlockParameters(c.block());
  for (int l = 0; l < c.blocks; ++l) {
    for (const TrainedBlockParameter& p : block) {
      add(fmt::format("block{}_{}", l, p.name), p.shape);
    }
  }
  add("norm_w", {c.hidden});
  add("norm_b", {c.hidden}, c.norm == NormKind::kLayerNorm);
  add("head", {c.vocabulary, c.hidden}, !c.tied);
  return all;
}

int64_t LanguageModelSize(const LanguageModelConfig& config) {
  return LanguageModelParameters(config).back().end();
}

// One step's numbers.
struct TrainedLanguageModelReference::Pass {
  std::span<const int64_t> ids, targets;
  std::vector<double> parameters;
  std::vector<TrainedBlock> blocks = {};
  Tensor last = {};     // x_L
  Tensor z = {};        // norm(x_L)
  Tensor dlogits = {};  // Once CrossEntropy has replaced the logits by it.
  double losses = 0;
  int64_t counted = 0;
};

TrainedLanguageModelReference::TrainedLanguageModelReference(
    const LanguageModelConfig& config, std::span<const double> initial)
    : config_(config),
      order_(LanguageModelParameters(config)),
      trained_(config.optimizer, config.dtype, initial) {}

Status TrainedLanguageModelReference::Check(
    std::span<const int64_t> ids, std::span<const int64_t> targets) const {
  const auto tokens = static_cast<int64_t>(ids.size());
  if (config_.length < 1 || targets.size() != ids.size() ||
      tokens % config_.length != 0) {
    return InvalidArgument("{} ids and {} targets in sequences of {}",
                           ids.size(), targets.size(), config_.length);
  }
  for (size_t i = 0; i < ids.size(); ++i) {
    const auto known = [&](int64_t id) {
      return id >= 0 && id < config_.vocabulary;
    };
    if (known(ids[i]) && (targets[i] == kIgnoredTarget || known(targets[i]))) {
      continue;
    }
    return InvalidArgument("token {}: id {} or target {} is not below {}", i,
                           ids[i], targets[i], config_.vocabulary);
  }
  return OkStatus();
}

std::optional<ConstTensorView> TrainedLanguageModelReference::Find(
    const Pass& pass, std::string_view name) const {
  for (const LanguageModelParameter& p : order_) {
    if (p.name != name) continue;
    return ConstTensorView(DType::kF64, p.shape,
                           pass.parameters.data() + p.begin);
  }
  return std::nullopt;
}

ConstTensorView TrainedLanguageModelReference::Head(const Pass& pass) const {
  return *Find(pass, config_.tied ? "table" : "head");
}

NormWeights TrainedLanguageModelReference::Norm(const Pass& pass) const {
  return {config_.norm, config_.epsilon, *Find(pass, "norm_w"),
          Find(pass, "norm_b")};
}

Status TrainedLanguageModelReference::Forward(Pass& pass) const {
  const Arithmetic arithmetic = Arithmetic::For(config_.dtype);
  Tensor x = DoubleTensor(EmbeddingForward(*Find(pass, "table"), pass.ids));
  if (const auto positions = Find(pass, "positions")) {
    const auto* const p = positions->as<double>();
    double* const to = x.data<double>();
    const int64_t period = positions->num_elements();
    for (int64_t i = 0; i < x.num_elements(); ++i) {
      to[i] = Rounded({to[i] + p[i % period]}, config_.dtype).value;
    }
  }
  SP_RETURN_IF_ERROR(Blocks(std::move(x), pass));
  pass.z = DoubleTensor(
      NormForward(ExactMatrix(pass.last.view()), Norm(pass), arithmetic));
  pass.dlogits =
      DoubleTensor(LinearForward({pass.z.view(), Head(pass)}, arithmetic));
  return OkStatus();
}

Status TrainedLanguageModelReference::Blocks(Tensor x, Pass& pass) const {
  const TrainedBlockConfig block = config_.block();
  const double least_gap =
      config_.least_gap * UnitRoundoff(Accumulator(config_.dtype));
  for (int l = 0; l < config_.blocks; ++l) {
    const auto begin = Find(pass, fmt::format("block{}_norm1_w", l));
    const auto at =
        static_cast<size_t>(begin->as<double>() - pass.parameters.data());
    pass.blocks.emplace_back(block, std::span(pass.parameters).subspan(at));
    SP_ASSIGN_OR_RETURN(x, pass.blocks.back().Forward(std::move(x)));
    const std::vector<double>& gaps = pass.blocks.back().gaps();
    const auto least = std::min_element(gaps.begin(), gaps.end());
    if (least == gaps.end() || *least > least_gap) continue;
    return InvalidArgument(
        "block {}, token {}: which experts are chosen is not certain, their "
        "logits are only {:g} above another",
        l, least - gaps.begin(), *least);
  }
  pass.last = std::move(x);
  return OkStatus();
}

void TrainedLanguageModelReference::CrossEntropy(Pass& pass) const {
  const Arithmetic arithmetic = Arithmetic::For(config_.dtype);
  const auto columns = static_cast<size_t>(config_.vocabulary);
  double* logits = pass.dlogits.data<double>();
  long double losses = 0;
  for (const int64_t target : pass.targets) {
    const std::span<double> x(logits, columns);
    logits += columns;
    if (target == kIgnoredTarget) {
      std::fill(x.begin(), x.end(), 0.0);
      continue;
    }
    losses += CrossEntropyRow(x, static_cast<size_t>(target), arithmetic);
    ++pass.counted;
  }
  pass.losses = static_cast<double>(losses);
}

StatusOr<std::vector<Bounded>> TrainedLanguageModelReference::Backward(
    Pass& pass) const {
  const Arithmetic arithmetic = Arithmetic::For(config_.dtype);
  const Matrix dhead =
      LinearWeightGrad(pass.dlogits.view(), pass.z.view(), arithmetic);
  Matrix dz = LinearInputGrad(pass.dlogits.view(), Head(pass), arithmetic);
  for (Bounded& v : dz.values) v = {v.value};
  const NormGradients norm =
      NormBackward(ExactMatrix(pass.last.view()), dz, nullptr, Norm(pass),
                   NormArithmetic::For(config_.dtype));
  Tensor dx = DoubleTensor(norm.dx);
  std::vector<std::vector<Bounded>> blocks(pass.blocks.size());
  for (size_t l = blocks.size(); l-- > 0;) {
    SP_ASSIGN_OR_RETURN(dx, pass.blocks[l].Backward(dx, blocks[l]));
  }
  std::vector<Bounded> all;
  const auto put = [&](const Matrix& m) {
    for (const Bounded& v : m.values) {
      all.push_back(Rounded({v.value}, config_.dtype));
    }
  };
  put(EmbeddingGrad(pass.ids, dx.view(), config_.vocabulary, arithmetic, {},
                    config_.tied ? &dhead : nullptr));
  if (config_.learned_positions) {
    const int64_t width = config_.length * config_.hidden;
    put(LinearBiasGrad(
        ConstTensorView(DType::kF64, {dx.num_elements() / width, width},
                        dx.raw()),
        arithmetic));
  }
  for (const std::vector<Bounded>& block : blocks) {
    all.insert(all.end(), block.begin(), block.end());
  }
  put(norm.dw);
  if (config_.norm == NormKind::kLayerNorm) put(norm.db);
  if (!config_.tied) put(dhead);
  return all;
}

Status TrainedLanguageModelReference::Step(std::span<const int64_t> ids,
                                           std::span<const int64_t> targets) {
  SP_RETURN_IF_ERROR(Check(ids, targets));
  Pass pass{.ids = ids, .targets = targets, .parameters = trained_.values()};
  SP_RETURN_IF_ERROR(Forward(pass));
  CrossEntropy(pass);
  SP_ASSIGN_OR_RETURN(const std::vector<Bounded> gradient, Backward(pass));
  for (const TrainedBlock& block : pass.blocks) {
    choices_.insert(choices_.end(), block.choices().begin(),
                    block.choices().end());
    gaps_.insert(gaps_.end(), block.gaps().begin(), block.gaps().end());
  }
  const double count = static_cast<double>(std::max<int64_t>(1, pass.counted));
  const double added =
      Accumulated({pass.losses}, pass.losses, pass.counted + 1, kSlack).value;
  loss_ = Unknown(Rounded({added / count}, Accumulator(config_.dtype)).value);
  trained_.Step(gradient, 1 / count);
  return OkStatus();
}

double RoutingMargin(const TrainedLanguageModelReference& exact,
                     std::span<const TrainedLanguageModelReference> probed) {
  std::vector<double> squares(exact.gaps().size());
  for (const TrainedLanguageModelReference& probe : probed) {
    if (probe.choices() != exact.choices()) return 0;
    for (size_t i = 0; i < squares.size(); ++i) {
      const double d = probe.gaps()[i] - exact.gaps()[i];
      squares[i] += d * d;
    }
  }
  double margin = HUGE_VAL;
  const auto probes = static_cast<double>(probed.size());
  for (size_t i = 0; i < squares.size(); ++i) {
    if (std::isinf(exact.gaps()[i])) continue;
    const double own = exact.gaps()[i] / std::sqrt(squares[i] / probes);
    // Written so that what is not a number, as without probes, is no margin.
    if (!(own > 0)) return 0;
    margin = std::min(margin, own);
  }
  return margin;
}

}  // namespace shardproof
