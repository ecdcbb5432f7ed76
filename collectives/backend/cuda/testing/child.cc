#include "collectives/backend/cuda/testing/child.h"

#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>

namespace shardproof::cuda::testing {

const char* NoThreadSanitizer() {
#ifdef __SANITIZE_THREAD__
  return nullptr;
#else
  return "only ThreadSanitizer sees this: --config=tsan";
#endif
}

ChildResult RunSelf(const std::vector<std::string>& arguments) {
  ChildResult result;
  std::array<int, 2> ends{};
  if (pipe2(ends.data(), O_CLOEXEC) != 0) return result;
  std::string self = "/proc/self/exe";
  std::vector<std::string> copies = arguments;
  std::vector<char*> argv = {self.data()};
  for (std::string& copy : copies) argv.push_back(copy.data());
  argv.push_back(nullptr);
  const pid_t child = fork();
  if (child == 0) {
    // Results of tests are the parent's.
    unsetenv("XML_OUTPUT_FILE");
    unsetenv("GTEST_OUTPUT");
    dup2(ends[1], STDOUT_FILENO);
    dup2(ends[1], STDERR_FILENO);
    execv(self.c_str(), argv.data());
    _exit(127);
  }
  close(ends[1]);
  std::array<char, 4096> part{};
  for (ssize_t n = 0; (n = read(ends[0], part.data(), part.size())) > 0;) {
    result.output.append(part.data(), static_cast<size_t>(n));
  }
  close(ends[0]);
  int status = 0;
  if (child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status)) {
    result.exit_code = WEXITSTATUS(status);
  }
  return result;
}

}  // namespace shardproof::cuda::testing
