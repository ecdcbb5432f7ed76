#include "tools/cli/launch.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <signal.h>  // kill. NOLINT(modernize-deprecated-headers)
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <span>
#include <thread>
#include <utility>

#include "collectives/backend/node/child_process.h"
#include "reports/read_launch.h"
#include "tools/cli/exit_code.h"
#include "tools/cli/interrupt.h"

namespace shardproof {
namespace {

using Clock = std::chrono::steady_clock;

// How long a launch that is asked to end may take.
constexpr std::chrono::seconds kGrace{5};
constexpr std::chrono::milliseconds kPoll{5};
// A stop takes microseconds, where it takes place.
constexpr std::chrono::milliseconds kStopping{20};

// The last lines of a file, as one.
std::string Tail(const std::string& path, size_t lines) {
  std::ifstream in(path);
  std::vector<std::string> all;
  for (std::string line; std::getline(in, line);) {
    if (!line.empty()) all.push_back(line);
  }
  if (all.size() > lines) {
    all.erase(all.begin(), all.end() - static_cast<ptrdiff_t>(lines));
  }
  return fmt::format("{}", fmt::join(all, "; "));
}

StatusOr<pid_t> Spawn(std::vector<std::string> command,
                      std::vector<std::string> environment,
                      const std::string& output, const std::string& errors) {
  posix_spawn_file_actions_t files;
  posix_spawn_file_actions_init(&files);
  posix_spawn_file_actions_addopen(&files, STDIN_FILENO, "/dev/null", O_RDONLY,
                                   0);
  const int flags = O_CREAT | O_WRONLY | O_TRUNC;
  posix_spawn_file_actions_addopen(&files, STDOUT_FILENO, output.c_str(), flags,
                                   0600);
  posix_spawn_file_actions_addopen(&files, STDERR_FILENO, errors.c_str(), flags,
                                   0600);
  // A group of its own: Ctrl-C reaches it through us, once, and a launcher is
  // ended with all that it started.
  posix_spawnattr_t attributes;
  posix_spawnattr_init(&attributes);
  posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETPGROUP);
  posix_spawnattr_setpgroup(&attributes, 0);
  pid_t child = 0;
  const int error =
      posix_spawnp(&child, command.front().c_str(), &files, &attributes,
                   Pointers(command).data(), Pointers(environment).data());
  posix_spawnattr_destroy(&attributes);
  posix_spawn_file_actions_destroy(&files);
  if (error != 0) {
    return Unavailable("cannot start {}: {}", command.front(),
                       std::strerror(error));
  }
  return child;
}

std::vector<std::string> CommandOf(const LaunchRequest& request,
                                   const std::string& plan,
                                   const std::string& results) {
  std::vector<std::string> command = request.launcher;
  // A name without a folder is a file here, and not one of PATH.
  command.push_back(std::filesystem::absolute(request.binary).string());
  command.emplace_back("bench");
  command.insert(command.end(), request.arguments.begin(),
                 request.arguments.end());
  if (!plan.empty()) command.insert(command.end(), {"--plan", plan});
  command.insert(command.end(), {"--json", results});
  return command;
}

// A launch from its start to its results. It runs only between Resume() and
// Pause().
class Running {
 public:
  Running(const LaunchRequest& request, std::string folder)
      : request_(request), folder_(std::move(folder)) {}
  Running(const Running&) = delete;
  Running& operator=(const Running&) = delete;
  ~Running() {
    if (child_ == 0 || ended_) return;
    kill(-child_, SIGKILL);
    waitpid(child_, nullptr, 0);
  }

  bool ended() const { return ended_; }
  double seconds() const { return seconds_; }

  // Starts it, the first time.
  Status Resume() {
    resumed_ = Clock::now();
    if (child_ == 0) return Start();
    kill(-child_, SIGCONT);
    return OkStatus();
  }

  // Returns when all its threads have stopped, or it has ended. A process that
  // waits in vfork for a child that was stopped first does not stop itself, and
  // does nothing either: after kStopping it counts as stopped.
  Status Pause() {
    if (child_ == 0 || ended_) return OkStatus();
    kill(-child_, SIGSTOP);
    const Clock::time_point asked = Clock::now();
    do {
      SP_RETURN_IF_ERROR(Look(WUNTRACED));
      if (ended_) return OkStatus();
      if (stopped_) break;
      std::this_thread::sleep_for(std::chrono::microseconds(50));
    } while (Clock::now() - asked < kStopping);
    CountTime();
    return OkStatus();
  }

