// The pairing of hybrid attention: variants and planted bugs.
#include "tools/harness/case.h"

#include <fmt/format.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "attention/hybrid/hybrid.h"
#include "attention/pairing/attention_case.h"
#include "attention/pairing/broken_exchange.h"
#include "layers/pairing/layer_case.h"

namespace shardproof {
namespace {

using P = AttentionPoint;
using Runs = std::vector<std::vector<TokenRun>>;

HybridConfig HybridOf(const P& p) {
  return {.attention = ConfigOf(p), .ulysses = static_cast<int>(p.ulysses)};
}

std::optional<std::string> Refusal(const P& p) {
  if (p.ranks % p.ulysses != 0) {
    return fmt::format("{} ranks are not groups of {}", p.ranks, p.ulysses);
  }
  if (p.heads < p.ulysses) {
    return fmt::format("{} heads are not {} or more", p.heads, p.ulysses);
  }
  return std::nullopt;
}
bool Serves(const P& p) { return !Refusal(p); }

StatusOr<Operation> BindWith(const P& p, RankContext& context, RingMode mode,
                             const CollectiveFamily& collectives,
                             const AttentionKernels& kernels) {
  SP_ASSIGN_OR_RETURN(HybridAttention attention,
                      HybridAttention::Create(context.comm(), HybridOf(p), mode,
                                              collectives, kernels));
  return BothPasses(std::make_shared<HybridAttention>(std::move(attention)),
                    context);
}

StatusOr<Operation> Bind(const P& p, RankContext& context,
                         const AttentionKernels& kernels) {
  return BindWith(p, context, RingMode::kOverlapped, kAutoCollectives, kernels);
}

StatusOr<Operation> BindOver(const P& p, RankContext& context,
                             const CollectiveFamily& collectives) {
  return BindWith(p, context, RingMode::kOverlapped, collectives, {});
}

Cost CostOver(const P& p, const CollectiveFamily& collectives) {
  const HybridConfig config = HybridOf(p);
  return HybridForwardCost(p.ranks, config, collectives) +
         HybridBackwardCost(p.ranks, config, collectives);
}

// Of each rank; those of the layout where a point is refused.
Runs RunsOfPoint(const P& p) {
  if (!Serves(p)) return RunsOfRanks({p.layout, p.length(), p.ranks});
  Runs runs;
  for (int r = 0; r < p.ranks; ++r) {
    StatusOr<std::vector<TokenRun>> of = HybridRunsOf(HybridOf(p), p.ranks, r);
    runs.push_back(of.ok() ? *std::move(of) : std::vector<TokenRun>());
  }
  return runs;
}

Tensors TensorsOf(const P& p) {
  const Runs runs = RunsOfPoint(p);
  const std::string name =
      fmt::format("{} tokens of groups of {}", Name(p.layout), p.ulysses);
  const Sharding tokens = ByRuns(name, 1, runs);
  return AttentionTensors(p, {tokens, tokens, ByRuns(name, 2, runs)});
}

// Each rank the queries of its group with the keys of every group, of its heads.
AttentionWork BlockByBlockOfHeads(const P& p) {
  AttentionWork work;
  if (!Serves(p)) return work;
  const Runs groups = RunsOfRanks({p.layout, p.length(), p.ranks / p.ulysses});
  const Visibility visibility = VisibilityOf(p);
  for (int r = 0; r < p.ranks; ++r) {
    work.heads.push_back(
        HeadShare::Of(p.heads, p.kv_heads, p.ulysses, r % p.ulysses));
    std::vector<RunPair>& pairs = work.pairs.emplace_back();
    for (const TokenRun& queries : groups[static_cast<size_t>(r / p.ulysses)]) {
      for (const std::vector<TokenRun>& theirs : groups) {
        for (const TokenRun& keys : theirs) {
          if (CountPairs(visibility, queries, keys) == 0) continue;
          pairs.push_back({queries, keys});
        }
      }
    }
  }
  return work;
}

// --- Planted bugs ------------------------------------------------------------

// Groups are of ranks that are R apart, and rings of neighbours.
StatusOr<Operation> BindGroupsApart(const P& p, RankContext& context) {
  const int rank = context.comm().rank();
  const int rings = p.ranks / static_cast<int>(p.ulysses);
  const int other = rank % rings * static_cast<int>(p.ulysses) + rank / rings;
  SP_ASSIGN_OR_RETURN(const Communicator comm, context.comm().Split(0, other));
  SP_ASSIGN_OR_RETURN(HybridAttention attention,
                      HybridAttention::Create(comm, HybridOf(p)));
  return BothPasses(std::make_shared<HybridAttention>(std::move(attention)),
                    context);
}

// Every rank has as many tokens, so that it has room for others. With a full
// mask, tokens in another order have the same results.
bool MayHaveOthers(const P& p) {
  if (p.ulysses == 1 || p.ulysses == p.ranks ||
      p.mask == AttentionMask::kFull || p.tokens < 2 * p.ranks) {
    return false;
  }
  const Runs runs = RunsOfPoint(p);
  for (const std::vector<TokenRun>& of_rank : runs) {
    if (CountTokens(of_rank) != CountTokens(runs[0])) return false;
  }
  return SeesSeveral(p);
}

std::vector<Mutant<P>> Mutants() {
  std::vector<Mutant<P>> mutants = KernelMutants(Bind, BlockByBlockOfHeads);
  for (const char* gradient : {"dq", "dk", "dv"}) {
    mutants.push_back(TimesRanks(Bind, gradient));
  }
  mutants.push_back(SilentlyDoesNothing(
      [](const P& p) { return CostOver(p, kRingCollectives); }, RunsOfPoint));
  for (Mutant<P>& mutant : ExchangeMutants({.bind = Bind,
                           .over = BindOver,
                           .group = [](const P& p) { return p.ulysses; },
                           .runs = RunsOfPoint})) {
    mutants.push_back(std::move(mutant));
  }
  mutants.push_back(GradientsOfAnother(
      "last_hop_of_gradients_missing", Bind,
      [](const P& p, int rank) {
        return (rank + static_cast<int>(p.ulysses)) % p.ranks;
      },
      RunsOfPoint));
  mutants.push_back({.name = "groups_of_ranks_apart",
                     .bind = BindGroupsApart,
                     .applies = MayHaveOthers});
  for (Mutant<P>& mutant : mutants) {
    mutant.applies = [applies = std::move(mutant.applies)](const P& p) {
      return Serves(p) && applies(p);
    };
  }
  return mutants;
}

// --- The case ----------------------------------------------------------------

Variant<P> Over(const CollectiveFamily& family, unsigned needs, RingMode mode,
                const char* name, const char* note) {
  Variant<P> variant = OverCollective<P>(
      family, needs, note,
      [mode](const P& p, RankContext& context, const CollectiveFamily& over) {
        return BindWith(p, context, mode, over, {});
      },
      CostOver);
  variant.name = name;
  variant.refuses = Refusal;
  return variant;
}

// Groups of two everywhere; of four, and of one, which is a ring, in f32 and
// causal; zigzag tokens everywhere, others in f32 and causal, and with documents.
std::optional<std::string> SkipGroups(const P& p) {
  const bool plain = p.dtype == DType::kF32 && p.spread == 1 && p.tokens > 2 &&
                     p.mask == AttentionMask::kCausal && p.kv_heads == 2;
  const bool documents =
      p.mask == AttentionMask::kDocuments && p.dtype == DType::kF32;
  if (p.ulysses != 2 && !plain) {
    return "groups of two are tested everywhere, others in f32, causal, with "
           "two KV heads";
  }
  if (p.layout != SequenceLayout::kZigzag && !plain && !documents) {
    return "other layouts than zigzag are tested in f32, causal, and with "
           "documents";
  }
  return std::nullopt;
}

Case<P> HybridCase() {
  Case<P> c = AttentionCase(
      "attention/hybrid",
      "groups of neighbours exchange heads for tokens, and the groups form "
      "rings",
      [](const P& p) {
        return Serves(p) ? HybridMerges(p.ranks, HybridOf(p)) : 0;
      },
      {SequenceLayout::kZigzag, SequenceLayout::kStriped,
       SequenceLayout::kContiguous});
  c.axes.push_back(Axis("ulysses", &P::ulysses, {2, 4, 1}).Bench({2}));
  c.skip = [common = std::move(c.skip)](const P& p) {
    std::optional<std::string> reason = common(p);
    return reason ? reason : SkipGroups(p);
  };
  c.tensors = TensorsOf;
  c.workload = [common = std::move(c.workload)](const Workload& workload,
                                                int ranks) {
    std::vector<P> points = common(workload, ranks);
    for (P& p : points) p.ulysses = ranks % 2 == 0 ? 2 : 1;
    return points;
  };
  c.variants = {
      Over(kAutoCollectives, kAnywhere, RingMode::kOverlapped, "auto",
           "all_to_all by what is fastest here; non-blocking messages around "
           "rings"),
      Over(kDirectCollectives, kSharedMemory, RingMode::kMessageThread,
           "direct_message_thread",
           "all_to_all in shared memory; threads wait for the rings' messages"),
      Over(kRingCollectives, kAnywhere, RingMode::kOverlapped, "ring",
           "all_to_all between pairs; non-blocking messages around rings")};
  c.mutants = Mutants();
  return c;
}

const RegisterCase kHybrid(HybridCase());

}  // namespace
}  // namespace shardproof
