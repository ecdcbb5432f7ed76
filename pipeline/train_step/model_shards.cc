#include "pipeline/train_step/model_shards.h"

#include <string_view>

#include "layers/attention_block/head_share.h"
#include "layers/tensor_parallel/vocab_partition.h"

namespace shardproof {
namespace {

// "block3_w_up" is w_up of "block3"; "table" is a block of its own.
struct SplitName {
  std::string block;
  std::string own;
};
SplitName Split(const LanguageModelConfig& config, const std::string& name) {
  if (name == "norm_w" || name == "norm_b") return {"norm", name};
  if (!name.starts_with("block")) return {name, name};
  const size_t end = name.find('_');
  SplitName split = {name.substr(0, end), name.substr(end + 1)};
  const std::string& own = split.own;
  if (config.experts > 0 &&
      (own == "router" || own.starts_with("w_gate") ||
       own.starts_with("w_up") || own.starts_with("w_down"))) {
    split.block = "experts" + split.block.substr(5);
  }
  return split;
}

// Rows of a matrix, or elements of a vector: consecutive.
void AddRows(const Shape& whole, Chunk rows, std::vector<Chunk>& runs) {
  if (rows.count == 0) return;
  const int64_t width = whole.NumElements() / whole[0];
  runs.push_back({rows.begin * width, rows.count * width});
}
void AddColumns(const Shape& whole, Chunk columns, std::vector<Chunk>& runs) {
  if (columns.count == 0) return;
  for (int64_t row = 0; row < whole[0]; ++row) {
    runs.push_back({row * whole[1] + columns.begin, columns.count});
  }
}
Chunk Times(Chunk c, int64_t n) { return {c.begin * n, c.count * n}; }
Chunk After(int64_t begin, Chunk c) { return {begin + c.begin, c.count}; }

// What a rank has of a parameter, and where, counted from the parameter's own
// beginning.
ParameterShard ShardOf(const LanguageModelConfig& c, const ShardPlace& place,
                       const std::string& name, const Shape& whole) {
  ParameterShard shard{.name = name, .shape = whole, .runs = {}};
  std::vector<Chunk>& runs = shard.runs;
  const bool matrix = whole.rank() == 2;
  const auto rows = [&](Chunk chunk) {
    AddRows(whole, chunk, runs);
    shard.shape = matrix ? Shape{chunk.count, whole[1]} : Shape{chunk.count};
  };
  const bool feature = name == "w_up" || name == "w_gate" || name == "b_up" ||
                       name == "b_gate" || name == "w_down";
  if (c.experts > 0 && feature) {
    const Chunk own = BalancedChunk(c.experts, place.ep, place.ep_rank);
    AddRows(whole, own, runs);
    shard.shape = {own.count, whole[1], whole[2]};
  } else if (name == "table" || name == "head") {
    const VocabPartition part =
        VocabPartition::Of(c.vocabulary, 1, place.tp, place.tp_rank);
    AddRows(whole, {part.begin, part.valid()}, runs);
    shard.shape = {part.rows, c.hidden};
  } else if (name == "w_qkv" || name == "b_qkv") {
    const HeadShare own =
        HeadShare::Of(c.heads, c.kv_heads, place.tp, place.tp_rank);
    const Chunk q = Times(own.heads, c.head_dim);
    const Chunk kv = Times(own.kv_heads, c.head_dim);
    const int64_t queries = c.heads * c.head_dim;
    const int64_t keys = c.kv_heads * c.head_dim;
    AddRows(whole, q, runs);
    AddRows(whole, After(queries, kv), runs);
    AddRows(whole, After(queries + keys, kv), runs);
    const int64_t all = q.count + 2 * kv.count;
    shard.shape = matrix ? Shape{all, whole[1]} : Shape{all};
  } else if (name == "w_out") {
    const Chunk own =
        Times(BalancedChunk(c.heads, place.tp, place.tp_rank), c.head_dim);
    AddColumns(whole, own, runs);
    shard.shape = {whole[0], own.count};
  } else if (name == "w_down") {
    const Chunk own = BalancedChunk(c.intermediate, place.tp, place.tp_rank);
    AddColumns(whole, own, runs);
    shard.shape = {whole[0], own.count};
  } else if (feature) {
    rows(BalancedChunk(c.intermediate, place.tp, place.tp_rank));
  } else {
    runs.push_back({0, whole.NumElements()});
  }
  return shard;
}

// Those that hold elements before `place` does, if they hold the same.
std::vector<ShardPlace> PlacesBefore(const ShardPlace& place, bool experts) {
  std::vector<ShardPlace> before;
  ShardPlace other = place;
  // Experts' blocks alone differ along ep: the others' ranks of it are replicas.
  for (other.ep_rank = experts ? 0 : place.ep_rank;
       other.ep_rank <= place.ep_rank; ++other.ep_rank) {
    const bool same = other.ep_rank == place.ep_rank;
    const int end = same ? place.tp_rank : place.tp;
    for (other.tp_rank = 0; other.tp_rank < end; ++other.tp_rank) {
      before.push_back(other);
    }
  }
  return before;
}

void AppendCounted(const LanguageModelConfig& config, const ShardPlace& place,
                   const Shape& whole, const ParameterShard& shard,
                   ModelBlock& block) {
  std::vector<bool> held(static_cast<size_t>(whole.NumElements()));
  for (const ShardPlace& other : PlacesBefore(place, block.experts)) {
    for (const Chunk& run : ShardOf(config, other, shard.name, whole).runs) {
      std::fill_n(held.begin() + run.begin, run.count, true);
    }
  }
  const auto append = [&](int64_t count, bool counted) {
    std::vector<CountedRun>& all = block.counted;
    if (!all.empty() && all.back().counted == counted) {
      all.back().count += count;
      return;
    }
    const int64_t begin = all.empty() ? 0 : all.back().begin + all.back().count;
    all.push_back({begin, count, counted});
  };
  int64_t left = shard.shape.NumElements();
  for (const Chunk& run : shard.runs) {
    for (int64_t i = 0; i < run.count; ++i) {
      append(1, !held[static_cast<size_t>(run.begin + i)]);
    }
    left -= run.count;
  }
  // Padding is zero.
  if (left > 0) append(left, true);
}

std::vector<ModelBlock> BlocksOf(const LanguageModelConfig& config,
                                 const ShardPlace& place, bool with_places) {
  std::vector<ModelBlock> blocks;
  const auto block_of = [&](const std::string& name) -> ModelBlock& {
    for (ModelBlock& b : blocks) {
      if (b.name == name) return b;
    }
    return blocks.emplace_back(
        ModelBlock{.name = name,
                   .experts = name.starts_with("experts"),
                   .parameters = {},
                   .counted = {}});
  };
  for (const LanguageModelParameter& p : LanguageModelParameters(config)) {
    const SplitName name = Split(config, p.name);
    ModelBlock& block = block_of(name.block);
    ParameterShard shard = ShardOf(config, place, name.own, p.shape);
    shard.begin = block.count;
    block.count += shard.shape.NumElements();
    if (with_places) {
      AppendCounted(config, place, p.shape, shard, block);
      for (Chunk& run : shard.runs) run.begin += p.begin;
    } else {
      shard.runs.clear();
    }
    block.parameters.push_back(std::move(shard));
  }
  return blocks;
}

}  // namespace

std::vector<int64_t> ModelBlock::Places() const {
  std::vector<int64_t> places(static_cast<size_t>(count), -1);
  for (const ParameterShard& p : parameters) {
    auto at = static_cast<size_t>(p.begin);
    for (const Chunk& run : p.runs) {
      for (int64_t i = 0; i < run.count; ++i) places[at++] = run.begin + i;
    }
  }
  return places;
}

std::vector<ModelBlock> ModelBlocks(const LanguageModelConfig& config,
                                    const ShardPlace& place) {
  return BlocksOf(config, place, true);
}

std::vector<ModelBlock> ModelBlockSizes(const LanguageModelConfig& config,
                                        const ShardPlace& place) {
  return BlocksOf(config, place, false);
}

}  // namespace shardproof
