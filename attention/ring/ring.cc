#include "attention/ring/ring.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <ctime>
#include <utility>
#include <vector>

#include "attention/sharded/partial_attention.h"
#include "collectives/chunks.h"
#include "collectives/kernels/reduce.h"
#include "layers/kernels/convert.h"
#include "layers/overlap/message_thread.h"
#include "layers/tensor_parallel/agree.h"

namespace shardproof {
namespace {

using Clock = std::chrono::steady_clock;

double Since(Clock::time_point begin) {
  return std::chrono::duration<double>(Clock::now() - begin).count();
}

// Of this thread: what it computes while others have the core does not count.
double ProcessorSeconds() {
  timespec t = {};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

enum Tag { kKeys = 0, kValues = 1, kKeyGradients = 2, kValueGradients = 3 };

}  // namespace

class RingAttention::State {
 public:
  State(const Communicator& comm, const ShardedAttentionConfig& config,
        RingMode mode, PartialAttention attention)
      : comm_(comm),
        config_(config),
        mode_(mode),
        runs_(RunsOfRanks(config.LayoutOver(comm.size()))),
        attention_(std::move(attention)),
        wide_(Accumulator(config.dtype)),
        steps_(static_cast<size_t>(comm.size())) {}

  Status Allocate();
  Status StartThread();
  Status Forward(const AttentionForwardArgs& args);
  Status Backward(const AttentionBackwardArgs& args);

  int64_t tokens() const { return attention_.tokens(); }
  int64_t working_bytes() const;
  std::span<const RingStep> steps() const { return steps_; }

 private:
  // A message to the next rank and one from the rank before, under way.
  struct Pending {
    std::array<Request, 2> requests;
    int64_t number = -1;  // Of the thread's message.
    bool started = false;
  };
  // Keys and values, or their gradients, on their way.
  struct Block {
    std::byte* k = nullptr;
    std::byte* v = nullptr;
  };
  struct Held {
    const void* k = nullptr;
    const void* v = nullptr;
  };

  int ranks() const { return comm_.size(); }
  // The rank whose keys this one has in step t.
  int SourceOf(int t) const {
    return (comm_.rank() + ranks() - t % ranks()) % ranks();
  }
  // Elements of the keys of a rank.
  int64_t CountOf(int rank) const {
    return config_.sequences * CountTokens(runs_[static_cast<size_t>(rank)]) *
           config_.kv_heads * config_.head_dim;
  }
  KeyPart PartOf(int source, const Held& held) const {
    return {runs_[static_cast<size_t>(source)], held.k, held.v};
  }
  static Block Whole(const Buffer& buffer) {
    return {buffer.data(), buffer.data() + buffer.bytes() / 2};
  }
  static Block Half(const Buffer& buffer, int half) {
    std::byte* const begin =
        buffer.data() + static_cast<size_t>(half) * buffer.bytes() / 2;
    return {begin, begin + buffer.bytes() / 4};
  }

  // `out_source`'s block to the next rank, and `in_source`'s from the one before.
  Status Start(DType dtype, Tag tag, const void* out, int out_source, void* in,
               int in_source, Pending& pending) const;
  Status StartBlock(DType dtype, Tag first, const Held& out, int out_source,
                    const Block& in, int in_source,
                    std::array<Pending, 2>& pending) const;
  Status Wait(std::array<Pending, 2>& pending) const;
  // The keys of step t + 1, while those of step t are computed with.
  Status StartKeys(int t, const Held& held);
  // `compute` with those of each step.
  template <class Compute>
  Status Turn(const Held& own, const Compute& compute);
  Status GradientsOf(int t, const KeyPart& part);
  Status Scope(const Status& status);

