#include "attention/sharded/sharded_attention.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <utility>

#include "layers/tensor_parallel/parallel_region.h"

namespace shardproof {
namespace {

Status CheckSizes(const ShardedAttentionConfig& c) {
  if (std::min({c.sequences, c.tokens, c.heads, c.kv_heads, c.head_dim}) < 0) {
    return InvalidArgument("a size is negative");
  }
  if (c.kv_heads == 0 ? c.heads > 0 : c.heads % c.kv_heads != 0) {
    return InvalidArgument("{} heads are no multiple of {} KV heads", c.heads,
                           c.kv_heads);
  }
  if (c.scale < 0 || !std::isfinite(c.scale)) {
    return InvalidArgument("scores cannot be scaled by {}", c.scale);
  }
  // Documents may end before padding does.
  const std::vector<int64_t>& cu = c.visibility.cu_seqlens;
  const int64_t length = cu.empty() ? c.tokens : std::min(c.tokens, cu.back());
  SP_RETURN_IF_ERROR(CheckVisibility(c.visibility, length));
  return CheckLayerType(c.dtype);
}

std::string Mask(const Visibility& v) {
  std::string text = v.causal ? ", causal" : "";
  if (v.window > 0) text += fmt::format(", window {}", v.window);
  if (!v.cu_seqlens.empty()) {
    text += fmt::format(", documents {}", fmt::join(v.cu_seqlens, " "));
  }
  return text;
}

}  // namespace

std::string Describe(std::string_view scheme, const ShardedAttentionConfig& c) {
  return fmt::format(
      "{} attention of {} x {} tokens, {}, {} heads, {} KV heads of {}, scale "
      "{}, {}{}{}",
      scheme, c.sequences, c.tokens, Name(c.layout), c.heads, c.kv_heads,
      c.head_dim, c.scale, Name(c.dtype), Mask(c.visibility),
      c.backward ? "" : ", forward only");
}

Status CheckShardedAttention(const Communicator& comm, std::string_view scheme,
                             const ShardedAttentionConfig& config) {
  const std::string text = Describe(scheme, config);
  SP_RETURN_IF_ERROR(AgreeOnLayer(comm, text));
  return CheckSizes(config).WithContext(text);
}

Status CheckShardedSequence(const Communicator& comm, std::string_view scheme,
                            const ShardedAttentionConfig& config,
                            int64_t ranks) {
  SP_RETURN_IF_ERROR(CheckShardedAttention(comm, scheme, config));
  return CheckLayout(config.LayoutOver(ranks))
      .WithContext(Describe(scheme, config));
}

std::vector<std::vector<TokenRun>> RunsOfRanks(const LayoutShape& shape) {
  std::vector<std::vector<TokenRun>> runs;
  for (int64_t r = 0; r < shape.ranks; ++r) {
    StatusOr<std::vector<TokenRun>> of_rank = RunsOf(shape, r);
    runs.push_back(of_rank.ok() ? *std::move(of_rank)
                                : std::vector<TokenRun>());
  }
  return runs;
}

int64_t LongestRun(const std::vector<std::vector<TokenRun>>& runs) {
  int64_t longest = 0;
  for (const std::vector<TokenRun>& of_rank : runs) {
    for (const TokenRun& run : of_rank) longest = std::max(longest, run.count);
  }
  return longest;
}

}  // namespace shardproof
