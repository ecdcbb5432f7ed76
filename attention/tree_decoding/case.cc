// The pairing of tree decoding: axes, variants and planted bugs.
#include "tools/harness/case.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <numbers>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "attention/pairing/attention_case.h"
#include "attention/tree_decoding/tree_decoding.h"
#include "layers/pairing/layer_case.h"

namespace shardproof {
namespace {

using P = AttentionPoint;

StatusOr<Operation> BindCombine(const P& p, RankContext& context,
                                TreeCombine combine,
                                const CollectiveFamily& collectives,
                                const AttentionKernels& kernels) {
  SP_ASSIGN_OR_RETURN(
      TreeDecoding made,
      TreeDecoding::Create(context.comm(), ConfigOf(p), p.queries, combine,
                           collectives, kernels));
  const auto decoding = std::make_shared<TreeDecoding>(std::move(made));
  const int64_t position = QueriesOf(p).offset;
  return Operation([decoding, position, &context] {
    return decoding->Forward({.q = context.in("q").data,
                              .k = context.in("k").data,
                              .v = context.in("v").data,
                              .o = context.out("o").data,
                              .lse = context.out("lse").data},
                             position, context.stream());
  });
}

StatusOr<Operation> BindKernels(const P& p, RankContext& context,
                                const AttentionKernels& kernels) {
  return BindCombine(p, context, TreeCombine::kDoubling, kAutoCollectives,
                     kernels);
}

StatusOr<Operation> Bind(const P& p, RankContext& context,
                         const CollectiveFamily& collectives) {
  return BindCombine(p, context, TreeCombine::kAllReduce, collectives, {});
}

Cost CostOf(const P& p, const CollectiveFamily& collectives) {
  return TreeDecodingCost(p.ranks, ConfigOf(p), p.queries,
                          TreeCombine::kAllReduce, collectives);
}

Cost DoublingCost(const P& p) {
  return TreeDecodingCost(p.ranks, ConfigOf(p), p.queries,
                          TreeCombine::kDoubling, kAutoCollectives);
}

int64_t Merges(const P& p) { return TreeDecodingMerges(p.ranks, ConfigOf(p)); }

std::vector<Variant<P>> Variants() {
  Variant<P> doubling;
  doubling.name = "doubling";
  doubling.bind = [](const P& p, RankContext& context) {
    return BindKernels(p, context, {});
  };
  doubling.cost = DoublingCost;
  doubling.note =
      "ranks at distance 1, 2, 4, .. exchange O and lse and merge them";
  std::vector<Variant<P>> variants = {doubling};
  for (Variant<P>& variant : OverCollectives<P>(Bind, CostOf)) {
    variant.name = "all_reduce_" + variant.name;
    variant.note =
        "all_reduces of the largest lse and of weighted sums; " + variant.note;
    variants.push_back(std::move(variant));
  }
  return variants;
}

// --- Where bugs show ---------------------------------------------------------

// The pairs of one rank, or of all where it is negative.
std::vector<RunPair> PairsOf(const P& p, int rank) {
  const TokenRun queries = QueriesOf(p);
  const auto runs = RunsOfRanks({p.layout, p.length(), p.ranks});
  std::vector<RunPair> pairs;
  for (int r = 0; r < p.ranks; ++r) {
    if (rank >= 0 && r != rank) continue;
    for (TokenRun keys : runs[static_cast<size_t>(r)]) {
      // Keys behind the queries are not there.
      while (p.mask != AttentionMask::kFull && keys.count > 0 &&
             keys.Position(keys.count - 1) >= p.visible()) {
        --keys.count;
      }
      if (CountPairs(VisibilityOf(p), queries, keys) == 0) continue;
      pairs.push_back({queries, keys});
    }
  }
  return pairs;
}

// All of it as if on one rank: results of different ranks are merged too.
AttentionWork AllRanks(const P& p) {
  return {.pairs = {PairsOf(p, -1)},
          .heads = {{.heads = {0, p.heads}, .kv_heads = {0, p.kv_heads}}}};
}

int RanksThatSee(const P& p) {
  int ranks = 0;
  for (int r = 0; r < p.ranks; ++r) ranks += PairsOf(p, r).empty() ? 0 : 1;
  return ranks;
}

// With scores of a deviation of 144 one key has nearly all the weight, and bugs
// that touch others do not show to a few queries.
bool Even(const P& p) { return Several(p) && p.spread == 1; }
bool SomeSee(const P& p) { return Even(p) && RanksThatSee(p) > 1; }
bool SomeDoNot(const P& p) { return Even(p) && RanksThatSee(p) < p.ranks; }
bool FirstSees(const P& p) { return Even(p) && !PairsOf(p, 0).empty(); }
bool LastSees(const P& p) {
  return Even(p) && !PairsOf(p, p.ranks - 1).empty();
}
// Roundings differ, where the rank has something to merge; narrower types of O
// hide it.
bool OrderShows(const P& p) {
  return SomeSee(p) && LastSees(p) && SizeOf(p.dtype) >= SizeOf(DType::kF32);
}
bool SeeBeyondPairs(const P& p) { return p.ranks > 2 && SomeSee(p); }
bool OverflowsWithout(const P& p) {
  return Several(p) && p.dtype == DType::kF32 && p.spread > 1 && p.tokens > 2;
}

// --- Bugs of the exchange ----------------------------------------------------

// A kernel whose lse, and O, are changed by `change`.
template <void (*change)(const FlashShape&, const FlashAttention::ForwardArgs&)>
class Changed final : public FlashAttention {
 public:
  Changed(const FlashShape& shape, std::unique_ptr<FlashAttention> inner)
      : shape_(shape), inner_(std::move(inner)) {}
  Status Forward(const Stream& stream, const ForwardArgs& args) override {
    SP_RETURN_IF_ERROR(inner_->Forward(stream, args));
    change(shape_, args);
    return OkStatus();
  }
  Status Backward(const Stream& stream, const BackwardArgs& args) override {
    return inner_->Backward(stream, args);
  }
  int64_t working_bytes() const override { return inner_->working_bytes(); }
  static StatusOr<std::unique_ptr<FlashAttention>> Make(
      const FlashShape& shape) {
    SP_ASSIGN_OR_RETURN(std::unique_ptr<FlashAttention> inner,
                        FlashAttention::Create(shape));
    return std::unique_ptr<FlashAttention>(
        std::make_unique<Changed>(shape, std::move(inner)));
  }

