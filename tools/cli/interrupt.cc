#include "tools/cli/interrupt.h"

#include <signal.h>  // sigaction. NOLINT(modernize-deprecated-headers)
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstddef>
#include <cstring>

#include "collectives/current_rank.h"
#include "tools/cli/exit_code.h"

namespace shardproof {
namespace {

// State of the process, because handlers have no argument. Only async-signal-
// safe functions below: write, _exit, and lock-free atomics.
std::atomic<int> interrupts{0};
std::array<char, 256> under_way = {};

void Write(const char* text) {
  const ssize_t ignored = write(STDERR_FILENO, text, std::strlen(text));
  static_cast<void>(ignored);
}

void WriteNumber(int value) {
  std::array<char, 16> digits = {};
  size_t at = digits.size() - 1;
  do {
    digits[--at] = static_cast<char>('0' + value % 10);
    value /= 10;
  } while (value > 0 && at > 0);
  Write(digits.data() + at);
}

void OnInterrupt(int) {
  if (interrupts.fetch_add(1) > 0) _exit(kExitInterrupted);
}

const char* SignalName(int signal) {
  switch (signal) {
    case SIGSEGV:
      return "SIGSEGV, a bad address";
    case SIGBUS:
      return "SIGBUS, memory that is not there";
    case SIGFPE:
      return "SIGFPE, an impossible division";
    case SIGILL:
      return "SIGILL, an unknown instruction";
    default:
      return "SIGABRT, a failed check";
  }
}

void OnCrash(int signal) {
  Write("\nshardproof: ");
  const int rank = CurrentRank();
  if (rank >= 0) {
    Write("rank ");
    WriteNumber(rank);
  } else {
    Write("the main thread");
  }
  Write(" crashed (");
  Write(SignalName(signal));
  Write(")");
  if (under_way[0] != '\0') {
    Write(" in ");
    Write(under_way.data());
  }
  Write(
      "; the records before it are in the result file, if one was asked for\n");
  _exit(kExitBackend);
}

}  // namespace

void InstallSignalHandlers() {
  struct sigaction action = {};
  sigemptyset(&action.sa_mask);
  action.sa_handler = OnInterrupt;
  for (const int signal : {SIGINT, SIGTERM}) {
    sigaction(signal, &action, nullptr);
  }
  action.sa_handler = OnCrash;
  action.sa_flags = static_cast<int>(SA_RESETHAND);
  for (const int signal : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGABRT}) {
    sigaction(signal, &action, nullptr);
  }
}

bool Interrupted() { return interrupts.load() > 0; }

void SetUnderWay(std::string_view what) {
  const size_t n = std::min(what.size(), under_way.size() - 1);
  std::copy_n(what.data(), n, under_way.data());
  under_way[n] = '\0';
}

}  // namespace shardproof
