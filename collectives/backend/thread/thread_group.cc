#include "collectives/backend/thread/thread_group.h"

#include <algorithm>
#include <chrono>
#include <numeric>
#include <tuple>

#include "collectives/backend/node/board.h"
#include "collectives/host_memory.h"

namespace shardproof {
namespace {

Topology TopologyOf(const std::vector<int>& nodes) {
  Topology topology{.node_of = {}, .nodes = 0};
  std::map<int, int> number;
  for (const int node : nodes) {
    const auto [at, is_new] = number.try_emplace(node, topology.nodes);
    if (is_new) ++topology.nodes;
    topology.node_of.push_back(at->second);
  }
  return topology;
}

}  // namespace

ThreadGroup::ThreadGroup(std::shared_ptr<ThreadShared> shared,
                         std::vector<int> nodes)
    : shared_(std::move(shared)),
      nodes_(std::move(nodes)),
      topology_(TopologyOf(nodes_)),
      records_(nodes_.size()),
      channels_(nodes_.size() * nodes_.size()),
      splits_of_(nodes_.size()) {}

ThreadGroup::~ThreadGroup() {
  for (std::atomic<Channel*>& slot : channels_) {
    const std::unique_ptr<Channel> owned(slot.load(std::memory_order_acquire));
  }
}

StatusOr<std::shared_ptr<ThreadGroup>> ThreadGroup::Create(
    std::shared_ptr<ThreadShared> shared, const std::vector<int>& nodes) {
  std::shared_ptr<ThreadGroup> group(new ThreadGroup(std::move(shared), nodes));
  if (group->topology_.nodes == 1) {
    SP_ASSIGN_OR_RETURN(group->control_,
                        AllocateZeroed(NodeBoard::BytesNeeded(group->size())));
  }
  return group;
}

Channel& ThreadGroup::channel(int from, int to) {
  std::atomic<Channel*>& slot = channels_[from * size() + to];
  Channel* channel = slot.load(std::memory_order_acquire);
  if (channel != nullptr) [[likely]]
    return *channel;
  auto fresh = std::make_unique<Channel>(from, to);
  if (slot.compare_exchange_strong(channel, fresh.get(),
                                   std::memory_order_acq_rel)) {
    return *fresh.release();
  }
  return *channel;  // The other side was quicker.
}

StatusOr<ThreadGroup::Part> ThreadGroup::Split(int rank, int color, int key) {
  std::unique_lock<std::mutex> lock(split_mutex_);
  const int call = splits_of_[rank]++;
  Division& division = divisions_[call];
  division.entries.resize(size());
  division.entries[rank] = {color, key};
  if (++division.arrived == size()) {
    division.parts = Divide(division.entries);
    split_done_.notify_all();
  }
  while (division.arrived < size()) {
    // With a timeout, since raising the abort flag notifies nobody.
    split_done_.wait_for(lock, std::chrono::milliseconds(2));
    if (shared_->abort.raised()) return shared_->abort.status();
  }
  StatusOr<Part> part = division.parts.ok()
                            ? StatusOr<Part>((*division.parts)[rank])
                            : division.parts.status();
  if (++division.left == size()) divisions_.erase(call);
  return part;
}

StatusOr<std::vector<ThreadGroup::Part>> ThreadGroup::Divide(
    const std::vector<Entry>& entries) const {
  std::vector<int> order(entries.size());
  std::iota(order.begin(), order.end(), 0);
  std::stable_sort(order.begin(), order.end(), [&entries](int a, int b) {
    return std::tie(entries[a].color, entries[a].key) <
           std::tie(entries[b].color, entries[b].key);
  });
  std::vector<Part> parts(entries.size());
  for (size_t begin = 0, end = 0; begin < order.size(); begin = end) {
    const int color = entries[order[begin]].color;
    std::vector<int> nodes;
    for (end = begin; end < order.size() && entries[order[end]].color == color;
         ++end) {
      nodes.push_back(nodes_[order[end]]);
    }
    if (color < 0) continue;
    SP_ASSIGN_OR_RETURN(std::shared_ptr<ThreadGroup> group,
                        Create(shared_, nodes));
    for (size_t i = begin; i < end; ++i) {
      parts[order[i]] = {group, static_cast<int>(i - begin)};
    }
  }
  return parts;
}

}  // namespace shardproof
