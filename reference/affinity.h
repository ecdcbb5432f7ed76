// Which cores a thread may run on.
#ifndef SHARDPROOF_REFERENCE_AFFINITY_H_
#define SHARDPROOF_REFERENCE_AFFINITY_H_

namespace shardproof {

// Lets the calling thread run on every core that the process may use, those of
// its main thread. A thread inherits the cores of the one that starts it, and a
// rank may be pinned to one (backend/thread/thread_world.h): whatever is to run
// beside a rank calls this first. Where the system refuses, nothing changes.
void UseEveryCore();

}  // namespace shardproof

#endif  // SHARDPROOF_REFERENCE_AFFINITY_H_
