#include "attention/sharded/rotating_attention.h"

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <ctime>
#include <utility>

#include "attention/sharded/partial_attention.h"
#include "attention/sharded/rounding.h"
#include "collectives/kernels/reduce.h"
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

// Of keys; values have the next.
enum Tag : uint8_t { kInnerKeys = 0, kGradients = 2, kOuterKeys = 4 };

// Who has whose keys when.
struct Order {
  int inner = 1;
  int outer = 1;

  int steps() const { return inner * outer; }
  bool begins_ring(int t) const { return t % inner == 0; }
  bool ends_ring(int t) const { return t % inner == inner - 1; }
  // `rank` and so many inner rings and ranks of a ring further.
  int Moved(int rank, int rings, int ranks) const {
    const auto wrap = [](int x, int n) { return ((x % n) + n) % n; };
    return wrap(rank / inner + rings, outer) * inner +
           wrap(rank % inner + ranks, inner);
  }
  // Whose keys `rank` has in step t; its own after the last.
  int Source(int rank, int t) const {
    return Moved(rank, -(t / inner), -(t % inner));
  }
  // Where what `rank` has in step t is in the step after it.
  int Next(int rank, int t) const {
    return Moved(rank, ends_ring(t) ? 1 : 0, 1);
  }
  int Previous(int rank, int t) const {
    return Moved(rank, ends_ring(t) ? -1 : 0, -1);
  }
};

int InnerOf(const RotationConfig& config) {
  const auto ranks = static_cast<int>(config.runs.size());
  return config.inner > 0 ? config.inner : ranks;
}

// Elements of the keys of a rank.
int64_t KeysOf(const RotationConfig& config, int rank) {
  const FlashShape& s = config.shape;
  return s.sequences * CountTokens(config.runs[static_cast<size_t>(rank)]) *
         s.kv_heads * s.head_dim;
}

// Of the keys and values, or their gradients, of any rank; both begin on cache
// lines.
int64_t BlockBytes(const RotationConfig& config, DType dtype) {
  int64_t most = 0;
  for (size_t r = 0; r < config.runs.size(); ++r) {
    most = std::max(most, KeysOf(config, static_cast<int>(r)));
  }
  return 2 * ((most * SizeOf(dtype) + 63) / 64 * 64);
}

}  // namespace

class RotatingAttention::State {
 public:
  State(const Communicator& comm, const RotationConfig& config,
        PartialAttention attention)
      : comm_(comm),
        config_(config),
        order_({InnerOf(config), comm.size() / InnerOf(config)}),
        attention_(std::move(attention)),
        wide_(Accumulator(config.shape.dtype)),
        steps_(static_cast<size_t>(comm.size())) {}

  Status Allocate();
  Status StartThreads();
  Status Forward(const AttentionForwardArgs& args);
  Status Backward(const AttentionBackwardArgs& args);

  int64_t tokens() const { return attention_.tokens(); }
  int64_t working_bytes() const;
  std::span<const RingStep> steps() const { return steps_; }

 private:
  // A message to one rank and one from another, under way.
  struct Pending {
    std::array<Request, 2> requests;
    int64_t number = -1;  // Of the thread's message.
    bool started = false;
  };
  // Keys' and values' messages, and who waits for them, if not this thread.
  struct Flow {
    std::array<Pending, 2> pending;
    MessageThread* thread = nullptr;
  };
  // Keys and values, or their gradients.
  struct Block {
    std::byte* k = nullptr;
    std::byte* v = nullptr;
  };
  struct Held {
    const void* k = nullptr;
    const void* v = nullptr;
  };
  // Where a block goes and from where one comes, and whose they are.
  struct Hop {
    int to = 0, from = 0;
    int out_source = 0, in_source = 0;
  };

