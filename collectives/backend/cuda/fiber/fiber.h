// One fiber: a stack of its own and a place to continue. ThreadSanitizer takes it for a thread.
//
//     a.Start(entry, argument);      // once; runs when it is first switched to
//     Fiber::Switch(here, a, true);  // returns when somebody switches to `here`
//
// Switch(.., synchronizes): whether what came before the switch happens before what comes after it, for
// ThreadSanitizer.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_CUDA_FIBER_FIBER_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_CUDA_FIBER_FIBER_H_

#include <ucontext.h>

#include <cstddef>

#include "reference/status.h"

namespace shardproof::cuda {

class Fiber {
 public:
  Fiber() = default;
  ~Fiber();
  Fiber(const Fiber&) = delete;
  Fiber& operator=(const Fiber&) = delete;

  // Makes this the fiber that calls: the one that main() runs in.
  void Adopt();
  // Gives it a stack. `entry(argument)` must not return.
  Status Start(void (*entry)(void*), void* argument);

  static void Switch(Fiber& from, Fiber& to, bool synchronizes);

  // Orders between fibers that ThreadSanitizer cannot see by itself: what came before a release of an address happens
  // before what comes after the next acquire of it.
  static void Release(void* address);
  static void Acquire(void* address);

 private:
  ucontext_t context_ = {};
  void* sanitizer_ = nullptr;
  void* stack_ = nullptr;
  size_t stack_bytes_ = 0;
  bool owns_sanitizer_ = false;
};

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_CUDA_FIBER_FIBER_H_
