// Counts the traffic of one rank through one communicator and its descendants.
#ifndef SHARDPROOF_COLLECTIVES_TRAFFIC_COUNTER_H_
#define SHARDPROOF_COLLECTIVES_TRAFFIC_COUNTER_H_

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <vector>

#include "collectives/traffic.h"

namespace shardproof {

// One thread at a time counts, any may ask: a communicator and its duplicates
// are used by several streams at once. So each has a counter of its own, which
// costs an add and no locked instruction, and a total is summed over the tree.
class TrafficCounter {
 public:
  TrafficCounter() = default;
  TrafficCounter(const TrafficCounter&) = delete;
  TrafficCounter& operator=(const TrafficCounter&) = delete;

  // One message of `bytes`; nothing when that is 0.
  void Count(size_t bytes) {
    if (bytes == 0) return;
    constexpr auto kRelaxed = std::memory_order_relaxed;
    bytes_.store(bytes_.load(kRelaxed) + static_cast<int64_t>(bytes), kRelaxed);
    messages_.store(messages_.load(kRelaxed) + 1, kRelaxed);
  }

  // What was counted here and by all that descend from it, dead or alive.
  Traffic Total() const;
  std::shared_ptr<TrafficCounter> NewChild();

 private:
  // Whether anybody holds a descendant, which may go on counting.
  bool HasLivingChild() const;

  std::atomic<int64_t> bytes_{0};
  std::atomic<int64_t> messages_{0};
  mutable std::mutex mutex_;
  // Guarded by mutex_. A child that nobody else holds any more, nor any of its
  // descendants, is added to `retired_` when the next one is born, so that a
  // loop of splits stays small.
  std::vector<std::shared_ptr<TrafficCounter>> children_;
  Traffic retired_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_TRAFFIC_COUNTER_H_
