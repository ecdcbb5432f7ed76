// Where cases run: a set of ranks of one backend, and a way to run the same
// function on all of them.
//
//     SP_ASSIGN_OR_RETURN(auto world, CreateWorld("thread"));
//     Status s = world->Run(4, [&](const Communicator& comm) { ... });
#ifndef SHARDPROOF_TOOLS_HARNESS_WORLD_H_
#define SHARDPROOF_TOOLS_HARNESS_WORLD_H_

#include <functional>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "collectives/communicator.h"
#include "reference/status.h"

namespace shardproof {

// One process's view. It holds every rank, as threads; or one, as on `mpi`, and
// every process makes the same calls in the same order.
class World {
 public:
  virtual ~World() = default;
  virtual std::string_view backend() const = 0;
  // Processes: those the launcher started; threads: as many as memory allows.
  virtual int max_ranks() const = 0;
  // Whether each rank is a process that a launcher started.
  virtual bool of_processes() const = 0;
  // True in the one process that prints and writes files.
  virtual bool is_leader() const = 0;

  // Calls f(comm) on each of `ranks` ranks (comm.size() == ranks) and returns
  // when all are done. With fewer ranks than processes, the others
  // return at once, with Ok. The first error in rank order, the same on every
  // process that took part. After an abort (a hang, an error on some rank) the
  // world of threads is replaced; that of processes is lost (healthy()). Worlds and
  // communicators are kept between calls.
  virtual Status Run(int ranks,
                     const std::function<Status(const Communicator&)>& f) = 0;
  virtual bool healthy() const = 0;

  // From any thread (watchdog, signal handling): ends the waits of the run in
  // progress with kAborted.
  virtual void Abort(std::string_view reason) = 0;
  // Where each rank of the run in progress is, as sentences: "rank 2: never
  // entered #17 (last: #16 barrier)".
  virtual std::vector<std::string> Whereabouts() const = 0;
  // Ends the job with `exit_code` at once (MPI_Abort; _exit on thread).
  [[noreturn]] virtual void Terminate(int exit_code) = 0;
};

// "thread" or "mpi". kUnavailable with the reason: not built, not started by a
// launcher. kInvalidArgument: no such backend.
StatusOr<std::unique_ptr<World>> CreateWorld(std::string_view backend);

// Sentences about ranks 0..n-1 from their progress records; null entries are
// ranks that cannot be seen. The furthest operation that any rank entered is
// what the others are measured against. `numbers`: what the ranks are called,
// where that is not their place.
std::vector<std::string> DescribeProgress(
    const std::vector<const OpRecord*>& progress,
    const std::vector<int>& numbers = {});

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_HARNESS_WORLD_H_