  bool alone() const { return comm_.size() == 1; }
  bool in_turn() const { return config_.mode == RingMode::kInTurn; }
  int SourceOf(int t) const { return order_.Source(comm_.rank(), t); }
  int64_t CountOf(int rank) const { return KeysOf(config_, rank); }
  KeyPart PartOf(int source, const Held& held) const {
    return {config_.runs[static_cast<size_t>(source)], held.k, held.v};
  }
  // Of a buffer of `blocks`.
  static Block BlockIn(const Buffer& buffer, int blocks, int i) {
    const size_t bytes = buffer.bytes() / static_cast<size_t>(blocks);
    std::byte* const begin = buffer.data() + static_cast<size_t>(i) * bytes;
    return {begin, begin + bytes / 2};
  }

  Status Start(DType dtype, Tag tag, const Hop& hop, const Held& out,
               const Block& in, Flow& flow) const;
  Status Wait(Flow& flow) const;
  // What is to come, in step t, while `held` is computed with.
  Status StartKeys(int t, const Held& held);
  // What is computed with next.
  StatusOr<Held> WaitForKeys(int t);
  // `compute` with the keys of each step.
  template <class Compute>
  Status Turn(const Held& own, const Compute& compute);
  Status GradientsOf(int t, const KeyPart& part);
  Status OrAbort(const Status& status);

  Communicator comm_;
  RotationConfig config_;
  Order order_;
  PartialAttention attention_;
  DType wide_;
  std::vector<RingStep> steps_;
  Buffer inner_keys_, outer_keys_;  // Two blocks: one held, one that comes.
  Buffer computed_;  // Two blocks of gradients: on their way, and made.
  Buffer arrived_;   // And one that comes.
  Flow inner_flow_, outer_flow_, gradient_flow_;
  std::unique_ptr<MessageThread> thread_, outer_thread_;
};

Status RotatingAttention::State::Allocate() {
  int64_t most = 0;
  for (int r = 0; r < comm_.size(); ++r) most = std::max(most, CountOf(r));
  const auto blocks = [&](int count, DType dtype, Buffer& buffer) -> Status {
    // Keys and values begin on cache lines.
    const int64_t half = (most * SizeOf(dtype) + 63) / 64 * 64;
    SP_ASSIGN_OR_RETURN(buffer,
                        comm_.Allocate(static_cast<size_t>(2 * count * half)));
    return OkStatus();
  };
  const DType dtype = config_.shape.dtype;
  if (order_.inner > 1) SP_RETURN_IF_ERROR(blocks(2, dtype, inner_keys_));
  if (order_.outer > 1) SP_RETURN_IF_ERROR(blocks(2, dtype, outer_keys_));
  if (!config_.shape.backward) return OkStatus();
  SP_RETURN_IF_ERROR(blocks(2, wide_, computed_));
  return alone() ? OkStatus() : blocks(1, wide_, arrived_);
}

Status RotatingAttention::State::StartThreads() {
  if (config_.mode != RingMode::kMessageThread || alone()) return OkStatus();
  const auto start = [&](std::unique_ptr<MessageThread>& to) -> Status {
    constexpr size_t kMost = 8;  // Keys and gradients of two steps.
    StatusOr<std::unique_ptr<MessageThread>> thread =
        MessageThread::Create(comm_, kMost);
    SP_RETURN_IF_ERROR(AgreeOnStatus(comm_, thread.status()));
    to = *std::move(thread);
    return OkStatus();
  };
  SP_RETURN_IF_ERROR(start(thread_));
  inner_flow_.thread = gradient_flow_.thread = thread_.get();
  if (order_.outer == 1) return OkStatus();
  SP_RETURN_IF_ERROR(start(outer_thread_));
  outer_flow_.thread = outer_thread_.get();
  return OkStatus();
}

int64_t RotatingAttention::State::working_bytes() const {
  int64_t bytes = attention_.working_bytes();
  for (const Buffer* b : {&inner_keys_, &outer_keys_, &computed_, &arrived_}) {
    bytes += static_cast<int64_t>(b->bytes());
  }
  return bytes;
}

