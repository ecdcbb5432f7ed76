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

class Inventory {
 public:
  explicit Inventory(const Schedule& s)
      : s_(s),
        found_(static_cast<size_t>(s.micro_batches) *
               static_cast<size_t>(s.stages())) {}

  Status Check() {
    for (int rank = 0; rank < s_.ranks(); ++rank) {
      const std::vector<Action>& actions =
          s_.actions[static_cast<size_t>(rank)];
      for (size_t i = 0; i < actions.size(); ++i) {
        SP_RETURN_IF_ERROR(Add(rank, i, actions[i]));
        SP_RETURN_IF_ERROR(CheckPair(rank, i));
      }
    }
    for (int m = 0; m < s_.micro_batches; ++m) {
      for (int stage = 0; stage < s_.stages(); ++stage) {
        SP_RETURN_IF_ERROR(CheckAll(m, stage));
      }
      for (int stage = 1; stage < s_.stages(); ++stage) {
        SP_RETURN_IF_ERROR(CheckNeighbours(m, stage));
      }
    }
    return OkStatus();
  }

 private:
  Found& At(int m, int stage) {
    return found_[static_cast<size_t>(m * s_.stages() + stage)];
  }

  Status Add(int rank, size_t i, const Action& action) {
    const int m = action.micro_batch;
    if (m < 0 || m >= s_.micro_batches) {
      return InvalidArgument(
          "rank {}, action {}, {}: there are {} micro-batches", rank, i,
          s_.Text(action), s_.micro_batches);
    }
    const int stage = s_.StageAt(m, {rank, action.chunk});
    if (stage < 0) {
      return InvalidArgument(
          "rank {}, action {}, {}: chunk {} is no stage of micro-batch {}",
          rank, i, s_.Text(action), action.chunk, m);
    }
    std::optional<size_t>& place = At(m, stage).Of(action.kind);
    if (place) {
      return InvalidArgument("rank {}, action {}, {}: action {} was the same",
                             rank, i, s_.Text(action), *place);
    }
    place = i;
    return OkStatus();
  }

  Status CheckPair(int rank, size_t i) const {
    const std::vector<Action>& actions = s_.actions[static_cast<size_t>(rank)];
    if (!actions[i].with_next) return OkStatus();
    const std::string text = s_.Text(actions[i]);
    if (i + 1 == actions.size()) {
      return InvalidArgument("rank {}, action {}, {}: a pair without a second",
                             rank, i, text);
    }
    const Action& next = actions[i + 1];
    // All F of a micro-batch come before its B.
    if (!s_.IsPair(rank, i) || next.with_next ||
        next.micro_batch == actions[i].micro_batch) {
      return InvalidArgument(
          "rank {}, action {}, {}: it and {} are no F and B of two "
          "micro-batches, which can be a pair",
          rank, i, text, s_.Text(next));
    }
    return OkStatus();
  }

  Status CheckAll(int m, int stage) {
    const Place& place = s_.PlaceOf(m, stage);
    Found& found = At(m, stage);
    const auto text = [&](ActionKind kind) {
      return s_.Text({kind, m, place.chunk});
    };
    const bool split = found.input || found.weight;
    if (split && found.backward) {
      const ActionKind part =
          found.input ? ActionKind::kInput : ActionKind::kWeight;
      return InvalidArgument("rank {}, action {}, {}: it is part of {} already",
                             place.rank, *found.Of(part), text(part),
                             text(ActionKind::kBackward));
    }
    std::vector<ActionKind> needed = {ActionKind::kForward};
    if (split) {
      needed.insert(needed.end(), {ActionKind::kInput, ActionKind::kWeight});
    } else {
      needed.push_back(ActionKind::kBackward);
    }
    for (const ActionKind kind : needed) {
      if (found.Of(kind)) continue;
      return InvalidArgument("rank {} never does {}, of stage {}", place.rank,
                             text(kind), stage);
    }
    for (size_t i = 1; i < needed.size(); ++i) {
      const size_t before = *found.Of(needed[i - 1]), at = *found.Of(needed[i]);
      if (before < at) continue;
      return InvalidArgument(
          "rank {}, action {}, {}: its {} comes later, as {}", place.rank, at,
          text(needed[i]), text(needed[i - 1]), before);
    }
    return OkStatus();
  }

  // Of stages on one rank, between which there is no message.
  Status CheckNeighbours(int m, int stage) {
    const Place& before = s_.PlaceOf(m, stage - 1);
    const Place& place = s_.PlaceOf(m, stage);
    if (before.rank != place.rank) return OkStatus();
    const auto backward = [](const Found& f) {
      return f.backward ? ActionKind::kBackward : ActionKind::kInput;
    };
    Found& first = At(m, stage - 1);
    Found& second = At(m, stage);
    SP_RETURN_IF_ERROR(CheckOrder(place.rank, m, ActionKind::kForward, before,
                                  first, ActionKind::kForward, place, second));
    return CheckOrder(place.rank, m, backward(second), place, second,
                      backward(first), before, first);
  }
  Status CheckOrder(int rank, int m, ActionKind needed, const Place& needed_at,
                    Found& needed_in, ActionKind kind, const Place& at,
                    Found& in) const {
    const size_t first = *needed_in.Of(needed), second = *in.Of(kind);
    if (first < second) return OkStatus();
    return InvalidArgument("rank {}, action {}, {}: its {} comes later, as {}",
                           rank, second, s_.Text({kind, m, at.chunk}),
                           s_.Text({needed, m, needed_at.chunk}), first);
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
