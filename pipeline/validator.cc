#include "pipeline/validator.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstddef>
#include <map>
#include <optional>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace shardproof {
namespace {

// --- What there is -----------------------------------------------------------

Status CheckPlaces(const Schedule& s) {
  if (s.ranks() < 1 || s.micro_batches < 1 || s.stages() < 1) {
    return InvalidArgument("{} ranks, {} micro-batches, {} stages: no schedule",
                           s.ranks(), s.micro_batches, s.stages());
  }
  std::map<std::pair<int, int>, std::string> taken;
  for (size_t pipe = 0; pipe < s.pipelines.size(); ++pipe) {
    const std::vector<Place>& stages = s.pipelines[pipe];
    if (std::ssize(stages) != s.stages()) {
      return InvalidArgument("pipeline {} has {} stages, and the first {}",
                             pipe, stages.size(), s.stages());
    }
    for (size_t stage = 0; stage < stages.size(); ++stage) {
      const Place& place = stages[stage];
      if (place.rank < 0 || place.rank >= s.ranks() || place.chunk < 0) {
        return InvalidArgument("stage {} of pipeline {} is on no rank", stage,
                               pipe);
      }
      const std::string name = fmt::format("stage {}", stage);
      const auto [at, fresh] =
          taken.try_emplace({place.rank, place.chunk}, name);
      if (!fresh) {
        return InvalidArgument("chunk {} of rank {} is {} and {}", place.chunk,
                               place.rank, at->second, name);
      }
    }
  }
  if (!s.pipeline_of.empty() && std::ssize(s.pipeline_of) != s.micro_batches) {
    return InvalidArgument("{} micro-batches, of which {} have a pipeline",
                           s.micro_batches, s.pipeline_of.size());
  }
  for (const int pipe : s.pipeline_of) {
    if (pipe < 0 || pipe >= std::ssize(s.pipelines)) {
      return InvalidArgument("there is no pipeline {}", pipe);
    }
  }
  return OkStatus();
}

// Where the actions of a micro-batch at a stage are among those of its rank.
struct Found {
  std::optional<size_t> forward, backward, input, weight;

  std::optional<size_t>& Of(ActionKind kind) {
    switch (kind) {
      case ActionKind::kForward:
        return forward;
      case ActionKind::kBackward:
        return backward;
      case ActionKind::kInput:
        return input;
      case ActionKind::kWeight:
        return weight;
    }
    return weight;
  }
};

// Goes through the actions of each rank in turn, for what a rank can know alone.
class Inventory {
 public:
  explicit Inventory(const Schedule& s)
      : s_(s),
        found_(static_cast<size_t>(s.micro_batches) *
               static_cast<size_t>(s.stages())) {}

  Status Check() {
    for (int rank = 0; rank < s_.ranks(); ++rank) Find(rank);
    for (int rank = 0; rank < s_.ranks(); ++rank) {
      const size_t count = s_.actions[static_cast<size_t>(rank)].size();
      for (size_t i = 0; i < count; ++i) {
        SP_RETURN_IF_ERROR(CheckItself(rank, i));
        SP_RETURN_IF_ERROR(CheckPair(rank, i));
        SP_RETURN_IF_ERROR(CheckNeeds(rank, i));
      }
      SP_RETURN_IF_ERROR(CheckAll(rank));
    }
    return OkStatus();
  }

 private:
  Found& At(int m, int stage) {
    return found_[static_cast<size_t>(m) * static_cast<size_t>(s_.stages()) +
                  static_cast<size_t>(stage)];
  }
  const Action& ActionAt(int rank, size_t i) const {
    return s_.actions[static_cast<size_t>(rank)][i];
  }
  // -1: none that there is.
  int StageOf(int rank, const Action& action) const {
    const int m = action.micro_batch;
    if (m < 0 || m >= s_.micro_batches) return -1;
    return s_.StageAt(m, {rank, action.chunk});
  }

