#include "attention/context_parallel/context_parallel_core.h"

#include <cstddef>
#include <cstring>
#include <memory>
#include <type_traits>
#include <utility>

#include "attention/all_gather_kv/all_gather_kv.h"
#include "attention/ring/ring.h"
#include "attention/ulysses/ulysses.h"
#include "collectives/device.h"
#include "layers/attention_block/head_share.h"
#include "layers/tensor_parallel/agree.h"
#include "layers/tensor_parallel/collective_family.h"
#include "reference/dtype.h"
#include "reference/tensor.h"

namespace shardproof {
namespace {

// Whole groups, or part of one, in which every query head has the KV head 0.
bool GroupsAreWhole(const AttentionShape& shape) {
  if (shape.kv_heads == 1) {
    return shape.first_in_group + shape.heads <= shape.heads_per_kv;
  }
  return shape.first_in_group == 0 &&
         shape.heads == shape.kv_heads * shape.heads_per_kv;
}

// What this rank alone can tell.
Status CheckPart(const Communicator& comm, const AttentionShape& shape,
                 const ContextParallelConfig& config) {
  SP_ASSIGN_OR_RETURN(const std::vector<TokenRun> runs,
                      RunsOf(config.LayoutOver(comm.size()), comm.rank()));
  const int64_t tokens = CountTokens(runs);
  if (shape.queries != tokens || shape.keys != tokens) {
    return InvalidArgument(
        "a core has {} queries and {} keys of each sequence, and this rank has "
        "{} of its {} tokens, {}",
        shape.queries, shape.keys, tokens, config.tokens, Name(config.layout));
  }
  if (shape.query_offset != 0 || shape.key_offset != 0) {
    return InvalidArgument(
        "a core's tokens are those of a {} layout, not from {} and {} on",
        Name(config.layout), shape.query_offset, shape.key_offset);
  }
  // Which a scheme would take for its default.
  if (shape.scale == 0) return InvalidArgument("scores are scaled by 0");
  if (!GroupsAreWhole(shape)) {
    return Unsupported(
        "{} heads from number {} of a group of {} on, with {} KV heads: tokens "
        "are shared by whole groups of heads or by part of one; use a number "
        "of tensor-parallel ranks that divides the KV heads, or that they "
        "divide",
        shape.heads, shape.first_in_group, shape.heads_per_kv, shape.kv_heads);
  }
  return OkStatus();
}

ShardedAttentionConfig SchemeConfig(const AttentionShape& shape,
                                    const ContextParallelConfig& config) {
  return {.sequences = shape.sequences,
          .tokens = config.tokens,
          .heads = shape.heads,
          .kv_heads = shape.kv_heads,
          .head_dim = shape.head_dim,
          .scale = shape.scale,
          .layout = config.layout,
          .visibility = {.causal = shape.causal},
          .dtype = shape.dtype};
}

// What Ulysses keeps from one pass to the other (head_exchange.h).
int64_t KeptHeadBytes(const Communicator& comm, const AttentionShape& shape,
                      int64_t tokens) {
  if (comm.size() == 1) return 0;
  const HeadShare own =
      HeadShare::Of(shape.heads, shape.kv_heads, comm.size(), comm.rank());
  const int64_t of_token = 2 * (own.heads.count + own.kv_heads.count) *
                               shape.head_dim * SizeOf(shape.dtype) +
                           own.heads.count * SizeOf(Accumulator(shape.dtype));
  return shape.sequences * tokens * of_token;
}

template <class Scheme>
class ContextParallelAttention : public AttentionCore {
 public:
  // `scheme_keeps` of its working_bytes() are kept between the passes.
  ContextParallelAttention(const AttentionShape& shape, Scheme scheme,
                           int64_t scheme_keeps)
      : shape_(shape),
        scheme_(std::move(scheme)),
        scheme_keeps_(scheme_keeps) {}

  Status Allocate() {
    const int64_t rows = shape_.sequences * shape_.queries;
    for (Tensor* t : {&q_, &o_, &d_o_, &dq_}) {
      SP_ASSIGN_OR_RETURN(
          *t, Tensor::Create(shape_.dtype, {rows, Width(shape_.heads)}));
    }
    for (Tensor* t : {&k_, &v_, &dk_, &dv_}) {
      SP_ASSIGN_OR_RETURN(
          *t, Tensor::Create(shape_.dtype, {rows, Width(shape_.kv_heads)}));
    }
    SP_ASSIGN_OR_RETURN(
        lse_, Tensor::Create(Accumulator(shape_.dtype),
                             {shape_.sequences, shape_.heads, shape_.queries}));
    return OkStatus();
  }

  Status Forward(const Stream& stream, const ForwardArgs& args) override {
    return stream.Run([this, args] { return ForwardNow(args); });
  }
  Status Backward(const Stream& stream, const BackwardArgs& args) override {
    return stream.Run([this, args] { return BackwardNow(args); });
  }

  int64_t kept_bytes() const override {
    return lse_.num_bytes() + scheme_keeps_;
  }
  int64_t working_bytes() const override {
    int64_t bytes = scheme_.working_bytes() - scheme_keeps_;
    for (const Tensor* t : {&q_, &k_, &v_, &o_, &d_o_, &dq_, &dk_, &dv_}) {
      bytes += t->num_bytes();
    }
    return bytes;
  }

