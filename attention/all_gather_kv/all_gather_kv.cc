#include "attention/all_gather_kv/all_gather_kv.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <utility>
#include <vector>

#include "attention/sharded/partial_attention.h"
#include "collectives/chunks.h"
#include "layers/kernels/convert.h"
#include "layers/tensor_parallel/agree.h"
#include "reference/tensor.h"

namespace shardproof {
namespace {

// Elements of the keys and values of each rank, packed.
std::vector<int64_t> PackedCounts(
    const std::vector<std::vector<TokenRun>>& runs,
    const ShardedAttentionConfig& config) {
  std::vector<int64_t> counts;
  for (const std::vector<TokenRun>& of_rank : runs) {
    counts.push_back(2 * config.sequences * CountTokens(of_rank) *
                     config.kv_heads * config.head_dim);
  }
  return counts;
}

void Copy(void* to, const void* from, int64_t bytes) {
  if (bytes > 0) std::memcpy(to, from, static_cast<size_t>(bytes));
}

}  // namespace

class AllGatherKvAttention::State {
 public:
  State(const Communicator& comm, const ShardedAttentionConfig& config,
        const CollectiveFamily& collectives, PartialAttention attention)
      : comm_(comm),
        config_(config),
        collectives_(collectives),
        runs_(RunsOfRanks(config.LayoutOver(comm.size()))),
        counts_(PackedCounts(runs_, config)),
        attention_(std::move(attention)),
        wide_(Accumulator(config.dtype)),
        whole_{TokenRun{.count = config.tokens}} {}

  Status Allocate();
  Status Forward(const AttentionForwardArgs& args);
  Status Backward(const AttentionBackwardArgs& args);

  int64_t tokens() const { return attention_.tokens(); }
  int64_t working_bytes() const;

 private:
  int64_t width() const { return config_.kv_heads * config_.head_dim; }
  int64_t own_count() const {
    return counts_[static_cast<size_t>(comm_.rank())];
  }
  // Where the packed keys and values of a rank begin.
  std::byte* Packed(DType dtype, int rank) const {
    return At(packed_.data(), dtype, Blocks::Listed(counts_).Begin(rank));
  }
  // Calls f(runs, packed, sequence) for every sequence of every rank and both
  // halves of what is packed: `packed` are the rank's tokens there, `sequence`
  // all tokens of keys or values.
  template <class F>
  Status EachPacked(Tensor& keys, Tensor& values, const F& f) const;
  // All keys and values, in the order of the sequence.
  StatusOr<KeyPart> Gather(const void* k, const void* v);
  // The sums of dk_ and dv_ over all ranks, of this rank's tokens.
  Status ScatterGradients(void* dk, void* dv);
  Status Store(const void* from, void* to) const;
  // After an error the others must not wait for this rank.
  Status Scope(const Status& status) const {
    if (!status.ok()) comm_.Abort(status.message());
    return status;
  }

