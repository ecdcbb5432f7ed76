#include "collectives/backend/node/wait.h"

#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <climits>
#include <ctime>
#include <thread>

namespace shardproof {
namespace {

// A few microseconds of pauses, then about a millisecond of yields, each of
// which costs 0.3 us when nobody else wants the core: a wait that has taken 10
// us does not notice.
constexpr int kPauses = 100;
constexpr int kYields = 2000;
// A yield that takes this long has given the core to somebody who computes.
constexpr std::chrono::microseconds kLongYield{200};
constexpr int64_t kFirstSleepUs = 1000;
constexpr int64_t kLongestSleepUs = 4000;  // Bounds how late an abort is seen.

}  // namespace

int UsableCores() {
  // Of the main thread, whose mask is that of the process: ranks pin theirs, and
  // std::thread::hardware_concurrency counts cores that containers withhold.
  static const int cores = [] {
    cpu_set_t mask;
    CPU_ZERO(&mask);
    const bool known = sched_getaffinity(getpid(), sizeof(mask), &mask) == 0;
    const int count =
        known ? CPU_COUNT(&mask)
              : static_cast<int>(std::thread::hardware_concurrency());
    return std::max(1, count);
  }();
  return cores;
}

bool YieldToOthers() {
  const auto start = std::chrono::steady_clock::now();
  sched_yield();
  return std::chrono::steady_clock::now() - start > kLongYield;
}

void SignalRef::WakeAll() const {
  syscall(SYS_futex, &value, FUTEX_WAKE, INT_MAX, nullptr, nullptr, 0);
}

void SignalRef::Sleep(uint32_t seen, int64_t timeout_us) const {
  const timespec timeout{.tv_sec = timeout_us / 1'000'000,
                         .tv_nsec = timeout_us % 1'000'000 * 1000};
  sleepers.fetch_add(1, std::memory_order_seq_cst);
  // Returns at once when the value has changed meanwhile.
  syscall(SYS_futex, &value, FUTEX_WAIT, seen, &timeout, nullptr, 0);
  sleepers.fetch_sub(1, std::memory_order_relaxed);
}

bool Patience::Pause(const SignalRef& signal, uint32_t seen) {
  const int look = looks_++;
  if (how_.spin && look < kPauses) {
    CpuRelax();
    return true;
  }
  if (how_.abort->raised()) return false;
  if (look < kYields) {
    if (YieldToOthers()) looks_ = kYields;
    return true;
  }
  looks_ = std::min(looks_, kYields + 16);
  signal.Sleep(
      seen, std::min(kFirstSleepUs + (look - kYields) * 250, kLongestSleepUs));
  return !how_.abort->raised();
}

void BriefLock::Contend() {
  for (int tries = 0; held_.exchange(true, std::memory_order_acquire);
       ++tries) {
    // Look, and only then try again: a failed exchange takes the line away from
    // the holder.
    while (held_.load(std::memory_order_relaxed)) {
      if (++tries < 64) {
        CpuRelax();
      } else {
        sched_yield();  // The holder may have lost its core.
      }
    }
  }
}

}  // namespace shardproof