  Communicator comm_;
  ShardedAttentionConfig config_;
  RingMode mode_;
  std::vector<std::vector<TokenRun>> runs_;
  PartialAttention attention_;
  DType wide_;
  std::vector<RingStep> steps_;
  Buffer keys_;      // Two blocks: the one held, the one that comes.
  Buffer computed_;  // Two blocks of gradients: on their way, and made.
  Buffer arrived_;   // And one that comes.
  std::array<Pending, 2> keys_pending_, gradients_pending_;
  std::unique_ptr<MessageThread> thread_;
};

Status RingAttention::State::Allocate() {
  int64_t most = 0;
  for (int r = 0; r < ranks(); ++r) most = std::max(most, CountOf(r));
  const auto bytes = [&](DType dtype, int64_t blocks) {
    // Halves and quarters of whole cache lines.
    const int64_t one = (most * SizeOf(dtype) + 63) / 64 * 64;
    return static_cast<size_t>(2 * blocks * one);
  };
  if (ranks() > 1) {
    SP_ASSIGN_OR_RETURN(keys_, comm_.Allocate(bytes(config_.dtype, 2)));
  }
  if (!config_.backward) return OkStatus();
  SP_ASSIGN_OR_RETURN(computed_, comm_.Allocate(bytes(wide_, 2)));
  if (ranks() > 1) {
    SP_ASSIGN_OR_RETURN(arrived_, comm_.Allocate(bytes(wide_, 1)));
  }
  return OkStatus();
}

Status RingAttention::State::StartThread() {
  if (mode_ != RingMode::kMessageThread || ranks() == 1) return OkStatus();
  StatusOr<std::unique_ptr<MessageThread>> thread =
      MessageThread::Create(comm_, 8);
  SP_RETURN_IF_ERROR(AgreeOnStatus(comm_, thread.status()));
  thread_ = *std::move(thread);
  return OkStatus();
}

int64_t RingAttention::State::working_bytes() const {
  return attention_.working_bytes() +
         static_cast<int64_t>(keys_.bytes() + computed_.bytes() +
                              arrived_.bytes());
}

Status RingAttention::State::Start(DType dtype, Tag tag, const void* out,
                                   int out_source, void* in, int in_source,
                                   Pending& pending) const {
  const int rank = comm_.rank();
  const auto bytes = [&](int source) {
    return static_cast<size_t>(CountOf(source) * SizeOf(dtype));
  };
  const PairedMessage m = {.out = out,
                           .out_bytes = bytes(out_source),
                           .to = (rank + 1) % ranks(),
                           .in = in,
                           .in_bytes = bytes(in_source),
                           .from = (rank + ranks() - 1) % ranks(),
                           .tag = tag};
  if (thread_ != nullptr) {
    SP_ASSIGN_OR_RETURN(pending.number, thread_->Start(m));
    pending.started = true;
    return OkStatus();
  }
  SP_ASSIGN_OR_RETURN(pending.requests[0],
                      comm_.Irecv(m.in, m.in_bytes, m.from, m.tag));
  pending.started = true;
  SP_ASSIGN_OR_RETURN(pending.requests[1],
                      comm_.Isend(m.out, m.out_bytes, m.to, m.tag));
  return OkStatus();
}

Status RingAttention::State::StartBlock(DType dtype, Tag first, const Held& out,
                                        int out_source, const Block& in,
                                        int in_source,
                                        std::array<Pending, 2>& pending) const {
  SP_RETURN_IF_ERROR(
      Start(dtype, first, out.k, out_source, in.k, in_source, pending[0]));
  return Start(dtype, static_cast<Tag>(first + 1), out.v, out_source, in.v,
               in_source, pending[1]);
}

Status RingAttention::State::Wait(std::array<Pending, 2>& pending) const {
  for (Pending& p : pending) {
    if (!p.started) continue;
    p.started = false;
    if (thread_ != nullptr) {
      SP_RETURN_IF_ERROR(thread_->Wait(p.number));
    } else {
      SP_RETURN_IF_ERROR(comm_.WaitAll(p.requests));
      p.requests = {};
    }
  }
  return OkStatus();
}

Status RingAttention::State::StartKeys(int t, const Held& held) {
  if (t + 1 >= ranks()) return OkStatus();
  return StartBlock(config_.dtype, kKeys, held, SourceOf(t),
                    Half(keys_, (t + 1) % 2), SourceOf(t + 1), keys_pending_);
}

template <class Compute>
Status RingAttention::State::Turn(const Held& own, const Compute& compute) {
  Held held = own;
  for (int t = 0; t < ranks(); ++t) {
    RingStep& step = steps_[static_cast<size_t>(t)] = {};
    SP_RETURN_IF_ERROR(StartKeys(t, held));
    if (mode_ == RingMode::kInTurn) {
      const auto begin = Clock::now();
      SP_RETURN_IF_ERROR(Wait(keys_pending_));
      step.waited += Since(begin);
    }
    const double begin = ProcessorSeconds();
    SP_RETURN_IF_ERROR(compute(t, PartOf(SourceOf(t), held)));
    step.compute += ProcessorSeconds() - begin;
    const auto waits = Clock::now();
    SP_RETURN_IF_ERROR(Wait(keys_pending_));
    step.waited += Since(waits);
    const Block next = Half(keys_, (t + 1) % 2);
    held = {next.k, next.v};
  }
  return OkStatus();
}

// After an error nobody may answer any more; buffers must not be in use.
Status RingAttention::State::Scope(const Status& status) {
  if (status.ok()) return status;
  comm_.Abort(status.message());
  (void)Wait(keys_pending_);
  (void)Wait(gradients_pending_);
  return status;
}

Status RingAttention::State::Forward(const AttentionForwardArgs& args) {
  const OpScope op(comm_, {.label = "ring_attention/forward",
                           .dtype = config_.dtype,
                           .count = CountOf(comm_.rank())});
  SP_RETURN_IF_ERROR(op.status());
  SP_RETURN_IF_ERROR(attention_.Begin(args.q, args.o, args.lse));
  SP_RETURN_IF_ERROR(
      Scope(Turn({args.k, args.v}, [&](int, const KeyPart& part) {
        return attention_.Add(part);
      })));
  return attention_.Finish();
}

// What step t adds to the gradients of its keys: computed while those of the
// ranks before, which this rank adds to and sends on, arrive.
Status RingAttention::State::GradientsOf(int t, const KeyPart& part) {
  const int source = SourceOf(t);
  const int64_t count = CountOf(source);
  const Block mine = Half(computed_, t % 2), theirs = Whole(arrived_);
  const auto bytes = static_cast<size_t>(count * SizeOf(wide_));
  if (bytes > 0) {
    std::memset(mine.k, 0, bytes);
    std::memset(mine.v, 0, bytes);
  }
  SP_RETURN_IF_ERROR(attention_.AddGradients(part, mine.k, mine.v));
  if (ranks() == 1) return OkStatus();
  const auto begin = Clock::now();
  SP_RETURN_IF_ERROR(Wait(gradients_pending_));
  if (t > 0) {
    kernels::ReduceInto(wide_, ReduceOp::kSum, mine.k, theirs.k, count);
    kernels::ReduceInto(wide_, ReduceOp::kSum, mine.v, theirs.v, count);
  }
  // In place of it come those of the next step's keys, which the rank before
  // sends at the end of this one.
  SP_RETURN_IF_ERROR(StartBlock(wide_, kKeyGradients, {mine.k, mine.v}, source,
                                theirs, SourceOf(t + 1), gradients_pending_));
  if (mode_ == RingMode::kInTurn) SP_RETURN_IF_ERROR(Wait(gradients_pending_));
  steps_[static_cast<size_t>(t)].waited += Since(begin);
  return OkStatus();
}

Status RingAttention::State::Backward(const AttentionBackwardArgs& args) {
  const OpScope op(comm_, {.label = "ring_attention/backward",
                           .dtype = config_.dtype,
                           .count = CountOf(comm_.rank())});
  SP_RETURN_IF_ERROR(op.status());
  SP_RETURN_IF_ERROR(attention_.BeginBackward(args));
  SP_RETURN_IF_ERROR(Scope([&]() -> Status {
    SP_RETURN_IF_ERROR(Turn({args.k, args.v}, [&](int t, const KeyPart& part) {
      return GradientsOf(t, part);
    }));
    return Wait(gradients_pending_);
  }()));
  // The gradients of this rank's own keys, after P hops.
  const Block own = ranks() > 1 ? Whole(arrived_) : Half(computed_, 0);
  const int64_t count = CountOf(comm_.rank());
  const auto store = [&](const std::byte* from, void* to) {
    if (count == 0) return;
    if (wide_ == config_.dtype) {
      std::memcpy(to, from, static_cast<size_t>(count * SizeOf(wide_)));
    } else {
      kernels::Narrow(config_.dtype, reinterpret_cast<const float*>(from),
                      nullptr, count, to);
    }
  };
  store(own.k, args.dk);
  store(own.v, args.dv);
  return attention_.FinishBackward(args.dq);
}

RingAttention::RingAttention(std::shared_ptr<State> state)
    : state_(std::move(state)) {}

StatusOr<RingAttention> RingAttention::Create(
    const Communicator& comm, const ShardedAttentionConfig& config,
    RingMode mode, const AttentionKernels& kernels) {
  SP_RETURN_IF_ERROR(CheckShardedSequence(comm, "ring", config, comm.size()));
  const auto runs = RunsOfRanks(config.LayoutOver(comm.size()));
  const int64_t longest = LongestRun(runs);
  StatusOr<PartialAttention> attention = PartialAttention::Create(
      {.sequences = config.sequences,
       .queries = longest,
       .keys = longest,
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
      std::make_shared<State>(comm, config, mode, *std::move(attention));
  SP_RETURN_IF_ERROR(AgreeOnStatus(comm, state->Allocate()));
  SP_RETURN_IF_ERROR(state->StartThread());
  return RingAttention(std::move(state));
}

Status RingAttention::Forward(const AttentionForwardArgs& args,
                              const Stream& stream) const {
  return stream.Run([state = state_, args] { return state->Forward(args); });
}

Status RingAttention::Backward(const AttentionBackwardArgs& args,
                               const Stream& stream) const {
  return stream.Run([state = state_, args] { return state->Backward(args); });
}

int64_t RingAttention::local_tokens() const { return state_->tokens(); }
int64_t RingAttention::working_bytes() const { return state_->working_bytes(); }
std::span<const RingStep> RingAttention::steps() const {
  return state_->steps();
}

namespace {

// K and V, or their gradients, of which every block makes `hops`.
Cost BlocksCost(int ranks, const ShardedAttentionConfig& config, int hops,
                DType dtype) {
  Cost cost;
  if (ranks == 1) return cost;
  int64_t longest = 0;
  for (const auto& runs : RunsOfRanks(config.LayoutOver(ranks))) {
    const int64_t bytes = config.sequences * CountTokens(runs) *
                          config.kv_heads * config.head_dim * SizeOf(dtype);
    longest = std::max(longest, bytes);
    if (bytes == 0) continue;
    cost.total += {.bytes = 2 * bytes * hops, .messages = 2 * hops};
  }
  cost.alpha_count = 2.0 * hops;
  cost.beta_bytes = 2.0 * hops * static_cast<double>(longest);
  return cost;
}

}  // namespace

Cost RingForwardCost(int ranks, const ShardedAttentionConfig& config) {
  return BlocksCost(ranks, config, ranks - 1, config.dtype);
}

Cost RingBackwardCost(int ranks, const ShardedAttentionConfig& config) {
  const DType wide = Accumulator(config.dtype);
  Cost gradients = BlocksCost(ranks, config, ranks, wide);
  gradients.gamma_bytes =
      gradients.beta_bytes / ranks * (ranks - 1);  // Added on all but one.
  return RingForwardCost(ranks, config) + gradients;
}

int64_t RingMerges(int ranks, const ShardedAttentionConfig& config) {
  const int64_t runs = config.layout == SequenceLayout::kZigzag ? 2 : 1;
  return ranks * runs;
}

}  // namespace shardproof
