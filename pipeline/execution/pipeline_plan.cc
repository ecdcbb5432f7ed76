#include "pipeline/execution/pipeline_plan.h"

#include <algorithm>
#include <cstddef>
#include <utility>

#include "pipeline/simulator.h"

namespace shardproof {
namespace {

bool IsInput(ActionKind kind) {
  return kind == ActionKind::kBackward || kind == ActionKind::kInput;
}
bool IsLast(ActionKind kind) {
  return kind == ActionKind::kBackward || kind == ActionKind::kWeight;
}

// Where the actions of a micro-batch at a stage are among those of its rank.
struct VisitAt {
  int forward = -1, input = -1, last = -1;
};

class Visits {
 public:
  explicit Visits(const Schedule& s)
      : stages_(s.stages()),
        visits_(static_cast<size_t>(s.micro_batches * s.stages())) {
    for (int rank = 0; rank < s.ranks(); ++rank) {
      int i = 0;
      for (const Action& a : s.actions[static_cast<size_t>(rank)]) {
        VisitAt& visit =
            At(a.micro_batch, s.StageAt(a.micro_batch, {rank, a.chunk}));
        if (a.kind == ActionKind::kForward) visit.forward = i;
        if (IsInput(a.kind)) visit.input = i;
        if (IsLast(a.kind)) visit.last = i;
        ++i;
      }
    }
  }

  VisitAt& At(int m, int stage) {
    return visits_[static_cast<size_t>(m * stages_ + stage)];
  }
  const VisitAt& At(int m, int stage) const {
    return visits_[static_cast<size_t>(m * stages_ + stage)];
  }

 private:
  int stages_;
  std::vector<VisitAt> visits_;
};

// A buffer's use, from before action `begin` until after action `end`.
struct Use {
  int begin = 0, end = 0;
  int number = 0;  // Of the receive or send; -1: neither.
};

// How many uses there are at once, before each action.
std::vector<int> Occupied(const std::vector<Use>& uses, size_t actions) {
  std::vector<int> occupied(actions, 0);
  for (const Use& use : uses) {
    for (int i = use.begin; i <= use.end; ++i) {
      ++occupied[static_cast<size_t>(i)];
    }
  }
  return occupied;
}

int Most(const std::vector<int>& counts) {
  return counts.empty() ? 0 : *std::max_element(counts.begin(), counts.end());
}

// Gives each use one of `buffers` buffers, that which has been free for longest:
// what is under way there has had most time to leave. At most `buffers` uses are
// at once, and they come in the order in which they begin.
std::vector<int> Deal(const std::vector<Use>& uses, int buffers) {
  std::vector<int> free_from(static_cast<size_t>(buffers), -1), dealt;
  for (const Use& use : uses) {
    const auto longest = std::min_element(free_from.begin(), free_from.end());
    *longest = use.end + 1;
    dealt.push_back(static_cast<int>(longest - free_from.begin()));
  }
  return dealt;
}

class Planner {
 public:
  Planner(const Schedule& schedule, int rank)
      : s_(schedule), rank_(rank), visits_(schedule) {
    const std::vector<Action>& actions = s_.actions[static_cast<size_t>(rank)];
    plan_.actions.resize(actions.size());
    for (size_t i = 0; i < actions.size(); ++i) {
      plan_.actions[i].action = actions[i];
      plan_.actions[i].stage =
          s_.StageAt(actions[i].micro_batch, {rank, actions[i].chunk});
    }
  }

  PipelinePlan Plan() {
    plan_.slots_of_chunks = SlotsOfChunks(s_, rank_);
    DealVisits();
    PlanInputs();
    PlanOutputs();
    return std::move(plan_);
  }