  void Find(int rank) {
    const std::vector<Action>& actions = s_.actions[static_cast<size_t>(rank)];
    for (size_t i = 0; i < actions.size(); ++i) {
      const int stage = StageOf(rank, actions[i]);
      if (stage < 0) continue;
      std::optional<size_t>& place =
          At(actions[i].micro_batch, stage).Of(actions[i].kind);
      if (!place) place = i;
    }
  }

  template <typename... Args>
  Status Wrong(int rank, size_t i, fmt::format_string<Args...> format,
               Args&&... args) const {
    return InvalidArgument("rank {}, action {}, {}: {}", rank, i,
                           s_.Text(ActionAt(rank, i)),
                           fmt::format(format, std::forward<Args>(args)...));
  }

  Status CheckItself(int rank, size_t i) {
    const Action& action = ActionAt(rank, i);
    const int m = action.micro_batch, stage = StageOf(rank, action);
    if (m < 0 || m >= s_.micro_batches) {
      return Wrong(rank, i, "there are {} micro-batches", s_.micro_batches);
    }
    if (stage < 0) {
      return Wrong(rank, i, "chunk {} is no stage of micro-batch {}",
                   action.chunk, m);
    }
    Found& found = At(m, stage);
    if (const size_t first = *found.Of(action.kind); first != i) {
      return Wrong(rank, i, "action {} was the same", first);
    }
    const auto is_before = [&](ActionKind kind) {
      return found.Of(kind) && *found.Of(kind) < i;
    };
    for (const ActionKind part : {ActionKind::kInput, ActionKind::kWeight}) {
      if (action.kind == ActionKind::kBackward && is_before(part)) {
        return Wrong(rank, i, "action {} was part of it", *found.Of(part));
      }
      if (action.kind == part && is_before(ActionKind::kBackward)) {
        return Wrong(rank, i, "it was part of action {}", *found.backward);
      }
    }
    return OkStatus();
  }

  Status CheckPair(int rank, size_t i) const {
    const std::vector<Action>& actions = s_.actions[static_cast<size_t>(rank)];
    if (!actions[i].with_next) return OkStatus();
    if (i + 1 == actions.size()) {
      return Wrong(rank, i, "a pair without a second");
    }
    const Action& next = actions[i + 1];
    // All F of a micro-batch come before its B.
    if (!s_.IsPair(rank, i) || next.with_next ||
        next.micro_batch == actions[i].micro_batch) {
      return Wrong(rank, i,
                   "it and {} are no F and B of two micro-batches, which can "
                   "be a pair",
                   s_.Text(next));
    }
    return OkStatus();
  }

  // What a micro-batch has at a stage, the first if both, or should have.
  ActionKind BackwardOf(int m, int stage) {
    const Found& found = At(m, stage);
    if (found.backward && found.input) {
      return *found.backward < *found.input ? ActionKind::kBackward
                                            : ActionKind::kInput;
    }
    return found.backward || (!found.input && !found.weight)
               ? ActionKind::kBackward
               : ActionKind::kInput;
  }

  // What an action needs of its own rank; there is no message in between.
  Status CheckNeeds(int rank, size_t i) {
    const Action& action = ActionAt(rank, i);
    const int m = action.micro_batch, stage = StageOf(rank, action);
    const int last = s_.stages() - 1;
    const auto is_here = [&](int other) {
      return s_.PlaceOf(m, other).rank == rank;
    };
    switch (action.kind) {
      case ActionKind::kForward:
        if (stage == 0 || !is_here(stage - 1)) return OkStatus();
        return CheckNeed(rank, i, ActionKind::kForward, stage - 1);
      case ActionKind::kBackward:
      case ActionKind::kInput:
        SP_RETURN_IF_ERROR(CheckNeed(rank, i, ActionKind::kForward, stage));
        if (stage == last || !is_here(stage + 1)) return OkStatus();
        return CheckNeed(rank, i, BackwardOf(m, stage + 1), stage + 1);
      case ActionKind::kWeight:
        return CheckNeed(rank, i, ActionKind::kInput, stage);
    }
    return OkStatus();
  }
  Status CheckNeed(int rank, size_t i, ActionKind kind, int stage) {
    const int m = ActionAt(rank, i).micro_batch;
    const std::optional<size_t> at = At(m, stage).Of(kind);
    if (!at) return Never(rank, kind, m, stage);
    if (*at < i) return OkStatus();
    return Wrong(rank, i, "its {} comes later, as {}",
                 s_.Text({kind, m, s_.PlaceOf(m, stage).chunk}), *at);
  }
  Status Never(int rank, ActionKind kind, int m, int stage) const {
    return InvalidArgument("rank {} never does {}, of stage {}", rank,
                           s_.Text({kind, m, s_.PlaceOf(m, stage).chunk}),
                           stage);
  }

