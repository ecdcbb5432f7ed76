#include "pipeline/builder.h"

#include <algorithm>
#include <utility>
#include <vector>

namespace shardproof {
namespace {

Action Of(ActionKind kind, const ChunkOfBatch& what) {
  return {kind, what.micro_batch, what.chunk};
}

}  // namespace

Schedule EmptySchedule(std::string name, const ScheduleShape& shape) {
  Schedule schedule;
  schedule.name = std::move(name);
  schedule.micro_batches = shape.micro_batches;
  schedule.pipelines = {LoopingStages(shape.ranks, shape.chunks)};
  schedule.actions.resize(static_cast<size_t>(shape.ranks));
  return schedule;
}

void Alternate(int warm_up, int total, const ChunkOrder& forward,
               const ChunkOrder& backward, std::vector<Action>& actions) {
  const int first = std::min(warm_up, total);
  for (int k = 0; k < first; ++k) {
    actions.push_back(Of(ActionKind::kForward, forward(k)));
  }
  for (int k = 0; k < total; ++k) {
    if (first + k < total) {
      actions.push_back(Of(ActionKind::kForward, forward(first + k)));
    }
    actions.push_back(Of(ActionKind::kBackward, backward(k)));
  }
}

void AlternateSplit(int warm_up, int delay, int total,
                    std::vector<Action>& actions) {
  const int first = std::min(warm_up, total);
  for (int k = 0; k < first; ++k) {
    actions.push_back(Of(ActionKind::kForward, InOrder(k)));
  }
  for (int k = 0; k < total; ++k) {
    if (first + k < total) {
      actions.push_back(Of(ActionKind::kForward, InOrder(first + k)));
    }
    actions.push_back(Of(ActionKind::kInput, InOrder(k)));
    if (k >= delay) {
      actions.push_back(Of(ActionKind::kWeight, InOrder(k - delay)));
    }
  }
  for (int k = std::max(0, total - delay); k < total; ++k) {
    actions.push_back(Of(ActionKind::kWeight, InOrder(k)));
  }
}

ChunkOfBatch InOrder(int k) { return {k, 0}; }

}  // namespace shardproof
