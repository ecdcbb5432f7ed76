// Ends what hangs: a thread that aborts the world when a case takes too long or
// the person interrupts, and says where every rank was.
#ifndef SHARDPROOF_TOOLS_CLI_WATCHDOG_H_
#define SHARDPROOF_TOOLS_CLI_WATCHDOG_H_

#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <string>
#include <thread>
#include <vector>

#include "tools/harness/world.h"

namespace shardproof {

class Watchdog {
 public:
  // `give_up(whereabouts, hung)` is called, on the watchdog's thread, when an
  // aborted case does not return within `grace` seconds; it must end the
  // process.
  Watchdog(World& world, double grace_seconds,
           std::function<void(const std::vector<std::string>&, bool)> give_up);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  // Guards what follows until Disarm. 0 seconds: only interrupts count.
  void Arm(double seconds);
  struct Outcome {
    bool hung = false;
    bool interrupted = false;
    std::vector<std::string> whereabouts;  // When it was ended, per rank.
  };
  Outcome Disarm();
  // Whether what is guarded has been ended. From any thread.
  bool Ended() {
    const std::lock_guard lock(mutex_);
    return ended_;
  }

 private:
  void Watch();
  void EndCase(std::unique_lock<std::mutex>& lock, bool hung);

  World& world_;
  const std::chrono::duration<double> grace_;
  const std::function<void(const std::vector<std::string>&, bool)> give_up_;
  std::mutex mutex_;
  std::condition_variable changed_;
  bool armed_ = false, stopping_ = false, ended_ = false;
  double seconds_ = 0;
  std::chrono::steady_clock::time_point since_;
  Outcome outcome_;
  std::thread thread_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_CLI_WATCHDOG_H_
