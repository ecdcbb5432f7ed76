#include "reference/trained_transformer.h"

#include <utility>

#include "reference/tensor.h"
#include "reference/trained_block.h"

namespace shardproof {
namespace {

TrainedBlockConfig BlockOf(const TrainedTransformerConfig& c) {
  return {.length = c.length,
          .hidden = c.hidden,
          .heads = c.heads,
          .kv_heads = c.kv_heads,
          .head_dim = c.head_dim,
          .intermediate = c.intermediate,
          .norm = c.norm,
          .epsilon = c.epsilon,
          .activation = c.activation,
          .rope_theta = c.rope_theta,
          .bias = c.bias,
          .dtype = c.dtype};
}

}  // namespace

int64_t TrainedTransformerConfig::parameters() const {
  int64_t all = 0;
  for (const TrainedBlockParameter& p :
       TrainedBlockParameters(BlockOf(*this))) {
    all += p.shape.NumElements();
  }
  return all;
}

TrainedTransformerReference::TrainedTransformerReference(
    const TrainedTransformerConfig& config, std::span<const double> initial)
    : config_(config), trained_(config.optimizer, config.dtype, initial) {}

std::vector<Bounded> TrainedTransformerReference::GradientOf(
    std::span<const double> x, std::span<const double> dy) const {
  const Shape shape = {static_cast<int64_t>(x.size()) / config_.hidden,
                       config_.hidden};
  const std::vector<double> parameters = trained_.values();
  const auto count = static_cast<size_t>(config_.parameters());
  std::vector<TrainedBlock> blocks;
  Tensor y = DoubleTensor(shape, x);
  for (size_t l = 0; l < static_cast<size_t>(config_.blocks); ++l) {
    blocks.emplace_back(BlockOf(config_),
                        std::span(parameters).subspan(l * count, count));
    // Only mixtures of experts, which these are not, have errors.
    y = blocks.back().Forward(std::move(y)).value();
  }
  std::vector<std::vector<Bounded>> gradients(blocks.size());
  Tensor above = DoubleTensor(shape, dy);
  for (size_t l = blocks.size(); l-- > 0;) {
    above = blocks[l].Backward(above, gradients[l]).value();
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
  trained_.Step(GradientOf(x, dy), factor);
}

}  // namespace shardproof
