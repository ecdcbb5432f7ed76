// The pairing of Ulysses attention: variants and planted bugs.
#include "tools/harness/case.h"

#include <memory>
#include <optional>
#include <utility>
#include <vector>

#include "attention/pairing/attention_case.h"
#include "attention/pairing/broken_exchange.h"
#include "attention/ulysses/ulysses.h"
#include "layers/pairing/layer_case.h"

namespace shardproof {
namespace {

using P = AttentionPoint;

StatusOr<Operation> BindWith(const P& p, RankContext& context,
                             const CollectiveFamily& collectives,
                             const AttentionKernels& kernels) {
  SP_ASSIGN_OR_RETURN(UlyssesAttention attention,
                      UlyssesAttention::Create(context.comm(), ConfigOf(p),
                                               collectives, kernels));
  return BothPasses(std::make_shared<UlyssesAttention>(std::move(attention)),
                    context);
}

StatusOr<Operation> Bind(const P& p, RankContext& context,
                         const AttentionKernels& kernels) {
  return BindWith(p, context, kAutoCollectives, kernels);
}

StatusOr<Operation> BindOver(const P& p, RankContext& context,
                             const CollectiveFamily& collectives) {
  return BindWith(p, context, collectives, {});
}

Cost CostOver(const P& p, const CollectiveFamily& collectives) {
  const ShardedAttentionConfig config = ConfigOf(p);
  return UlyssesForwardCost(p.ranks, config, collectives) +
         UlyssesBackwardCost(p.ranks, config, collectives);
}

Cost CostOf(const P& p) { return CostOver(p, kRingCollectives); }

bool Refused(const P& p) { return p.heads < p.ranks; }

// Every rank the whole sequence, of its heads.
AttentionWork HeadByHead(const P& p) {
  AttentionWork work;
  if (Refused(p)) return work;
  const TokenRun whole = {.count = p.length()};
  for (int r = 0; r < p.ranks; ++r) {
    work.heads.push_back(HeadShare::Of(p.heads, p.kv_heads, p.ranks, r));
    std::vector<RunPair>& pairs = work.pairs.emplace_back();
    if (p.length() > 0) pairs.push_back({whole, whole});
  }
  return work;
}

// --- Planted bugs ------------------------------------------------------------

// Tokens are taken to lie in the order of the ranks that have them.
StatusOr<Operation> BindOrderOfRanks(const P& p, RankContext& context) {
  ShardedAttentionConfig config = ConfigOf(p);
  config.layout = SequenceLayout::kContiguous;
  SP_ASSIGN_OR_RETURN(UlyssesAttention attention,
                      UlyssesAttention::Create(context.comm(), config));
  return BothPasses(std::make_shared<UlyssesAttention>(std::move(attention)),
                    context);
}

std::vector<Mutant<P>> Mutants() {
  // There is one block, which begins where the sequence does.
  std::vector<Mutant<P>> mutants =
      Without(KernelMutants(Bind, HeadByHead),
              {"merged_by_exponentials", "lse_of_the_last_block",
               "keys_of_the_first_block", "positions_restart"});
  for (const char* gradient : {"dq", "dk", "dv"}) {
    mutants.push_back(TimesRanks(Bind, gradient));
  }
  mutants.push_back(SilentlyDoesNothing(CostOf));
  for (Mutant<P>& mutant : ExchangeMutants(
           {.bind = Bind,
          .over = BindOver,
          .group = [](const P& p) { return p.ranks; },
          .runs =
                [](const P& p) {
                  return RunsOfRanks({p.layout, p.length(), p.ranks});
                }})) {
    mutants.push_back(std::move(mutant));
  }
  // With a full mask, queries and keys in another order have the same results.
  mutants.push_back({.name = "tokens_in_the_order_of_ranks",
                     .bind = BindOrderOfRanks,
                     .applies = [](const P& p) {
                       return SeesSeveral(p) && p.tokens > p.ranks &&
                              p.mask != AttentionMask::kFull &&
                              p.layout != SequenceLayout::kContiguous;
                     }});
  for (Mutant<P>& mutant : mutants) {
    mutant.applies = [applies = std::move(mutant.applies)](const P& p) {
      return !Refused(p) && applies(p);
    };
  }
  return mutants;
}

// Where tokens lie matters to the exchange only, which does not know of masks.
std::optional<std::string> SkipLayout(const P& p) {
  const bool plain = p.dtype == DType::kF32 && p.spread == 1 && p.tokens > 2 &&
                     p.mask == AttentionMask::kCausal && p.kv_heads == 2;
  const bool documents =
      p.mask == AttentionMask::kDocuments && p.kv_heads == 2 && p.spread == 1;
  if (p.layout == SequenceLayout::kContiguous || plain || documents) {
    return std::nullopt;
  }
  return "other layouts than contiguous are tested in f32, causal, and with "
         "documents";
}

Case<P> UlyssesCase() {
  Case<P> c = AttentionCase(
      "attention/ulysses",
      "all_to_all from tokens to heads, attention of a rank's heads over the "
      "whole sequence, and back",
      [](const P&) { return int64_t{0}; },
      {SequenceLayout::kContiguous, SequenceLayout::kZigzag,
       SequenceLayout::kStriped});
  c.skip = [common = std::move(c.skip)](const P& p) {
    std::optional<std::string> reason = common(p);
    return reason ? reason : SkipLayout(p);
  };
  c.variants = OverCollectives<P>(BindOver, CostOver);
  for (Variant<P>& variant : c.variants) {
    variant.refuses = [](const P& p) -> std::optional<std::string> {
      if (!Refused(p)) return std::nullopt;
      return "a head is computed by one rank, and there are more ranks than "
             "heads";
    };
  }
  c.mutants = Mutants();
  return c;
}

const RegisterCase kUlysses(UlyssesCase());

}  // namespace
}  // namespace shardproof
