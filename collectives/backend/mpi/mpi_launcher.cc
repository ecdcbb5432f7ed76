#include <cstdlib>
#include <string_view>

#include "collectives/backend/mpi/mpi_world.h"

namespace shardproof {

bool StartedByMpiLauncher() {
  // Open MPI; MPICH, Intel MPI and srun --mpi=pmi2; srun --mpi=pmix.
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMIX_RANK"}) {
    if (std::getenv(name) != nullptr) return true;
  }
  return false;
}

bool HasLauncherPeers() {
  for (const char* name :
       {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "SLURM_STEP_NUM_TASKS"}) {
    const char* size = std::getenv(name);
    if (size != nullptr && StartedByMpiLauncher())
      return std::string_view(size) != "1";
  }
  return StartedByMpiLauncher();
}

}  // namespace shardproof
