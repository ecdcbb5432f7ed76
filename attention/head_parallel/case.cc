// The pairing of attention in parallel over heads: variants and planted bugs.
#include "tools/harness/case.h"

#include <algorithm>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "attention/head_parallel/head_parallel.h"
#include "attention/pairing/attention_case.h"
#include "layers/attention_block/head_share.h"
#include "layers/pairing/layer_case.h"

namespace shardproof {
namespace {

using P = AttentionPoint;

StatusOr<Operation> BindBoth(const P& p, RankContext& context,
                             const CollectiveFamily& collectives,
                             const AttentionKernels& kernels) {
  SP_ASSIGN_OR_RETURN(HeadParallelAttention attention,
                      HeadParallelAttention::Create(context.comm(), ConfigOf(p),
                                                    collectives, kernels));
  return BothPasses(
      std::make_shared<HeadParallelAttention>(std::move(attention)), context);
}

StatusOr<Operation> BindKernels(const P& p, RankContext& context,
                                const AttentionKernels& kernels) {
  return BindBoth(p, context, kAutoCollectives, kernels);
}

StatusOr<Operation> Bind(const P& p, RankContext& context,
                         const CollectiveFamily& collectives) {
  return BindBoth(p, context, collectives, {});
}

Cost CostOf(const P& p, const CollectiveFamily& collectives) {
  return HeadParallelBackwardCost(p.ranks, ConfigOf(p), collectives);
}

// A query has one result, and the sums of gradients over ranks are the terms of
// one sum in another order, which its bound allows.
int64_t Merges(const P& /*p*/) { return 0; }

HeadShare ShareOf(const P& p, int rank) {
  return HeadShare::Of(p.heads, p.kv_heads, p.ranks, rank);
}

// Whole tokens, a rank's heads in `dimension`.
Sharding ByHeads(const P& p, int dimension, Chunk HeadShare::*which) {
  return ShardBy("heads",
                 [p, dimension, which](const Shape& shape, int rank, int) {
                   std::vector<std::vector<Interval>> ranges;
                   for (int d = 0; d < shape.rank(); ++d) {
                     ranges.push_back({{0, shape[d]}});
                   }
                   const Chunk own = ShareOf(p, rank).*which;
                   ranges[static_cast<size_t>(dimension)] = {
                       {own.begin, own.begin + own.count}};
                   return MakeBlock(std::move(ranges));
                 });
}

bool Serves(const P& p) { return p.ranks <= p.heads; }

Tensors TensorsOf(const P& p) {
  // Where there are fewer heads than ranks nothing is computed.
  if (!Serves(p)) {
    return AttentionTensors(p, {Replicated(), Replicated(), Replicated()});
  }
  return AttentionTensors(
      p, {ByHeads(p, 2, &HeadShare::heads), ByHeads(p, 2, &HeadShare::kv_heads),
          ByHeads(p, 1, &HeadShare::heads)});
}

// Every rank all tokens of its heads.
AttentionWork AllTokens(const P& p) {
  const TokenRun all = {.count = p.length()};
  AttentionWork work;
  for (int r = 0; r < p.ranks; ++r) {
    work.pairs.push_back({{all, all}});
    work.heads.push_back(ShareOf(p, r));
  }
  return work;
}

// --- Bugs of the heads' own --------------------------------------------------

std::vector<SharedKvHead> SharedOf(const P& p) {
  return SharedKvHeads(p.heads, p.kv_heads, p.ranks);
}

bool Shares(const P& p) { return !SharedOf(p).empty(); }

bool SharesAmongThree(const P& p) {
  const std::vector<SharedKvHead> shared = SharedOf(p);
  return std::any_of(
      shared.begin(), shared.end(),
      [](const SharedKvHead& head) { return head.ranks.count > 2; });
}

bool SharesAmongSome(const P& p) {
  const std::vector<SharedKvHead> shared = SharedOf(p);
  return std::any_of(
      shared.begin(), shared.end(),
      [&p](const SharedKvHead& head) { return head.ranks.count < p.ranks; });
}

// Gradients of a rank's first KV head, whichever it is, are summed over all
// ranks.
Status SumOverAll(const P& p, const RankContext& context) {
  for (const char* name : {"dk", "dv"}) {
    const TensorView gradient = context.out(name);
    const int64_t row = p.head_dim * SizeOf(p.dtype);
    const int64_t stride = gradient.shape[2] * row;
    Tensor head(p.dtype, {p.sequences * p.tokens, p.head_dim});
    auto* const rows = static_cast<std::byte*>(gradient.data);
    for (int64_t i = 0; i < head.shape()[0]; ++i) {
      std::memcpy(head.bytes().data() + i * row, rows + i * stride,
                  static_cast<size_t>(row));
    }
    SP_RETURN_IF_ERROR(AllReduce(context.comm(), {.send = head.raw(),
                                                  .recv = head.raw(),
                                                  .count = head.num_elements(),
                                                  .dtype = p.dtype}));
    for (int64_t i = 0; i < head.shape()[0]; ++i) {
      std::memcpy(rows + i * stride, head.bytes().data() + i * row,
                  static_cast<size_t>(row));
    }
  }
  return OkStatus();
}

StatusOr<Operation> BindSumOverAll(const P& p, RankContext& context) {
  SP_ASSIGN_OR_RETURN(const Operation unsummed,
                      Bind(p, context, kWithoutReduction));
  return Operation([unsummed, p, &context]() -> Status {
    SP_RETURN_IF_ERROR(unsummed());
    return SumOverAll(p, context);
  });
}

// The first query head of a rank is taken for the first of a group.
StatusOr<std::unique_ptr<FlashAttention>> BeginWithAGroup(
    const FlashShape& shape) {
  FlashShape broken = shape;
  broken.first_in_group = 0;
  return FlashAttention::Create(broken);
}

bool BeginsInsideAGroup(const P& p) {
  const int64_t group = p.heads / p.kv_heads;
  for (int r = 0; r < p.ranks && Several(p); ++r) {
    const HeadShare own = ShareOf(p, r);
    const int64_t first = own.heads.begin % group;
    for (int64_t h = 0; h < own.heads.count; ++h) {
      if ((h + first) / group != h / group) return true;
    }
  }
  return false;
}

Case<P> HeadParallelCase() {
  Case<P> c = AttentionCase("attention/head_parallel",
                            "every rank has all tokens of its heads; gradients "
                            "of shared KV heads are "
                            "summed over their holders",
                            Merges, {SequenceLayout::kContiguous});
  for (AxisOf<P>& axis : c.axes) {
    if (axis.info.name == "heads") axis = Axis("heads", &P::heads, {8, 4});
  }
  c.skip = [common = c.skip](const P& p) -> std::optional<std::string> {
    if (const std::optional<std::string> reason = common(p)) return reason;
    const bool plain = p.dtype == DType::kF32 && p.kv_heads == 2 &&
                       p.mask == AttentionMask::kCausal && p.spread == 1;
    if (p.heads == 4 && !plain) {
      return "four heads are tested in f32, causal, with two KV heads";
    }
    return std::nullopt;
  };
  c.tensors = TensorsOf;
  c.variants = OverCollectives<P>(Bind, CostOf);
  for (Variant<P>& variant : c.variants) {
    variant.refuses = [](const P& p) -> std::optional<std::string> {
      if (Serves(p)) return std::nullopt;
      return "a head is not cut, and there are fewer than ranks";
    };
  }
  // Keys are one run from 0 on, of which a query has one result; and every query
  // sees itself.
  c.mutants = Without(KernelMutants(BindKernels, AllTokens),
                      {"positions_restart", "merged_by_exponentials",
                       "lse_of_the_last_block", "finite_lse_of_nothing",
                       "infinite_lse_of_nothing", "keys_of_the_first_block"});
  for (const char* gradient : {"dq", "dk", "dv"}) {
    c.mutants.push_back(TimesRanks(BindKernels, gradient));
  }
  c.mutants.push_back(Planted<P>("shared_gradients_not_summed", Bind,
                                 kWithoutReduction, Shares));
  c.mutants.push_back(
      Planted<P>("shared_gradients_averaged", Bind, kAveraging, Shares));
  c.mutants.push_back(Planted<P>("shared_gradients_summed_in_pairs", Bind,
                                 kReducingPairs, SharesAmongThree));
  c.mutants.push_back({.name = "shared_gradients_summed_over_all_ranks",
                       .bind = BindSumOverAll,
                       .applies = SharesAmongSome});
  c.mutants.push_back({.name = "groups_begin_with_the_rank",
                       .bind =
                           [](const P& p, RankContext& context) {
                             return BindKernels(p, context,
                                                {.flash = BeginWithAGroup});
                           },
                       .applies = BeginsInsideAGroup});
  for (Mutant<P>& mutant : c.mutants) {
    mutant.applies = [applies = mutant.applies](const P& p) {
      return Serves(p) && applies(p);
    };
  }
  return c;
}

const RegisterCase kHeadParallel(HeadParallelCase());

}  // namespace
}  // namespace shardproof
