// Ranks as MPI processes. This header mentions no MPI type: without MPI,
// mpi_world_stub.cc implements it and answers kUnavailable with the reason.
//
//     SP_ASSIGN_OR_RETURN(std::unique_ptr<MpiWorld> world, MpiWorld::Create());
//     SP_RETURN_IF_ERROR(AllReduce(world->world(), args));
//
// What mpirun makes of the way a job ends, seen with Open MPI 4.1.4:
//
//   MPI_Abort(comm, c)                    c modulo 256; so 256 looks like a pass
//   one rank exits with c, the rest 0     c (before or after MPI_Finalize)
//   ranks exit with different codes       one of them, not always the same
//   one rank exits 0 without finalizing   1
//   SIGSEGV, SIGABRT, SIGKILL in a rank   139, 134, 137
//   SIGINT or SIGTERM to mpirun           1, whatever the ranks exit with
//   the program is not there              132
//   more ranks than slots                 1
//
// Before it ends a job, mpirun sends SIGTERM to the ranks that are left, never
// SIGINT, and SIGKILL a second later: that second is what a rank has to put its
// results on disk. A rank that exits with a code other than 0 has the others
// ended in this way at once, even if they are about to write: ranks must agree
// on the code, and on being done, before they exit.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_MPI_MPI_WORLD_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_MPI_MPI_WORLD_H_

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

#include "collectives/backend.h"
#include "collectives/communicator.h"

namespace shardproof {

struct MpiWorldOptions {
  // Simulated nodes of this many ranks each (0: the real ones): ranks of
  // different nodes do not share memory, so that hierarchical algorithms and
  // messages between nodes can be tested on one machine.
  int ranks_per_node = 0;
  // What one rank's heap may hold, in bytes; 0: its share of the node's memory.
  size_t heap_budget = 0;
  // Makes of the backend of the world the one that its communicator gets; null: that itself.
  std::function<std::shared_ptr<Backend>(std::shared_ptr<Backend>)> wrap =
      nullptr;
};

class MpiWorld {
 public:
  // MPI_Init_thread(MPI_THREAD_MULTIPLE) and the shared heap of the node. Once
  // per process, since MPI starts only once. A program that no launcher started
  // is a world of one rank. kUnavailable: built without MPI, MPI without
  // threads, or no shared memory. Collective: the answer is the same on all
  // ranks.
  static StatusOr<std::unique_ptr<MpiWorld>> Create(
      const MpiWorldOptions& options = {});
  // MPI_Finalize, once every communicator made from the world is gone, and
  // never after an abort: it would wait for ranks that do not come.
  virtual ~MpiWorld() = default;
  virtual const Communicator& world() const = 0;
  // Ends the whole job with `exit_code`, 1 to 255 (MPI_Abort); anything else
  // becomes 6, a launcher failure. From any thread.
  [[noreturn]] virtual void AbortJob(int exit_code) = 0;
};

// Whether the backend is compiled in, and the library's version string ("Open
// MPI v4.1.4, ..."), or why not.
StatusOr<std::string> MpiVersion();
// Whether this process looks as if a launcher started it (OMPI_COMM_WORLD_SIZE,
// PMI_SIZE, PMIX_RANK). To be asked before Create: Open MPI sets these itself in
// a program that started without mpirun.
bool StartedByMpiLauncher();
// Whether it may have started others besides. False where it says that it has not.
bool HasLauncherPeers();

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_MPI_MPI_WORLD_H_
