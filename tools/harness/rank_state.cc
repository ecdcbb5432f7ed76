#include "tools/harness/rank_state.h"

#include <chrono>
#include <condition_variable>
#include <thread>

namespace shardproof {

StatusOr<RankState*> RankState::Of(const Communicator& comm) {
  using Shared = std::shared_ptr<RankState>;
  SP_ASSIGN_OR_RETURN(
      Shared* const state,
      comm.Attribute<Shared>("harness/state", [&]() -> StatusOr<Shared> {
        auto fresh = std::make_shared<RankState>();
        SP_ASSIGN_OR_RETURN(fresh->locality, FindLocality(comm));
        return fresh;
      }));
  return state->get();
}

struct AbortAfter::Clock {
  std::mutex mutex;
  std::condition_variable changed;
  bool cancelled = false;  // Guarded by mutex.
  std::thread thread;
};

AbortAfter::AbortAfter(Communicator comm, double seconds, std::string reason)
    : clock_(std::make_unique<Clock>()) {
  Clock* const clock = clock_.get();
  clock->thread = std::thread([clock, comm = std::move(comm), seconds,
                               reason = std::move(reason)] {
    std::unique_lock<std::mutex> lock(clock->mutex);
    if (!clock->changed.wait_for(lock, std::chrono::duration<double>(seconds),
                                 [clock] { return clock->cancelled; })) {
      comm.Abort(reason);
    }
  });
}

AbortAfter::~AbortAfter() {
  {
    const std::lock_guard<std::mutex> lock(clock_->mutex);
    clock_->cancelled = true;
  }
  clock_->changed.notify_all();
  clock_->thread.join();
}

}  // namespace shardproof
