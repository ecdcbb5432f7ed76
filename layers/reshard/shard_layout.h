// What every shard of a saved or loaded parameter holds.
//
// A parameter is one matrix for each layer of a model, stacked: [layers, rows,
// columns]. Layers are cut over the pipeline's stages, and one of the matrix'
// dimensions over the tensor-parallel ranks of a stage. Shard n = stage t + rank
// of a layout (t, p) is [its layers, its rows, its columns], row-major:
//
//     layers        BalancedChunk(layers, p, stage); or all on the first stage,
//                   or on the last
//     kReplicated   all rows and columns
//     kRows         rows BalancedChunk(rows, t, rank): column-parallel layers
//     kColumns      columns BalancedChunk(columns, t, rank): row-parallel ones
//     kQkv          rows of its query heads, its keys, its values (head_share.h)
//     kGateUp       rows f_r = BalancedChunk(rows / 2, t, rank) of the gate, which
//                   is the first half of all rows, and of the up-projection, the
//                   second: one part above the other, or in turns
//     kVocabulary   rows of its ids (vocab_partition.h), then padding
//
//     const ShardPart part = PartOf(parameter, {.tensor = 4, .pipeline = 2}, 5);
//     part.layers          // of stage 1
//     part.pieces          // of rank 1
#ifndef SHARDPROOF_LAYERS_RESHARD_SHARD_LAYOUT_H_
#define SHARDPROOF_LAYERS_RESHARD_SHARD_LAYOUT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "collectives/chunks.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof {

enum class ParameterCut : uint8_t {
  kReplicated,
  kRows,
  kColumns,
  kQkv,
  kGateUp,
  kVocabulary
};
const char* Name(ParameterCut cut);

enum class StagePlacement : uint8_t { kEveryLayer, kFirstStage, kLastStage };
enum class GateUpOrder : uint8_t { kStacked, kInterleaved };

// Sizes of the whole parameter, without padding.
struct ReshardedParameter {
  ParameterCut cut = ParameterCut::kReplicated;
  StagePlacement placement = StagePlacement::kEveryLayer;
  int64_t layers = 1;
  int64_t rows = 0;
  int64_t columns = 1;  // 1: a bias, or the weight of a norm.
  // kQkv: rows are (heads + 2 kv_heads) head_dim.
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  DType dtype = DType::kF32;  // Any: nothing is computed.

  bool cuts_columns() const { return cut == ParameterCut::kColumns; }
  int64_t extent() const { return cuts_columns() ? columns : rows; }
};

// How one parameter is cut.
struct ShardLayout {
  int tensor = 1;
  int pipeline = 1;
  GateUpOrder gate_up = GateUpOrder::kStacked;
  int64_t vocab_multiple = 1;

  int64_t shards() const { return int64_t{tensor} * pipeline; }
  int stage(int shard) const { return shard / tensor; }
  int rank(int shard) const { return shard % tensor; }
};

// "shard 5 (stage 1, rank 1)"; "shard 5" of a layout that has no ranks.
std::string ShardName(const ShardLayout& layout, int shard);
// "t = 4, p = 2", and what else is not the usual.
std::string Describe(const ReshardedParameter& parameter,
                     const ShardLayout& layout);

inline constexpr int64_t kPadding = -1;

// Rows (columns of kColumns) [begin, begin + count) of the parameter, or `count`
// that are zero.
struct Piece {
  int64_t begin = 0;
  int64_t count = 0;
  friend bool operator==(const Piece&, const Piece&) = default;
};

struct ShardPart {
  Chunk layers;
  std::vector<Piece> pieces;  // In the order in which they lie.

  // Rows (columns) with the padding.
  int64_t extent() const;
  int64_t Elements(const ReshardedParameter& parameter) const;
};

// What `shard` holds. The layout must be one that CheckLayout does not refuse.
ShardPart PartOf(const ReshardedParameter& parameter, const ShardLayout& layout,
                 int shard);

// kInvalidArgument for sizes that are negative, for a layout without ranks or
// with more shards than an int can number, and for heads that cannot be cut so.
Status CheckLayout(const ReshardedParameter& parameter,
                   const ShardLayout& layout);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_RESHARD_SHARD_LAYOUT_H_
