#include "attention/pairing/broken_exchange.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "attention/pairing/broken_kernels.h"
#include "layers/attention_block/head_share.h"

namespace shardproof {
namespace {

using P = AttentionPoint;
using Applies = std::function<bool(const P&)>;

// Counts the exchanges of a communicator: both passes have four.
StatusOr<int64_t> CountExchange(const Communicator& comm) {
  SP_ASSIGN_OR_RETURN(
      int64_t* const count,
      comm.Attribute<int64_t>("exchanges of heads", []() -> StatusOr<int64_t> {
        return int64_t{0};
      }));
  return (*count)++;
}

// Where both are equally long.
template <int which>
Status SwapFirst(const Communicator& comm, const AllToAllVArgs& args) {
  SP_RETURN_IF_ERROR(AllToAllV(comm, args));
  SP_ASSIGN_OR_RETURN(const int64_t number, CountExchange(comm));
  if (number % 4 != which || args.recv_counts[0] != args.recv_counts[1]) {
    return OkStatus();
  }
  const auto block = [&](size_t rank) {
    return static_cast<std::byte*>(args.recv) +
           args.recv_offsets[rank] * SizeOf(args.dtype);
  };
  std::swap_ranges(
      block(0), block(0) + args.recv_counts[0] * SizeOf(args.dtype), block(1));
  return OkStatus();
}

template <int which>
Mutant<P> Swapped(const char* name, const ExchangingScheme& scheme,
                  Applies applies) {
  CollectiveFamily family = kAutoCollectives;
  family.name = "swapped blocks";
  family.all_to_all = SwapFirst<which>;
  return Planted<P>(name, scheme.over, family, std::move(applies));
}

Mutant<P> WithKernels(const char* name, const ExchangingScheme& scheme,
                      const AttentionKernels& kernels, Applies applies) {
  Mutant<P> mutant;
  mutant.name = name;
  mutant.bind = [bind = scheme.bind, kernels](const P& p, RankContext& c) {
    return bind(p, c, kernels);
  };
  mutant.applies = std::move(applies);
  return mutant;
}

}  // namespace

std::vector<Mutant<P>> ExchangeMutants(const ExchangingScheme& scheme) {
  // The first two ranks of the first group have as many tokens, and some.
  const Applies like_tokens = [scheme](const P& p) {
    if (scheme.group(p) < 2) return false;
    const auto runs = scheme.runs(p);
    return CountTokens(runs[0]) == CountTokens(runs[1]) &&
           CountTokens(runs[0]) > 0;
  };
  // And as many heads of both kinds; of queries that see one key, dq is 0.
  const Applies like_heads = [scheme](const P& p) {
    const int64_t ranks = scheme.group(p);
    if (ranks < 2 || !SeesSeveral(p)) return false;
    const HeadShare a = HeadShare::Of(p.heads, p.kv_heads, ranks, 0);
    const HeadShare b = HeadShare::Of(p.heads, p.kv_heads, ranks, 1);
    return a.heads.count == b.heads.count &&
           a.kv_heads.count == b.kv_heads.count;
  };
  const Applies shared = [scheme](const P& p) {
    return p.tokens > 0 &&
           !SharedKvHeads(p.heads, p.kv_heads, scheme.group(p)).empty();
  };
  const Applies wide = [scheme](const P& p) {
    return p.tokens > 0 && scheme.group(p) > 1 &&
           SizeOf(p.dtype) >= SizeOf(DType::kF32);
  };
  return {
      Swapped<0>("tokens_arrive_in_the_wrong_order", scheme, like_tokens),
      Swapped<1>("heads_return_in_the_wrong_order", scheme, like_heads),
      Swapped<2>("output_gradients_in_the_wrong_order", scheme, like_tokens),
      Swapped<3>("gradients_return_in_the_wrong_order", scheme, like_heads),
      WithKernels("gradients_of_shared_kv_heads_lost", scheme,
                  kSharedGradientsLost, shared),
      WithKernels("bf16_gradients_of_kv_heads", scheme, kNarrowGradients,
                  wide)};
}

}  // namespace shardproof
