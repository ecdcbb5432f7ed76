#include "tools/harness/trace.h"

#include <algorithm>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <span>
#include <string_view>
#include <tuple>
#include <utility>

#include "collectives/interceptor.h"
#include "tools/harness/generated_inputs.h"
#include "tools/harness/rank_buffers.h"

namespace shardproof {
namespace {

struct Event {
  enum Kind { kSend, kReceive, kLoad, kStore, kPart };
  Kind kind = kSend;
  int rank = 0, peer = 0;
  int64_t bytes = 0;
  std::string operation;
};

// Notes what one rank does, while told to.
class Tracer final : public Interceptor {
 public:
  void Start() {
    const std::lock_guard<std::mutex> lock(mutex_);
    on_ = true;
  }
  std::vector<Event> Take() {
    const std::lock_guard<std::mutex> lock(mutex_);
    on_ = false;
    return std::move(events_);
  }

  void OnEnd(const Op& op) override { Note(Event::kPart, op, 0, 0, 1); }
  void OnDepart(const Op& op, int rank) override {
    Note(Event::kPart, op, rank, 0, 1);
  }
  const std::byte* OnLoad(const Op& op, int rank, int peer,
                          const std::byte* data, size_t bytes) override {
    Note(Event::kLoad, op, rank, peer, bytes);
    return data;
  }
  std::byte* OnStore(const Op& op, int rank, int peer, std::byte* data,
                     size_t bytes) override {
    Note(Event::kStore, op, rank, peer, bytes);
    return data;
  }
  void OnSend(const Op& op, int rank, int destination,
              std::span<const std::byte> payload) override {
    Note(Event::kSend, op, rank, destination, payload.size());
  }
  void OnReceive(const Op& op, int rank, int source,
                 std::span<std::byte> payload) override {
    Note(Event::kReceive, op, rank, source, payload.size());
  }

 private:
  // A rank's traffic with itself is none.
  void Note(Event::Kind kind, const Op& op, int rank, int peer, size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    const bool moves = bytes != 0 && (kind == Event::kPart || peer != rank);
    if (!on_ || !moves) return;
    events_.push_back({kind, rank, peer, static_cast<int64_t>(bytes),
                       std::string(op.label.view())});
  }

  std::mutex mutex_;  // An operation may run on a stream's thread.
  bool on_ = false;
  std::vector<Event> events_;
};

using Events = std::vector<std::vector<Event>>;

bool AnyInGroups(const Events& events) {
  for (size_t r = 0; r < events.size(); ++r) {
    for (const Event& e : events[r]) {
      if (e.kind != Event::kPart && e.rank != static_cast<int>(r)) return true;
    }
  }
  return false;
}

// The steps of all ranks, by logical clocks (Lamport, 1978): what a rank sends
// comes after what it has received.
class Clocks {
 public:
  explicit Clocks(const Events& events, bool in_groups)
      : events_(events),
        in_groups_(in_groups),
        at_(events.size(), 0),
        clock_(events.size(), 0),
        open_(events.size(), false),
        sent_(events.size(), false) {}

  std::vector<TraceStep> Steps() {
    for (bool moved = true; moved;) {
      moved = false;
      for (size_t r = 0; r < events_.size(); ++r) {
        while (at_[r] < events_[r].size() && Take(r, events_[r][at_[r]])) {
          ++at_[r];
          moved = true;
        }
      }
    }
    std::vector<TraceStep> steps;
    for (auto& [key, pairs] : steps_) {
      const auto& [number, operation, kind] = key;
      TraceStep step{number, operation, kind, {}};
      for (const auto& [pair, traffic] : pairs) {
        step.transfers.push_back(
            {pair.first, pair.second, traffic.bytes, traffic.messages});
      }
      steps.push_back(std::move(step));
    }
    return steps;
  }

