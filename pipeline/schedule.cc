#include "pipeline/schedule.h"

#include <fmt/format.h>

#include <algorithm>

namespace shardproof {

char Letter(ActionKind kind) {
  constexpr char kLetters[] = {'F', 'B', 'I', 'W'};
  return kLetters[static_cast<size_t>(kind)];
}

bool Schedule::IsPair(int rank, size_t i) const {
  const std::vector<Action>& all = actions[static_cast<size_t>(rank)];
  if (i + 1 >= all.size() || !all[i].with_next) return false;
  const ActionKind first = all[i].kind, second = all[i + 1].kind;
  return (first == ActionKind::kForward && second == ActionKind::kBackward) ||
         (first == ActionKind::kBackward && second == ActionKind::kForward);
}

int Schedule::StageAt(int micro_batch, const Place& place) const {
  const std::vector<Place>& stages =
      pipelines[static_cast<size_t>(PipelineOf(micro_batch))];
  const auto found = std::find(stages.begin(), stages.end(), place);
  return found == stages.end() ? -1 : static_cast<int>(found - stages.begin());
}

std::string Schedule::Text(const Action& action) const {
  const bool several = stages() > ranks() || pipelines.size() > 1;
  const std::string name =
      fmt::format("{}{}", Letter(action.kind), action.micro_batch);
  return several ? fmt::format("{}.{}", name, action.chunk) : name;
}

double StageCosts::Of(ActionKind kind) const {
  switch (kind) {
    case ActionKind::kForward:
      return forward;
    case ActionKind::kBackward:
      return input + weight;
    case ActionKind::kInput:
      return input;
    case ActionKind::kWeight:
      return weight;
  }
  return 0;
}

std::vector<Place> LoopingStages(int ranks, int chunks) {
  std::vector<Place> stages;
  for (int chunk = 0; chunk < chunks; ++chunk) {
    for (int rank = 0; rank < ranks; ++rank) stages.push_back({rank, chunk});
  }
  return stages;
}

std::vector<Place> VStages(int ranks) {
  std::vector<Place> stages;
  for (int rank = 0; rank < ranks; ++rank) stages.push_back({rank, 0});
  for (int rank = ranks - 1; rank >= 0; --rank) stages.push_back({rank, 1});
  return stages;
}

std::vector<std::vector<Place>> OppositeStages(int ranks) {
  std::vector<std::vector<Place>> pipelines(2);
  for (int rank = 0; rank < ranks; ++rank) {
    pipelines[0].push_back({rank, 0});
    pipelines[1].push_back({ranks - 1 - rank, 1});
  }
  return pipelines;
}

}  // namespace shardproof
