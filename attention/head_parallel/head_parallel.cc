#include "attention/head_parallel/head_parallel.h"

#include <array>
#include <cstring>
#include <utility>
#include <vector>

#include "attention/sharded/partial_attention.h"
#include "collectives/chunks.h"
#include "layers/attention_block/kv_sharers.h"
#include "layers/kernels/convert.h"
#include "layers/tensor_parallel/agree.h"
#include "reference/tensor.h"

namespace shardproof {
namespace {

// dK and dV of one KV head.
int64_t SharedCount(const ShardedAttentionConfig& config) {
  return 2 * config.sequences * config.tokens * config.head_dim;
}

Status CheckFits(const Communicator& comm,
                 const ShardedAttentionConfig& config) {
  if (config.heads < comm.size()) {
    return InvalidArgument(
        "attention is cut by whole heads, and there are {} ranks; use at most "
        "as many as heads",
        comm.size());
  }
  if (config.layout != SequenceLayout::kContiguous) {
    return InvalidArgument(
        "every rank has all tokens, in the order of the sequence, so they have "
        "no layout but the contiguous one");
  }
  return OkStatus();
}

}  // namespace

class HeadParallelAttention::State {
 public:
  State(const ShardedAttentionConfig& config, const HeadShare& share,
        const CollectiveFamily& collectives, PartialAttention attention)
      : config_(config),
        share_(share),
        collectives_(collectives),
        attention_(std::move(attention)),
        wide_(Accumulator(config.dtype)),
        whole_{TokenRun{.count = config.tokens}} {}

  // Collective.
  Status FindSharers(const Communicator& comm);
  Status Allocate(const Communicator& comm);
  Status Forward(const AttentionForwardArgs& args);
  Status Backward(const AttentionBackwardArgs& args);

  const HeadShare& share() const { return share_; }
  int64_t working_bytes() const;

 private:
  int64_t rows() const { return config_.sequences * config_.tokens; }
  // Calls f(row of the head in `gradients`, the same in `packed`).
  template <class F>
  void EachRow(Tensor& gradients, int64_t head, std::byte* packed,
               const F& f) const;
  Status SumShared(const KvSharers& sharers);
  void Store(const Tensor& from, void* to) const;