  Communicator comm_;
  ShardedAttentionConfig config_;
  CollectiveFamily collectives_;
  std::vector<std::vector<TokenRun>> runs_;
  std::vector<int64_t> counts_;
  PartialAttention attention_;
  DType wide_;
  std::array<TokenRun, 1> whole_;
  // Rank by rank, keys before values: those gathered, and in the backward pass
  // then the gradients that are scattered.
  Buffer packed_;
  Tensor k_, v_, dk_, dv_;  // [sequences x tokens, width()]
};

Status AllGatherKvAttention::State::Allocate() {
  const Shape all = {config_.sequences * config_.tokens, width()};
  if (comm_.size() > 1) {
    const DType widest = config_.backward ? wide_ : config_.dtype;
    const int64_t bytes = Blocks::Listed(counts_).Total() * SizeOf(widest);
    SP_ASSIGN_OR_RETURN(packed_, comm_.Allocate(static_cast<size_t>(bytes)));
    SP_ASSIGN_OR_RETURN(k_, Tensor::Create(config_.dtype, all));
    SP_ASSIGN_OR_RETURN(v_, Tensor::Create(config_.dtype, all));
  }
  if (!config_.backward) return OkStatus();
  SP_ASSIGN_OR_RETURN(dk_, Tensor::Create(wide_, all));
  SP_ASSIGN_OR_RETURN(dv_, Tensor::Create(wide_, all));
  return OkStatus();
}

int64_t AllGatherKvAttention::State::working_bytes() const {
  int64_t bytes =
      attention_.working_bytes() + static_cast<int64_t>(packed_.bytes());
  for (const Tensor* t : {&k_, &v_, &dk_, &dv_}) bytes += t->num_bytes();
  return bytes;
}

template <class F>
Status AllGatherKvAttention::State::EachPacked(Tensor& keys, Tensor& values,
                                               const F& f) const {
  const DType dtype = keys.dtype();
  const int64_t n = config_.tokens;
  for (int r = 0; r < comm_.size(); ++r) {
    const std::vector<TokenRun>& runs = runs_[static_cast<size_t>(r)];
    const int64_t mine = CountTokens(runs);
    if (mine == 0) continue;
    std::byte* block = Packed(dtype, r);
    for (Tensor* const all : {&keys, &values}) {
      for (int64_t s = 0; s < config_.sequences; ++s) {
        const TensorView packed{dtype, {mine, width()}, block};
        const TensorView sequence{
            dtype, {n, width()}, At(all->raw(), dtype, s * n * width())};
        SP_RETURN_IF_ERROR(f(runs, packed, sequence));
        block += mine * width() * SizeOf(dtype);
      }
    }
  }
  return OkStatus();
}

StatusOr<KeyPart> AllGatherKvAttention::State::Gather(const void* k,
                                                      const void* v) {
  // The tokens of a single rank are in order.
  if (comm_.size() == 1) return KeyPart{whole_, k, v};
  const DType dtype = config_.dtype;
  std::byte* const own = Packed(dtype, comm_.rank());
  const int64_t half = own_count() / 2 * SizeOf(dtype);
  Copy(own, k, half);
  Copy(own + half, v, half);
  SP_RETURN_IF_ERROR(collectives_.all_gather(comm_, {.send = own,
                                                     .recv = packed_.data(),
                                                     .counts = counts_,
                                                     .dtype = dtype}));
  SP_RETURN_IF_ERROR(
      EachPacked(k_, v_, [](const auto& runs, auto packed, auto sequence) {
        return UnshardRows(runs, packed, sequence);
      }));
  return KeyPart{whole_, k_.raw(), v_.raw()};
}

Status AllGatherKvAttention::State::Store(const void* from, void* to) const {
  const int64_t count = own_count() / 2;
  if (count == 0) return OkStatus();
  if (wide_ == config_.dtype) {
    Copy(to, from, count * SizeOf(wide_));
  } else {
    kernels::Narrow(config_.dtype, static_cast<const float*>(from), nullptr,
                    count, to);
  }
  return OkStatus();
}

Status AllGatherKvAttention::State::ScatterGradients(void* dk, void* dv) {
  if (comm_.size() == 1) {
    SP_RETURN_IF_ERROR(Store(dk_.raw(), dk));
    return Store(dv_.raw(), dv);
  }
  SP_RETURN_IF_ERROR(
      EachPacked(dk_, dv_, [](const auto& runs, auto packed, auto sequence) {
        return ShardRows(runs, sequence, packed);
      }));
  std::byte* const own = Packed(wide_, comm_.rank());
  SP_RETURN_IF_ERROR(collectives_.reduce_scatter(comm_, {.send = packed_.data(),
                                                         .recv = own,
                                                         .counts = counts_,
                                                         .dtype = wide_}));
  SP_RETURN_IF_ERROR(Store(own, dk));
  return Store(At(own, wide_, own_count() / 2), dv);
}

Status AllGatherKvAttention::State::Forward(const AttentionForwardArgs& args) {
  const OpScope op(comm_, {.label = "all_gather_kv_attention/forward",
                           .dtype = config_.dtype,
                           .count = own_count()});
  SP_RETURN_IF_ERROR(op.status());
  return Scope([&]() -> Status {
    SP_ASSIGN_OR_RETURN(const KeyPart part, Gather(args.k, args.v));
    SP_RETURN_IF_ERROR(attention_.Begin(args.q, args.o, args.lse));
    SP_RETURN_IF_ERROR(attention_.Add(part));
    return attention_.Finish();
  }());
}

Status AllGatherKvAttention::State::Backward(
    const AttentionBackwardArgs& args) {
  const OpScope op(comm_, {.label = "all_gather_kv_attention/backward",
                           .dtype = config_.dtype,
                           .count = own_count()});
  SP_RETURN_IF_ERROR(op.status());
  return Scope([&]() -> Status {
    SP_ASSIGN_OR_RETURN(const KeyPart part, Gather(args.k, args.v));
    for (Tensor* const t : {&dk_, &dv_}) {
      if (t->num_bytes() == 0) continue;
      std::memset(t->raw(), 0, static_cast<size_t>(t->num_bytes()));
    }
    SP_RETURN_IF_ERROR(attention_.BeginBackward(args));
    SP_RETURN_IF_ERROR(attention_.AddGradients(part, dk_.raw(), dv_.raw()));
    SP_RETURN_IF_ERROR(attention_.FinishBackward(args.dq));
    return ScatterGradients(args.dk, args.dv);
  }());
}

AllGatherKvAttention::AllGatherKvAttention(std::shared_ptr<State> state)
    : state_(std::move(state)) {}

StatusOr<AllGatherKvAttention> AllGatherKvAttention::Create(
    const Communicator& comm, const ShardedAttentionConfig& config,
    const CollectiveFamily& collectives, const AttentionKernels& kernels) {
  SP_RETURN_IF_ERROR(
      CheckShardedSequence(comm, "all_gather_kv", config, comm.size()));
  const auto runs = RunsOfRanks(config.LayoutOver(comm.size()));
  StatusOr<PartialAttention> attention = PartialAttention::Create(
      {.sequences = config.sequences,
       .queries = LongestRun(runs),
       .keys = config.tokens,
       .heads = config.heads,
       .kv_heads = config.kv_heads,
       .heads_per_kv = config.heads_per_kv(),
       .head_dim = config.head_dim,
       .scale = config.Scale(),
       .dtype = config.dtype,
       .backward = config.backward},
      config.visibility, runs[static_cast<size_t>(comm.rank())], kernels);
  SP_RETURN_IF_ERROR(AgreeOnStatus(comm, attention.status()));
  auto state =
      std::make_shared<State>(comm, config, collectives, *std::move(attention));
  SP_RETURN_IF_ERROR(AgreeOnStatus(comm, state->Allocate()));
  return AllGatherKvAttention(std::move(state));
}

Status AllGatherKvAttention::Forward(const AttentionForwardArgs& args,
                                     const Stream& stream) const {
  return stream.Run([state = state_, args] { return state->Forward(args); });
}

Status AllGatherKvAttention::Backward(const AttentionBackwardArgs& args,
                                      const Stream& stream) const {
  return stream.Run([state = state_, args] { return state->Backward(args); });
}

int64_t AllGatherKvAttention::local_tokens() const { return state_->tokens(); }
int64_t AllGatherKvAttention::working_bytes() const {
  return state_->working_bytes();
}

Cost AllGatherKvForwardCost(int ranks, const ShardedAttentionConfig& config,
                            const CollectiveFamily& collectives) {
  if (ranks == 1) return {};
  const std::vector<int64_t> counts =
      PackedCounts(RunsOfRanks(config.LayoutOver(ranks)), config);
  // What is sent lies in memory of the communicator.
  return collectives.all_gather_cost(counts, config.dtype, Memory::kShared);
}

Cost AllGatherKvBackwardCost(int ranks, const ShardedAttentionConfig& config,
                             const CollectiveFamily& collectives) {
  if (ranks == 1) return {};
  const std::vector<int64_t> counts =
      PackedCounts(RunsOfRanks(config.LayoutOver(ranks)), config);
  return AllGatherKvForwardCost(ranks, config, collectives) +
         collectives.reduce_scatter_cost(counts, Accumulator(config.dtype),
                                         Memory::kShared);
}

}  // namespace shardproof
