#include "layers/pairing/stack_case.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "collectives/chunks.h"
#include "layers/pairing/layer_case.h"

namespace shardproof {
namespace {

Chunk OwnFeatures(const StackCase& p, int rank) {
  return BalancedChunk(p.width, p.tensor_parallel, rank % p.tensor_parallel);
}

// Even layers are cut by output, odd ones by input.
Sharding ShardingOf(const StackCase& p, int parameter) {
  if (p.tensor_parallel == 1) return Replicated();
  const int layer = (parameter - 1) / 2;
  const bool weight = parameter == LinearStackConfig::Weight(layer);
  const bool even = layer % 2 == 0;
  if (parameter == LinearStackConfig::kPrefix || (!weight && !even)) {
    return Replicated();
  }
  return ShardBy("over tensor-parallel ranks",
                 [p, cut = even ? 0 : 1](const Shape& shape, int rank, int) {
                   LocalBlock block = WholeBlock(shape);
                   const Chunk own = OwnFeatures(p, rank);
                   block.ranges[static_cast<size_t>(cut)] = {
                       {own.begin, own.begin + own.count}};
                   return MakeBlock(block.ranges);
                 });
}

Sharding OverReplicas(const StackCase& p) {
  return ShardBy("tokens over replicas", [p](const Shape& shape, int rank,
                                             int) {
    LocalBlock block = WholeBlock(shape);
    const Chunk own = BalancedChunk(shape[0], p.replicas(), p.ReplicaOf(rank));
    block.ranges[0] = {{own.begin, own.begin + own.count}};
    return MakeBlock(block.ranges);
  });
}

struct StackData {
  Distribution x, w, b, dy;
};

// Integers such that every sum on the way is below 2^t: weights of +-1, and
// fewer of them, then fewer upstream gradients, until they are.
StackData ExactStack(const StackCase& p) {
  const double limit =
      std::ldexp(1.0, std::min(SignificandBits(p.dtype), 24)) - 1;
  const Distribution ones = {.kind = Distribution::Kind::kInteger,
                             .dtype = p.dtype};
  int64_t w_tile = 1, dy_tile = 1;
  const auto most = [&] {
    const double per_row =
        std::ceil(static_cast<double>(p.width) / static_cast<double>(w_tile));
    double h = 2, d = 1, sum = 0;
    for (int l = 0; l < p.layers; ++l) {
      sum = std::max(sum, h * std::pow(per_row, p.layers - 1 - l));
      h = per_row * h + 1;
      d *= per_row;
    }
    const double rows =
        std::ceil(static_cast<double>(p.tokens) / static_cast<double>(dy_tile));
    return rows * std::max(sum, d);
  };
  while (most() > limit && w_tile < p.width) w_tile *= 2;
  while (most() > limit && dy_tile < p.tokens) dy_tile *= 2;
  StackData data = {ones, ones, ones, ones};
  if (w_tile > 1) {
    data.w.columns = p.width;
    data.w.tile = w_tile;
  }
  if (dy_tile > 1) {
    data.dy.columns = p.width;
    data.dy.tile = dy_tile;
  }
  return data;
}

// At most 16 numbers in each row: bounds grow like sums of magnitudes from layer
// to layer, and would lose sight of the values in a deep stack of full ones.
Distribution BoundedWeight(const StackCase& p) {
  int64_t tile = 1;
  while ((p.width + tile - 1) / tile > 16) tile *= 2;
  const int64_t terms = (p.width + tile - 1) / tile;
  Distribution weight =
      Uniform(p.dtype, 3 / std::sqrt(static_cast<double>(terms)));
  if (tile > 1) {
    weight.columns = p.width;
    weight.tile = tile;
  }
  return weight;
}

const std::vector<Bounded>& ValuesOf(const LinearStackGradients& g,
                                     int parameter) {
  if (parameter == LinearStackConfig::kPrefix) return g.prefix.values;
  const auto layer = static_cast<size_t>((parameter - 1) / 2);
  return parameter == LinearStackConfig::Weight(static_cast<int>(layer))
             ? g.dw[layer].values
             : g.db[layer].values;
}

}  // namespace

std::vector<bool> Counted(int64_t tokens) {
  int64_t n = 1;
  while (2 * n <= tokens * 3 / 4) n *= 2;
  if (tokens == 0) n = 0;
  std::vector<std::pair<uint64_t, int64_t>> drawn;
  for (int64_t t = 0; t < tokens; ++t) {
    drawn.emplace_back(RandomBits({.seed = 5, .tensor = TensorId("counted")},
                                  static_cast<uint64_t>(t)),
                       t);
  }
  std::sort(drawn.begin(), drawn.end());
  std::vector<bool> counted(static_cast<size_t>(tokens), false);
  for (int64_t i = 0; i < n; ++i) {
    counted[static_cast<size_t>(drawn[static_cast<size_t>(i)].second)] = true;
  }
  return counted;
}

int64_t CountIn(const StackCase& p, const TokenRange& tokens) {
  const std::vector<bool> counted = Counted(p.tokens);
  return std::count(counted.begin() + tokens.begin,
                    counted.begin() + tokens.end, true);
}

int64_t Prefixed(const StackCase& p) {
  if (p.tensor_parallel > 1) return 0;  // Its gradient would be a partial sum.
  return std::min(p.tokens, 1 + p.tokens / 9);
}

TokenParts PartsOf(const StackCase& p) {
  TokenParts parts;
  for (int r = 0; r < p.replicas(); ++r) {
    const Chunk own = BalancedChunk(p.tokens, p.replicas(), r);
    std::vector<TokenRange>& part = parts.emplace_back();
    for (int m = 0; m < p.micro_batches; ++m) {
      const Chunk c = BalancedChunk(own.count, p.micro_batches, m);
      part.push_back({own.begin + c.begin, own.begin + c.begin + c.count});
    }
  }
  return parts;
}

Tensor MaskedGradient(const StackCase& p, ConstTensorView dy, int64_t first,
                      const std::function<double(int64_t)>& factor) {
  const std::vector<bool> counted = Counted(p.tokens);
  std::vector<double> values(static_cast<size_t>(dy.num_elements()));
  ToDouble(dy.dtype, dy.data, dy.num_elements(), values.data());
  for (size_t i = 0; i < values.size(); ++i) {
    const int64_t t = first + static_cast<int64_t>(i) / dy.shape[1];
    values[i] *= !counted[static_cast<size_t>(t)] ? 0 : factor ? factor(t) : 1;
  }
  Tensor masked(dy.dtype, dy.shape);
  FromDouble(dy.dtype, values.data(), dy.num_elements(), masked.raw());
  return masked;
}

LinearStackConfig WholeStack(const StackCase& p) {
  return {.widths =
              std::vector<int64_t>(static_cast<size_t>(p.layers) + 1, p.width),
          .tokens = p.tokens,
          .dtype = p.dtype};
}

LinearStackConfig StackOf(const StackCase& p, int rank) {
  LinearStackConfig config = WholeStack(p);
  config.tokens = 0;
  const TokenParts parts = PartsOf(p);
  for (const TokenRange& t : parts[static_cast<size_t>(p.ReplicaOf(rank))]) {
    config.tokens = std::max(config.tokens, t.end - t.begin);
  }
  for (int l = 1; l < p.layers; l += 2) {
    config.widths[static_cast<size_t>(l)] = OwnFeatures(p, rank).count;
  }
  return config;
}

std::string NameOf(int parameter) {
  if (parameter == LinearStackConfig::kPrefix) return "prefix";
  const int layer = (parameter - 1) / 2;
  return fmt::format(
      "{}{}", parameter == LinearStackConfig::Weight(layer) ? 'w' : 'b', layer);
}

Tensors StackTensors(const StackCase& p) {
  const LinearStackConfig stack = WholeStack(p);
  const StackData exact = ExactStack(p);
  const TensorData weight = {.exact = exact.w, .bounded = BoundedWeight(p)};
  Tensors tensors = {Input("x", p.dtype, {p.tokens, p.width}, OverReplicas(p))
                         .Data({.exact = exact.x})};
  for (int i = 0; i < stack.parameters(); ++i) {
    const Shape shape = stack.ShapeOf(i);
    tensors.push_back(
        Input(NameOf(i), p.dtype, shape, ShardingOf(p, i))
            .Data(shape.rank() == 2 ? weight : TensorData{.exact = exact.b}));
  }
  tensors.push_back(Input("dy", p.dtype, {p.tokens, p.width}, OverReplicas(p))
                        .Data({.exact = exact.dy}));
  for (int i = 0; i < stack.parameters(); ++i) {
    if (i == LinearStackConfig::kPrefix && Prefixed(p) == 0) continue;
    Shape shape = stack.ShapeOf(i);
    const int rows = p.reduces ? 0 : 1;
    const bool weight_gradient = shape.rank() == 2;
    if (!p.reduces) {
      shape = weight_gradient ? Shape{p.ranks, shape[0], shape[1]}
                              : Shape{p.ranks, shape[0]};
    }
    tensors.push_back(Output("d" + NameOf(i), p.dtype, shape,
                             p.reduces ? ShardingOf(p, i) : Shard(0))
                          .Gradient()
                          .SampleDimension(weight_gradient ? rows : -1));
  }
  return tensors;
}

StatusOr<DenseOutputs> StackReference(const StackCase& p,
                                      const Arithmetic& summed,
                                      const Inputs& in, const Sample& sample) {
  const Tensor dy = MaskedGradient(p, in.Global("dy"), 0);
  LinearStackInputs inputs = {.x = in.Global("x"),
                              .prefix = in.Global("prefix"),
                              .prefixed = Prefixed(p),
                              .dy = dy.view()};
  std::vector<Rows> rows;
  for (int l = 0; l < p.layers; ++l) {
    inputs.w.push_back(in.Global(NameOf(LinearStackConfig::Weight(l))));
    inputs.b.push_back(in.Global(NameOf(LinearStackConfig::Bias(l))));
    rows.push_back(RowsOf(sample, "d" + NameOf(LinearStackConfig::Weight(l))));
  }
  std::vector<LinearStackGradients> all;
  if (p.reduces) {
    const auto tokens =
        static_cast<double>(std::max<int64_t>(1, CountIn(p, {0, p.tokens})));
    all.push_back(
        LinearStackReference(inputs, PartsOf(p), summed, tokens, rows));
  } else {
    Arithmetic local = summed;
    local.partials = 1;
    all = LinearStackPartials(inputs, PartsOf(p), local, rows);
  }
  DenseOutputs out;
  for (int i = 0; i < WholeStack(p).parameters(); ++i) {
    std::vector<Bounded>& values = out["d" + NameOf(i)];
    for (const LinearStackGradients& g : all) {
      const std::vector<Bounded>& of_rank = ValuesOf(g, i);
      values.insert(values.end(), of_rank.begin(), of_rank.end());
    }
  }
  return out;
}

}  // namespace shardproof