  // As the user would.
  void Ask() {
    if (child_ == 0) ended_ = true;  // Its turn never came.
    if (ended_) return;
    kill(-child_, SIGCONT);
    kill(-child_, SIGINT);
  }
  void Kill() {
    if (child_ != 0) kill(-child_, SIGKILL);
  }

  // Looks whether it has ended.
  Status Poll() { return Look(0); }

  StatusOr<Launched> Result() const {
    Launched launched;
    launched.seconds = seconds_;
    launched.exit_code =
        WIFEXITED(status_) ? WEXITSTATUS(status_) : kExitBackend;
    const std::string said = Tail(folder_ + "/errors", 3);
    if (launched.exit_code == kExitUsage) {
      return InvalidArgument("{}", said.empty() ? request_.binary : said);
    }
    StatusOr<LoadedLaunch> loaded = ReadLaunch(Results());
    if (!loaded.ok()) {
      return Aborted("{} ended with exit status {} and without results{}{}",
                     request_.binary, launched.exit_code,
                     said.empty() ? "" : ": ", said);
    }
    launched.launch = std::move(loaded->launch);
    return launched;
  }

 private:
  std::string Results() const { return folder_ + "/results.json"; }

  // What has become of it: `flags` are waitpid's.
  Status Look(int flags) {
    stopped_ = false;
    if (child_ == 0 || ended_) return OkStatus();
    int status = 0;
    const pid_t got = waitpid(child_, &status, flags | WNOHANG);
    if (got < 0 && errno != EINTR) {
      return Internal("waitpid: {}", std::strerror(errno));
    }
    if (got != child_) return OkStatus();
    stopped_ = WIFSTOPPED(status);
    if (!stopped_) {
      ended_ = true;
      status_ = status;
      CountTime();
    }
    return OkStatus();
  }

  void CountTime() {
    const Clock::time_point now = Clock::now();
    seconds_ += std::chrono::duration<double>(now - resumed_).count();
    resumed_ = now;
  }

  Status Start() {
    std::error_code ignored;
    std::filesystem::create_directories(folder_, ignored);
    std::filesystem::remove(Results(), ignored);
    std::string plan;
    if (request_.plan != nullptr) {
      plan = folder_ + "/plan";
      std::ofstream out(plan);
      out << PlanText(*request_.plan);
      if (!out.flush()) return Unavailable("cannot write {}", plan);
    }
    SP_ASSIGN_OR_RETURN(child_,
                        Spawn(CommandOf(request_, plan, Results()),
                              EnvironmentWith(request_.environment),
                              folder_ + "/output", folder_ + "/errors"));
    return OkStatus();
  }

  const LaunchRequest& request_;
  std::string folder_;
  pid_t child_ = 0;
  int status_ = 0;
  bool ended_ = false, stopped_ = false;
  double seconds_ = 0;
  Clock::time_point resumed_ = Clock::now();
};

Status PollAll(std::span<Running* const> all) {
  for (Running* one : all) SP_RETURN_IF_ERROR(one->Poll());
  return OkStatus();
}

bool AllEnded(std::span<Running* const> all) {
  return std::ranges::all_of(all, [](const Running* r) { return r->ended(); });
}

// Asks all to end, and after a while does not ask any more.
Status End(std::span<Running* const> all) {
  for (Running* one : all) one->Ask();
  const Clock::time_point asked = Clock::now();
  while (!AllEnded(all) && Clock::now() - asked < kGrace) {
    std::this_thread::sleep_for(kPoll);
    SP_RETURN_IF_ERROR(PollAll(all));
  }
  // With what a launcher left behind.
  for (Running* one : all) one->Kill();
  return OkStatus();
}

// Lets them run for `turn` seconds each in turn (0: whoever runs goes on) until
// all have ended. The first runs already.
Status TakeTurns(std::span<Running* const> all, double turn, double timeout) {
  const Clock::time_point start = Clock::now();
  const std::chrono::duration<double> length(turn);
  size_t at = 0;
  Clock::time_point since = start;
  for (;;) {
    SP_RETURN_IF_ERROR(PollAll(all));
    if (AllEnded(all)) return OkStatus();
    const Clock::time_point now = Clock::now();
    if (Interrupted()) {
      SP_RETURN_IF_ERROR(End(all));
      return Aborted("interrupted");
    }
    const double elapsed = std::chrono::duration<double>(now - start).count();
    if (timeout > 0 && elapsed > timeout) {
      SP_RETURN_IF_ERROR(End(all));
      return Timeout("the launch did not end within {:.3g} s", timeout);
    }
    const bool ended = all[at]->ended();
    if (ended || (turn > 0 && now - since >= length)) {
      size_t next = at;
      do {
        next = (next + 1) % all.size();
      } while (all[next]->ended());
      if (next != at) {
        if (!ended) SP_RETURN_IF_ERROR(all[at]->Pause());
        SP_RETURN_IF_ERROR(all[next]->Resume());
        at = next;
      }
      since = Clock::now();
    }
    // No longer than is left of the turn.
    auto nap = std::chrono::duration_cast<std::chrono::microseconds>(kPoll);
    if (turn > 0) {
      const auto left = std::chrono::duration_cast<std::chrono::microseconds>(
          length - (Clock::now() - since));
      nap = std::clamp(left, std::chrono::microseconds(100), nap);
    }
    std::this_thread::sleep_for(nap);
  }
}

}  // namespace

