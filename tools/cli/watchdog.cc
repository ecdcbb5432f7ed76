#include "tools/cli/watchdog.h"

#include <utility>

#include "tools/cli/interrupt.h"

namespace shardproof {
namespace {

using Clock = std::chrono::steady_clock;
using Seconds = std::chrono::duration<double>;

// A signal handler cannot notify: it is looked for this often.
constexpr std::chrono::milliseconds kLook{20};

}  // namespace

Watchdog::Watchdog(
    World& world, double grace_seconds,
    std::function<void(const std::vector<std::string>&, bool)> give_up)
    : world_(world),
      grace_(grace_seconds),
      give_up_(std::move(give_up)),
      thread_([this] { Watch(); }) {}

Watchdog::~Watchdog() {
  {
    const std::lock_guard lock(mutex_);
    stopping_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

void Watchdog::Arm(double seconds) {
  {
    const std::lock_guard lock(mutex_);
    armed_ = true;
    ended_ = false;
    seconds_ = seconds;
    since_ = Clock::now();
    outcome_ = {};
  }
  changed_.notify_all();
}

Watchdog::Outcome Watchdog::Disarm() {
  const std::lock_guard lock(mutex_);
  armed_ = false;
  changed_.notify_all();
  return std::move(outcome_);
}

void Watchdog::Watch() {
  std::unique_lock lock(mutex_);
  while (!stopping_) {
    if (!armed_) {
      changed_.wait(lock);
      continue;
    }
    changed_.wait_for(lock, kLook);
    if (stopping_ || !armed_) continue;
    if (!ended_) {
      const bool hung =
          seconds_ > 0 && Clock::now() - since_ > Seconds(seconds_);
      if (hung || Interrupted()) EndCase(lock, hung && !Interrupted());
    } else if (Clock::now() - since_ > grace_) {
      const std::vector<std::string> whereabouts = outcome_.whereabouts;
      const bool hung = outcome_.hung;
      lock.unlock();
      give_up_(whereabouts, hung);
      lock.lock();
      since_ = Clock::now();
    }
  }
}

void Watchdog::EndCase(std::unique_lock<std::mutex>& lock, bool hung) {
  // The world may wait for a lock of its own: not under ours.
  lock.unlock();
  std::vector<std::string> whereabouts = world_.Whereabouts();
  lock.lock();
  if (!armed_) return;  // It returned meanwhile.
  outcome_.hung = hung;
  outcome_.interrupted = !hung;
  outcome_.whereabouts = std::move(whereabouts);
  ended_ = true;
  since_ = Clock::now();
  lock.unlock();
  world_.Abort(hung ? "the case exceeded --timeout" : "interrupted");
  lock.lock();
}

}  // namespace shardproof
