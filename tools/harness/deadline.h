// Calls a function on another thread unless it is told in time not to.
#ifndef SHARDPROOF_TOOLS_HARNESS_DEADLINE_H_
#define SHARDPROOF_TOOLS_HARNESS_DEADLINE_H_

#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>

namespace shardproof {

class Deadline {
 public:
  // `expire` is called once, after `seconds`, unless this is destroyed before.
  // The destructor waits for a call that is under way.
  Deadline(double seconds, std::function<void()> expire);
  ~Deadline();
  Deadline(const Deadline&) = delete;
  Deadline& operator=(const Deadline&) = delete;

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool cancelled_ = false;  // Guarded by mutex_.
  std::thread thread_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_HARNESS_DEADLINE_H_
