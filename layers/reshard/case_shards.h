// What a shard holds, one row (column) after the other: shard_layout.h once more
// and without its code, for the case to compare with.
#ifndef SHARDPROOF_LAYERS_RESHARD_CASE_SHARDS_H_
#define SHARDPROOF_LAYERS_RESHARD_CASE_SHARDS_H_

#include <cstdint>
#include <vector>

#include "layers/reshard/shard_layout.h"
#include "tools/harness/sharding.h"

namespace shardproof {

// Which of `parts` has index `i` of `extent`: the first extent mod parts have
// one more.
inline int64_t PartHolding(int64_t extent, int64_t parts, int64_t i) {
  int64_t part = 0, left = i;
  while (left >= extent / parts + (part < extent % parts ? 1 : 0)) {
    left -= extent / parts + (part < extent % parts ? 1 : 0);
    ++part;
  }
  return part;
}

// Rows of a vocabulary that each of `ranks` has.
inline int64_t VocabularyRows(int64_t vocabulary, int64_t multiple,
                              int64_t ranks) {
  int64_t rows = 0;
  while (rows * ranks < vocabulary) rows += multiple;
  return rows;
}

inline std::vector<int64_t> HeadRows(const ReshardedParameter& p, int ranks,
                                     int rank) {
  std::vector<int64_t> rows;
  std::vector<bool> uses(static_cast<size_t>(p.kv_heads));
  const auto add = [&](int64_t head) {
    for (int64_t i = 0; i < p.head_dim; ++i) {
      rows.push_back(head * p.head_dim + i);
    }
  };
  for (int64_t h = 0; h < p.heads; ++h) {
    if (PartHolding(p.heads, ranks, h) != rank) continue;
    add(h);
    uses[static_cast<size_t>(h * p.kv_heads / p.heads)] = true;
  }
  for (const int64_t before : {p.heads, p.heads + p.kv_heads}) {
    for (int64_t g = 0; g < p.kv_heads; ++g) {
      if (uses[static_cast<size_t>(g)]) add(before + g);
    }
  }
  return rows;
}

inline std::vector<int64_t> GateUpRows(const ReshardedParameter& p,
                                       const ShardLayout& layout, int rank) {
  std::vector<int64_t> gates, ups, both;
  for (int64_t i = 0; i < p.rows / 2; ++i) {
    if (PartHolding(p.rows / 2, layout.tensor, i) != rank) continue;
    gates.push_back(i);
    ups.push_back(p.rows / 2 + i);
    both.insert(both.end(), {i, p.rows / 2 + i});
  }
  if (layout.gate_up == GateUpOrder::kInterleaved) return both;
  gates.insert(gates.end(), ups.begin(), ups.end());
  return gates;
}

// Rows of padding are those from the vocabulary on.
inline std::vector<int64_t> IndicesOf(const ReshardedParameter& p,
                                      const ShardLayout& layout, int rank) {
  if (p.cut == ParameterCut::kQkv) return HeadRows(p, layout.tensor, rank);
  if (p.cut == ParameterCut::kGateUp) return GateUpRows(p, layout, rank);
  std::vector<int64_t> indices;
  if (p.cut == ParameterCut::kVocabulary) {
    const int64_t rows =
        VocabularyRows(p.rows, layout.vocab_multiple, layout.tensor);
    for (int64_t i = 0; i < rows; ++i) indices.push_back(rank * rows + i);
    return indices;
  }
  for (int64_t i = 0; i < p.extent(); ++i) {
    if (p.cut == ParameterCut::kReplicated ||
        PartHolding(p.extent(), layout.tensor, i) == rank) {
      indices.push_back(i);
    }
  }
  return indices;
}

inline std::vector<int64_t> LayersOf(const ReshardedParameter& p,
                                     const ShardLayout& layout, int stage) {
  std::vector<int64_t> layers;
  for (int64_t l = 0; l < p.layers; ++l) {
    const int64_t on = p.placement == StagePlacement::kFirstStage ? 0
                       : p.placement == StagePlacement::kLastStage
                           ? layout.pipeline - 1
                           : PartHolding(p.layers, layout.pipeline, l);
    if (on == stage) layers.push_back(l);
  }
  return layers;
}

inline std::vector<Interval> Runs(const std::vector<int64_t>& indices) {
  std::vector<Interval> runs;
  for (const int64_t i : indices) {
    if (runs.empty() || runs.back().end != i) runs.push_back({i, i});
    ++runs.back().end;
  }
  return runs;
}

// The parameter with the padding of `layout`.
inline Shape ShapeWith(const ReshardedParameter& p, const ShardLayout& layout) {
  const int64_t rows =
      p.cut == ParameterCut::kVocabulary
          ? layout.tensor *
                VocabularyRows(p.rows, layout.vocab_multiple, layout.tensor)
          : p.rows;
  return {p.layers, rows, p.columns};
}

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_RESHARD_CASE_SHARDS_H_
