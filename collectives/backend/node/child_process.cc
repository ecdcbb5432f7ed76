#include "collectives/backend/node/child_process.h"

#include <fcntl.h>
#include <signal.h>  // kill. NOLINT(modernize-deprecated-headers)
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <ctime>

namespace shardproof {
namespace {

using Clock = std::chrono::steady_clock;

// What a child is started with; each call adds to the first error.
class SpawnSettings {
 public:
  SpawnSettings() {
    posix_spawn_file_actions_init(&files_);
    posix_spawnattr_init(&attributes_);
  }
  SpawnSettings(const SpawnSettings&) = delete;
  SpawnSettings& operator=(const SpawnSettings&) = delete;
  ~SpawnSettings() {
    posix_spawnattr_destroy(&attributes_);
    posix_spawn_file_actions_destroy(&files_);
  }

  void GiveFiles(const std::vector<int>& files) {
    const int count = static_cast<int>(files.size());
    // By way of numbers above all of them: a source may have the number that
    // another is to get.
    const int above =
        1 + std::max(kFirstChildFile + count,
                     files.empty() ? 0 : *std::ranges::max_element(files));
    Keep(posix_spawn_file_actions_addopen(&files_, STDIN_FILENO, "/dev/null",
                                          O_RDONLY, 0));
    Keep(posix_spawn_file_actions_adddup2(&files_, STDERR_FILENO,
                                          STDOUT_FILENO));
    for (int i = 0; i < count; ++i) {
      Keep(posix_spawn_file_actions_adddup2(
          &files_, files[static_cast<size_t>(i)], above + i));
    }
    for (int i = 0; i < count; ++i) {
      Keep(posix_spawn_file_actions_adddup2(&files_, above + i,
                                            kFirstChildFile + i));
    }
    Keep(posix_spawn_file_actions_addclosefrom_np(&files_,
                                                  kFirstChildFile + count));
  }

  void SetAttributes() {
    // A thread that starts one may have blocked signals.
    sigset_t none;
    sigemptyset(&none);
    Keep(posix_spawnattr_setflags(
        &attributes_, POSIX_SPAWN_SETPGROUP | POSIX_SPAWN_SETSIGMASK));
    Keep(posix_spawnattr_setpgroup(&attributes_, 0));
    Keep(posix_spawnattr_setsigmask(&attributes_, &none));
  }

  int Spawn(std::vector<std::string> command,
            std::vector<std::string> environment, pid_t& child) {
    if (error_ != 0) return error_;
    return posix_spawn(&child, command.front().c_str(), &files_, &attributes_,
                       Pointers(command).data(), Pointers(environment).data());
  }

 private:
  void Keep(int error) {
    if (error_ == 0) error_ = error;
  }

  posix_spawn_file_actions_t files_;
  posix_spawnattr_t attributes_;
  int error_ = 0;
};

}  // namespace

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

StatusOr<ChildProcess> ChildProcess::Start(const ChildOptions& options) {
  SpawnSettings settings;
  settings.GiveFiles(options.files);
  settings.SetAttributes();
  pid_t child = 0;
  const int error = settings.Spawn(options.command, options.environment, child);
  if (error != 0) {
    return Unavailable("cannot start {}: {}", options.command.front(),
                       std::strerror(error));
  }
  return ChildProcess(child);
}

bool ChildProcess::Ended() {
  if (pid_ == 0) return true;
  const pid_t got = waitpid(pid_, &status_, WNOHANG);
  if (got == 0 || (got < 0 && errno == EINTR)) return false;
  pid_ = 0;
  return true;
}

bool ChildProcess::AwaitEnd(std::chrono::milliseconds timeout) {
  const Clock::time_point deadline = Clock::now() + timeout;
  while (!Ended()) {
    if (Clock::now() >= deadline) return false;
    const timespec nap{.tv_sec = 0, .tv_nsec = 500'000};
    nanosleep(&nap, nullptr);
  }
  return true;
}

void ChildProcess::Kill() {
  if (Ended()) return;
  kill(pid_, SIGKILL);
  while (waitpid(pid_, &status_, 0) < 0 && errno == EINTR) {
  }
  pid_ = 0;
}

std::string ChildProcess::HowItEnded() const {
  if (WIFSIGNALED(status_)) {
    const int signal = WTERMSIG(status_);
    return fmt::format(
        "was killed by signal {} ({})", signal,
        sigdescr_np(signal) == nullptr ? "unknown" : sigdescr_np(signal));
  }
  return fmt::format("ended with exit status {}", WEXITSTATUS(status_));
}

}  // namespace shardproof