 private:
  PlannedAction& At(int i) { return plan_.actions[static_cast<size_t>(i)]; }
  int count() const { return static_cast<int>(plan_.actions.size()); }
  int RankOf(int m, int stage) const { return s_.PlaceOf(m, stage).rank; }
  bool IsStage(int stage) const { return stage >= 0 && stage < s_.stages(); }
  // From which stage an action's input comes; no stage where it needs none.
  static int Source(const PlannedAction& a) {
    return a.action.kind == ActionKind::kForward ? a.stage - 1 : a.stage + 1;
  }
  // To which stage its output goes.
  static int Target(const PlannedAction& a) {
    return a.action.kind == ActionKind::kForward ? a.stage + 1 : a.stage - 1;
  }
  int TagOf(bool forward, int sender, int m) const {
    return 2 * (m * s_.stages() + sender) + (forward ? 0 : 1);
  }

  // The chunks' sets of kept activations, lowest first.
  void DealVisits() {
    std::vector<std::vector<bool>> taken;
    for (const int slots : plan_.slots_of_chunks) {
      taken.emplace_back(static_cast<size_t>(slots), false);
    }
    for (PlannedAction& a : plan_.actions) {
      std::vector<bool>& of_chunk = taken[static_cast<size_t>(a.action.chunk)];
      if (a.action.kind == ActionKind::kForward) {
        const auto free = std::find(of_chunk.begin(), of_chunk.end(), false);
        a.slot = static_cast<int>(free - of_chunk.begin());
        *free = true;
        continue;
      }
      a.slot = At(visits_.At(a.action.micro_batch, a.stage).forward).slot;
      if (IsLast(a.action.kind)) of_chunk[static_cast<size_t>(a.slot)] = false;
    }
  }

  // Who uses a slot: the action that needs it first.
  struct SlotUse {
    Use use;
    int reader = 0;
  };

  // Slots: each is used from when its content is made, or is received.
  void PlanInputs() {
    std::vector<SlotUse> uses;
    for (int i = 0; i < count(); ++i) {
      const PlannedAction& a = At(i);
      const int m = a.action.micro_batch, source = Source(a);
      if (a.action.kind == ActionKind::kWeight || !IsStage(source)) continue;
      SlotUse slot = {{i, visits_.At(m, a.stage).last, -1}, i};
      const bool forward = a.action.kind == ActionKind::kForward;
      if (RankOf(m, source) == rank_) {
        const VisitAt& maker = visits_.At(m, source);
        slot.use.begin = forward ? maker.forward : maker.input;
      } else {
        slot.use.number = static_cast<int>(plan_.receives.size());
        plan_.receives.push_back(
            {m, RankOf(m, source), TagOf(forward, source, m)});
      }
      uses.push_back(slot);
    }
    ReceiveEarly(uses);
    std::vector<Use> only;
    for (const SlotUse& slot : uses) only.push_back(slot.use);
    const std::vector<int> dealt = Deal(only, plan_.slots);
    for (size_t k = 0; k < uses.size(); ++k) GiveSlot(uses[k], dealt[k]);
  }

  // Receives begin as early as a slot is free from then on, those that are needed
  // first first; then all uses are in the order in which they begin.
  void ReceiveEarly(std::vector<SlotUse>& uses) {
    std::vector<Use> only;
    for (const SlotUse& slot : uses) only.push_back(slot.use);
    std::vector<int> occupied = Occupied(only, plan_.actions.size());
    plan_.slots = Most(occupied);
    for (SlotUse& slot : uses) {
      if (slot.use.number < 0) continue;
      int& begin = slot.use.begin;
      while (begin > 0 &&
             occupied[static_cast<size_t>(begin - 1)] < plan_.slots) {
        ++occupied[static_cast<size_t>(--begin)];
      }
    }
    std::stable_sort(uses.begin(), uses.end(),
                     [](const SlotUse& a, const SlotUse& b) {
                       return a.use.begin < b.use.begin;
                     });
  }

