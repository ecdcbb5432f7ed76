// A command at work: a world, a result file, a watchdog, progress and the exit
// code that comes of it.
#ifndef SHARDPROOF_TOOLS_CLI_SESSION_H_
#define SHARDPROOF_TOOLS_CLI_SESSION_H_

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "collectives/backend/cuda/device/gpu.h"
#include "reports/fingerprint.h"
#include "reports/result_file.h"
#include "reports/store/store.h"
#include "tools/cli/ceilings.h"
#include "tools/cli/conditions.h"
#include "tools/cli/environment.h"
#include "tools/cli/exit_code.h"
#include "tools/cli/jobs.h"
#include "tools/cli/options.h"
#include "tools/cli/watchdog.h"
#include "tools/harness/runner.h"
#include "tools/harness/world.h"

namespace shardproof {

class GpuServices;

class Session {
 public:
  // Collective under a launcher. Errors: a backend that is not there, ranks
  // that were given different arguments, a result file that cannot be written.
  static StatusOr<std::unique_ptr<Session>> Create(const Options& options);

  World& world() { return *world_; }
  bool leader() const { return world_->is_leader(); }
  // The ranks asked for, or `fallback`, or on mpi those that were started;
  // kInvalidArgument when the world cannot hold them.
  StatusOr<std::vector<int>> Ranks(const std::vector<int>& fallback) const;

  struct Phase {
    std::string name;   // "verify", for progress.
    double budget = 0;  // Seconds; 0: none.
    // Seconds without which a job is not worth starting; the next one may be.
    // Unset: 0.
    std::function<double(const Job&)> needs = nullptr;
    bool measure = false;
    // What has passed in the phases before, on whatever instances of its case
    // with outputs of the type, counts as passed elsewhere (RunOptions).
    bool trust = false;
    bool keep = true;  // The records go into the result file.
    MeasureOptions timing = {};
    // All jobs are gone through so many times, and a job's record is made of
    // those (blocks.h).
    int blocks = 1;
    int repeats = 3;
    // Above these, outputs are checked on a sample (RunOptions).
    int64_t check_elements = RunOptions{}.check_elements;
    double check_flops = RunOptions{}.check_flops;
  };
  // Runs the jobs in order and gives each record to `on_record` (leader only).
  // Stops at an interrupt, a lost world, or when the budget is spent; what was
  // not run is counted as left out, as is what needs more than is left of it.
  void Run(const std::vector<Job>& jobs, const Phase& phase,
           const std::function<void(const Job&, const Record&)>& on_record);

  // Runs f on `ranks` ranks under the watchdog, which ends it after `seconds`
  // (0: never): measurements that are not those of a case. `what` is for the
  // sentence about a hang. Errors are the same on all processes, and once there
  // is one the world may be lost.
  Status RunOnRanks(const std::string& what, int ranks, double seconds,
                    const std::function<Status(const Communicator&)>& f);
  // Whether all processes go on, which they do as long as none says no or was
  // interrupted: the ranks decide together.
  bool GoOn(bool mine);
  // Whether so many ranks are on emulated GPUs, or several of them on one.
  bool Emulated(int ranks) const;
  // A member of the result file beside its records.
  void AddSection(const std::string& name, nlohmann::ordered_json value) {
    sections_[name] = std::move(value);
  }

  bool interrupted() const { return interrupted_; }
  void LeftOut(std::string what) { left_out_.push_back(std::move(what)); }
  const std::vector<std::string>& left_out() const { return left_out_; }
  void Note(ExitCode code) { exit_code_ = Worse(exit_code_, code); }

  // Completes the result file, says where it is, and returns the exit code.
  ExitCode Finish();

 private:
  Session(Options options, std::unique_ptr<World> world,
          std::shared_ptr<cuda::GpuSystem> gpus,
          std::shared_ptr<const GpuServices> services);
  // No speed of GPUs is claimed where there are none, or several ranks on one.
  void MarkEmulated(Record& record) const;
  Record RunOne(const Job& job, const RunOptions& run);
  // Makes one record of a job's blocks, if it has any.
  void EndBlocks(size_t job);
  Status BeginHistory();
  void Keep(const Record& record);
  void KeepInHistory(const Record& record);
  void EndHistory(const ResultEnd& end, const Conditions& after);
  void GiveUp(const std::vector<std::string>& whereabouts, bool hung);
  // Whether all processes go on: the leader decides.
  bool Continue(bool mine);
  void ShowProgress(const Phase& phase, size_t done, size_t all,
                    const Job* job);

  Options options_;
  // Null: a backend without any.
  std::shared_ptr<cuda::GpuSystem> gpus_;
  int ranks_with_gpus_ = 0;  // See RanksWithGpus.
  std::shared_ptr<const GpuServices> services_;
  std::unique_ptr<World> world_;
  Ceilings ceilings_;
  std::optional<ResultFile> file_;
  ConditionsWatch conditions_;
  std::optional<Store> history_;
  int64_t launch_ = 0;  // In the history.
  std::string started_ = UtcNow();
  std::unique_ptr<Watchdog> watchdog_;
  std::optional<Record> under_way_;
  // While Run takes blocks, the leader's: by job, those taken so far, and what
  // to do with what they come to.
  std::vector<std::vector<Record>> blocks_;
  std::function<void(size_t job, const Record&)> take_;
  // Of the variants (and ranks) that have run and were not refused: whether all
  // instances passed. The same on all processes that hold those ranks.
  std::map<std::string, bool> passed_;
  std::vector<std::string> left_out_;
  nlohmann::ordered_json sections_ = nlohmann::ordered_json::object();
  ExitCode exit_code_ = kExitPass;
  bool interrupted_ = false, progress_shown_ = false;
  std::chrono::steady_clock::time_point phase_start_, last_progress_;
};

// The exit code that a verdict asks for.
ExitCode ExitCodeOf(const Record& record);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_SESSION_H_