 private:
  Status ForwardNow(const ForwardArgs& args) {
    SP_RETURN_IF_ERROR(scheme_.Forward({.q = Packed(args.q, q_),
                                        .k = Packed(args.k, k_),
                                        .v = Packed(args.v, v_),
                                        .o = Target(args.o, o_),
                                        .lse = lse_.raw()}));
    Unpack(o_, args.o);
    return OkStatus();
  }

  Status BackwardNow(const BackwardArgs& args) {
    SP_RETURN_IF_ERROR(scheme_.Backward({.q = Packed(args.q, q_),
                                         .k = Packed(args.k, k_),
                                         .v = Packed(args.v, v_),
                                         .o = Packed(args.o, o_),
                                         .lse = lse_.raw(),
                                         .d_o = Packed(args.d_o, d_o_),
                                         .dq = Target(args.dq, dq_),
                                         .dk = Target(args.dk, dk_),
                                         .dv = Target(args.dv, dv_)}));
    Unpack(dq_, args.dq);
    Unpack(dk_, args.dk);
    Unpack(dv_, args.dv);
    return OkStatus();
  }

  int64_t Width(int64_t heads) const { return heads * shape_.head_dim; }
  template <class Void>
  static bool IsPacked(const HeadsIn<Void>& heads, const Tensor& packed) {
    return heads.stride == packed.shape()[1];
  }
  // Calls f(offset in bytes with gaps, without them, bytes) for every token.
  template <class F>
  static void EveryToken(int64_t stride, const Tensor& packed, const F& f) {
    const int64_t size = SizeOf(packed.dtype()), width = packed.shape()[1];
    if (width == 0) return;
    for (int64_t token = 0; token < packed.shape()[0]; ++token) {
      f(token * stride * size, token * width * size,
        static_cast<size_t>(width * size));
    }
  }

  // Where the heads lie without gaps: in `packed`, if not where they are.
  static const void* Packed(const ConstHeads& heads, Tensor& packed) {
    if (IsPacked(heads, packed)) return heads.data;
    const auto* const from = static_cast<const std::byte*>(heads.data);
    EveryToken(heads.stride, packed, [&](int64_t at, int64_t to, size_t n) {
      std::memcpy(packed.bytes().data() + to, from + at, n);
    });
    return packed.raw();
  }
  // Where heads are to be written without gaps, and from there to their places.
  static void* Target(const Heads& heads, Tensor& packed) {
    return IsPacked(heads, packed) ? heads.data : packed.raw();
  }
  static void Unpack(const Tensor& packed, const Heads& heads) {
    if (IsPacked(heads, packed)) return;
    auto* const to = static_cast<std::byte*>(heads.data);
    EveryToken(heads.stride, packed, [&](int64_t at, int64_t from, size_t n) {
      std::memcpy(to + at, packed.bytes().data() + from, n);
    });
  }

  AttentionShape shape_;
  Scheme scheme_;
  int64_t scheme_keeps_;
  Tensor lse_;                                 // Kept.
  Tensor q_, k_, v_, o_, d_o_, dq_, dk_, dv_;  // Without gaps.
};

template <class Scheme>
StatusOr<std::unique_ptr<AttentionCore>> MakeCore(const Communicator& comm,
                                                  const AttentionShape& shape,
                                                  StatusOr<Scheme> scheme,
                                                  int64_t scheme_keeps) {
  SP_RETURN_IF_ERROR(scheme.status());
  auto core = std::make_unique<ContextParallelAttention<Scheme>>(
      shape, *std::move(scheme), scheme_keeps);
  SP_RETURN_IF_ERROR(AgreeOnStatus(comm, core->Allocate()));
  return std::unique_ptr<AttentionCore>(std::move(core));
}

StatusOr<std::unique_ptr<AttentionCore>> Create(
    const Communicator& comm, const ContextParallelConfig& context,
    const AttentionKernels& kernels, const AttentionShape& shape) {
  SP_RETURN_IF_ERROR(AgreeOnStatus(comm, CheckPart(comm, shape, context)));
  const ShardedAttentionConfig config = SchemeConfig(shape, context);
  switch (context.scheme) {
    case ContextScheme::kRing:
      return MakeCore(
          comm, shape,
          RingAttention::Create(comm, config, RingMode::kOverlapped, kernels),
          0);
    case ContextScheme::kAllGatherKv:
      return MakeCore(
          comm, shape,
          AllGatherKvAttention::Create(comm, config, kAutoCollectives, kernels),
          0);
    case ContextScheme::kUlysses: {
      // Only then are the heads of this rank known.
      StatusOr<UlyssesAttention> scheme =
          UlyssesAttention::Create(comm, config, kAutoCollectives, kernels);
      const int64_t kept =
          scheme.ok() ? KeptHeadBytes(comm, shape, context.tokens) : 0;
      return MakeCore(comm, shape, std::move(scheme), kept);
    }
  }
  return InvalidArgument("there is no scheme number {}",
                         static_cast<int>(context.scheme));
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

StatusOr<std::vector<int64_t>> LocalPositions(const LayoutShape& shape,
                                              int64_t rank) {
  SP_ASSIGN_OR_RETURN(const std::vector<TokenRun> runs, RunsOf(shape, rank));
  return Positions(runs);
}

AttentionCoreFactory ContextParallelCore(const Communicator& comm,
                                         const ContextParallelConfig& config,
                                         const AttentionKernels& kernels) {
  return [comm, config, kernels](const AttentionShape& shape) {
    return Create(comm, config, kernels, shape);
  };
}

}  // namespace shardproof