StatusOr<Launched> RunLaunch(const LaunchRequest& request,
                             const std::string& folder) {
  Running only(request, folder);
  Running* const all[] = {&only};
  SP_RETURN_IF_ERROR(only.Resume());
  SP_RETURN_IF_ERROR(TakeTurns(all, 0, request.timeout_seconds));
  return only.Result();
}

StatusOr<std::pair<Launched, Launched>> RunInTurns(const LaunchRequest& first,
                                                   const LaunchRequest& second,
                                                   double turn_seconds,
                                                   const std::string& folder) {
  Running one(first, folder + "/1"), other(second, folder + "/2");
  Running* const all[] = {&one, &other};
  SP_RETURN_IF_ERROR(one.Resume());
  const double timeout = first.timeout_seconds > 0 && second.timeout_seconds > 0
                             ? first.timeout_seconds + second.timeout_seconds
                             : 0;
  SP_RETURN_IF_ERROR(TakeTurns(all, turn_seconds, timeout));
  SP_ASSIGN_OR_RETURN(Launched a, one.Result());
  SP_ASSIGN_OR_RETURN(Launched b, other.Result());
  return std::pair(std::move(a), std::move(b));
}

bool CanTakeTurns(const LaunchRequest& request) {
  if (!request.launcher.empty()) return false;
  const std::vector<std::string>& a = request.arguments;
  for (size_t i = 0; i < a.size(); ++i) {
    if (a[i] == "--backend" && i + 1 < a.size() && a[i + 1] != "thread") {
      return false;
    }
    if (a[i].starts_with("--backend=") && a[i] != "--backend=thread") {
      return false;
    }
  }
  return true;
}

StatusOr<TemporaryFolder> TemporaryFolder::Create(const std::string& name) {
  const char* base = std::getenv("TMPDIR");
  std::string path =
      fmt::format("{}/{}-XXXXXX", base != nullptr ? base : "/tmp", name);
  if (mkdtemp(path.data()) == nullptr) {
    return Unavailable("cannot make a folder {}: {} (TMPDIR names another)",
                       path, std::strerror(errno));
  }
  return TemporaryFolder(std::move(path));
}

TemporaryFolder::TemporaryFolder(TemporaryFolder&& other) noexcept
    : path_(std::exchange(other.path_, "")) {}

TemporaryFolder& TemporaryFolder::operator=(TemporaryFolder&& other) noexcept {
  std::swap(path_, other.path_);
  return *this;
}

TemporaryFolder::~TemporaryFolder() {
  std::error_code ignored;
  if (!path_.empty()) std::filesystem::remove_all(path_, ignored);
}

std::string OwnBinary() {
  std::array<char, PATH_MAX> path = {};
  const ssize_t n = readlink("/proc/self/exe", path.data(), path.size() - 1);
  return n > 0 ? std::string(path.data(), static_cast<size_t>(n))
               : std::string("shardproof");
}

}  // namespace shardproof
