// Ranks as processes: the launcher's world, and one communicator over its first
// n ranks for every n asked for.
#include <unistd.h>

#include <map>
#include <utility>

#include "tools/harness/world_backends.h"

namespace shardproof {
namespace {

class ProcessesWorld final : public World {
 public:
  ProcessesWorld(std::string backend, std::unique_ptr<MpiWorld> world)
      : backend_(std::move(backend)), world_(std::move(world)) {}

  std::string_view backend() const override { return backend_; }
  bool of_processes() const override { return true; }
  int max_ranks() const override { return world_->world().size(); }
  bool is_leader() const override { return world_->world().rank() == 0; }
  bool healthy() const override { return world_->world().health().ok(); }

  Status Run(int ranks,
             const std::function<Status(const Communicator&)>& f) override {
    if (ranks < 1 || ranks > max_ranks()) {
      return InvalidArgument(
          "{} ranks were asked for, and the launcher started {}", ranks,
          max_ranks());
    }
    auto found = firsts_.find(ranks);
    if (found == firsts_.end()) {
      const Communicator& all = world_->world();
      SP_ASSIGN_OR_RETURN(Communicator first,
                          all.Split(all.rank() < ranks ? 0 : -1, all.rank()));
      found = firsts_.emplace(ranks, std::move(first)).first;
    }
    const Communicator& comm = found->second;
    if (!comm.valid()) return OkStatus();
    SP_RETURN_IF_ERROR(PublishActive(comm, active_));
    const Status mine = f(comm);
    active_->Clear();
    // The others may wait for this rank, and must come to the same result.
    if (!mine.ok()) {
      comm.Abort(fmt::format("rank {}: {}", comm.rank(), mine.message()));
    }
    const auto all = comm.ExchangeControl("");
    if (!all.ok()) {
      return comm.health().ok() ? all.status() : comm.health();
    }
    return OkStatus();
  }

  void Abort(std::string_view reason) override {
    world_->world().Abort(reason);
  }
  std::vector<std::string> Whereabouts() const override {
    return DescribeActive(*active_);
  }
  [[noreturn]] void Terminate(int exit_code) override {
    world_->AbortJob(exit_code);
    _exit(exit_code);  // Never reached; the compiler cannot know.
  }

 private:
  const std::string backend_;
  std::unique_ptr<MpiWorld> world_;
  // After world_, so that they go first.
  std::map<int, Communicator> firsts_;
  std::shared_ptr<ActiveCommunicator> active_ =
      std::make_shared<ActiveCommunicator>();
};

}  // namespace

StatusOr<std::unique_ptr<World>> CreateProcessesWorld(
    std::string backend, const MpiWorldOptions& options) {
  SP_ASSIGN_OR_RETURN(std::unique_ptr<MpiWorld> world,
                      MpiWorld::Create(options));
  return std::unique_ptr<World>(
      std::make_unique<ProcessesWorld>(std::move(backend), std::move(world)));
}

}  // namespace shardproof
