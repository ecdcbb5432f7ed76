// What a rank keeps from one instance to the next, as an attribute of its
// communicator.
#ifndef SHARDPROOF_TOOLS_HARNESS_RANK_STATE_H_
#define SHARDPROOF_TOOLS_HARNESS_RANK_STATE_H_

#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <utility>

#include "collectives/communicator.h"
#include "tools/harness/rank_buffers.h"
#include "tools/harness/workspace.h"

namespace shardproof {

// The communicator in which the operations of the moment run, as each rank of
// this process holds it, for a watchdog on another thread to look at. Its owner
// (a World) makes it an attribute of the communicators that it hands out.
class ActiveCommunicator {
 public:
  // Replaces that of the same rank.
  void Add(const Communicator& comm) {
    const std::lock_guard<std::mutex> lock(mutex_);
    of_rank_[comm.rank()] = comm;
  }
  void Clear() {
    std::map<int, Communicator> gone;
    const std::lock_guard<std::mutex> lock(mutex_);
    of_rank_.swap(gone);
  }
  // By rank.
  std::map<int, Communicator> Get() const {
    const std::lock_guard<std::mutex> lock(mutex_);
    return of_rank_;
  }

 private:
  mutable std::mutex mutex_;
  std::map<int, Communicator> of_rank_;
};
inline constexpr char kActiveAttribute[] = "harness/active";

struct RankState {
  Locality locality;
  BufferPool pool;
  // Operations run in a duplicate, so that a rank which leaves one early, with
  // an error, cannot confuse what the ranks agree about over the original.
  // Invalid: to be made anew.
  Communicator work;
  // What has been found able to see mistakes.
  std::set<std::string, std::less<>> power_checked;

  // Of this rank of `comm`. Collective at its first use.
  static StatusOr<RankState*> Of(const Communicator& comm);
};

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_HARNESS_RANK_STATE_H_
