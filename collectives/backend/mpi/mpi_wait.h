// How a rank waits for MPI.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_MPI_MPI_WAIT_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_MPI_MPI_WAIT_H_

#include "collectives/backend/mpi/mpi_session.h"
#include "reference/status.h"

namespace shardproof {

// One wait. Call Pause between looks with MPI_Test, which also moves messages
// on: nothing else does, so unlike a wait for a flag this one cannot sleep
// until it is woken. It looks, then looks and yields, then naps; what it yields
// to may be the very thread that the peer waits for, because a launcher binds
// the threads of a rank to one core.
class MpiPatience {
 public:
  explicit MpiPatience(MpiSession& session) : session_(session) {}
  // Passes some time. kAborted once the world is aborted.
  Status Pause();

 private:
  MpiSession& session_;
  int looks_ = 0;
};

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_MPI_MPI_WAIT_H_
