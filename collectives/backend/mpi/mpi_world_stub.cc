// The backend where there is no MPI: it says so.
#include "collectives/backend/mpi/mpi_world.h"

namespace shardproof {
namespace {

Status NotBuilt() {
  return Unavailable(
      "this program was built without MPI; install it (Debian: libopenmpi-dev, "
      "openmpi-bin) and build again");
}

}  // namespace

StatusOr<std::unique_ptr<MpiWorld>> MpiWorld::Create(const MpiWorldOptions&) {
  return NotBuilt();
}

StatusOr<std::string> MpiVersion() { return NotBuilt(); }

}  // namespace shardproof