Status RotatingAttention::State::Start(DType dtype, Tag tag, const Hop& hop,
                                       const Held& out, const Block& in,
                                       Flow& flow) const {
  const auto bytes = [&](int source) {
    return static_cast<size_t>(CountOf(source) * SizeOf(dtype));
  };
  for (int i = 0; i < 2; ++i) {
    const PairedMessage m = {.out = i == 0 ? out.k : out.v,
                             .out_bytes = bytes(hop.out_source),
                             .to = hop.to,
                             .in = i == 0 ? in.k : in.v,
                             .in_bytes = bytes(hop.in_source),
                             .from = hop.from,
                             .tag = tag + i};
    Pending& pending = flow.pending[static_cast<size_t>(i)];
    if (flow.thread != nullptr) {
      SP_ASSIGN_OR_RETURN(pending.number, flow.thread->Start(m));
      pending.started = true;
      continue;
    }
    SP_ASSIGN_OR_RETURN(pending.requests[0],
                        comm_.Irecv(m.in, m.in_bytes, m.from, m.tag));
    pending.started = true;
    SP_ASSIGN_OR_RETURN(pending.requests[1],
                        comm_.Isend(m.out, m.out_bytes, m.to, m.tag));
  }
  return OkStatus();
}

Status RotatingAttention::State::Wait(Flow& flow) const {
  for (Pending& pending : flow.pending) {
    if (!pending.started) continue;
    pending.started = false;
    if (flow.thread != nullptr) {
      SP_RETURN_IF_ERROR(flow.thread->Wait(pending.number));
    } else {
      SP_RETURN_IF_ERROR(comm_.WaitAll(pending.requests));
      pending.requests = {};
    }
  }
  return OkStatus();
}

Status RotatingAttention::State::StartKeys(int t, const Held& held) {
  const int rank = comm_.rank(), ring = t / order_.inner;
  const DType dtype = config_.shape.dtype;
  if (order_.begins_ring(t) && ring + 1 < order_.outer) {
    SP_RETURN_IF_ERROR(Start(dtype, kOuterKeys,
                             {.to = order_.Moved(rank, 1, 0),
                              .from = order_.Moved(rank, -1, 0),
                              .out_source = SourceOf(t),
                              .in_source = SourceOf(t + order_.inner)},
                             held, BlockIn(outer_keys_, 2, (ring + 1) % 2),
                             outer_flow_));
    if (in_turn()) SP_RETURN_IF_ERROR(Wait(outer_flow_));
  }
  if (order_.ends_ring(t)) return OkStatus();
  SP_RETURN_IF_ERROR(Start(dtype, kInnerKeys,
                           {.to = order_.Next(rank, t),
                            .from = order_.Previous(rank, t),
                            .out_source = SourceOf(t),
                            .in_source = SourceOf(t + 1)},
                           held, BlockIn(inner_keys_, 2, (t + 1) % 2),
                           inner_flow_));
  return in_turn() ? Wait(inner_flow_) : OkStatus();
}

StatusOr<RotatingAttention::State::Held> RotatingAttention::State::WaitForKeys(
    int t) {
  SP_RETURN_IF_ERROR(Wait(inner_flow_));
  if (!order_.ends_ring(t)) {
    const Block next = BlockIn(inner_keys_, 2, (t + 1) % 2);
    return Held{next.k, next.v};
  }
  SP_RETURN_IF_ERROR(Wait(outer_flow_));
  if (t + 1 == order_.steps()) return Held{};
  const Block next = BlockIn(outer_keys_, 2, (t + 1) / order_.inner % 2);
  return Held{next.k, next.v};
}

template <class Compute>
Status RotatingAttention::State::Turn(const Held& own, const Compute& compute) {
  Held held = own;
  for (int t = 0; t < order_.steps(); ++t) {
    RingStep& step = steps_[static_cast<size_t>(t)] = {};
    const auto starts = Clock::now();
    SP_RETURN_IF_ERROR(StartKeys(t, held));
    step.waited += Since(starts);
    const double begin = ProcessorSeconds();
    SP_RETURN_IF_ERROR(compute(t, PartOf(SourceOf(t), held)));
    step.compute += ProcessorSeconds() - begin;
    const auto waits = Clock::now();
    SP_ASSIGN_OR_RETURN(held, WaitForKeys(t));
    step.waited += Since(waits);
  }
  return OkStatus();
}

