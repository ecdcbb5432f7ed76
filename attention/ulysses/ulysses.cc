#include "attention/ulysses/ulysses.h"

#include <cstring>
#include <utility>
#include <vector>

#include "attention/layout/layout.h"
#include "attention/sharded/head_exchange.h"
#include "attention/sharded/rounding.h"
#include "layers/tensor_parallel/agree.h"
#include "reference/tensor.h"

namespace shardproof {
namespace {

HeadExchangeShape ExchangeOf(int ranks, const ShardedAttentionConfig& config) {
  return {.sequences = config.sequences,
          .heads = config.heads,
          .kv_heads = config.kv_heads,
          .head_dim = config.head_dim,
          .dtype = config.dtype,
          .backward = config.backward,
          .rows = RunsOfRanks(config.LayoutOver(ranks))};
}

void Clear(void* data, int64_t bytes) {
  if (bytes > 0) std::memset(data, 0, static_cast<size_t>(bytes));
}

}  // namespace

// The kernel is called with the whole sequence as one block: a PartialAttention
// would keep O in the accumulator's type for merges that there are not.
class UlyssesAttention::State {
 public:
  State(const Communicator& comm, const ShardedAttentionConfig& config,
        const AttentionKernels& kernels, HeadExchange exchange)
      : comm_(comm),
        config_(config),
        kernels_(kernels),
        wide_(Accumulator(config.dtype)),
        whole_({.count = config.tokens}),
        exchange_(std::move(exchange)),
        own_(exchange_.own()) {}

  Status Allocate();
  Status Forward(const AttentionForwardArgs& args);
  Status Backward(const AttentionBackwardArgs& args);

  Status CheckBackward() const {
    if (config_.backward) return OkStatus();
    return InvalidArgument("{} was created to go forward only",
                           Describe("ulysses", config_));
  }
  int64_t tokens() const { return tokens_; }
  int64_t working_bytes() const {
    return exchange_.working_bytes() + flash_->working_bytes() +
           delta_.num_bytes() + dq_.num_bytes();
  }

 private:
  // Elements of a token of q, and of k.
  int64_t q_width() const { return own_.heads.count * config_.head_dim; }
  int64_t k_width() const { return own_.kv_heads.count * config_.head_dim; }
  FlashBlock Whole() const { return {whole_, whole_, &config_.visibility}; }
  Status Compute(const AttentionForwardArgs& mine);
  Status ComputeGradients(const AttentionBackwardArgs& mine);

