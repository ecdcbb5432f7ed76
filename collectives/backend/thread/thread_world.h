// Ranks as threads of this process: the default backend. Nothing to install, runs everywhere.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_THREAD_THREAD_WORLD_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_THREAD_THREAD_WORLD_H_

#include <functional>
#include <memory>
#include <vector>

#include "collectives/communicator.h"

namespace shardproof {

struct ThreadWorldOptions {
  int ranks = 1;
  // Simulated nodes of this many ranks each (0: one node): ranks of different nodes do not share memory, so that
  // hierarchical algorithms can be tested on one machine.
  int ranks_per_node = 0;
  // Pin rank r to core r modulo the cores, when there are at least as many cores as ranks.
  bool pin = true;
  // Makes of the backend of each rank the one that its communicator gets, on the rank's thread; null: that itself. What
  // it does not forward is what a backend over threads has of its own: see cuda/device/gpu_backend.h.
  std::function<std::shared_ptr<Backend>(std::shared_ptr<Backend>)> wrap =
      nullptr;
};

// A world that lives across many runs. Run(f) calls f(comm) on every rank's thread and returns when all are done: the
// first error in rank order. If a rank returns an error, the others' waits are aborted, and the world must be replaced
// (healthy() is false).
class ThreadWorld {
 public:
  static StatusOr<std::unique_ptr<ThreadWorld>> Create(
      const ThreadWorldOptions& options);
  virtual ~ThreadWorld() = default;
  virtual Status Run(
      const std::function<Status(const Communicator&)>& rank_main) = 0;
  virtual int ranks() const = 0;
  virtual bool healthy() const = 0;
  // From any thread: ends every wait with kAborted.
  virtual void Abort(std::string_view reason) = 0;
  // From any thread: where each rank is (for the watchdog).
  virtual std::vector<const OpRecord*> Progress() const = 0;
};

// For tests and examples: a fresh world, one run.
Status RunThreads(int ranks,
                  const std::function<Status(const Communicator&)>& rank_main);

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_THREAD_THREAD_WORLD_H_
