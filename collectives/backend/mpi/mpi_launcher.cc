#include <cstdlib>

#include "collectives/backend/mpi/mpi_world.h"

namespace shardproof {

bool StartedByMpiLauncher() {
  // Open MPI; MPICH, Intel MPI and srun --mpi=pmi2; srun --mpi=pmix.
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK"}) {
    if (std::getenv(name) != nullptr) return true;
  }
  return false;
}

}  // namespace shardproof