  Communicator comm_;
  ShardedAttentionConfig config_;
  AttentionKernels kernels_;
  DType wide_;
  TokenRun whole_;
  HeadExchange exchange_;
  HeadShare own_;
  int64_t tokens_ = 0;
  std::unique_ptr<FlashAttention> flash_;
  Tensor delta_, dq_;  // Of the accumulator's type.
};

Status UlyssesAttention::State::Allocate() {
  const ShardedAttentionConfig& c = config_;
  SP_ASSIGN_OR_RETURN(const std::vector<TokenRun> runs,
                      RunsOf(c.LayoutOver(comm_.size()), comm_.rank()));
  tokens_ = CountTokens(runs);
  SP_ASSIGN_OR_RETURN(
      flash_,
      kernels_.flash({.sequences = c.sequences,
                      .queries = c.tokens,
                      .keys = c.tokens,
                      .heads = own_.heads.count,
                      .kv_heads = own_.kv_heads.count,
                      .heads_per_kv = c.heads_per_kv(),
                      .first_in_group = own_.heads.begin % c.heads_per_kv(),
                      .head_dim = c.head_dim,
                      .scale = c.Scale(),
                      .dtype = c.dtype,
                      .backward = c.backward}));
  if (!c.backward) return OkStatus();
  const int64_t rows = c.sequences * own_.heads.count;
  SP_ASSIGN_OR_RETURN(delta_, Tensor::Create(wide_, {rows, c.tokens}));
  SP_ASSIGN_OR_RETURN(
      dq_, Tensor::Create(wide_, {c.sequences * c.tokens, q_width()}));
  return OkStatus();
}

Status UlyssesAttention::State::Compute(const AttentionForwardArgs& mine) {
  return flash_->Forward(Stream::Inline(), {.block = Whole(),
                                            .q = {mine.q, q_width()},
                                            .k = {mine.k, k_width()},
                                            .v = {mine.v, k_width()},
                                            .o = {mine.o, q_width()},
                                            .o_type = config_.dtype,
                                            .lse = {mine.lse}});
}

Status UlyssesAttention::State::Forward(const AttentionForwardArgs& args) {
  const OpScope op(comm_, {.label = "ulysses_attention/forward",
                           .dtype = config_.dtype,
                           .count = config_.sequences * tokens_ *
                                    config_.heads * config_.head_dim});
  SP_RETURN_IF_ERROR(op.status());
  SP_ASSIGN_OR_RETURN(const AttentionForwardArgs mine, exchange_.ToHeads(args));
  SP_RETURN_IF_ERROR(Compute(mine));
  return exchange_.ToTokens(args);
}

Status UlyssesAttention::State::ComputeGradients(
    const AttentionBackwardArgs& mine) {
  SP_RETURN_IF_ERROR(
      kernels_.delta(Stream::Inline(), {.dtype = config_.dtype,
                                        .o_type = config_.dtype,
                                        .sequences = config_.sequences,
                                        .queries = config_.tokens,
                                        .heads = own_.heads.count,
                                        .head_dim = config_.head_dim,
                                        .d_o = {mine.d_o, q_width()},
                                        .o = {mine.o, q_width()},
                                        .delta = {delta_.raw()}}));
  const int64_t of_keys =
      config_.sequences * config_.tokens * k_width() * SizeOf(wide_);
  Clear(dq_.raw(), dq_.num_bytes());
  Clear(mine.dk, of_keys);
  Clear(mine.dv, of_keys);
  SP_RETURN_IF_ERROR(
      flash_->Backward(Stream::Inline(), {.block = Whole(),
                                          .q = {mine.q, q_width()},
                                          .k = {mine.k, k_width()},
                                          .v = {mine.v, k_width()},
                                          .d_o = {mine.d_o, q_width()},
                                          .lse = {mine.lse},
                                          .delta = {delta_.raw()},
                                          .dq = {dq_.raw(), q_width()},
                                          .dk = {mine.dk, k_width()},
                                          .dv = {mine.dv, k_width()}}));
  RoundTo(config_.dtype, dq_.raw(), dq_.num_elements(), mine.dq);
  return OkStatus();
}

Status UlyssesAttention::State::Backward(const AttentionBackwardArgs& args) {
  const OpScope op(comm_, {.label = "ulysses_attention/backward",
                           .dtype = config_.dtype,
                           .count = config_.sequences * tokens_ *
                                    config_.heads * config_.head_dim});
  SP_RETURN_IF_ERROR(op.status());
  SP_ASSIGN_OR_RETURN(const AttentionBackwardArgs mine,
                      exchange_.GradientsToHeads(args));
  SP_RETURN_IF_ERROR(ComputeGradients(mine));
  return exchange_.GradientsToTokens(args);
}

UlyssesAttention::UlyssesAttention(std::shared_ptr<State> state)
    : state_(std::move(state)) {}

StatusOr<UlyssesAttention> UlyssesAttention::Create(
    const Communicator& comm, const ShardedAttentionConfig& config,
    const CollectiveFamily& collectives, const AttentionKernels& kernels) {
  SP_RETURN_IF_ERROR(
      CheckShardedSequence(comm, "ulysses", config, comm.size()));
  if (config.heads < comm.size()) {
    return InvalidArgument(
        "{}: a head is computed by one rank, and there are {} ranks; use at "
        "most as many as heads, or a ring of groups of them",
        Describe("ulysses", config), comm.size());
  }
  StatusOr<HeadExchange> exchange =
      HeadExchange::Create(comm, ExchangeOf(comm.size(), config), collectives);
  SP_RETURN_IF_ERROR(AgreeOnStatus(comm, exchange.status()));
  auto state =
      std::make_shared<State>(comm, config, kernels, *std::move(exchange));
  SP_RETURN_IF_ERROR(AgreeOnStatus(comm, state->Allocate()));
  return UlyssesAttention(std::move(state));
}

Status UlyssesAttention::Forward(const AttentionForwardArgs& args,
                                 const Stream& stream) const {
  return stream.Run([state = state_, args] { return state->Forward(args); });
}

Status UlyssesAttention::Backward(const AttentionBackwardArgs& args,
                                  const Stream& stream) const {
  SP_RETURN_IF_ERROR(state_->CheckBackward());
  return stream.Run([state = state_, args] { return state->Backward(args); });
}

int64_t UlyssesAttention::local_tokens() const { return state_->tokens(); }
int64_t UlyssesAttention::working_bytes() const {
  return state_->working_bytes();
}

Cost UlyssesForwardCost(int ranks, const ShardedAttentionConfig& config,
                        const CollectiveFamily& collectives) {
  return HeadExchangeForwardCost(ExchangeOf(ranks, config), collectives);
}

Cost UlyssesBackwardCost(int ranks, const ShardedAttentionConfig& config,
                         const CollectiveFamily& collectives) {
  return HeadExchangeBackwardCost(ExchangeOf(ranks, config), collectives);
}

}  // namespace shardproof
