// The pairing of attention with gathered keys: variants and planted bugs.
#include "tools/harness/case.h"

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "attention/all_gather_kv/all_gather_kv.h"
#include "attention/pairing/attention_case.h"
#include "layers/pairing/layer_case.h"

namespace shardproof {
namespace {

using P = AttentionPoint;

StatusOr<Operation> BindConfig(const ShardedAttentionConfig& config,
                               RankContext& context,
                               const CollectiveFamily& collectives,
                               const AttentionKernels& kernels) {
  SP_ASSIGN_OR_RETURN(AllGatherKvAttention attention,
                      AllGatherKvAttention::Create(context.comm(), config,
                                                   collectives, kernels));
  return BothPasses(
      std::make_shared<AllGatherKvAttention>(std::move(attention)), context);
}

StatusOr<Operation> BindKernels(const P& p, RankContext& context,
                                const AttentionKernels& kernels) {
  return BindConfig(ConfigOf(p), context, kAutoCollectives, kernels);
}

StatusOr<Operation> Bind(const P& p, RankContext& context,
                         const CollectiveFamily& collectives) {
  return BindConfig(ConfigOf(p), context, collectives, {});
}

Cost CostOf(const P& p, const CollectiveFamily& collectives) {
  const ShardedAttentionConfig config = ConfigOf(p);
  return AllGatherKvForwardCost(p.ranks, config, collectives) +
         AllGatherKvBackwardCost(p.ranks, config, collectives);
}

// A query has one result, and the sums of gradients over ranks are the terms of
// one sum in another order, which its bound allows.
int64_t Merges(const P& /*p*/) { return 0; }

// --- Bugs of the exchange ----------------------------------------------------

// Some query of one rank sees a key of another.
bool SeesOthers(const P& p) {
  const auto runs = RunsOfRanks({p.layout, p.length(), p.ranks});
  const Visibility visibility = VisibilityOf(p);
  for (size_t q = 0; q < runs.size(); ++q) {
    for (size_t k = 0; k < runs.size(); ++k) {
      if (q != k && CountPairs(visibility, runs[q], runs[k]) > 0) return true;
    }
  }
  return false;
}

bool HasTokens(const P& p) { return Several(p) && p.tokens > 0; }

// Positions are those of consecutive tokens, whatever the layout is.
StatusOr<Operation> BindContiguous(const P& p, RankContext& context) {
  ShardedAttentionConfig config = ConfigOf(p);
  config.layout = SequenceLayout::kContiguous;
  return BindConfig(config, context, kAutoCollectives, {});
}

// With full attention the order of keys does not matter.
bool OrderMatters(const P& p) {
  return Several(p) && p.layout != SequenceLayout::kContiguous &&
         p.mask != AttentionMask::kFull && p.tokens > p.ranks;
}

// Every combination would be many that catch nothing new.
std::optional<std::string> Skip(const P& p) {
  const bool plain = p.dtype == DType::kF32 && p.kv_heads == 2 && p.spread == 1;
  const bool zigzag = p.layout == SequenceLayout::kZigzag;
  if (!zigzag && !plain) {
    return "types, KV heads and large scores are tested with zigzag tokens";
  }
  if (!zigzag &&
      (p.mask == AttentionMask::kFull || p.mask == AttentionMask::kWindow)) {
    return "the full mask and windows are tested with zigzag tokens";
  }
  return std::nullopt;
}

Case<P> AllGatherKvCase() {
  Case<P> c = AttentionCase(
      "attention/all_gather_kv",
      "queries stay, keys and values are gathered; gradients of these are "
      "scattered to their owners",
      Merges,
      {SequenceLayout::kZigzag, SequenceLayout::kStriped,
       SequenceLayout::kContiguous});
  c.skip = [common = c.skip](const P& p) {
    const std::optional<std::string> reason = common(p);
    return reason ? reason : Skip(p);
  };
  c.variants = OverCollectives<P>(Bind, CostOf);
  // Keys are one run from 0 on, of which a query has one result.
  c.mutants = Without(KernelMutants(BindKernels, AllKeysAtOnce),
                      {"positions_restart", "merged_by_exponentials",
                       "lse_of_the_last_block", "keys_of_the_first_block"});
  for (const char* gradient : {"dq", "dk", "dv"}) {
    c.mutants.push_back(TimesRanks(BindKernels, gradient));
  }
  c.mutants.push_back(SilentlyDoesNothing(
      [](const P& p) { return CostOf(p, kRingCollectives); }));
  c.mutants.push_back(Planted<P>("only_own_keys_gathered", Bind,
                                 kGatheringNothing, SeesOthers));
  c.mutants.push_back(
      Planted<P>("ranks_backwards", Bind, kGatheringBackwards, HasTokens));
  c.mutants.push_back(
      Planted<P>("gradients_not_summed", Bind, kWithoutReduction, SeesOthers));
  c.mutants.push_back(
      Planted<P>("gradients_averaged", Bind, kAveraging, HasTokens));
  c.mutants.push_back({.name = "layout_taken_for_contiguous",
                       .bind = BindContiguous,
                       .applies = OrderMatters});
  return c;
}

const RegisterCase kAllGatherKv(AllGatherKvCase());

}  // namespace
}  // namespace shardproof