  ShardedAttentionConfig config_;
  HeadShare share_;
  CollectiveFamily collectives_;
  PartialAttention attention_;
  DType wide_;
  std::array<TokenRun, 1> whole_;
  std::vector<KvSharers> sharers_;
  Tensor dk_, dv_;  // [rows(), KV heads x head_dim]
  Buffer shared_;   // dK and dV of a shared head.
};

Status HeadParallelAttention::State::FindSharers(const Communicator& comm) {
  if (!config_.backward) return OkStatus();
  SP_ASSIGN_OR_RETURN(sharers_,
                      FindKvSharers(comm, config_.heads, config_.kv_heads));
  return OkStatus();
}

Status HeadParallelAttention::State::Allocate(const Communicator& comm) {
  if (!config_.backward) return OkStatus();
  const Shape keys = {rows(), share_.kv_heads.count * config_.head_dim};
  SP_ASSIGN_OR_RETURN(dk_, Tensor::Create(wide_, keys));
  SP_ASSIGN_OR_RETURN(dv_, Tensor::Create(wide_, keys));
  if (sharers_.empty()) return OkStatus();
  const int64_t bytes = SharedCount(config_) * SizeOf(wide_);
  SP_ASSIGN_OR_RETURN(shared_, comm.Allocate(static_cast<size_t>(bytes)));
  return OkStatus();
}

int64_t HeadParallelAttention::State::working_bytes() const {
  return attention_.working_bytes() + dk_.num_bytes() + dv_.num_bytes() +
         static_cast<int64_t>(shared_.bytes());
}

Status HeadParallelAttention::State::Forward(const AttentionForwardArgs& args) {
  SP_RETURN_IF_ERROR(attention_.Begin(args.q, args.o, args.lse));
  SP_RETURN_IF_ERROR(attention_.Add({whole_, args.k, args.v}));
  return attention_.Finish();
}

template <class F>
void HeadParallelAttention::State::EachRow(Tensor& gradients, int64_t head,
                                           std::byte* packed,
                                           const F& f) const {
  const int64_t row = config_.head_dim * SizeOf(wide_);
  const int64_t stride = share_.kv_heads.count * row;
  std::byte* at = gradients.bytes().data() + head * row;
  for (int64_t i = 0; i < rows(); ++i) {
    f(at + i * stride, packed + i * row, static_cast<size_t>(row));
  }
}

Status HeadParallelAttention::State::SumShared(const KvSharers& sharers) {
  const int64_t count = SharedCount(config_);
  if (count == 0) return OkStatus();
  std::byte* const values = At(shared_.data(), wide_, count / 2);
  const auto each = [&](const auto& f) {
    EachRow(dk_, sharers.local_kv_head, shared_.data(), f);
    EachRow(dv_, sharers.local_kv_head, values, f);
  };
  each([](std::byte* gradient, std::byte* packed, size_t bytes) {
    std::memcpy(packed, gradient, bytes);
  });
  SP_RETURN_IF_ERROR(
      collectives_.all_reduce(sharers.comm, {.send = shared_.data(),
                                             .recv = shared_.data(),
                                             .count = count,
                                             .dtype = wide_}));
  each([](std::byte* gradient, std::byte* packed, size_t bytes) {
    std::memcpy(gradient, packed, bytes);
  });
  return OkStatus();
}

void HeadParallelAttention::State::Store(const Tensor& from, void* to) const {
  if (from.num_elements() == 0) return;
  if (wide_ == config_.dtype) {
    std::memcpy(to, from.raw(), static_cast<size_t>(from.num_bytes()));
  } else {
    kernels::Narrow(config_.dtype, from.data<float>(), nullptr,
                    from.num_elements(), to);
  }
}

Status HeadParallelAttention::State::Backward(
    const AttentionBackwardArgs& args) {
  for (Tensor* const t : {&dk_, &dv_}) {
    if (t->num_bytes() == 0) continue;
    std::memset(t->raw(), 0, static_cast<size_t>(t->num_bytes()));
  }
  SP_RETURN_IF_ERROR(attention_.BeginBackward(args));
  SP_RETURN_IF_ERROR(
      attention_.AddGradients({whole_, args.k, args.v}, dk_.raw(), dv_.raw()));
  SP_RETURN_IF_ERROR(attention_.FinishBackward(args.dq));
  for (const KvSharers& sharers : sharers_) {
    SP_RETURN_IF_ERROR(SumShared(sharers));
  }
  Store(dk_, args.dk);
  Store(dv_, args.dv);
  return OkStatus();
}

HeadParallelAttention::HeadParallelAttention(std::shared_ptr<State> state)
    : state_(std::move(state)) {}

StatusOr<HeadParallelAttention> HeadParallelAttention::Create(
    const Communicator& comm, const ShardedAttentionConfig& config,
    const CollectiveFamily& collectives, const AttentionKernels& kernels) {
  SP_RETURN_IF_ERROR(CheckShardedAttention(comm, "head-parallel", config));
  SP_RETURN_IF_ERROR(
      CheckFits(comm, config).WithContext(Describe("head-parallel", config)));
  const HeadShare share =
      HeadShare::Of(config.heads, config.kv_heads, comm.size(), comm.rank());
  const int64_t group = config.heads_per_kv();
  StatusOr<PartialAttention> attention = PartialAttention::Create(
      {.sequences = config.sequences,
       .queries = config.tokens,
       .keys = config.tokens,
       .heads = share.heads.count,
       .kv_heads = share.kv_heads.count,
       .heads_per_kv = group,
       .first_in_group = share.heads.begin - share.kv_heads.begin * group,
       .head_dim = config.head_dim,
       .scale = config.Scale(),
       .dtype = config.dtype,
       .backward = config.backward},
      config.visibility, {TokenRun{.count = config.tokens}}, kernels);
  SP_RETURN_IF_ERROR(AgreeOnStatus(comm, attention.status()));
  auto state = std::make_shared<State>(config, share, collectives,
                                       *std::move(attention));
  SP_RETURN_IF_ERROR(state->FindSharers(comm));
  SP_RETURN_IF_ERROR(AgreeOnStatus(comm, state->Allocate(comm)));
  return HeadParallelAttention(std::move(state));
}

Status HeadParallelAttention::Forward(const AttentionForwardArgs& args,
                                      const Stream& stream) const {
  return stream.Run([state = state_, args] { return state->Forward(args); });
}

Status HeadParallelAttention::Backward(const AttentionBackwardArgs& args,
                                       const Stream& stream) const {
  return stream.Run([state = state_, args] { return state->Backward(args); });
}

const HeadShare& HeadParallelAttention::share() const {
  return state_->share();
}
int64_t HeadParallelAttention::working_bytes() const {
  return state_->working_bytes();
}

Cost HeadParallelBackwardCost(int ranks, const ShardedAttentionConfig& config,
                              const CollectiveFamily& collectives) {
  Cost cost;
  if (SharedCount(config) == 0) return cost;
  for (const SharedKvHead& shared :
       SharedKvHeads(config.heads, config.kv_heads, ranks)) {
    // What is sent lies in memory of the communicator.
    cost += collectives.all_reduce_cost(
        static_cast<int>(shared.ranks.count), SharedCount(config),
        Accumulator(config.dtype), Memory::kShared);
  }
  return cost;
}

}  // namespace shardproof
