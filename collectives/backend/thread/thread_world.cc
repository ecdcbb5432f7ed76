#include "collectives/backend/thread/thread_world.h"

#include <pthread.h>
#include <sched.h>

#include <condition_variable>
#include <mutex>
#include <optional>
#include <string>
#include <system_error>
#include <thread>
#include <utility>

#include "collectives/backend/thread/thread_backend.h"
#include "collectives/backend/thread/thread_group.h"
#include "collectives/current_rank.h"

namespace shardproof {
namespace {

// Far more threads than any machine has cores; a larger number is a typing error.
constexpr int kMaxRanks = 1024;

using RankMain = std::function<Status(const Communicator&)>;

// The cores that this process may use, in order.
std::vector<int> Cores() {
  cpu_set_t set;
  CPU_ZERO(&set);
  std::vector<int> cores;
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return cores;
  for (int core = 0; core < CPU_SETSIZE; ++core) {
    if (CPU_ISSET(core, &set)) cores.push_back(core);
  }
  return cores;
}

void PinTo(int core) {
  cpu_set_t set;
  CPU_ZERO(&set);
  CPU_SET(core, &set);
  // Refused in some containers; then the kernel places the threads.
  static_cast<void>(pthread_setaffinity_np(pthread_self(), sizeof(set), &set));
}

class ThreadWorldImpl final : public ThreadWorld {
 public:
  ThreadWorldImpl(std::shared_ptr<ThreadShared> shared,
                  std::shared_ptr<ThreadGroup> group)
      : shared_(std::move(shared)), group_(std::move(group)) {}
  ~ThreadWorldImpl() override;

  Status Start(const ThreadWorldOptions& options);
  Status Run(const RankMain& rank_main) override;
  int ranks() const override { return group_->size(); }
  bool healthy() const override { return !shared_->abort.raised(); }
  void Abort(std::string_view reason) override { shared_->abort.Raise(reason); }
  std::vector<const OpRecord*> Progress() const override;

 private:
  Communicator CommunicatorOf(int rank) const;
  void Serve(int rank, std::optional<int> core);

  std::shared_ptr<ThreadShared> shared_;
  std::shared_ptr<ThreadGroup> group_;
  std::function<std::shared_ptr<Backend>(std::shared_ptr<Backend>)> wrap_;

  std::mutex run_mutex_;  // Held by Run: one at a time.

  std::mutex mutex_;
  std::condition_variable changed_;
  // Guarded by mutex_.
  const RankMain* work_ = nullptr;
  int64_t runs_ = 0;
  int busy_ = 0;
  bool stop_ = false;
  std::vector<Status> results_;

  std::vector<std::thread> threads_;
};

ThreadWorldImpl::~ThreadWorldImpl() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    stop_ = true;
  }
  changed_.notify_all();
  for (std::thread& thread : threads_) thread.join();
}

Status ThreadWorldImpl::Start(const ThreadWorldOptions& options) {
  wrap_ = options.wrap;
  const std::vector<int> cores = Cores();
  const bool pinned =
      options.pin && cores.size() >= static_cast<size_t>(ranks());
  results_.resize(ranks());
  for (int rank = 0; rank < ranks(); ++rank) {
    const std::optional<int> core =
        pinned ? std::optional<int>(cores[rank]) : std::nullopt;
    // The only way in which std::thread reports that the system refused.
    try {
      threads_.emplace_back([this, rank, core] { Serve(rank, core); });
    } catch (const std::system_error& error) {
      return Unavailable("cannot start a thread for rank {} of {}: {}", rank,
                         ranks(), error.what());
    }
  }
  return OkStatus();
}

Communicator ThreadWorldImpl::CommunicatorOf(int rank) const {
  std::shared_ptr<Backend> backend =
      std::make_shared<ThreadBackend>(group_, rank);
  if (wrap_ != nullptr) backend = wrap_(std::move(backend));
  return Communicator(std::move(backend));
}

void ThreadWorldImpl::Serve(int rank, std::optional<int> core) {
  SetCurrentRank(rank);
  pthread_setname_np(pthread_self(), fmt::format("rank {}", rank).c_str());
  if (core) PinTo(*core);
  const Communicator comm = CommunicatorOf(rank);
  for (int64_t run = 1;; ++run) {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [&] { return stop_ || runs_ >= run; });
    if (stop_) return;
    const RankMain& work = *work_;
    lock.unlock();
    Status status = work(comm);
    if (!status.ok()) {
      Abort(fmt::format("rank {}: {}", rank, status.message()));
    }
    lock.lock();
    results_[rank] = std::move(status);
    if (--busy_ == 0) changed_.notify_all();
  }
}

Status ThreadWorldImpl::Run(const RankMain& rank_main) {
  for (const std::thread& thread : threads_) {
    if (thread.get_id() == std::this_thread::get_id()) {
      return InvalidArgument("a rank cannot start a run of its own world");
    }
  }
  const std::lock_guard<std::mutex> one_at_a_time(run_mutex_);
  SP_RETURN_IF_ERROR(shared_->abort.status());
  std::unique_lock<std::mutex> lock(mutex_);
  work_ = &rank_main;
  busy_ = ranks();
  ++runs_;
  changed_.notify_all();
  changed_.wait(lock, [&] { return busy_ == 0; });
  // The cause, not what it led to: ranks that were only aborted come last.
  for (const bool aborted : {false, true}) {
    for (int rank = 0; rank < ranks(); ++rank) {
      const Status& status = results_[rank];
      if (status.ok() || (status.code() == StatusCode::kAborted) != aborted) {
        continue;
      }
      return status.WithContext(fmt::format("rank {}", rank));
    }
  }
  return OkStatus();
}

std::vector<const OpRecord*> ThreadWorldImpl::Progress() const {
  std::vector<const OpRecord*> records;
  for (int rank = 0; rank < ranks(); ++rank) {
    records.push_back(&group_->record(rank));
  }
  return records;
}

}  // namespace

StatusOr<std::unique_ptr<ThreadWorld>> ThreadWorld::Create(
    const ThreadWorldOptions& options) {
  if (options.ranks < 1 || options.ranks > kMaxRanks) {
    return InvalidArgument("{} ranks as threads: there must be 1 to {}",
                           options.ranks, kMaxRanks);
  }
  if (options.ranks_per_node < 0) {
    return InvalidArgument("{} ranks per node is negative",
                           options.ranks_per_node);
  }
  auto shared = std::make_shared<ThreadShared>();
  shared->waiting = {.abort = &shared->abort,
                     .spin = options.ranks <= UsableCores()};
  std::vector<int> nodes(options.ranks);
  for (int r = 0; r < options.ranks && options.ranks_per_node > 0; ++r) {
    nodes[r] = r / options.ranks_per_node;
  }
  SP_ASSIGN_OR_RETURN(std::shared_ptr<ThreadGroup> group,
                      ThreadGroup::Create(shared, nodes));
  auto world =
      std::make_unique<ThreadWorldImpl>(std::move(shared), std::move(group));
  SP_RETURN_IF_ERROR(world->Start(options));
  return std::unique_ptr<ThreadWorld>(std::move(world));
}

Status RunThreads(int ranks, const RankMain& rank_main) {
  SP_ASSIGN_OR_RETURN(std::unique_ptr<ThreadWorld> world,
                      ThreadWorld::Create({.ranks = ranks}));
  return world->Run(rank_main);
}

}  // namespace shardproof
