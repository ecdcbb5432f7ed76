#include "attention/kernels/cuda/device/flash_work.h"

#include <algorithm>
#include <cstdint>

namespace shardproof::cuda {
namespace {

constexpr int64_t kMost = INT32_MAX;

bool Fits(const TokenRun& run, int64_t most_tokens) {
  return CheckRun(run).ok() && run.count <= most_tokens &&
         std::max({run.offset, run.stride, run.count}) <= kMost;
}

TokenSpan SpanOf(const TokenRun& run) {
  return {.offset = static_cast<int>(run.offset),
          .stride = static_cast<int>(run.stride),
          .count = static_cast<int>(run.count)};
}

}  // namespace

std::optional<FlashWork> FlashWorkOf(const FlashShape& shape,
                                     const FlashBlock& block) {
  if (block.visibility == nullptr || !Fits(block.queries, shape.queries) ||
      !Fits(block.keys, shape.keys)) {
    return std::nullopt;
  }
  const Visibility& visibility = *block.visibility;
  if (!visibility.cu_seqlens.empty() || visibility.window < 0 ||
      visibility.window > kMost) {
    return std::nullopt;
  }
  if (std::max({shape.sequences, shape.heads, shape.kv_heads,
                shape.heads_per_kv}) > kMost / 4) {
    return std::nullopt;
  }
  // A block of 32 rows at least; the numbers of all blocks are ints.
  const int64_t tiles =
      std::max(block.queries.count, block.keys.count) / 32 + 1;
  const int64_t heads = std::max(shape.heads, shape.kv_heads);
  if (heads > 0 && tiles > kMost / heads) return std::nullopt;
  if (shape.sequences > 0 && tiles * heads > kMost / shape.sequences) {
    return std::nullopt;
  }
  FlashWork work = {.sequences = static_cast<int>(shape.sequences),
                    .heads = static_cast<int>(shape.heads),
                    .kv_heads = static_cast<int>(shape.kv_heads),
                    .heads_per_kv = static_cast<int>(shape.heads_per_kv),
                    .first_in_group = static_cast<int>(shape.first_in_group),
                    .sight = {.queries = SpanOf(block.queries),
                              .keys = SpanOf(block.keys),
                              .causal = visibility.causal,
                              .window = static_cast<int>(visibility.window)}};
  SetScale(work, shape.scale);
  if (WhyNotFlash(work) != nullptr) return std::nullopt;
  return work;
}

}  // namespace shardproof::cuda
