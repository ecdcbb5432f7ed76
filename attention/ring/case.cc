// The pairing of ring attention: variants and planted bugs.
#include "tools/harness/case.h"

#include <memory>
#include <utility>

#include "attention/pairing/attention_case.h"
#include "attention/ring/ring.h"

namespace shardproof {
namespace {

using P = AttentionPoint;

StatusOr<Operation> BindMode(const P& p, RankContext& context, RingMode mode,
                             const AttentionKernels& kernels) {
  SP_ASSIGN_OR_RETURN(
      RingAttention ring,
      RingAttention::Create(context.comm(), ConfigOf(p), mode, kernels));
  return BothPasses(std::make_shared<RingAttention>(std::move(ring)), context);
}

StatusOr<Operation> Bind(const P& p, RankContext& context,
                         const AttentionKernels& kernels) {
  return BindMode(p, context, RingMode::kOverlapped, kernels);
}

Cost CostOf(const P& p) {
  const ShardedAttentionConfig config = ConfigOf(p);
  return RingForwardCost(p.ranks, config) + RingBackwardCost(p.ranks, config);
}

int64_t Merges(const P& p) { return RingMerges(p.ranks, ConfigOf(p)); }

Variant<P> InMode(const char* name, RingMode mode, const char* note) {
  Variant<P> variant;
  variant.name = name;
  variant.bind = [mode](const P& p, RankContext& context) {
    return BindMode(p, context, mode, {});
  };
  variant.cost = CostOf;
  variant.note = note;
  return variant;
}

Case<P> RingCase() {
  Case<P> c = AttentionCase(
      "attention/ring",
      "queries stay, keys and values go around the ring; gradients of these "
      "with them, back to their owner",
      Merges,
      {SequenceLayout::kZigzag, SequenceLayout::kStriped,
       SequenceLayout::kContiguous});
  c.variants = {
      InMode("overlapped", RingMode::kOverlapped,
             "non-blocking messages, started before a block is computed"),
      InMode("in_turn", RingMode::kInTurn, "a block is sent, then computed"),
      InMode("message_thread", RingMode::kMessageThread,
             "a thread of the rank's own waits for messages")};
  c.mutants = KernelMutants(Bind, BlockByBlock);
  for (const char* gradient : {"dq", "dk", "dv"}) {
    c.mutants.push_back(TimesRanks(Bind, gradient));
  }
  c.mutants.push_back(SilentlyDoesNothing(CostOf));
  // Their last hop is missing.
  c.mutants.push_back(GradientsOfAnother(
      "last_hop_of_gradients_missing", Bind,
      [](const P& p, int rank) { return (rank + 1) % p.ranks; }));
  return c;
}

const RegisterCase kRing(RingCase());

}  // namespace
}  // namespace shardproof
