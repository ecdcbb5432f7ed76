#include "tools/harness/deadline.h"

#include <chrono>
#include <utility>

namespace shardproof {

Deadline::Deadline(double seconds, std::function<void()> expire)
    : thread_([this, seconds, expire = std::move(expire)] {
        std::unique_lock<std::mutex> lock(mutex_);
        const std::chrono::duration<double> time(seconds);
        if (changed_.wait_for(lock, time, [this] { return cancelled_; })) {
          return;
        }
        lock.unlock();
        expire();
      }) {}

Deadline::~Deadline() {
  {
    const std::lock_guard<std::mutex> lock(mutex_);
    cancelled_ = true;
  }
  changed_.notify_all();
  thread_.join();
}

}  // namespace shardproof
