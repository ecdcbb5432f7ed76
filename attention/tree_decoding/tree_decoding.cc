#include "attention/tree_decoding/tree_decoding.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

#include "attention/sharded/partial_attention.h"
#include "collectives/patterns/fold.h"
#include "layers/kernels/convert.h"
#include "layers/tensor_parallel/agree.h"
#include "layers/tensor_parallel/parallel_region.h"

namespace shardproof {
namespace {

constexpr const char* kScheme = "tree-decoding";

// Rows of O, each with an lse: (sequence, query, head).
int64_t RowsOf(const ShardedAttentionConfig& config, int64_t queries) {
  return config.sequences * queries * config.heads;
}

Status CheckDecoding(const Communicator& comm,
                     const ShardedAttentionConfig& config, int64_t queries,
                     TreeCombine combine) {
  SP_RETURN_IF_ERROR(CheckShardedSequence(comm, kScheme, config, comm.size()));
  SP_RETURN_IF_ERROR(AgreeOnLayer(
      comm, fmt::format("tree decoding of {} queries, combined by {}", queries,
                        combine == TreeCombine::kDoubling ? "doubling"
                                                          : "all_reduce")));
  if (queries < 0 || queries > config.tokens) {
    return InvalidArgument("{} queries are not among the tokens", queries)
        .WithContext(Describe(kScheme, config));
  }
  if (config.backward) {
    return InvalidArgument(
               "decoding has no backward pass; set `backward` to false")
        .WithContext(Describe(kScheme, config));
  }
  return OkStatus();
}

}  // namespace

class TreeDecoding::State {
 public:
  State(const Communicator& comm, const ShardedAttentionConfig& config,
        int64_t queries, TreeCombine combine,
        const CollectiveFamily& collectives, const AttentionKernels& kernels,
        PartialAttention attention)
      : comm_(comm),
        config_(config),
        queries_(queries),
        combine_(combine),
        collectives_(collectives),
        kernels_(kernels),
        runs_(RunsOfRanks(
            config.LayoutOver(comm.size()))[static_cast<size_t>(comm.rank())]),
        present_(runs_),
        attention_(std::move(attention)),
        wide_(Accumulator(config.dtype)) {}

  Status Allocate();
  Status Forward(const AttentionForwardArgs& args, int64_t position);

  int64_t tokens() const { return CountTokens(runs_); }
  int64_t working_bytes() const {
    return attention_.working_bytes() +
           static_cast<int64_t>(own_.bytes() + other_.bytes());
  }

 private:
  // Of the rank's keys, those that are there when the queries end before `end`.
  std::span<const TokenRun> KeysBefore(int64_t end);
  int64_t rows() const { return RowsOf(config_, queries_); }
  // Numbers of O, and of a block: O and lse.
  int64_t o_count() const { return rows() * config_.head_dim; }
  int64_t count() const { return o_count() + rows(); }
  size_t Bytes(int64_t n) const {
    return static_cast<size_t>(n * SizeOf(wide_));
  }
  std::byte* LseOf(std::byte* block) const { return block + Bytes(o_count()); }

  // `block` becomes what it is together with `with`.
  Status Merge(std::byte* block, std::byte* with) const;
  Status CombineByDoubling();
  Status CombineByAllReduce();
  // exp(lse - top) for each lse, and O times that; and what the sums of these
  // make of O and lse.
  template <typename T>
  void Weigh(const T* top, T* o, T* lse) const;
  template <typename T>
  void Normalise(const T* top, T* o, T* lse) const;
  // Calls f(number of the lse, row of O).
  template <class F>
  void EachRow(const F& f) const;

