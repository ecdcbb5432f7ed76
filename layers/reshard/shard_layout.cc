#include "layers/reshard/shard_layout.h"

#include <algorithm>
#include <limits>

#include "layers/attention_block/head_share.h"
#include "layers/tensor_parallel/vocab_partition.h"

namespace shardproof {
namespace {

Piece PieceOf(const Chunk& chunk, int64_t offset = 0, int64_t times = 1) {
  return {offset + chunk.begin * times, chunk.count * times};
}

// Of the query heads, then of the keys, then of the values.
std::vector<Piece> HeadPieces(const ReshardedParameter& p, int ranks,
                              int rank) {
  const HeadShare own = HeadShare::Of(p.heads, p.kv_heads, ranks, rank);
  const int64_t d = p.head_dim;
  return {PieceOf(own.heads, 0, d), PieceOf(own.kv_heads, p.heads * d, d),
          PieceOf(own.kv_heads, (p.heads + p.kv_heads) * d, d)};
}

std::vector<Piece> GateUpPieces(const ReshardedParameter& p, int ranks,
                                int rank, GateUpOrder order) {
  const int64_t half = p.rows / 2;
  const Chunk own = BalancedChunk(half, ranks, rank);
  if (order == GateUpOrder::kStacked) return {PieceOf(own), PieceOf(own, half)};
  std::vector<Piece> pieces;
  pieces.reserve(static_cast<size_t>(2 * own.count));
  for (int64_t i = own.begin; i < own.begin + own.count; ++i) {
    pieces.push_back({i, 1});
    pieces.push_back({half + i, 1});
  }
  return pieces;
}

std::vector<Piece> VocabularyPieces(const ReshardedParameter& p,
                                    const ShardLayout& layout, int rank) {
  const VocabPartition cut =
      VocabPartition::Of(p.rows, layout.vocab_multiple, layout.tensor, rank);
  return {{cut.begin, cut.valid()}, {kPadding, cut.rows - cut.valid()}};
}

std::vector<Piece> PiecesOf(const ReshardedParameter& p,
                            const ShardLayout& layout, int rank) {
  switch (p.cut) {
    case ParameterCut::kReplicated:
      return {{0, p.rows}};
    case ParameterCut::kRows:
    case ParameterCut::kColumns:
      return {PieceOf(BalancedChunk(p.extent(), layout.tensor, rank))};
    case ParameterCut::kQkv:
      return HeadPieces(p, layout.tensor, rank);
    case ParameterCut::kGateUp:
      return GateUpPieces(p, layout.tensor, rank, layout.gate_up);
    case ParameterCut::kVocabulary:
      return VocabularyPieces(p, layout, rank);
  }
  std::abort();
}

Chunk LayersOf(const ReshardedParameter& p, const ShardLayout& layout,
               int stage) {
  switch (p.placement) {
    case StagePlacement::kEveryLayer:
      return BalancedChunk(p.layers, layout.pipeline, stage);
    case StagePlacement::kFirstStage:
      return {0, stage == 0 ? p.layers : 0};
    case StagePlacement::kLastStage:
      return {0, stage == layout.pipeline - 1 ? p.layers : 0};
  }
  std::abort();
}

Status CheckHeads(const ReshardedParameter& p, const ShardLayout& layout) {
  if (p.kv_heads < 1 || p.head_dim < 1 || p.heads % p.kv_heads != 0) {
    return InvalidArgument(
        "{} query heads of {} are no multiple of {} KV heads", p.heads,
        p.head_dim, p.kv_heads);
  }
  if (p.heads < layout.tensor) {
    return InvalidArgument("{} query heads are not enough for {} ranks",
                           p.heads, layout.tensor);
  }
  if (p.rows != (p.heads + 2 * p.kv_heads) * p.head_dim) {
    return InvalidArgument(
        "{} query and twice {} KV heads of {} are {} rows, not {}", p.heads,
        p.kv_heads, p.head_dim, (p.heads + 2 * p.kv_heads) * p.head_dim,
        p.rows);
  }
  return OkStatus();
}

}  // namespace

const char* Name(ParameterCut cut) {
  constexpr const char* kNames[] = {"replicated", "rows",    "columns",
                                    "qkv",        "gate_up", "vocabulary"};
  return kNames[static_cast<size_t>(cut)];
}

std::string ShardName(const ShardLayout& layout, int shard) {
  if (layout.tensor < 1) return fmt::format("shard {}", shard);
  return fmt::format("shard {} (stage {}, rank {})", shard, layout.stage(shard),
                     layout.rank(shard));
}

std::string Describe(const ReshardedParameter& parameter,
                     const ShardLayout& layout) {
  std::string text =
      fmt::format("t = {}, p = {}", layout.tensor, layout.pipeline);
  if (parameter.cut == ParameterCut::kGateUp) {
    text +=
        layout.gate_up == GateUpOrder::kStacked ? ", stacked" : ", interleaved";
  }
  if (parameter.cut == ParameterCut::kVocabulary) {
    text += fmt::format(", padded to {}s", layout.vocab_multiple);
  }
  return text;
}

int64_t ShardPart::extent() const {
  int64_t extent = 0;
  for (const Piece& piece : pieces) extent += piece.count;
  return extent;
}

int64_t ShardPart::Elements(const ReshardedParameter& parameter) const {
  return layers.count * extent() *
         (parameter.cuts_columns() ? parameter.rows : parameter.columns);
}

ShardPart PartOf(const ReshardedParameter& parameter, const ShardLayout& layout,
                 int shard) {
  return {.layers = LayersOf(parameter, layout, layout.stage(shard)),
          .pieces = PiecesOf(parameter, layout, layout.rank(shard))};
}

Status CheckLayout(const ReshardedParameter& p, const ShardLayout& layout) {
  if (p.layers < 0 || p.rows < 0 || p.columns < 0) {
    return InvalidArgument("a size is negative");
  }
  if (layout.tensor < 1 || layout.pipeline < 1) {
    return InvalidArgument("there are no ranks in t = {}, p = {}",
                           layout.tensor, layout.pipeline);
  }
  if (layout.shards() > std::numeric_limits<int>::max()) {
    return InvalidArgument("{} shards are too many", layout.shards());
  }
  if (p.cut == ParameterCut::kQkv) return CheckHeads(p, layout);
  if (p.cut == ParameterCut::kGateUp && p.rows % 2 != 0) {
    return InvalidArgument("{} rows are not as many gates as ups", p.rows);
  }
  if (p.cut == ParameterCut::kVocabulary && layout.vocab_multiple < 1) {
    return InvalidArgument("a vocabulary cannot be padded to {}s",
                           layout.vocab_multiple);
  }
  return OkStatus();
}

}  // namespace shardproof