// After an error nobody may answer any more; buffers must not be in use.
Status RotatingAttention::State::OrAbort(const Status& status) {
  if (status.ok()) return status;
  comm_.Abort(status.message());
  for (Flow* flow : {&inner_flow_, &outer_flow_, &gradient_flow_}) {
    (void)Wait(*flow);
  }
  return status;
}

Status RotatingAttention::State::Forward(const AttentionForwardArgs& args) {
  const OpScope op(comm_, {.label = "ring_attention/forward",
                           .dtype = config_.shape.dtype,
                           .count = CountOf(comm_.rank())});
  SP_RETURN_IF_ERROR(op.status());
  SP_RETURN_IF_ERROR(attention_.Begin(args.q, args.o, args.lse));
  SP_RETURN_IF_ERROR(
      OrAbort(Turn({args.k, args.v}, [&](int, const KeyPart& part) {
        return attention_.Add(part);
      })));
  return attention_.Finish();
}

// What step t adds to the gradients of its keys: computed while those of the
// ranks before, which this rank adds to and sends on, arrive.
Status RotatingAttention::State::GradientsOf(int t, const KeyPart& part) {
  const int source = SourceOf(t);
  const int64_t count = CountOf(source);
  const Block mine = BlockIn(computed_, 2, t % 2);
  const auto bytes = static_cast<size_t>(count * SizeOf(wide_));
  if (bytes > 0) {
    std::memset(mine.k, 0, bytes);
    std::memset(mine.v, 0, bytes);
  }
  SP_RETURN_IF_ERROR(attention_.AddGradients(part, mine.k, mine.v));
  if (alone()) return OkStatus();
  const Block theirs = BlockIn(arrived_, 1, 0);
  const auto begin = Clock::now();
  SP_RETURN_IF_ERROR(Wait(gradient_flow_));
  if (t > 0) {
    kernels::ReduceInto(wide_, ReduceOp::kSum, mine.k, theirs.k, count);
    kernels::ReduceInto(wide_, ReduceOp::kSum, mine.v, theirs.v, count);
  }
  // In place of it come those of the next step's keys, or of this rank's own.
  const int rank = comm_.rank();
  SP_RETURN_IF_ERROR(Start(wide_, kGradients,
                           {.to = order_.Next(rank, t),
                            .from = order_.Previous(rank, t),
                            .out_source = source,
                            .in_source = SourceOf(t + 1)},
                           {mine.k, mine.v}, theirs, gradient_flow_));
  if (in_turn()) SP_RETURN_IF_ERROR(Wait(gradient_flow_));
  steps_[static_cast<size_t>(t)].waited += Since(begin);
  return OkStatus();
}

Status RotatingAttention::State::Backward(const AttentionBackwardArgs& args) {
  if (!config_.shape.backward) {
    return InvalidArgument("this attention was created to go forward only");
  }
  const OpScope op(comm_, {.label = "ring_attention/backward",
                           .dtype = config_.shape.dtype,
                           .count = CountOf(comm_.rank())});
  SP_RETURN_IF_ERROR(op.status());
  SP_RETURN_IF_ERROR(attention_.BeginBackward(args));
  SP_RETURN_IF_ERROR(OrAbort([&]() -> Status {
    SP_RETURN_IF_ERROR(Turn({args.k, args.v}, [&](int t, const KeyPart& part) {
      return GradientsOf(t, part);
    }));
    return Wait(gradient_flow_);
  }()));
  // The gradients of this rank's own keys, after P hops.
  const Block own =
      alone() ? BlockIn(computed_, 2, 0) : BlockIn(arrived_, 1, 0);
  const int64_t count = CountOf(comm_.rank());
  const DType dtype = config_.wide_gradients ? wide_ : config_.shape.dtype;
  RoundTo(dtype, own.k, count, args.dk);
  RoundTo(dtype, own.v, count, args.dv);
  return attention_.FinishBackward(args.dq);
}

RotatingAttention::RotatingAttention(std::shared_ptr<State> state)
    : state_(std::move(state)) {}

