#include "pipeline/testing/random_schedule.h"

#include <algorithm>
#include <cstddef>
#include <utility>
#include <vector>

namespace shardproof {
namespace {

class Maker {
 public:
  Maker(std::mt19937_64& random, int ranks) : random_(random) {
    const int p = 1 + Below(ranks);
    s_.name = "random";
    s_.micro_batches = 1 + Below(6);
    s_.pipelines.resize(1 + static_cast<size_t>(Below(2)));
    s_.actions.resize(static_cast<size_t>(p));
    const int stages = 1 + Below(2 * p);
    std::vector<int> chunks(static_cast<size_t>(p), 0);
    for (std::vector<Place>& pipeline : s_.pipelines) {
      for (int stage = 0; stage < stages; ++stage) {
        const int rank = Below(p);
        pipeline.push_back({rank, chunks[static_cast<size_t>(rank)]++});
      }
    }
    for (int m = 0; s_.pipelines.size() > 1 && m < s_.micro_batches; ++m) {
      s_.pipeline_of.push_back(Below(2));
    }
  }

  // Actions one after the other, each any of those that can be next.
  Schedule Make() {
    for (int m = 0; m < s_.micro_batches; ++m) {
      Can(ActionKind::kForward, m, 0);
    }
    while (!ready_.empty()) {
      std::swap(
          ready_[static_cast<size_t>(Below(static_cast<int>(ready_.size())))],
          ready_.back());
      const Ready next = ready_.back();
      ready_.pop_back();
      Do(next);
    }
    return std::move(s_);
  }

 private:
  struct Ready {
    ActionKind kind;
    int micro_batch, stage;
  };

  int Below(int n) {
    return static_cast<int>(random_() % static_cast<uint64_t>(n));
  }
  void Can(ActionKind kind, int m, int stage) {
    ready_.push_back({kind, m, stage});
  }
  void CanGoBack(int m, int stage) {
    const bool split = Below(2) == 0;
    Can(split ? ActionKind::kInput : ActionKind::kBackward, m, stage);
  }

  void Do(const Ready& next) {
    const auto [kind, m, stage] = next;
    const Place& place = s_.PlaceOf(m, stage);
    s_.actions[static_cast<size_t>(place.rank)].push_back(
        {kind, m, place.chunk});
    switch (kind) {
      case ActionKind::kForward:
        if (stage + 1 < s_.stages()) {
          Can(kind, m, stage + 1);
        } else {
          CanGoBack(m, stage);
        }
        break;
      case ActionKind::kInput:
        Can(ActionKind::kWeight, m, stage);
        [[fallthrough]];
      case ActionKind::kBackward:
        if (stage > 0) CanGoBack(m, stage - 1);
        break;
      case ActionKind::kWeight:
        break;
    }
  }

  std::mt19937_64& random_;
  Schedule s_;
  std::vector<Ready> ready_;
};

}  // namespace

Schedule RandomSchedule(std::mt19937_64& random, int ranks) {
  return Maker(random, ranks).Make();
}

void BreakAtRandom(std::mt19937_64& random, Schedule& schedule) {
  const auto below = [&](size_t n) { return random() % n; };
  std::vector<Action>& actions =
      schedule.actions[below(schedule.actions.size())];
  if (actions.empty()) return;
  const size_t i = below(actions.size()), j = below(actions.size());
  switch (below(8)) {
    case 0:
      actions.erase(actions.begin() + static_cast<ptrdiff_t>(i));
      break;
    case 1:
      actions.insert(actions.begin() + static_cast<ptrdiff_t>(i), actions[j]);
      break;
    case 2:
      actions[i].micro_batch =
          static_cast<int>(below(static_cast<size_t>(schedule.micro_batches)));
      break;
    case 3:
      actions[i].kind = static_cast<ActionKind>(below(4));
      break;
    case 4:
      actions[i].chunk = actions[j].chunk;
      break;
    default:
      std::swap(actions[i], actions[j]);
  }
}

}  // namespace shardproof
