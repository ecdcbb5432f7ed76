#include "collectives/traffic_counter.h"

#include <algorithm>

namespace shardproof {

Traffic TrafficCounter::Total() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  Traffic total = retired_;
  total += {.bytes = bytes_.load(std::memory_order_relaxed),
            .messages = messages_.load(std::memory_order_relaxed)};
  for (const auto& child : children_) total += child->Total();
  return total;
}

bool TrafficCounter::HasLivingChild() const {
  const std::lock_guard<std::mutex> lock(mutex_);
  return std::any_of(children_.begin(), children_.end(), [](const auto& child) {
    return child.use_count() > 1 || child->HasLivingChild();
  });
}

std::shared_ptr<TrafficCounter> TrafficCounter::NewChild() {
  const std::lock_guard<std::mutex> lock(mutex_);
  std::erase_if(children_, [this](const auto& child) {
    if (child.use_count() > 1 || child->HasLivingChild()) return false;
    retired_ += child->Total();
    return true;
  });
  return children_.emplace_back(std::make_shared<TrafficCounter>());
}

}  // namespace shardproof