  Communicator comm_;
  ShardedAttentionConfig config_;
  int64_t queries_;
  TreeCombine combine_;
  CollectiveFamily collectives_;
  AttentionKernels kernels_;
  std::vector<TokenRun> runs_, present_;
  PartialAttention attention_;
  DType wide_;
  Buffer own_;                   // A block: O [S, T, H, d], lse [S, H, T].
  Buffer other_;                 // Another one, or the largest lse.
  std::byte* mine_ = nullptr;    // Which of both holds this rank's block,
  std::byte* theirs_ = nullptr;  // and which comes from another.
};

Status TreeDecoding::State::Allocate() {
  SP_ASSIGN_OR_RETURN(own_, comm_.Allocate(Bytes(count())));
  if (comm_.size() == 1) return OkStatus();
  const bool doubling = combine_ == TreeCombine::kDoubling;
  SP_ASSIGN_OR_RETURN(other_,
                      comm_.Allocate(Bytes(doubling ? count() : rows())));
  return OkStatus();
}

// Unseen keys may share a tile with seen ones, and then their values are
// multiplied by 0, which is not enough for memory that nobody has written to.
std::span<const TokenRun> TreeDecoding::State::KeysBefore(int64_t end) {
  if (!config_.visibility.causal) return runs_;
  for (size_t i = 0; i < runs_.size(); ++i) {
    const TokenRun& run = runs_[i];
    const int64_t before = (end - run.offset + run.stride - 1) / run.stride;
    present_[i].count = std::clamp<int64_t>(before, 0, run.count);
  }
  return present_;
}

Status TreeDecoding::State::Merge(std::byte* block, std::byte* with) const {
  const int64_t width = config_.heads * config_.head_dim;
  return kernels_.merge(Stream::Inline(), {.dtype = wide_,
                                           .sequences = config_.sequences,
                                           .queries = queries_,
                                           .heads = config_.heads,
                                           .head_dim = config_.head_dim,
                                           .o = {block, width},
                                           .lse = {LseOf(block)},
                                           .o_b = {with, width},
                                           .lse_b = {LseOf(with)}});
}

Status TreeDecoding::State::CombineByDoubling() {
  const OpScope op(
      comm_,
      {.label = "tree_decoding/doubling", .dtype = wide_, .count = count()});
  SP_RETURN_IF_ERROR(op.status());
  const Fold fold(comm_.size());
  const int rank = comm_.rank(), beside = rank ^ 1;
  const size_t bytes = Bytes(count());
  if (fold.FoldsAway(rank)) {
    SP_RETURN_IF_ERROR(comm_.Send(mine_, bytes, beside));
    return comm_.Recv(mine_, bytes, beside);
  }
  if (fold.InPair(rank)) {
    SP_RETURN_IF_ERROR(comm_.Recv(theirs_, bytes, beside));
    SP_RETURN_IF_ERROR(Merge(mine_, theirs_));
  }
  const int member = fold.MemberOf(rank);
  for (int mask = 1; mask < fold.power(); mask *= 2) {
    const int partner = fold.RankOf(member ^ mask);
    SP_RETURN_IF_ERROR(
        comm_.SendRecv(mine_, bytes, partner, theirs_, bytes, partner));
    // In the same order on both sides: a merge rounds otherwise the other way
    // round.
    if ((member & mask) != 0) std::swap(mine_, theirs_);
    SP_RETURN_IF_ERROR(Merge(mine_, theirs_));
  }
  if (!fold.InPair(rank)) return OkStatus();
  return comm_.Send(mine_, bytes, beside);
}

template <class F>
void TreeDecoding::State::EachRow(const F& f) const {
  for (int64_t s = 0; s < config_.sequences; ++s) {
    for (int64_t h = 0; h < config_.heads; ++h) {
      for (int64_t t = 0; t < queries_; ++t) {
        f((s * config_.heads + h) * queries_ + t,
          (s * queries_ + t) * config_.heads + h);
      }
    }
  }
}

template <typename T>
void TreeDecoding::State::Weigh(const T* top, T* o, T* lse) const {
  const int64_t d = config_.head_dim;
  EachRow([&](int64_t i, int64_t row) {
    // -inf less -inf is no number.
    const bool seen = lse[i] != -std::numeric_limits<T>::infinity();
    lse[i] = seen ? std::exp(lse[i] - top[i]) : T{0};
    for (int64_t e = 0; e < d; ++e) o[row * d + e] *= lse[i];
  });
}

template <typename T>
void TreeDecoding::State::Normalise(const T* top, T* o, T* lse) const {
  const int64_t d = config_.head_dim;
  EachRow([&](int64_t i, int64_t row) {
    const T sum = lse[i];
    lse[i] = top[i];
    // Of what nobody sees, -inf.
    if (sum == 0) return;
    for (int64_t e = 0; e < d; ++e) o[row * d + e] /= sum;
    lse[i] += std::log(sum);
  });
}

Status TreeDecoding::State::CombineByAllReduce() {
  void* const top = other_.data();
  std::memcpy(top, LseOf(mine_), Bytes(rows()));
  SP_RETURN_IF_ERROR(collectives_.all_reduce(comm_, {.send = top,
                                                     .recv = top,
                                                     .count = rows(),
                                                     .dtype = wide_,
                                                     .op = ReduceOp::kMax}));
  const auto with_type = [&](const auto& f) {
    Visit(wide_, [&]<typename T>(TypeTag<T>) {
      if constexpr (std::is_floating_point_v<T>) {
        f(static_cast<const T*>(top), reinterpret_cast<T*>(mine_),
          reinterpret_cast<T*>(LseOf(mine_)));
      }
    });
  };
  // The same sums come of any number in the place of the largest, until one
  // overflows: that it is the largest is checked, behind the last message.
  bool largest = true;
  with_type([&](auto* t, auto* o, auto* lse) {
    for (int64_t i = 0; i < rows(); ++i) largest = largest && !(t[i] < lse[i]);
    Weigh(t, o, lse);
  });
  SP_RETURN_IF_ERROR(collectives_.all_reduce(
      comm_, {.send = mine_, .recv = mine_, .count = count(), .dtype = wide_}));
  with_type([&](auto* t, auto* o, auto* lse) {
    for (int64_t i = 0; i < rows(); ++i) {
      // The rank that has the largest adds exp(0).
      largest = largest && !(std::isfinite(t[i]) && lse[i] < 1);
    }
    Normalise(t, o, lse);
  });
  if (largest) return OkStatus();
  return Internal(
      "tree decoding: what came for the largest lse of all ranks is not; data "
      "were damaged on the way");
}

Status TreeDecoding::State::Forward(const AttentionForwardArgs& args,
                                    int64_t position) {
  if (position < 0 || position > config_.tokens - queries_) {
    return InvalidArgument("queries at {} .. {} are not among the {} tokens",
                           position, position + queries_ - 1, config_.tokens);
  }
  if (count() == 0) return OkStatus();
  mine_ = own_.data();
  theirs_ = other_.data();
  attention_.MoveQueries(position);
  SP_RETURN_IF_ERROR(attention_.BeginPartial(args.q, mine_, LseOf(mine_)));
  SP_RETURN_IF_ERROR(attention_.Add({.runs = KeysBefore(position + queries_),
                                     .k = args.k,
                                     .v = args.v,
                                     .capacity = tokens()}));
  SP_RETURN_IF_ERROR(attention_.Finish());
  if (comm_.size() > 1) {
    SP_RETURN_IF_ERROR(combine_ == TreeCombine::kDoubling
                           ? CombineByDoubling()
                           : CombineByAllReduce());
  }
  std::memcpy(args.lse, LseOf(mine_), Bytes(rows()));
  if (wide_ == config_.dtype) {
    std::memcpy(args.o, mine_, Bytes(o_count()));
  } else {
    kernels::Narrow(config_.dtype, reinterpret_cast<const float*>(mine_),
                    nullptr, o_count(), args.o);
  }
  return OkStatus();
}

TreeDecoding::TreeDecoding(std::shared_ptr<State> state)
    : state_(std::move(state)) {}

StatusOr<TreeDecoding> TreeDecoding::Create(
    const Communicator& comm, const ShardedAttentionConfig& config,
    int64_t queries, TreeCombine combine, const CollectiveFamily& collectives,
    const AttentionKernels& kernels) {
  SP_RETURN_IF_ERROR(CheckDecoding(comm, config, queries, combine));
  StatusOr<PartialAttention> attention = PartialAttention::Create(
      {.sequences = config.sequences,
       .queries = queries,
       .keys = LongestRun(RunsOfRanks(config.LayoutOver(comm.size()))),
       .heads = config.heads,
       .kv_heads = config.kv_heads,
       .heads_per_kv = config.heads_per_kv(),
       .head_dim = config.head_dim,
       .scale = config.Scale(),
       .dtype = config.dtype,
       .backward = false},
      config.visibility, {TokenRun{.count = queries}}, kernels);
  SP_RETURN_IF_ERROR(AgreeOnStatus(comm, attention.status()));
  auto state =
      std::make_shared<State>(comm, config, queries, combine, collectives,
                              kernels, *std::move(attention));
  SP_RETURN_IF_ERROR(AgreeOnStatus(comm, state->Allocate()));
  return TreeDecoding(std::move(state));
}

Status TreeDecoding::Forward(const AttentionForwardArgs& args, int64_t position,
                             const Stream& stream) const {
  return stream.Run([state = state_, args, position] {
    return state->Forward(args, position);
  });
}

int64_t TreeDecoding::local_tokens() const { return state_->tokens(); }
int64_t TreeDecoding::working_bytes() const { return state_->working_bytes(); }

Cost TreeDecodingCost(int ranks, const ShardedAttentionConfig& config,
                      int64_t queries, TreeCombine combine,
                      const CollectiveFamily& collectives) {
  const DType wide = Accumulator(config.dtype);
  const int64_t rows = RowsOf(config, queries);
  const int64_t count = rows * (config.head_dim + 1);
  Cost cost;
  if (ranks == 1 || count == 0) return cost;
  if (combine == TreeCombine::kAllReduce) {
    // What is sent lies in memory of the communicator.
    return collectives.all_reduce_cost(ranks, rows, wide, Memory::kShared) +
           collectives.all_reduce_cost(ranks, count, wide, Memory::kShared);
  }
  const Fold fold(ranks);
  const int64_t bytes = count * SizeOf(wide);
  int64_t steps = 0;
  for (int mask = 1; mask < fold.power(); mask *= 2) ++steps;
  const int64_t messages = steps * fold.power() + 2 * fold.excess();
  cost.total = {.bytes = messages * bytes, .messages = messages};
  const bool folds = fold.excess() > 0;
  cost.alpha_count = static_cast<double>(steps + (folds ? 2 : 0));
  cost.beta_bytes = cost.alpha_count * static_cast<double>(bytes);
  cost.gamma_bytes = static_cast<double>((steps + (folds ? 1 : 0)) * bytes);
  return cost;
}

int64_t TreeDecodingMerges(int ranks, const ShardedAttentionConfig& config) {
  const int64_t runs = config.layout == SequenceLayout::kZigzag ? 2 : 1;
  return ranks * runs - 1;
}

}  // namespace shardproof
