#include "layers/transformer_training/case_setup.h"

#include <cmath>
#include <span>
#include <utility>

#include "reference/trained_transformer.h"

namespace shardproof {

std::string FormatAxisValue(OptimizerRule rule) {
  return std::string(Name(rule));
}
Status ParseAxisValue(std::string_view text, OptimizerRule* rule) {
  for (const OptimizerRule r : {OptimizerRule::kSgd, OptimizerRule::kAdamW}) {
    if (text != Name(r)) continue;
    *rule = r;
    return OkStatus();
  }
  return InvalidArgument("\"{}\" is neither sgd nor adamw", text);
}

}  // namespace shardproof

namespace shardproof::transformer_training {

std::string FormatAxisValue(Style style) {
  return style == Style::kGpt2 ? "gpt2" : "llama";
}
Status ParseAxisValue(std::string_view text, Style* style) {
  for (const Style s : {Style::kGpt2, Style::kLlama}) {
    if (text != FormatAxisValue(s)) continue;
    *style = s;
    return OkStatus();
  }
  return InvalidArgument("\"{}\" is neither gpt2 nor llama", text);
}

TransformerBlockConfig BlockOf(const P& p) {
  const bool llama = p.style == Style::kLlama;
  constexpr int64_t kHeads = 2, kLength = 4;
  return {.length = kLength,
          .hidden = p.hidden,
          .heads = kHeads,
          .kv_heads = llama ? kHeads / 2 : kHeads,
          .head_dim = p.hidden / kHeads / 2,
          .intermediate = p.hidden - 1,
          .norm = llama ? NormKind::kRmsNorm : NormKind::kLayerNorm,
          .activation = llama ? Activation::kSwiGlu : Activation::kGeluTanh,
          .rope_theta = llama ? 10000. : 0.,
          .dtype = p.dtype,
          .bias = !llama};
}

int64_t SequencesOf(int rank) {
  constexpr int64_t kSequences[] = {2, 1, 3, 1};
  return kSequences[rank % 4];
}
int64_t TokensOf(const P& p, int rank) {
  return SequencesOf(rank) * BlockOf(p).length;
}
int64_t TokensOfAll(const P& p) {
  int64_t all = 0;
  for (int r = 0; r < p.ranks; ++r) all += TokensOf(p, r);
  return all;
}

TransformerStackConfig StackOf(const P& p, int rank) {
  return {.block = BlockOf(p),
          .layers = kLayers,
          .sequences = SequencesOf(rank),
          .micro_batches = p.micro_batches};
}

// All constants are sums of few powers of two. The norm is far above max_norm,
// so that every step is clipped; epsilon is about the size of a clipped
// gradient, since it bounds by rate / epsilon how much Adam magnifies the error
// of one that is next to nothing.
OptimizerSettings SettingsOf(const P& p) {
  const bool adam = Adam(p.rule);
  return {.rule = p.rule,
          .learning_rate = adam ? 1.0 / 64 : 0.25,
          .momentum = adam ? 0 : 0.5,
          .beta1 = 0.875,
          .beta2 = 0.9375,
          .epsilon = 1.0 / 64,
          .weight_decay = 0.125,
          .max_norm = 0.5};
}

std::string NameOf(int layer, const BlockParameter& parameter) {
  return fmt::format("block{}_{}", layer, parameter.name);
}

Tensors TensorsOf(const P& p) {
  std::vector<int64_t> tokens;
  for (int r = 0; r < p.ranks; ++r) tokens.push_back(TokensOf(p, r));
  const Shape batches = {p.steps, TokensOfAll(p), p.hidden};
  Tensors tensors = {Input("x", p.dtype, batches, ShardSizes(1, tokens)),
                     Input("dy", p.dtype, batches, ShardSizes(1, tokens))};
  const std::vector<BlockParameter> parameters = BlockParametersOf(BlockOf(p));
  for (int l = 0; l < kLayers; ++l) {
    for (const BlockParameter& w : parameters) {
      TensorData data;
      // Products with a deviation of about 1, as in the block's own case.
      if (w.shape.rank() == 2) {
        data.bounded =
            Uniform(p.dtype, 3 / std::sqrt(static_cast<double>(w.shape[1])));
      }
      tensors.push_back(
          Input(NameOf(l, w), p.dtype, w.shape, Replicated()).Data(data));
    }
  }
  // One output: each is evaluated without each rank, to see whether that shows.
  tensors.push_back(
      Output("trained", p.dtype, {kLayers, BlockSize(BlockOf(p))}, Replicated())
          .Gradient());
  tensors.push_back(Output("norm", DType::kF64, {p.steps}, Replicated()));
  return tensors;
}

StatusOr<DenseOutputs> Expected(const P& p, const Arithmetic& /*summed*/,
                                const Inputs& in, const Sample& /*sample*/) {
  const TransformerBlockConfig block = BlockOf(p);
  const std::vector<BlockParameter> parameters = BlockParametersOf(block);
  std::vector<double> initial;
  for (int l = 0; l < kLayers; ++l) {
    for (const BlockParameter& w : parameters) {
      const std::vector<double> part = in.All(NameOf(l, w));
      initial.insert(initial.end(), part.begin(), part.end());
    }
  }
  TrainedTransformerReference reference({.blocks = kLayers,
                                         .length = block.length,
                                         .hidden = block.hidden,
                                         .heads = block.heads,
                                         .kv_heads = block.kv_heads,
                                         .head_dim = block.head_dim,
                                         .intermediate = block.intermediate,
                                         .norm = block.norm,
                                         .epsilon = block.epsilon,
                                         .activation = block.activation,
                                         .rope_theta = block.rope_theta,
                                         .bias = block.bias,
                                         .dtype = p.dtype,
                                         .optimizer = SettingsOf(p)},
                                        initial);
  const std::vector<double> x = in.All("x"), dy = in.All("dy");
  const size_t n = x.size() / static_cast<size_t>(p.steps);
  DenseOutputs out;
  for (size_t at = 0; at < x.size(); at += n) {
    reference.Step(std::span(x).subspan(at, n), std::span(dy).subspan(at, n),
                   1.0 / static_cast<double>(TokensOfAll(p)));
    out["norm"].push_back(reference.norm());
  }
  out["trained"] = reference.parameters();
  return out;
}

}  // namespace shardproof::transformer_training
