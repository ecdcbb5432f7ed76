// The pairing of double-ring attention: variants and planted bugs.
#include "tools/harness/case.h"

#include <fmt/format.h>

#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "attention/double_ring/double_ring.h"
#include "attention/pairing/attention_case.h"

namespace shardproof {
namespace {

using P = AttentionPoint;

StatusOr<Operation> BindRings(const P& p, RankContext& context, int inner,
                              RingMode mode, const AttentionKernels& kernels) {
  SP_ASSIGN_OR_RETURN(
      DoubleRingAttention ring,
      DoubleRingAttention::Create(context.comm(),
                                  {.attention = ConfigOf(p), .inner = inner},
                                  mode, kernels));
  return BothPasses(std::make_shared<DoubleRingAttention>(std::move(ring)),
                    context);
}

// Of pairs, where there are some.
int InnerOf(const P& p) { return p.ranks % 2 == 0 ? 2 : 1; }

StatusOr<Operation> Bind(const P& p, RankContext& context,
                         const AttentionKernels& kernels) {
  return BindRings(p, context, InnerOf(p), RingMode::kOverlapped, kernels);
}

Cost CostOf(const P& p, int inner) {
  const DoubleRingConfig config = {.attention = ConfigOf(p), .inner = inner};
  return DoubleRingForwardCost(p.ranks, config) +
         DoubleRingBackwardCost(p.ranks, config);
}

int64_t Merges(const P& p) {
  return DoubleRingMerges(p.ranks,
                          {.attention = ConfigOf(p), .inner = InnerOf(p)});
}

Variant<P> Rings(int inner, RingMode mode) {
  const bool thread = mode == RingMode::kMessageThread;
  Variant<P> variant;
  variant.name =
      fmt::format("inner_{}{}", inner, thread ? "_message_thread" : "");
  variant.bind = [inner, mode](const P& p, RankContext& context) {
    return BindRings(p, context, inner, mode, {});
  };
  variant.refuses = [inner](const P& p) -> std::optional<std::string> {
    if (p.ranks % inner == 0) return std::nullopt;
    return fmt::format("{} ranks are not rings of {}", p.ranks, inner);
  };
  variant.cost = [inner](const P& p) { return CostOf(p, inner); };
  variant.note = fmt::format(
      "rings of {} neighbours{}", inner,
      thread ? "; threads wait for messages" : ", non-blocking messages");
  return variant;
}

Case<P> DoubleRingCase() {
  Case<P> c = AttentionCase(
      "attention/double_ring",
      "ring attention over rings of neighbours: what crosses between them has "
      "a whole inner ring's time",
      Merges, {SequenceLayout::kZigzag, SequenceLayout::kStriped});
  c.variants = {
      Rings(1, RingMode::kOverlapped), Rings(2, RingMode::kOverlapped),
      Rings(2, RingMode::kMessageThread), Rings(4, RingMode::kOverlapped)};
  c.mutants = KernelMutants(Bind, BlockByBlock);
  for (const char* gradient : {"dq", "dk", "dv"}) {
    c.mutants.push_back(TimesRanks(Bind, gradient));
  }
  c.mutants.push_back(
      SilentlyDoesNothing([](const P& p) { return CostOf(p, InnerOf(p)); }));
  // They go to the next rank of the inner ring where they should go on to the
  // next inner ring.
  c.mutants.push_back(GradientsOfAnother(
      "gradients_never_leave_the_inner_ring", Bind,
      [](const P& p, int rank) { return (rank + InnerOf(p)) % p.ranks; }));
  return c;
}

const RegisterCase kDoubleRing(DoubleRingCase());

}  // namespace
}  // namespace shardproof
