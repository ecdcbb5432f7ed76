#include "tools/cli/launch.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <fmt/ranges.h>
#include <signal.h>  // kill. NOLINT(modernize-deprecated-headers)
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <chrono>
#include <climits>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <thread>
#include <utility>

#include "reports/read_launch.h"
#include "tools/cli/exit_code.h"
#include "tools/cli/interrupt.h"

namespace shardproof {
namespace {

using Clock = std::chrono::steady_clock;

// How long a launch that is asked to end may take.
constexpr std::chrono::seconds kGrace{5};
constexpr std::chrono::milliseconds kPoll{5};

// The environment of this process with `added` in place of what had the name.
std::vector<std::string> EnvironmentWith(
    const std::vector<std::string>& added) {
  std::vector<std::string> all;
  for (char** e = environ; *e != nullptr; ++e) {
    const std::string entry = *e;
    const std::string name = entry.substr(0, entry.find('=') + 1);
    bool replaced = false;
    for (const std::string& a : added) replaced |= a.starts_with(name);
    if (!replaced) all.push_back(entry);
  }
  all.insert(all.end(), added.begin(), added.end());
  return all;
}

std::vector<char*> Pointers(std::vector<std::string>& texts) {
  std::vector<char*> pointers;
  pointers.reserve(texts.size() + 1);
  for (std::string& text : texts) pointers.push_back(text.data());
  pointers.push_back(nullptr);
  return pointers;
}

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

// Waits for the child; ends its group at an interrupt or after `timeout`
// seconds (0: never). Gives the status as waitpid does.
StatusOr<int> Wait(pid_t child, double timeout) {
  const Clock::time_point start = Clock::now();
  Clock::time_point asked;
  bool ending = false;
  std::string why;
  for (;;) {
    int status = 0;
    const pid_t got = waitpid(child, &status, WNOHANG);
    if (got < 0 && errno != EINTR) {
      return Internal("waitpid: {}", std::strerror(errno));
    }
    if (got == child) {
      if (!ending) return status;
      // What the launcher left behind.
      kill(-child, SIGKILL);
      if (why == "interrupted") return Aborted("interrupted");
      return Timeout("the launch did not end within {:.3g} s", timeout);
    }
    const Clock::time_point now = Clock::now();
    const double elapsed = std::chrono::duration<double>(now - start).count();
    if (!ending && (Interrupted() || (timeout > 0 && elapsed > timeout))) {
      why = Interrupted() ? "interrupted" : "timeout";
      ending = true;
      asked = now;
      kill(-child, SIGINT);
    } else if (ending && now - asked > kGrace) {
      kill(-child, SIGKILL);
    }
    std::this_thread::sleep_for(kPoll);
  }
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

}  // namespace

StatusOr<Launched> RunLaunch(const LaunchRequest& request,
                             const std::string& folder) {
  const std::string results = folder + "/results.json";
  const std::string output = folder + "/output", errors = folder + "/errors";
  std::error_code ignored;
  std::filesystem::remove(results, ignored);
  std::string plan;
  if (request.plan != nullptr) {
    plan = folder + "/plan";
    std::ofstream out(plan);
    out << PlanText(*request.plan);
    if (!out.flush()) return Unavailable("cannot write {}", plan);
  }
  const Clock::time_point start = Clock::now();
  SP_ASSIGN_OR_RETURN(
      const pid_t child,
      Spawn(CommandOf(request, plan, results),
            EnvironmentWith(request.environment), output, errors));
  SP_ASSIGN_OR_RETURN(const int status, Wait(child, request.timeout_seconds));
  Launched launched;
  launched.seconds =
      std::chrono::duration<double>(Clock::now() - start).count();
  launched.exit_code = WIFEXITED(status) ? WEXITSTATUS(status) : kExitBackend;
  const std::string said = Tail(errors, 3);
  if (launched.exit_code == kExitUsage) {
    return InvalidArgument("{}", said.empty() ? request.binary : said);
  }
  StatusOr<LoadedLaunch> loaded = ReadLaunch(results);
  if (!loaded.ok()) {
    return Aborted("{} ended with exit status {} and without results{}{}",
                   request.binary, launched.exit_code, said.empty() ? "" : ": ",
                   said);
  }
  launched.launch = std::move(loaded->launch);
  return launched;
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
