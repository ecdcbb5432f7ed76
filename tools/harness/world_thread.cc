// Ranks as threads: one ThreadWorld per number of ranks, kept between runs and
// replaced after an abort.
#include <unistd.h>

#include <cstdio>
#include <map>
#include <mutex>
#include <utility>

#include "collectives/backend/thread/thread_world.h"
#include "tools/harness/world_backends.h"

namespace shardproof {
namespace {

constexpr int kMaxRanks = 1024;

using Make = std::function<StatusOr<std::unique_ptr<ThreadWorld>>(int ranks)>;

class ThreadsWorld final : public World {
 public:
  ThreadsWorld(std::string backend, int max_ranks, Make make)
      : backend_(std::move(backend)),
        max_ranks_(max_ranks),
        make_(std::move(make)) {}

  std::string_view backend() const override { return backend_; }
  int max_ranks() const override { return max_ranks_; }
  bool of_processes() const override { return false; }
  bool is_leader() const override { return true; }
  bool healthy() const override { return true; }

  Status Run(int ranks,
             const std::function<Status(const Communicator&)>& f) override {
    auto found = worlds_.find(ranks);
    if (found == worlds_.end()) {
      SP_ASSIGN_OR_RETURN(std::unique_ptr<ThreadWorld> fresh, make_(ranks));
      found = worlds_.emplace(ranks, std::move(fresh)).first;
    }
    ThreadWorld& world = *found->second;
    SetCurrent(&world);
    Status status = world.Run([&](const Communicator& comm) -> Status {
      SP_RETURN_IF_ERROR(PublishActive(comm, active_));
      return f(comm);
    });
    // No thread may look at what is about to go.
    SetCurrent(nullptr);
    active_->Clear();
    if (!world.healthy()) {
      worlds_.erase(found);
      // An abort that came after the last wait still spoils the run.
      if (status.ok()) status = Aborted("the run was aborted");
    }
    return status;
  }

  void Abort(std::string_view reason) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    if (current_ != nullptr) current_->Abort(reason);
  }
  std::vector<std::string> Whereabouts() const override {
    return DescribeActive(*active_);
  }
  [[noreturn]] void Terminate(int exit_code) override {
    std::fflush(stdout);
    std::fflush(stderr);
    // Threads may hang in operations: no destructors.
    _exit(exit_code);
  }

 private:
  void SetCurrent(ThreadWorld* world) {
    const std::lock_guard<std::mutex> lock(mutex_);
    current_ = world;
  }

  const std::string backend_;
  const int max_ranks_;
  const Make make_;
  std::shared_ptr<ActiveCommunicator> active_ =
      std::make_shared<ActiveCommunicator>();
  std::map<int, std::unique_ptr<ThreadWorld>> worlds_;
  std::mutex mutex_;
  ThreadWorld* current_ = nullptr;  // Guarded by mutex_.
};

}  // namespace

StatusOr<std::unique_ptr<World>> CreateThreadsWorld(std::string backend,
                                                    int max_ranks, Make make) {
  return std::unique_ptr<World>(std::make_unique<ThreadsWorld>(
      std::move(backend), max_ranks, std::move(make)));
}

StatusOr<std::unique_ptr<World>> CreateThreadWorld() {
  return CreateThreadsWorld("thread", kMaxRanks, [](int ranks) {
    return ThreadWorld::Create({.ranks = ranks});
  });
}

}  // namespace shardproof