  Status CheckAll(int rank) {
    std::vector<std::vector<int>> stages_here;  // Of each pipeline.
    for (const std::vector<Place>& stages : s_.pipelines) {
      std::vector<int>& here = stages_here.emplace_back();
      for (int stage = 0; stage < s_.stages(); ++stage) {
        if (stages[static_cast<size_t>(stage)].rank == rank) {
          here.push_back(stage);
        }
      }
    }
    for (int m = 0; m < s_.micro_batches; ++m) {
      for (const int stage :
           stages_here[static_cast<size_t>(s_.PipelineOf(m))]) {
        std::vector<ActionKind> needed = {ActionKind::kForward,
                                          BackwardOf(m, stage)};
        if (needed.back() == ActionKind::kInput) {
          needed.push_back(ActionKind::kWeight);
        }
        for (const ActionKind kind : needed) {
          if (!At(m, stage).Of(kind)) return Never(rank, kind, m, stage);
        }
      }
    }
    return OkStatus();
  }

  const Schedule& s_;
  std::vector<Found> found_;
};

// --- What is sent ------------------------------------------------------------

struct Message {
  int from = 0, to = 0;
  std::string what = {};                // "F1": what made it.
  bool sent = false, received = false;  // Its ends are there.

  bool met() const { return sent && received; }
};

// The end of a message on a rank.
struct End {
  size_t message = 0;
  bool sends = false;
};

class Run {
 public:
  // `together`: a pair receives all that it needs before it sends anything.
  Run(const Schedule& s, MessageSemantics semantics, bool together)
      : s_(s), semantics_(semantics), together_(together) {}

  Status ToTheEnd() {
    for (int rank = 0; rank < s_.ranks(); ++rank)
      groups_.push_back(GroupsOf(rank));
    at_.assign(groups_.size(), 0);
    for (size_t rank = 0; rank < groups_.size(); ++rank) Enter(rank);
    bool moved = true;
    while (moved) {
      moved = false;
      for (size_t rank = 0; rank < groups_.size(); ++rank) {
        while (at_[rank] < groups_[rank].size() && Ended(rank)) {
          ++at_[rank];
          Enter(rank);
          moved = true;
        }
      }
    }
    for (size_t rank = 0; rank < groups_.size(); ++rank) {
      if (at_[rank] < groups_[rank].size()) return Stuck(rank);
    }
    return OkStatus();
  }

 private:
  using Group = std::vector<End>;

  // The number of the message from stage `from` to stage `to`.
  size_t MessageOf(bool forward, int m, int from, int to) {
    const auto [at, fresh] =
        numbers_.try_emplace({forward, m, from}, messages_.size());
    if (fresh) {
      messages_.push_back(
          {.from = s_.PlaceOf(m, from).rank, .to = s_.PlaceOf(m, to).rank});
    }
    return at->second;
  }

  // What an action receives or sends, if it does.
  void Add(const Action& action, int stage, bool sends, Group& group) {
    if (action.kind == ActionKind::kWeight) return;
    const bool forward = action.kind == ActionKind::kForward;
    const int m = action.micro_batch, step = forward ? 1 : -1;
    const int from = sends ? stage : stage - step, to = from + step;
    if (from < 0 || to < 0 || from >= s_.stages() || to >= s_.stages()) return;
    if (s_.PlaceOf(m, from).rank == s_.PlaceOf(m, to).rank) return;
    const size_t message = MessageOf(forward, m, from, to);
    if (sends) messages_[message].what = s_.Text(action);
    group.push_back({message, sends});
  }

