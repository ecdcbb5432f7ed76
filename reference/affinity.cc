#include "reference/affinity.h"

#include <pthread.h>
#include <sched.h>
#include <unistd.h>

namespace shardproof {

void UseEveryCore() {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  // The main thread's number is that of the process, and ranks are others.
  if (sched_getaffinity(getpid(), sizeof(cores), &cores) != 0) return;
  static_cast<void>(
      pthread_setaffinity_np(pthread_self(), sizeof(cores), &cores));
}

}  // namespace shardproof