StatusOr<RotatingAttention> RotatingAttention::Create(
    const Communicator& comm, const RotationConfig& config,
    const AttentionKernels& kernels) {
  const int inner = InnerOf(config);
  if (std::ssize(config.runs) != comm.size() || inner < 1 ||
      comm.size() % inner != 0) {
    return InvalidArgument(
        "tokens of {} ranks, in rings of {}, cannot go around {} ranks",
        config.runs.size(), inner, comm.size());
  }
  FlashShape shape = config.shape;
  shape.queries = shape.keys = LongestRun(config.runs);
  StatusOr<PartialAttention> attention = PartialAttention::Create(
      shape, config.visibility, config.runs[static_cast<size_t>(comm.rank())],
      kernels);
  SP_RETURN_IF_ERROR(AgreeOnStatus(comm, attention.status()));
  auto state = std::make_shared<State>(comm, config, *std::move(attention));
  SP_RETURN_IF_ERROR(AgreeOnStatus(comm, state->Allocate()));
  SP_RETURN_IF_ERROR(state->StartThreads());
  return RotatingAttention(std::move(state));
}

Status RotatingAttention::Forward(const AttentionForwardArgs& args) const {
  return state_->Forward(args);
}
Status RotatingAttention::Backward(const AttentionBackwardArgs& args) const {
  return state_->Backward(args);
}
int64_t RotatingAttention::local_tokens() const { return state_->tokens(); }
int64_t RotatingAttention::working_bytes() const {
  return state_->working_bytes();
}
std::span<const RingStep> RotatingAttention::steps() const {
  return state_->steps();
}

namespace {

// K and V, or their gradients, of which every block makes `hops`.
Cost BlocksCost(const RotationConfig& config, int hops, DType dtype) {
  Cost cost;
  int64_t longest = 0;
  for (size_t r = 0; r < config.runs.size(); ++r) {
    const int64_t bytes = KeysOf(config, static_cast<int>(r)) * SizeOf(dtype);
    longest = std::max(longest, bytes);
    if (bytes == 0) continue;
    cost.total += {.bytes = 2 * bytes * hops, .messages = 2 * hops};
  }
  cost.alpha_count = 2.0 * hops;
  cost.beta_bytes = 2.0 * hops * static_cast<double>(longest);
  return cost;
}

}  // namespace

Cost RotationForwardCost(const RotationConfig& config) {
  const auto ranks = static_cast<int>(config.runs.size());
  return ranks == 1 ? Cost()
                    : BlocksCost(config, ranks - 1, config.shape.dtype);
}

Cost RotationBackwardCost(const RotationConfig& config) {
  const auto ranks = static_cast<int>(config.runs.size());
  if (ranks == 1) return {};
  Cost gradients = BlocksCost(config, ranks, Accumulator(config.shape.dtype));
  // Added on all ranks but the first.
  gradients.gamma_bytes = gradients.beta_bytes / ranks * (ranks - 1);
  return RotationForwardCost(config) + gradients;
}

int64_t RotationBytes(const RotationConfig& config, int rank) {
  const FlashShape& s = config.shape;
  const std::vector<TokenRun>& runs = config.runs[static_cast<size_t>(rank)];
  const DType wide = Accumulator(s.dtype);
  const int64_t tokens = s.sequences * CountTokens(runs);
  const int64_t run = s.sequences * LongestRun({runs});
  const int64_t o = s.heads * s.head_dim * SizeOf(wide);
  const int64_t lse = s.heads * SizeOf(wide);
  // O where it is not of this type, and O and lse of a run.
  int64_t bytes = (s.dtype != wide ? tokens * o : 0) + run * (o + lse);
  const auto ranks = static_cast<int>(config.runs.size());
  const int inner = InnerOf(config), outer = ranks / inner;
  const int64_t keys = BlockBytes(config, s.dtype);
  bytes += (inner > 1 ? 2 * keys : 0) + (outer > 1 ? 2 * keys : 0);
  if (!s.backward) return bytes;
  // dQ and delta.
  bytes += tokens * (o + lse);
  return bytes + (ranks > 1 ? 3 : 2) * BlockBytes(config, wide);
}

}  // namespace shardproof