 private:
  FlashShape shape_;
  std::unique_ptr<FlashAttention> inner_;
};

// f(lse) for each, in its type.
template <class F>
void EachLse(DType dtype, int64_t rows, int64_t stride, int64_t count,
             void* data, const F& f) {
  Visit(dtype, [&]<typename T>(TypeTag<T>) {
    if constexpr (std::is_floating_point_v<T>) {
      for (int64_t row = 0; row < rows; ++row) {
        T* const lse = static_cast<T*>(data) + row * stride;
        for (int64_t i = 0; i < count; ++i) f(lse[i]);
      }
    }
  });
}

template <class F>
void EachLseOf(const FlashShape& shape, const FlashAttention::ForwardArgs& args,
               const F& f) {
  const int64_t count = args.block.queries.count;
  EachLse(Accumulator(shape.dtype), shape.sequences * shape.heads,
          args.lse.stride != 0 ? args.lse.stride : count, count, args.lse.data,
          f);
}

void LeaveOut(const FlashShape& shape,
              const FlashAttention::ForwardArgs& args) {
  EachLseOf(shape, args, [](auto& lse) {
    lse = -std::numeric_limits<
        std::remove_reference_t<decltype(lse)>>::infinity();
  });
}

void CountTwice(const FlashShape& shape,
                const FlashAttention::ForwardArgs& args) {
  EachLseOf(shape, args, [](auto& lse) {
    lse += std::numbers::ln2_v<std::remove_reference_t<decltype(lse)>>;
  });
}

// lse is 0 of a rank that sees nothing.
Status MergeNothing(const Stream& stream, const MergeArgs& args) {
  for (void* const data : {args.lse.data, const_cast<void*>(args.lse_b.data)}) {
    EachLse(args.dtype, args.sequences * args.heads, args.queries, args.queries,
            data, [](auto& lse) {
              using T = std::remove_reference_t<decltype(lse)>;
              if (lse == -std::numeric_limits<T>::infinity()) lse = 0;
            });
  }
  return MergeAttention(stream, args);
}

// The second part with the first, instead of the first with the second.
Status MergeOtherWayRound(const Stream& stream, const MergeArgs& args) {
  const int64_t rows = args.sequences * args.queries * args.heads;
  const int64_t e = SizeOf(args.dtype);
  std::vector<std::byte> o(static_cast<size_t>(rows * args.head_dim * e));
  std::vector<std::byte> lse(static_cast<size_t>(rows * e));
  std::memcpy(o.data(), args.o_b.data, o.size());
  std::memcpy(lse.data(), args.lse_b.data, lse.size());
  MergeArgs swapped = args;
  swapped.o.data = o.data();
  swapped.lse.data = lse.data();
  swapped.o_b.data = args.o.data;
  swapped.lse_b.data = args.lse.data;
  SP_RETURN_IF_ERROR(MergeAttention(stream, swapped));
  std::memcpy(args.o.data, o.data(), o.size());
  std::memcpy(args.lse.data, lse.data(), lse.size());
  return OkStatus();
}

// `kernels` on one rank, counted from the end where it is negative.
Mutant<P> OnOneRank(const char* name, int rank, const AttentionKernels& kernels,
                    bool (*applies)(const P&)) {
  Mutant<P> mutant;
  mutant.name = name;
  mutant.bind = [rank, kernels](const P& p, RankContext& context) {
    const int which = rank < 0 ? p.ranks + rank : rank;
    return BindKernels(
        p, context,
        context.comm().rank() == which ? kernels : AttentionKernels());
  };
  mutant.applies = applies;
  return mutant;
}

// The largest lse is taken for 0.
Status WithoutLargest(const Communicator& comm, const AllReduceArgs& args) {
  if (args.op != ReduceOp::kMax) return AllReduce(comm, args);
  std::memset(args.recv, 0,
              static_cast<size_t>(args.count * SizeOf(args.dtype)));
  return OkStatus();
}

// The largest lse of the rank instead of that of all.
Status OwnLargest(const Communicator& comm, const AllReduceArgs& args) {
  return args.op == ReduceOp::kMax ? OkStatus() : AllReduce(comm, args);
}

CollectiveFamily Reducing(Status (*all_reduce)(const Communicator&,
                                               const AllReduceArgs&)) {
  CollectiveFamily family = kAutoCollectives;
  family.all_reduce = all_reduce;
  return family;
}

std::vector<Mutant<P>> Mutants() {
  // There is no backward pass.
  std::vector<Mutant<P>> mutants = Without(
      KernelMutants(BindKernels, AllRanks),
      {"lse_of_the_last_block", "keys_of_the_first_block", "delta_missing"});
  for (Mutant<P>& mutant : mutants) {
    if (mutant.name == "merged_by_exponentials") continue;
    mutant.applies = [applies = mutant.applies](const P& p) {
      return Even(p) && applies(p);
    };
  }
  mutants.push_back(SilentlyDoesNothing(DoublingCost));
  mutants.push_back(OnOneRank("last_rank_left_out", -1,
                              {.flash = Changed<LeaveOut>::Make}, LastSees));
  mutants.push_back(OnOneRank("first_rank_counted_twice", 0,
                              {.flash = Changed<CountTwice>::Make}, FirstSees));
  mutants.push_back(OnOneRank("merged_in_another_order", -1,
                              {.merge = MergeOtherWayRound}, OrderShows));
  mutants.push_back({.name = "ranks_that_see_nothing_count",
                     .bind =
                         [](const P& p, RankContext& context) {
                           return BindKernels(p, context,
                                              {.merge = MergeNothing});
                         },
                     .applies = SomeDoNot});
  mutants.push_back(
      Planted<P>("sums_not_reduced", Bind, kWithoutReduction, SomeSee));
  mutants.push_back(
      Planted<P>("sums_of_pairs", Bind, kReducingPairs, SeeBeyondPairs));
  mutants.push_back(Planted<P>("sums_averaged", Bind, kAveraging, Even));
  mutants.push_back(Planted<P>("largest_lse_missing", Bind,
                               Reducing(WithoutLargest), OverflowsWithout));
  mutants.push_back(Planted<P>("largest_lse_of_the_rank", Bind,
                               Reducing(OwnLargest), SomeSee));
  return mutants;
}

Case<P> TreeDecodingCase() {
  Case<P> c = AttentionCase(
      "attention/tree_decoding",
      "the last tokens' attention over keys that are dealt to ranks; partial "
      "results are combined in a tree",
      Merges,
      {SequenceLayout::kStriped, SequenceLayout::kZigzag,
       SequenceLayout::kContiguous});
  c.axes.push_back(Axis("queries", &P::queries, {1, 3}).Bench({1}));
  c.skip = [common = c.skip](const P& p) -> std::optional<std::string> {
    if (p.queries > p.tokens) return "there are fewer tokens than queries";
    if (p.spread != 1 && p.queries == 1) {
      return "large scores are tested with three queries: the weight of one is "
             "on a key that most ranks do not have";
    }
    return common(p);
  };
  c.workload = [workload = c.workload](const Workload& w, int ranks) {
    std::vector<P> points = workload(w, ranks);
    for (P& p : points) p.queries = 1;
    return points;
  };
  c.variants = Variants();
  c.mutants = Mutants();
  return c;
}

const RegisterCase kTreeDecoding(TreeDecodingCase());

}  // namespace
}  // namespace shardproof