 private:
  // False: `e` waits for another rank.
  bool Take(size_t r, const Event& e) {
    switch (e.kind) {
      case Event::kSend:
        Move(clock_[r] + 1, e, TraceKind::kMessage, e.rank, e.peer);
        under_way_[{e.rank, e.peer}].push_back(clock_[r] + 1);
        sent_[r] = true;
        return true;
      case Event::kReceive: {
        // Numbers of ranks in different groups cannot be matched: there, what
        // is received ends a step of the receiver's own.
        if (in_groups_) {
          if (sent_[r]) ++clock_[r];
          sent_[r] = false;
          return true;
        }
        auto& queue = under_way_[{e.peer, e.rank}];
        if (queue.empty()) return false;
        clock_[r] = std::max(clock_[r], queue.front());
        queue.pop_front();
        return true;
      }
      case Event::kLoad:
        open_[r] = true;
        Move(clock_[r] + 1, e, TraceKind::kLoad, e.peer, e.rank);
        return true;
      case Event::kStore:
        open_[r] = true;
        Move(clock_[r] + 1, e, TraceKind::kStore, e.rank, e.peer);
        return true;
      case Event::kPart:
        if (open_[r]) ++clock_[r];
        open_[r] = false;
        return true;
    }
    return true;
  }

  void Move(int step, const Event& e, TraceKind kind, int from, int to) {
    Traffic& traffic = steps_[{step, e.operation, kind}][{from, to}];
    traffic += {.bytes = e.bytes, .messages = 1};
  }

  const Events& events_;
  const bool in_groups_;
  std::vector<size_t> at_;
  std::vector<int> clock_;
  std::vector<bool> open_;  // Loads or stores since the last parting.
  std::vector<bool> sent_;  // Since the last receive.
  std::map<std::pair<int, int>, std::deque<int>> under_way_;
  std::map<std::tuple<int, std::string, TraceKind>,
           std::map<std::pair<int, int>, Traffic>>
      steps_;
};

// One execution on one rank.
StatusOr<Traffic> RunTraced(const Communicator& comm, const Tensors& tensors,
                            const ErasedVariant& variant,
                            const Instance& instance, uint64_t seed,
                            Tracer& tracer) {
  if (auto why = variant.refuses(instance, &comm)) {
    return Unsupported("{}", *why);
  }
  SP_ASSIGN_OR_RETURN(const Communicator work, comm.Duplicate());
  work.Intercept(&tracer);
  BufferPool pool;
  SP_ASSIGN_OR_RETURN(
      const std::unique_ptr<RankBuffers> buffers,
      RankBuffers::Create(work, tensors, /*ordinary=*/false, pool));
  auto inputs =
      GeneratedInputs::Create(tensors, comm.size(), Tier::kExact, seed);
  if (!inputs.ok()) {
    inputs =
        GeneratedInputs::Create(tensors, comm.size(), Tier::kBounded, seed);
  }
  SP_RETURN_IF_ERROR(inputs.status());
  buffers->Fill(**inputs);
  SP_ASSIGN_OR_RETURN(const Operation operation,
                      variant.bind(instance, *buffers));
  const Traffic before = work.traffic();
  tracer.Start();
  SP_RETURN_IF_ERROR(operation());
  SP_RETURN_IF_ERROR(buffers->stream().Synchronize());
  return work.traffic() - before;
}

}  // namespace

std::string_view Name(TraceKind kind) {
  switch (kind) {
    case TraceKind::kMessage:
      return "message";
    case TraceKind::kLoad:
      return "load";
    case TraceKind::kStore:
      return "store";
  }
  return "?";
}

StatusOr<Trace> TraceSteps(World& world, const CaseInfo& info,
                           const ErasedVariant& variant,
                           const Instance& instance, uint64_t seed) {
  const Tensors tensors = info.tensors(instance);
  std::mutex mutex;
  Events events(static_cast<size_t>(instance.ranks));
  Trace trace;
  SP_RETURN_IF_ERROR(
      world.Run(instance.ranks, [&](const Communicator& comm) -> Status {
        Tracer tracer;
        SP_ASSIGN_OR_RETURN(
            const Traffic traffic,
            RunTraced(comm, tensors, variant, instance, seed, tracer));
        const std::lock_guard<std::mutex> lock(mutex);
        events[static_cast<size_t>(comm.rank())] = tracer.Take();
        trace.total += traffic;
        return OkStatus();
      }));
  trace.in_groups = AnyInGroups(events);
  trace.steps = Clocks(events, trace.in_groups).Steps();
  return trace;
}

}  // namespace shardproof
