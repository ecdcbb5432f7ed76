// A program that is started as a child and ends with its owner.
//
//     SP_ASSIGN_OR_RETURN(ChildProcess child, ChildProcess::Start({.command = {"/proc/self/exe", "serve"},
//                                                                  .environment = EnvironmentWith({"A=1"}),
//                                                                  .files = {socket.get()}}));
//     if (child.AwaitEnd(std::chrono::seconds(5))) return Unavailable("it {}", child.HowItEnded());
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_NODE_CHILD_PROCESS_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_NODE_CHILD_PROCESS_H_

#include <sys/types.h>

#include <chrono>
#include <string>
#include <utility>
#include <vector>

#include "reference/status.h"

namespace shardproof {

// The environment of this process with `added` ("NAME=value") in place of what
// had the name.
std::vector<std::string> EnvironmentWith(const std::vector<std::string>& added);

// What exec takes: valid as long as `texts`.
std::vector<char*> Pointers(std::vector<std::string>& texts);

struct ChildOptions {
  std::vector<std::string> command = {};      // A path and its arguments.
  std::vector<std::string> environment = {};  // All of it.
  // Descriptors that it gets as kFirstChildFile, kFirstChildFile + 1, ... Of all others it has stderr alone: stdin is
  // empty, and what it writes to stdout goes to stderr.
  std::vector<int> files = {};
};
inline constexpr int kFirstChildFile = 3;

// Used by one thread at a time.
class ChildProcess {
 public:
  ChildProcess() = default;  // None.
  // In a process group of its own, so that Ctrl-C reaches it through its owner
  // or not at all. kUnavailable: the program cannot be started.
  static StatusOr<ChildProcess> Start(const ChildOptions& options);
  ChildProcess(ChildProcess&& other) noexcept
      : pid_(std::exchange(other.pid_, 0)), status_(other.status_) {}
  ChildProcess& operator=(ChildProcess&& other) noexcept {
    std::swap(pid_, other.pid_);
    std::swap(status_, other.status_);
    return *this;
  }
  ~ChildProcess() { Kill(); }

  // 0 once it has ended.
  pid_t pid() const { return pid_; }
  // Whether it has ended; then it is no zombie either.
  bool Ended();
  // Waits for that.
  bool AwaitEnd(std::chrono::milliseconds timeout);
  // Ends it, if it has not ended, and waits for that.
  void Kill();
  // "was killed by signal 9 (Killed)", "ended with exit status 3", once it has.
  std::string HowItEnded() const;

 private:
  explicit ChildProcess(pid_t pid) : pid_(pid) {}
  pid_t pid_ = 0;
  int status_ = 0;  // As waitpid gives it.
};

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_NODE_CHILD_PROCESS_H_
