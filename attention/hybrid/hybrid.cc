#include "attention/hybrid/hybrid.h"

#include <fmt/format.h>

#include <algorithm>
#include <string>
#include <utility>

#include "attention/layout/layout.h"
#include "attention/sharded/head_exchange.h"
#include "collectives/chunks.h"
#include "collectives/mesh.h"
#include "layers/attention_block/head_share.h"
#include "layers/tensor_parallel/agree.h"

namespace shardproof {
namespace {

std::string NameOf(const HybridConfig& config) {
  return fmt::format("hybrid (groups of {})", config.ulysses);
}

Status CheckGroups(const HybridConfig& config, int ranks) {
  if (config.ulysses >= 1 && ranks % config.ulysses == 0) return OkStatus();
  return InvalidArgument("{} ranks are not groups of {}", ranks,
                         config.ulysses);
}

Status Check(const Communicator& comm, const HybridConfig& config) {
  const ShardedAttentionConfig& c = config.attention;
  SP_RETURN_IF_ERROR(CheckShardedAttention(comm, NameOf(config), c));
  const std::string text = Describe(NameOf(config), c);
  SP_RETURN_IF_ERROR(CheckGroups(config, comm.size()).WithContext(text));
  if (c.heads < config.ulysses) {
    return InvalidArgument(
        "{}: a head is computed by one rank of a group; make groups of at most "
        "as many ranks as heads",
        text);
  }
  return CheckLayout(c.LayoutOver(comm.size() / config.ulysses))
      .WithContext(text);
}

// `rows` of what `runs` has.
std::vector<TokenRun> Piece(const std::vector<TokenRun>& runs,
                            const Chunk& rows) {
  std::vector<TokenRun> piece;
  int64_t row = 0;  // Of the run's first token.
  for (const TokenRun& run : runs) {
    const int64_t begin = std::max<int64_t>(rows.begin - row, 0);
    const int64_t end = std::min(rows.begin + rows.count - row, run.count);
    if (begin < end) {
      piece.push_back({.offset = run.Position(begin),
                       .stride = run.stride,
                       .count = end - begin});
    }
    row += run.count;
  }
  return piece;
}

// Of a group with `tokens`.
HeadExchangeShape ExchangeOf(const HybridConfig& config, int64_t tokens) {
  const ShardedAttentionConfig& c = config.attention;
  HeadExchangeShape shape = {.sequences = c.sequences,
                             .heads = c.heads,
                             .kv_heads = c.kv_heads,
                             .head_dim = c.head_dim,
                             .dtype = c.dtype,
                             .backward = c.backward};
  for (int u = 0; u < config.ulysses; ++u) {
    const Chunk piece = BalancedChunk(tokens, config.ulysses, u);
    shape.rows.push_back({{.offset = piece.begin, .count = piece.count}});
  }
  return shape;
}

// Of the ranks that are number `u` of their groups.
RotationConfig RotationOf(const HybridConfig& config, int ranks, int u,
                          RingMode mode) {
  const ShardedAttentionConfig& c = config.attention;
  RotationConfig rotation = RotationOver(ranks / config.ulysses, c, mode);
  const HeadShare own = HeadShare::Of(c.heads, c.kv_heads, config.ulysses, u);
  rotation.shape.heads = own.heads.count;
  rotation.shape.kv_heads = own.kv_heads.count;
  rotation.shape.first_in_group = own.heads.begin % c.heads_per_kv();
  rotation.wide_gradients = true;
  return rotation;
}

}  // namespace

StatusOr<std::vector<TokenRun>> HybridRunsOf(const HybridConfig& config,
                                             int ranks, int rank) {
  SP_RETURN_IF_ERROR(CheckGroups(config, ranks));
  const int u = config.ulysses;
  SP_ASSIGN_OR_RETURN(const std::vector<TokenRun> runs,
                      RunsOf(config.attention.LayoutOver(ranks / u), rank / u));
  return Piece(runs, BalancedChunk(CountTokens(runs), u, rank % u));
}

class HybridAttention::State {
 public:
  State(const Communicator& comm, const HybridConfig& config,
        HeadExchange exchange, RotatingAttention rotation)
      : comm_(comm),
        config_(config),
        exchange_(std::move(exchange)),
        rotation_(std::move(rotation)),
        tokens_(BalancedChunk(rotation_.local_tokens(), config.ulysses,
                              comm.rank() % config.ulysses)
                    .count) {}

  Status Forward(const AttentionForwardArgs& args);
  Status Backward(const AttentionBackwardArgs& args);

  Status CheckBackward() const {
    if (config_.attention.backward) return OkStatus();
    return InvalidArgument("{} was created to go forward only",
                           Describe(NameOf(config_), config_.attention));
  }
  int64_t tokens() const { return tokens_; }
  int64_t working_bytes() const {
    return exchange_.working_bytes() + rotation_.working_bytes();
  }

 private:
  // Elements of a rank's queries.
  int64_t count() const {
    const ShardedAttentionConfig& c = config_.attention;
    return c.sequences * tokens_ * c.heads * c.head_dim;
  }

