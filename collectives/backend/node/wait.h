// How a rank waits for another: it spins briefly, then yields, then sleeps.
//
// A rank that waits for a peer on another core learns of a change within a
// cache miss if it spins, and nothing else comes close: a futex costs 5 to 50
// us. But a rank that spins on the core that its peer needs stops both, so with
// more ranks than cores nobody spins, and whoever waits long sleeps.
//
// All of it works between processes: the words may lie in shared memory.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_NODE_WAIT_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_NODE_WAIT_H_

#include <atomic>
#include <cstdint>

#include "collectives/backend/node/abort_flag.h"

namespace shardproof {

// Cores that this process may run on: its affinity mask when it was started.
int UsableCores();

inline void CpuRelax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Yields the core. True when somebody computed on it meanwhile: the next yield
// would cost another slice of the scheduler, while one who sleeps is given the
// core back when it is woken.
bool YieldToOthers();

// What the waits of one rank have in common.
struct Waiting {
  const AbortFlag* abort = nullptr;  // Ends every wait when raised. Not null.
  bool spin = true;  // Every rank of the node has a core to itself.
};

// A word to wait on, and how many sleep on it. One rank writes the value at a
// time; any number wait. A view of words that may lie anywhere.
struct SignalRef {
  std::atomic<uint32_t>& value;
  std::atomic<uint32_t>& sleepers;

  // Stores `next` with what was written before it, and wakes who sleeps.
  //
  // Without a fence the load of `sleepers` may pass the store of `value`, and a
  // rank that falls asleep in these few nanoseconds is not woken. It sleeps
  // with a timeout, so it loses a millisecond and nothing else. Where sleeping
  // is common (!spin) the fence is worth its 10 ns.
  void Publish(uint32_t next, bool spin) const {
    if (spin) [[likely]] {
      value.store(next, std::memory_order_release);
      if (sleepers.load(std::memory_order_relaxed) != 0) [[unlikely]]
        WakeAll();
    } else {
      value.store(next, std::memory_order_seq_cst);
      if (sleepers.load(std::memory_order_seq_cst) != 0) WakeAll();
    }
  }
  void WakeAll() const;
  // Sleeps until woken, `value` differs from `seen`, or a timeout.
  void Sleep(uint32_t seen, int64_t timeout_us) const;
};

// Both words side by side, where every nanosecond does not count.
struct Signal {
  std::atomic<uint32_t> value{0};
  std::atomic<uint32_t> sleepers{0};

  // NOLINTNEXTLINE(google-explicit-constructor): the same thing, seen.
  operator SignalRef() { return {value, sleepers}; }
  void Publish(uint32_t next, bool spin) {
    const SignalRef words = *this;
    words.Publish(next, spin);
  }
};

// One wait that has outlasted the first look. Call Pause between looks.
class Patience {
 public:
  explicit Patience(const Waiting& how) : how_(how) {}
  // Passes some time; `seen` is the value that was not the one hoped for. False
  // when the abort flag is up.
  bool Pause(const SignalRef& signal, uint32_t seen);

 private:
  const Waiting& how_;
  int looks_ = 0;
};

// Returns once done(value) is true, with what its writer stored before visible;
// false when the abort flag was raised first.
template <class Done>
[[gnu::noinline]] bool WaitLong(SignalRef signal, const Waiting& how,
                                Done done) {
  // 1 to 2 us of bare looking: between two cores most waits end here, and one
  // pause instruction takes 50 ns on current Intel cores.
  if (how.spin) {
    for (int i = 0; i < 1000; ++i) {
      if (done(signal.value.load(std::memory_order_acquire))) return true;
    }
  }
  Patience patience(how);
  while (true) {
    const uint32_t seen = signal.value.load(std::memory_order_acquire);
    if (done(seen)) return true;
    if (!patience.Pause(signal, seen)) return false;
  }
}

template <class Done>
inline bool WaitUntil(SignalRef signal, const Waiting& how, Done done) {
  if (done(signal.value.load(std::memory_order_acquire))) return true;
  return WaitLong(signal, how, done);
}

// A lock for a few dozen instructions, never held across a wait.
class BriefLock {
 public:
  void lock() {
    if (held_.exchange(true, std::memory_order_acquire)) [[unlikely]]
      Contend();
  }
  void unlock() { held_.store(false, std::memory_order_release); }

 private:
  void Contend();
  std::atomic<bool> held_{false};
};

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_NODE_WAIT_H_
