#include "layers/models/parallelism.h"

#include <algorithm>

namespace shardproof::models {
namespace {

constexpr int64_t kMaxRanks = int64_t{1} << 24;
constexpr int64_t kMaxTokens = int64_t{1} << 32;
constexpr double kMaxElements = 0x1p56;

Status ValidateSizes(const Parallelism& p) {
  const struct {
    const char* name;
    int64_t value;
    int64_t most;
  } sizes[] = {{"tp", p.tp, kMaxRanks},
               {"cp", p.cp, kMaxRanks},
               {"pp", p.pp, kMaxRanks},
               {"dp", p.dp, kMaxRanks},
               {"ep", p.ep, kMaxRanks},
               {"sequence", p.sequence, kMaxTokens},
               {"micro_batch", p.micro_batch, kMaxTokens},
               {"micro_batches", p.micro_batches, int64_t{1} << 20},
               {"bucket_bytes", p.bucket_bytes, int64_t{1} << 40}};
  for (const auto& size : sizes) {
    if (size.value < 1 || size.value > size.most) {
      return InvalidArgument("{} is {}; set it to a whole number from 1 to {}",
                             size.name, size.value, size.most);
    }
  }
  if (p.zero_stage < 0 || p.zero_stage > 3) {
    return InvalidArgument("the ZeRO stage is {}; set it to 0, 1, 2 or 3",
                           p.zero_stage);
  }
  if (!IsFloat(p.dtype) || !IsFloat(p.grad_dtype)) {
    return InvalidArgument(
        "a model cannot be trained in {} with {} gradients; choose "
        "floating-point types",
        Name(p.dtype), Name(p.grad_dtype));
  }
  const double ranks = static_cast<double>(p.tp) * static_cast<double>(p.cp) *
                       static_cast<double>(p.pp) * static_cast<double>(p.dp);
  if (ranks > static_cast<double>(kMaxRanks)) {
    return InvalidArgument("tp x cp x pp x dp is {:.3g} ranks; use at most {}",
                           ranks, kMaxRanks);
  }
  return OkStatus();
}

Status ValidateTensor(const ModelConfig& c, const Parallelism& p) {
  if (p.tp > c.heads) {
    return InvalidArgument(
        "tp ({}) is larger than the {} attention heads of {}; use a smaller tp",
        p.tp, c.heads, c.name);
  }
  const struct {
    const char* what;
    int64_t size;
    bool applies;
  } cuts[] = {{"attention heads", c.heads, true},
              {"feed-forward width", c.intermediate,
               !c.is_moe() || c.first_dense_layers > 0},
              {"expert width", c.moe_intermediate, c.is_moe()}};
  for (const auto& cut : cuts) {
    if (cut.applies && cut.size % p.tp != 0) {
      return InvalidArgument(
          "tp ({}) does not divide the {} ({}) of {}; choose a divisor", p.tp,
          cut.what, cut.size, c.name);
    }
  }
  if (c.kv_heads % p.tp != 0 && p.tp % c.kv_heads != 0) {
    return InvalidArgument(
        "tp ({}) neither divides nor is a multiple of the {} KV heads of {}; "
        "choose one that is",
        p.tp, c.kv_heads, c.name);
  }
  return OkStatus();
}

Status ValidateSequence(const ModelConfig& c, const Parallelism& p) {
  if (c.family == Family::kGpt2 && p.sequence > c.max_positions) {
    return InvalidArgument(
        "the sequence ({}) is longer than the {} learned positions of {}; "
        "shorten it",
        p.sequence, c.max_positions, c.name);
  }
  if (p.sequence % p.cp != 0) {
    return InvalidArgument(
        "cp ({}) does not divide the sequence ({}); choose a divisor", p.cp,
        p.sequence);
  }
  if (p.sequence_parallel && p.sequence / p.cp % p.tp != 0) {
    return InvalidArgument(
        "tp ({}) does not divide the {} tokens of a context-parallel rank, "
        "which sequence parallelism "
        "needs; choose a sequence that is a multiple of tp x cp",
        p.tp, p.sequence / p.cp);
  }
  if (p.context_scheme == ContextScheme::kUlysses) {
    const int64_t kv_heads = std::max<int64_t>(1, c.kv_heads / p.tp);
    if (c.heads / p.tp % p.cp != 0 || kv_heads % p.cp != 0) {
      return InvalidArgument(
          "Ulysses cuts the heads of a tensor-parallel rank ({} query, {} KV) "
          "by cp ({}), which does "
          "not divide them; use a smaller cp or the ring",
          c.heads / p.tp, kv_heads, p.cp);
    }
  }
  return OkStatus();
}

Status ValidateExperts(const ModelConfig& c, const Parallelism& p) {
  if (p.ep > 1 && !c.is_moe()) {
    return InvalidArgument("ep is {}, but {} has no experts; set ep to 1", p.ep,
                           c.name);
  }
  if (c.is_moe() && c.experts % p.ep != 0) {
    return InvalidArgument(
        "ep ({}) does not divide the {} experts of {}; choose a divisor", p.ep,
        c.experts, c.name);
  }
  if (p.dp % p.ep != 0) {
    return InvalidArgument(
        "ep ({}) does not divide dp ({}), whose ranks it uses; choose a "
        "divisor",
        p.ep, p.dp);
  }
  return OkStatus();
}

}  // namespace

std::string_view Name(ContextScheme scheme) {
  switch (scheme) {
    case ContextScheme::kRing:
      return "ring";
    case ContextScheme::kAllGatherKv:
      return "all_gather_kv";
    case ContextScheme::kUlysses:
      return "ulysses";
  }
  return "unknown";
}

Status Validate(const ModelConfig& c, const Parallelism& p) {
  SP_RETURN_IF_ERROR(Validate(c, c.name));
  SP_RETURN_IF_ERROR(ValidateSizes(p));
  SP_RETURN_IF_ERROR(ValidateTensor(c, p));
  SP_RETURN_IF_ERROR(ValidateSequence(c, p));
  SP_RETURN_IF_ERROR(ValidateExperts(c, p));
  if (p.pp > c.layers) {
    return InvalidArgument(
        "pp ({}) is larger than the {} layers of {}; use a smaller pp", p.pp,
        c.layers, c.name);
  }
  // The widest tensor that a message may hold: hidden states, one copy per chosen expert, or keys and values.
  const double width = std::max(
      static_cast<double>(c.hidden) *
          static_cast<double>(std::max<int64_t>(1, c.experts_per_token)),
      static_cast<double>(c.heads) *
          static_cast<double>(c.head_dim + c.v_head_dim));
  const double tokens =
      static_cast<double>(p.sequence) * static_cast<double>(p.micro_batch);
  if (tokens > static_cast<double>(kMaxTokens) ||
      tokens * width > kMaxElements) {
    return InvalidArgument(
        "a micro-batch of {} x {} tokens is beyond the limit of 64-bit sizes; "
        "use a smaller sequence or "
        "micro-batch",
        p.micro_batch, p.sequence);
  }
  return OkStatus();
}

std::pair<int64_t, int64_t> StageLayers(const ModelConfig& config,
                                        const Parallelism& parallelism,
                                        int64_t stage) {
  const int64_t each = config.layers / parallelism.pp;
  const int64_t longer = config.layers % parallelism.pp;
  const int64_t first = stage * each + std::min(stage, longer);
  return {first, first + each + (stage < longer ? 1 : 0)};
}

}  // namespace shardproof::models