  Communicator comm_;
  HybridConfig config_;
  HeadExchange exchange_;
  RotatingAttention rotation_;
  int64_t tokens_;
};

Status HybridAttention::State::Forward(const AttentionForwardArgs& args) {
  const OpScope op(comm_, {.label = "hybrid_attention/forward",
                           .dtype = config_.attention.dtype,
                           .count = count()});
  SP_RETURN_IF_ERROR(op.status());
  SP_ASSIGN_OR_RETURN(const AttentionForwardArgs mine, exchange_.ToHeads(args));
  SP_RETURN_IF_ERROR(rotation_.Forward(mine));
  return exchange_.ToTokens(args);
}

Status HybridAttention::State::Backward(const AttentionBackwardArgs& args) {
  const OpScope op(comm_, {.label = "hybrid_attention/backward",
                           .dtype = config_.attention.dtype,
                           .count = count()});
  SP_RETURN_IF_ERROR(op.status());
  SP_ASSIGN_OR_RETURN(const AttentionBackwardArgs mine,
                      exchange_.GradientsToHeads(args));
  SP_RETURN_IF_ERROR(rotation_.Backward(mine));
  return exchange_.GradientsToTokens(args);
}

HybridAttention::HybridAttention(std::shared_ptr<State> state)
    : state_(std::move(state)) {}

StatusOr<HybridAttention> HybridAttention::Create(
    const Communicator& comm, const HybridConfig& config, RingMode mode,
    const CollectiveFamily& collectives, const AttentionKernels& kernels) {
  SP_RETURN_IF_ERROR(Check(comm, config));
  const int ranks = comm.size(), u = config.ulysses;
  SP_ASSIGN_OR_RETURN(const Mesh mesh,
                      Mesh::Create(comm, {{"group", u}, {"ring", ranks / u}}));
  const RotationConfig rotates =
      RotationOf(config, ranks, comm.rank() % u, mode);
  const int64_t tokens =
      CountTokens(rotates.runs[static_cast<size_t>(comm.rank() / u)]);
  StatusOr<HeadExchange> exchange = HeadExchange::Create(
      mesh.Along("group"), ExchangeOf(config, tokens), collectives);
  SP_RETURN_IF_ERROR(AgreeOnStatus(comm, exchange.status()));
  StatusOr<RotatingAttention> rotation =
      RotatingAttention::Create(mesh.Along("ring"), rotates, kernels);
  SP_RETURN_IF_ERROR(AgreeOnStatus(comm, rotation.status()));
  return HybridAttention(std::make_shared<State>(
      comm, config, *std::move(exchange), *std::move(rotation)));
}

Status HybridAttention::Forward(const AttentionForwardArgs& args,
                                const Stream& stream) const {
  return stream.Run([state = state_, args] { return state->Forward(args); });
}

Status HybridAttention::Backward(const AttentionBackwardArgs& args,
                                 const Stream& stream) const {
  SP_RETURN_IF_ERROR(state_->CheckBackward());
  return stream.Run([state = state_, args] { return state->Backward(args); });
}

int64_t HybridAttention::local_tokens() const { return state_->tokens(); }
int64_t HybridAttention::working_bytes() const {
  return state_->working_bytes();
}

namespace {

// At the same time on different ranks.
void Beside(Cost& all, const Cost& one) {
  all.alpha_count = std::max(all.alpha_count, one.alpha_count);
  all.beta_bytes = std::max(all.beta_bytes, one.beta_bytes);
  all.gamma_bytes = std::max(all.gamma_bytes, one.gamma_bytes);
  all.total += one.total;
}

template <class ExchangeCost, class RotationCost>
Cost PassCost(int ranks, const HybridConfig& config,
              const ExchangeCost& exchange_cost,
              const RotationCost& rotation_cost) {
  Cost exchanges, rotations;
  for (int u = 0; u < config.ulysses; ++u) {
    Beside(rotations,
           rotation_cost(RotationOf(config, ranks, u, RingMode::kOverlapped)));
  }
  const auto groups =
      RunsOfRanks(config.attention.LayoutOver(ranks / config.ulysses));
  for (const std::vector<TokenRun>& runs : groups) {
    Beside(exchanges, exchange_cost(ExchangeOf(config, CountTokens(runs))));
  }
  return exchanges + rotations;
}

}  // namespace

Cost HybridForwardCost(int ranks, const HybridConfig& config,
                       const CollectiveFamily& collectives) {
  return PassCost(
      ranks, config,
      [&](const HeadExchangeShape& shape) {
        return HeadExchangeForwardCost(shape, collectives);
      },
      RotationForwardCost);
}

Cost HybridBackwardCost(int ranks, const HybridConfig& config,
                        const CollectiveFamily& collectives) {
  return PassCost(
      ranks, config,
      [&](const HeadExchangeShape& shape) {
        return HeadExchangeBackwardCost(shape, collectives);
      },
      RotationBackwardCost);
}

int64_t HybridMerges(int ranks, const HybridConfig& config) {
  return RotationMerges(RotationOf(config, ranks, 0, RingMode::kOverlapped));
}

}  // namespace shardproof
