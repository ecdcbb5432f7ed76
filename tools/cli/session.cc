#include "tools/cli/session.h"

#include <fmt/format.h>
#include <fmt/ranges.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <utility>

#include "collectives/backend/mpi/mpi_world.h"
#include "tools/cli/blocks.h"
#include "tools/cli/environment.h"
#include "tools/cli/gpu_world.h"
#include "tools/cli/interrupt.h"
#include "tools/cli/tuning_check.h"
#include "tools/harness/faults.h"

namespace shardproof {
namespace {

using Clock = std::chrono::steady_clock;

double Since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

// After an abort, ranks that wait return at once; one that computes forever
// does not.
constexpr double kGraceSeconds = 5;

// How many elements a second are at least filled and checked, all ranks
// together: far fewer than on an idle machine.
constexpr double kCheckedPerSecond = 4 << 20;

// Fibers take turns on a core where a GPU has thousands of threads at once.
constexpr double kEmulatedTimes = 10;

// Seconds until the instance counts as hung; 0: never. `timeout` is for the
// operations; what large buffers take besides, to fill and to check, is added.
double TimeLimit(const Job& job, double timeout, bool fibers) {
  if (timeout <= 0) return 0;
  if (fibers) timeout *= kEmulatedTimes;
  double elements = 0;
  for (const TensorSpec& t : job.info->tensors(job.instance)) {
    for (int r = 0; r < job.instance.ranks; ++r) {
      elements += static_cast<double>(
          t.BlockOf(r, job.instance.ranks).shape.NumElements());
    }
  }
  return timeout + elements / kCheckedPerSecond;
}

std::string BackendOf(const Options& options) {
  if (!options.backend.empty()) return options.backend;
  return StartedByMpiLauncher() ? "mpi" : "thread";
}

// Ranks of one job must have been started alike: a different filter on one of
// them would leave the others waiting in a collective forever.
Status AgreeOnArguments(World& world, const std::string& command_line) {
  // Every rank finds the same, so none has to be told: the exchange itself
  // has not failed.
  Status found;
  SP_RETURN_IF_ERROR(
      world.Run(world.max_ranks(), [&](const Communicator& comm) -> Status {
        SP_ASSIGN_OR_RETURN(const std::vector<std::string> all,
                            comm.ExchangeControl(command_line));
        for (size_t r = 1; r < all.size() && found.ok(); ++r) {
          if (all[r] == all[0]) continue;
          found = InvalidArgument(
              "ranks 0 and {} were given different arguments: \"{}\" and "
              "\"{}\"",
              r, all[0], all[r]);
        }
        return OkStatus();
      }));
  return found;
}

// A variant on so many ranks, with outputs of one type.
std::string VariantKey(const Job& job) {
  std::string key = fmt::format("{} {} ranks={}", job.info->name,
                                job.variant->name, job.instance.ranks);
  const Tensors tensors = job.info->tensors(job.instance);
  const auto output = std::ranges::find(
      tensors, TensorRole::kOutput, [](const TensorSpec& t) { return t.role; });
  if (output != tensors.end()) key += fmt::format(" {}", Name(output->dtype));
  return key;
}

}  // namespace

ExitCode ExitCodeOf(const Record& record) {
  switch (record.verdict) {
    case Verdict::kPassed:
    case Verdict::kUnsupported:
      return kExitPass;
    case Verdict::kNotBuilt:
    case Verdict::kFailed:
      return kExitBackend;
    case Verdict::kIncorrect:
    case Verdict::kSuspect:
      return kExitMismatch;
  }
  return kExitMismatch;
}

Session::Session(Options options, std::unique_ptr<World> world,
                 std::shared_ptr<cuda::GpuSystem> gpus,
                 std::shared_ptr<const GpuServices> services)
    : options_(std::move(options)),
      gpus_(std::move(gpus)),
      services_(std::move(services)),
      world_(std::move(world)),
      ceilings_(*world_) {
  watchdog_ = std::make_unique<Watchdog>(
      *world_, kGraceSeconds,
      [this](const std::vector<std::string>& whereabouts, bool hung) {
        GiveUp(whereabouts, hung);
      });
}

StatusOr<std::unique_ptr<Session>> Session::Create(const Options& options) {
  Options resolved = options;
  resolved.backend = BackendOf(options);
  if (!options.fault.empty()) {
    SP_RETURN_IF_ERROR(ParseFault(options.fault).status());
  }
  SP_ASSIGN_OR_RETURN(const std::shared_ptr<cuda::GpuSystem> gpus,
                      GpusFor(resolved));
  std::shared_ptr<const GpuServices> services;
  if (gpus != nullptr) {
    SP_ASSIGN_OR_RETURN(services, GpuServices::Create(gpus, resolved));
  }
  SP_ASSIGN_OR_RETURN(
      std::unique_ptr<World> world,
      gpus == nullptr
          ? CreateWorld(resolved.backend)
          : CreateGpuWorld(resolved.backend, resolved, gpus, services));
  if (world->of_processes()) {
    SP_RETURN_IF_ERROR(AgreeOnArguments(*world, options.command_line));
  }
  SP_RETURN_IF_ERROR(AgreeOnTuning(*world, ActiveTuning()));
  int ranks_with_gpus = 0;
  if (gpus != nullptr) {
    SP_ASSIGN_OR_RETURN(ranks_with_gpus, RanksWithGpus(*world, gpus));
  }
  std::unique_ptr<Session> session(
      new Session(std::move(resolved), std::move(world), gpus, services));
  session->ranks_with_gpus_ = ranks_with_gpus;
  if (!options.json.empty() && session->leader()) {
    SP_ASSIGN_OR_RETURN(
        ResultFile file,
        ResultFile::Create(options.json,
                           {.command = options.command_line,
                            .started = session->started_,
                            .environment = Environment(options.label)}));
    session->file_.emplace(std::move(file));
  }
  if (session->leader()) SP_RETURN_IF_ERROR(session->BeginHistory());
  if (!session->Continue(true)) {
    return Unavailable("the leading rank could not start");
  }
  return session;
}

StatusOr<std::vector<int>> Session::Ranks(
    const std::vector<int>& fallback) const {
  const int most = world_->max_ranks();
  Options asked = options_;
  if (asked.ranks.empty() && world_->of_processes()) asked.ranks = {most};
  SP_ASSIGN_OR_RETURN(const std::vector<int> ranks, RanksOf(asked, fallback));
  for (const int n : ranks) {
    if (n > most) {
      return InvalidArgument(
          "--ranks {}: {}", n,
          world_->of_processes()
              ? fmt::format("mpirun started {}; start it with -np {}", most, n)
              : fmt::format("this machine holds at most {} ranks as threads",
                            most));
    }
  }
  return ranks;
}

bool Session::Continue(bool mine) {
  if (!world_->of_processes()) return mine;
  if (!world_->healthy()) return false;
  bool all = mine;
  const Status agreed =
      world_->Run(world_->max_ranks(), [&](const Communicator& comm) -> Status {
        SP_ASSIGN_OR_RETURN(const std::vector<std::string> votes,
                            comm.ExchangeControl(mine ? "go" : "stop"));
        all = std::find(votes.begin(), votes.end(), "stop") == votes.end();
        return Status();
      });
  return agreed.ok() && all;
}

void Session::ShowProgress(const Phase& phase, size_t done, size_t all,
                           const Job* job) {
  if (!leader() || isatty(STDERR_FILENO) == 0) return;
  if (job == nullptr) {
    if (progress_shown_) fmt::print(stderr, "\r\033[K");
    progress_shown_ = false;
    return;
  }
  if (progress_shown_ && Since(last_progress_) < 0.1) return;
  const double elapsed = Since(phase_start_);
  double left = done == 0 ? 0
                          : elapsed / static_cast<double>(done) *
                                static_cast<double>(all - done);
  if (phase.budget > 0) left = std::min(left, phase.budget - elapsed);
  fmt::print(stderr, "\r\033[K{} {}/{}  {:.0f} s left  {} {}", phase.name, done,
             all, std::max(left, 0.0), job->info->name, job->variant->name);
  std::fflush(stderr);
  progress_shown_ = true;
  last_progress_ = Clock::now();
}

void Session::Keep(const Record& record) {
  Note(ExitCodeOf(record));
  KeepInHistory(record);
  if (!file_.has_value()) return;
  const Status written = file_->Append(record);
  if (!written.ok()) {
    fmt::print(stderr,
               "shardproof: {}: the results go on to standard output only\n",
               written.message());
    Note(kExitInvalid);
    file_.reset();
  }
}

void Session::GiveUp(const std::vector<std::string>& whereabouts, bool hung) {
  // Another thread still runs the case, so nothing of it is touched here but
  // the record made before it started.
  if (leader()) {
    fmt::print(stderr,
               "\nshardproof: the case does not return even when its "
               "waits are ended:\n");
    for (const std::string& line : whereabouts) {
      fmt::print(stderr, "  {}\n", line);
    }
    for (size_t job = 0; job < blocks_.size(); ++job) EndBlocks(job);
    if (hung && under_way_.has_value()) {
      under_way_->reason =
          fmt::format("hung: {}", fmt::join(whereabouts, "; "));
      Keep(*under_way_);
    }
    if (file_.has_value()) {
      static_cast<void>(file_->Finish(
          {.finished = UtcNow(), .interrupted = true, .left_out = left_out_}));
    }
    std::fflush(stdout);
  }
  world_->Terminate(hung ? kExitHang : kExitInterrupted);
}

bool Session::Emulated(int ranks) const {
  return gpus_ != nullptr && ranks > ranks_with_gpus_;
}

void Session::MarkEmulated(Record& record) const {
  if (!Emulated(record.ranks)) return;
  record.emulated = true;
  record.busbw_gbps.reset();
}

Record Session::RunOne(const Job& job, const RunOptions& run) {
  under_way_ = FailedRecord(*job.info, *job.variant, job.instance, run,
                            Aborted("the run ended here"));
  MarkEmulated(*under_way_);
  SetUnderWay(fmt::format("{} {} ranks={} {}", job.info->name,
                          job.variant->name, job.instance.ranks,
                          ParamsText(*under_way_)));
  // The leader's clock decides; the others only step in if it cannot.
  const double limit =
      TimeLimit(job, options_.timeout, gpus_ != nullptr && gpus_->emulated());
  watchdog_->Arm(limit > 0 && !leader() ? limit + 10 : limit);
  Record record =
      RunOnWorld(*world_, *job.info, *job.variant, job.instance, run);
  MarkEmulated(record);
  const Watchdog::Outcome outcome = watchdog_->Disarm();
  SetUnderWay("");
  interrupted_ = interrupted_ || outcome.interrupted;
  if (outcome.hung) {
    record.verdict = Verdict::kFailed;
    record.time_us.reset();
    record.reason = fmt::format("hung for {:.3g} s: {}", limit,
                                fmt::join(outcome.whereabouts, "; "));
    record.repro = ReproLine(*job.info, *job.variant, job.instance, run);
    Note(kExitHang);
    if (leader()) {
      fmt::print(stderr, "{}shardproof: {} {} ({}) hung for {:.3g} s:\n",
                 std::exchange(progress_shown_, false) ? "\n" : "",
                 record.case_name, record.variant, ParamsText(record), limit);
      for (const std::string& line : outcome.whereabouts) {
        fmt::print(stderr, "  {}\n", line);
      }
    }
  }
  return record;
}

void Session::EndBlocks(size_t job) {
  const std::vector<Record> taken = std::exchange(blocks_[job], {});
  if (!taken.empty()) take_(job, OfBlocks(taken));
}

void Session::Run(
    const std::vector<Job>& jobs, const Phase& phase,
    const std::function<void(const Job&, const Record&)>& on_record) {
  RunOptions run;
  run.seed = options_.seed;
  run.repeats = phase.repeats;
  run.measure = phase.measure;
  run.timing = phase.timing;
  run.check_elements = phase.check_elements;
  run.check_flops = phase.check_flops;
  run.ordinary_memory = options_.memory == "ordinary";
  run.backend = options_.backend;
  run.launched = world_->of_processes();
  run.repro_prefix = "shardproof verify" + GpuFlags(options_);
  if (!options_.fault.empty()) {
    run.repro_prefix += " --fault " + options_.fault;
    const Fault fault = *ParseFault(options_.fault);
    run.interceptor = [this, fault](int rank, int ranks) {
      return MakeFault(fault, rank, ranks, options_.seed, nullptr,
                       [this] { return watchdog_->Ended(); });
    };
  }
  phase_start_ = Clock::now();
  blocks_.assign(jobs.size(), {});
  std::vector<bool> passed(jobs.size(), false);
  // What is found out in this phase is for the next.
  const std::map<std::string, bool> passed_elsewhere =
      phase.trust ? passed_ : std::map<std::string, bool>{};
  take_ = [&](size_t job, const Record& record) {
    if (phase.keep) {
      Keep(record);
    } else {
      Note(ExitCodeOf(record));
    }
    on_record(jobs[job], record);
  };
  const size_t all = jobs.size() * static_cast<size_t>(phase.blocks);
  size_t done = 0, skipped = 0;
  for (; done < all; ++done) {
    const double left =
        phase.budget <= 0 ? HUGE_VAL : phase.budget - Since(phase_start_);
    if (!Continue(left > 0 && !Interrupted())) break;
    const size_t at = done % jobs.size();
    const Job& job = jobs[at];
    const double needed = phase.needs != nullptr ? phase.needs(job) : 0;
    if (needed > 0 && !Continue(left >= needed)) {
      ++skipped;
      continue;
    }
    ShowProgress(phase, done, all, &job);
    if (phase.measure && !options_.no_ceilings) run.rates = ceilings_.Of(job);
    const std::string of_variant = VariantKey(job);
    const auto elsewhere = passed_elsewhere.find(of_variant);
    run.passed_before = PassedBefore::kNowhere;
    if (run.interceptor != nullptr) {
      // Faults need not show in every execution.
    } else if (passed[at]) {
      run.passed_before = PassedBefore::kHere;
    } else if (elsewhere != passed_elsewhere.end() && elsewhere->second) {
      run.passed_before = PassedBefore::kElsewhere;
    }
    Record record = RunOne(job, run);
    if (interrupted_) break;
    passed[at] = record.verdict == Verdict::kPassed;
    if (record.verdict != Verdict::kUnsupported) {
      bool& all_passed = passed_.try_emplace(of_variant, true).first->second;
      all_passed = all_passed && passed[at];
    }
    if (leader()) {
      blocks_[at].push_back(std::move(record));
      if (done + jobs.size() >= all) EndBlocks(at);
    }
    if (!world_->healthy()) break;
  }
  for (size_t job = 0; job < blocks_.size(); ++job) EndBlocks(job);
  blocks_.clear();
  ShowProgress(phase, done, all, nullptr);
  interrupted_ = interrupted_ || Interrupted();
  const char* why = interrupted_         ? "interrupted"
                    : !world_->healthy() ? "the ranks are lost"
                                         : "out of time";
  const size_t left_out = jobs.size() - std::min(done, jobs.size()) + skipped;
  if (left_out > 0) {
    LeftOut(fmt::format("{}: {} of {} left out ({})", phase.name, left_out,
                        jobs.size(), why));
  } else if (done < all) {
    LeftOut(fmt::format("{}: {} of {} blocks left out ({})", phase.name,
                        all - done, all, why));
  }
}

Status Session::RunOnRanks(
    const std::string& what, int ranks, double seconds,
    const std::function<Status(const Communicator&)>& f) {
  SetUnderWay(what);
  // As in RunOne, the leader's clock decides.
  watchdog_->Arm(seconds > 0 && !leader() ? seconds + 10 : seconds);
  const Status status = world_->Run(ranks, f);
  const Watchdog::Outcome outcome = watchdog_->Disarm();
  SetUnderWay("");
  interrupted_ = interrupted_ || outcome.interrupted;
  if (!outcome.hung) return status;
  Note(kExitHang);
  return Timeout("{} hung for {:.3g} s: {}", what, seconds,
                 fmt::join(outcome.whereabouts, "; "));
}

bool Session::GoOn(bool mine) {
  interrupted_ = interrupted_ || Interrupted();
  return Continue(mine && !interrupted_);
}

ExitCode Session::Finish() {
  watchdog_.reset();
  if (interrupted_) Note(kExitInterrupted);
  const Conditions after = conditions_.Stop();
  ResultEnd end{.finished = UtcNow(),
                .interrupted = interrupted_,
                .left_out = left_out_,
                .sections = std::move(sections_)};
  end.sections["conditions"] = {{"before", ToJson(conditions_.before())},
                                {"after", ToJson(after)}};
  EndHistory(end, after);
  // Of processes each counts its own.
  if (services_ != nullptr && leader()) {
    fmt::print(stderr, "shardproof: {}{}\n",
               world_->of_processes() ? "rank 0: " : "", services_->Describe());
  }
  if (file_.has_value()) {
    const std::string path = file_->path();
    const Status finished = file_->Finish(end);
    if (finished.ok()) {
      // What has sections of its own, as p2p has, need not have records.
      fmt::print("{}{}{}\n",
                 file_->records() > 0
                     ? fmt::format("{} records in ", file_->records())
                     : "written to ",
                 path, interrupted_ ? " (interrupted: partial)" : "");
    } else {
      fmt::print(stderr, "shardproof: {}\n", finished.message());
      Note(kExitInvalid);
    }
  }
  std::fflush(stdout);
  // A lost MPI job cannot be finalised: the other processes may be gone.
  if (!world_->healthy() && world_->of_processes()) {
    // The launcher reports whoever ends first, and only the leader knows why.
    if (!leader()) sleep(3);
    world_->Terminate(exit_code_);
  }
  return exit_code_;
}

}  // namespace shardproof
