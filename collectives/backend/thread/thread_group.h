// What the ranks of one communicator of threads share.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_THREAD_THREAD_GROUP_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_THREAD_THREAD_GROUP_H_

#include <atomic>
#include <condition_variable>
#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <utility>
#include <vector>

#include "collectives/backend.h"
#include "collectives/backend/node/abort_flag.h"
#include "collectives/backend/node/wait.h"
#include "collectives/backend/thread/mailbox.h"
#include "collectives/device.h"
#include "reference/status.h"

namespace shardproof {

// What all communicators of a world share.
struct ThreadShared {
  AbortFlag abort;
  Waiting waiting;  // Points to `abort`.
  // After an abort ranks leave operations at any point, while peers may still
  // load from and store to their buffers. So what is freed then is kept here
  // until the world goes. Guarded by `mutex`.
  std::mutex mutex;
  std::vector<Buffer> kept;
};

class ThreadGroup {
 public:
  // `nodes[r]` is the (simulated) node of rank r, numbered as the world numbers
  // them.
  static StatusOr<std::shared_ptr<ThreadGroup>> Create(
      std::shared_ptr<ThreadShared> shared, const std::vector<int>& nodes);
  ~ThreadGroup();
  ThreadGroup(const ThreadGroup&) = delete;
  ThreadGroup& operator=(const ThreadGroup&) = delete;

  int size() const { return static_cast<int>(nodes_.size()); }
  const Topology& topology() const { return topology_; }
  ThreadShared& shared() const { return *shared_; }
  const std::shared_ptr<ThreadShared>& shared_owner() const { return shared_; }
  // The control memory of the board; null where the group spans nodes.
  std::byte* control() const { return control_.data(); }
  OpRecord& record(int rank) { return records_[rank]; }
  // Made at first use: most pairs of ranks never talk.
  Channel& channel(int from, int to);

  // The part of the group that has `color`, and the caller's rank in it; null
  // for a negative color. Called by every rank.
  struct Part {
    std::shared_ptr<ThreadGroup> group;
    int rank = -1;
  };
  StatusOr<Part> Split(int rank, int color, int key);

 private:
  struct Entry {
    int color = -1, key = 0;
  };
  // One collective call of Split. Ranks may be one call apart.
  struct Division {
    std::vector<Entry> entries;
    int arrived = 0, left = 0;
    StatusOr<std::vector<Part>> parts = std::vector<Part>();
  };

  ThreadGroup(std::shared_ptr<ThreadShared> shared, std::vector<int> nodes);
  StatusOr<std::vector<Part>> Divide(const std::vector<Entry>& entries) const;

  std::shared_ptr<ThreadShared> shared_;
  std::vector<int> nodes_;
  Topology topology_;
  Buffer control_;
  std::vector<OpRecord> records_;
  std::vector<std::atomic<Channel*>> channels_;  // [from * size + to], owned.

  std::mutex split_mutex_;
  std::condition_variable split_done_;
  std::vector<int> splits_of_;         // Guarded by split_mutex_.
  std::map<int, Division> divisions_;  // Guarded by split_mutex_.
};

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_THREAD_THREAD_GROUP_H_