  std::vector<Group> GroupsOf(int rank) {
    std::vector<Group> groups;
    Group group;
    const auto close = [&] {
      if (!group.empty()) groups.push_back(std::move(group));
      group = {};
    };
    const auto add = [&](const Action& a, bool sends) {
      Add(a, s_.StageAt(a.micro_batch, {rank, a.chunk}), sends, group);
    };
    const std::vector<Action>& actions = s_.actions[static_cast<size_t>(rank)];
    size_t end = 0;
    for (size_t begin = 0; begin < actions.size(); begin = end) {
      end = begin + (together_ && s_.IsPair(rank, begin) ? 2 : 1);
      if (semantics_ != MessageSemantics::kGrouped) close();
      for (size_t i = begin; i < end; ++i) add(actions[i], false);
      close();
      for (size_t i = begin; i < end; ++i) add(actions[i], true);
    }
    close();
    return groups;
  }

  void Enter(size_t rank) {
    if (at_[rank] == groups_[rank].size()) return;
    for (const End& end : groups_[rank][at_[rank]]) {
      Message& message = messages_[end.message];
      (end.sends ? message.sent : message.received) = true;
    }
  }
  bool Waits(const End& end) const {
    if (end.sends && semantics_ == MessageSemantics::kBuffered) return false;
    return !messages_[end.message].met();
  }
  bool Ended(size_t rank) const {
    const Group& group = groups_[rank][at_[rank]];
    return std::none_of(group.begin(), group.end(),
                        [&](const End& end) { return Waits(end); });
  }

  // Who waits for whom, from `rank` on, until it is a circle.
  Status Stuck(size_t rank) const {
    std::string text;
    std::vector<size_t> seen;
    while (std::find(seen.begin(), seen.end(), rank) == seen.end() &&
           at_[rank] < groups_[rank].size()) {
      seen.push_back(rank);
      const Group& group = groups_[rank][at_[rank]];
      const End& end = *std::find_if(group.begin(), group.end(),
                                     [&](const End& e) { return Waits(e); });
      const Message& m = messages_[end.message];
      const int other = end.sends ? m.to : m.from;
      if (text.empty()) text = fmt::format("rank {}", rank);
      text += fmt::format(" {} {} {} rank {}", end.sends ? "sends" : "receives",
                          m.what, end.sends ? "to" : "from", other);
      rank = static_cast<size_t>(other);
      if (std::find(seen.begin(), seen.end(), rank) == seen.end()) {
        text += ", which";
      }
    }
    return InvalidArgument("{}: a deadlock ({} messages{})", text,
                           Name(semantics_), together_ ? ", in pairs" : "");
  }

  const Schedule& s_;
  MessageSemantics semantics_;
  bool together_;
  std::map<std::tuple<bool, int, int>, size_t> numbers_;
  std::vector<Message> messages_;
  std::vector<std::vector<Group>> groups_;  // Of each rank.
  std::vector<size_t> at_;
};

}  // namespace

std::string_view Name(MessageSemantics semantics) {
  switch (semantics) {
    case MessageSemantics::kBuffered:
      return "buffered";
    case MessageSemantics::kGrouped:
      return "grouped";
    case MessageSemantics::kBlocking:
      return "blocking";
  }
  return "unknown";
}

Status ValidateSchedule(const Schedule& schedule, MessageSemantics semantics) {
  SP_RETURN_IF_ERROR(CheckPlaces(schedule));
  SP_RETURN_IF_ERROR(Inventory(schedule).Check());
  SP_RETURN_IF_ERROR(Run(schedule, semantics, false).ToTheEnd());
  bool pairs = false;
  for (const std::vector<Action>& actions : schedule.actions) {
    for (const Action& action : actions) pairs = pairs || action.with_next;
  }
  if (!pairs) return OkStatus();
  return Run(schedule, MessageSemantics::kBuffered, true).ToTheEnd();
}

}  // namespace shardproof