  void GiveSlot(const SlotUse& slot, int buffer) {
    PlannedAction& reader = At(slot.reader);
    const int m = reader.action.micro_batch;
    const bool forward = reader.action.kind == ActionKind::kForward;
    if (slot.use.number >= 0) {
      plan_.receives[static_cast<size_t>(slot.use.number)].buffer = buffer;
      At(slot.use.begin).receives.push_back(slot.use.number);
      reader.arrives = slot.use.number;
    } else {
      PlannedAction& maker = At(slot.use.begin);
      (forward ? maker.y : maker.dx) = buffer;
    }
    const VisitAt& visit = visits_.At(m, reader.stage);
    if (forward) {
      At(visit.forward).x = At(visit.input).x = At(visit.last).x = buffer;
    } else {
      At(visit.input).dy = At(visit.last).dy = buffer;
    }
  }

  // Outputs: each is used until its receive has been started, at the latest when
  // its receiver's action begins.
  void PlanOutputs() {
    const Simulation run = *Simulate(s_, {});
    const std::vector<TimeSpan>& mine = run.times[static_cast<size_t>(rank_)];
    std::vector<Use> uses;
    std::vector<int> makers;
    for (int i = 0; i < count(); ++i) {
      PlannedAction& a = At(i);
      const int m = a.action.micro_batch, target = Target(a);
      if (a.action.kind == ActionKind::kWeight || !IsStage(target)) continue;
      if (RankOf(m, target) == rank_) continue;
      const bool forward = a.action.kind == ActionKind::kForward;
      const VisitAt& receiver = visits_.At(m, target);
      const double received =
          run.times[static_cast<size_t>(RankOf(m, target))]
                   [static_cast<size_t>(forward ? receiver.forward
                                                : receiver.input)]
                       .start;
      int end = i;
      while (end + 1 < count() &&
             mine[static_cast<size_t>(end + 1)].start < received) {
        ++end;
      }
      a.leaves = static_cast<int>(plan_.sends.size());
      plan_.sends.push_back({m, RankOf(m, target), TagOf(forward, a.stage, m)});
      uses.push_back({i, end, a.leaves});
      makers.push_back(i);
    }
    const int sends = static_cast<int>(uses.size());
    plan_.outputs = std::min(
        sends, std::max(2, Most(Occupied(uses, plan_.actions.size()))));
    const std::vector<int> dealt = Deal(uses, plan_.outputs);
    std::vector<int> before(static_cast<size_t>(plan_.outputs), -1);
    for (int k = 0; k < sends; ++k) {
      const auto at = static_cast<size_t>(k);
      const int buffer = plan_.slots + dealt[at];
      PlannedAction& a = At(makers[at]);
      a.frees = std::exchange(before[static_cast<size_t>(dealt[at])], k);
      plan_.sends[at].buffer = buffer;
      (a.action.kind == ActionKind::kForward ? a.y : a.dx) = buffer;
    }
  }

  const Schedule& s_;
  int rank_;
  Visits visits_;
  PipelinePlan plan_;
};

}  // namespace

std::vector<int> SlotsOfChunks(const Schedule& schedule, int rank) {
  std::vector<int> slots;
  for (const std::vector<Place>& stages : schedule.pipelines) {
    for (const Place& place : stages) {
      if (place.rank != rank) continue;
      const auto chunks = static_cast<size_t>(place.chunk) + 1;
      slots.resize(std::max(slots.size(), chunks));
    }
  }
  std::vector<int> alive(slots.size());
  for (const Action& action : schedule.actions[static_cast<size_t>(rank)]) {
    const auto chunk = static_cast<size_t>(action.chunk);
    if (action.kind == ActionKind::kForward) ++alive[chunk];
    slots[chunk] = std::max(slots[chunk], alive[chunk]);
    if (IsLast(action.kind)) --alive[chunk];
  }
  return slots;
}

PipelinePlan PlanPipeline(const Schedule& schedule, int rank) {
  return Planner(schedule, rank).Plan();
}

}  // namespace shardproof
