// The pairing of ring attention: variants and planted bugs.
#include "tools/harness/case.h"

#include <cstring>
#include <memory>
#include <utility>
#include <vector>

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

// --- Bugs of the ring itself -------------------------------------------------

// A kernel that goes backward with the keys and values of its first block.
class FirstBlocksKeys final : public FlashAttention {
 public:
  explicit FirstBlocksKeys(const FlashShape& shape,
                           std::unique_ptr<FlashAttention> inner)
      : shape_(shape), inner_(std::move(inner)) {}
  Status Forward(const Stream& stream, const ForwardArgs& args) override {
    k_.clear();
    return inner_->Forward(stream, args);
  }
  Status Backward(const Stream& stream, const BackwardArgs& args) override {
    BackwardArgs broken = args;
    if (k_.empty()) {
      count_ = args.block.keys.count;
      k_ = Rows(args.k);
      v_ = Rows(args.v);
    }
    if (args.block.keys.count == count_) {
      broken.k = {k_.data(), width()};
      broken.v = {v_.data(), width()};
    }
    return inner_->Backward(stream, broken);
  }
  int64_t working_bytes() const override { return inner_->working_bytes(); }

 private:
  int64_t width() const { return shape_.kv_heads * shape_.head_dim; }
  std::vector<std::byte> Rows(const ConstTokens& t) const {
    const auto row = static_cast<size_t>(width() * SizeOf(shape_.dtype));
    std::vector<std::byte> rows(row *
                                static_cast<size_t>(shape_.sequences * count_));
    for (int64_t s = 0; s < shape_.sequences; ++s) {
      std::memcpy(rows.data() + static_cast<size_t>(s * count_) * row,
                  static_cast<const std::byte*>(t.data) +
                      s * t.sequence_stride * SizeOf(shape_.dtype),
                  row * static_cast<size_t>(count_));
    }
    return rows;
  }

  FlashShape shape_;
  std::unique_ptr<FlashAttention> inner_;
  int64_t count_ = 0;
  std::vector<std::byte> k_, v_;
};

StatusOr<std::unique_ptr<FlashAttention>> MakeFirstBlocksKeys(
    const FlashShape& shape) {
  SP_ASSIGN_OR_RETURN(std::unique_ptr<FlashAttention> inner,
                      FlashAttention::Create(shape));
  return std::unique_ptr<FlashAttention>(
      std::make_unique<FirstBlocksKeys>(shape, std::move(inner)));
}

// Some rank computes with two blocks that have as many keys as the first.
bool HasTwoLikeTheFirst(const P& p) {
  for (const std::vector<RunPair>& pairs : BlockByBlock(p).pairs) {
    int64_t like = 0;
    for (const RunPair& pair : pairs) {
      const bool other = pair.keys.offset != pairs[0].keys.offset;
      if (pair.keys.count == pairs[0].keys.count && other) ++like;
    }
    if (Several(p) && like > 0 && p.tokens > p.ranks) return true;
  }
  return false;
}

// The gradients of keys and values end where they were last added to: one rank
// before their owner.
StatusOr<Operation> BindLastHopMissing(const P& p, RankContext& context) {
  SP_ASSIGN_OR_RETURN(const Operation good, Bind(p, context, {}));
  return Operation([good, p, &context]() -> Status {
    SP_RETURN_IF_ERROR(good());
    const Communicator& comm = context.comm();
    for (const char* name : {"dk", "dv"}) {
      const TensorView mine = context.out(name);
      SP_ASSIGN_OR_RETURN(
          const std::vector<std::string> all,
          comm.ExchangeControl(
              {static_cast<const char*>(mine.data),
               static_cast<size_t>(mine.num_elements() * SizeOf(mine.dtype))}));
      const std::string& next =
          all[static_cast<size_t>((comm.rank() + 1) % comm.size())];
      std::memcpy(
          mine.data, next.data(),
          std::min(next.size(), all[static_cast<size_t>(comm.rank())].size()));
    }
    return OkStatus();
  });
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
  c.mutants.push_back({.name = "keys_of_the_first_block_backward",
                       .bind =
                           [](const P& p, RankContext& context) {
                             return Bind(p, context,
                                         {.flash = MakeFirstBlocksKeys});
                           },
                       .applies = HasTwoLikeTheFirst});
  c.mutants.push_back({.name = "last_hop_of_gradients_missing",
                       .bind = BindLastHopMissing,
                       .applies = [](const P& p) {
                         return Several(p) && p.tokens >= p.ranks;
                       }});
  return c;
}

const RegisterCase kRing(RingCase());

}  // namespace
}  // namespace shardproof
