#include "collectives/backend/mpi/mpi_world.h"

#include <mpi.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <string_view>
#include <utility>

#include "collectives/backend/mpi/mpi_backend.h"
#include "collectives/backend/mpi/mpi_session.h"
#include "collectives/backend/mpi/mpi_types.h"

namespace shardproof {
namespace {

class MpiWorldImpl final : public MpiWorld {
 public:
  explicit MpiWorldImpl(std::shared_ptr<Backend> backend)
      : world_(std::move(backend)) {}

  const Communicator& world() const override { return world_; }

  [[noreturn]] void AbortJob(int exit_code) override {
    // 0 and 256 would look like a pass.
    if (exit_code < 1 || exit_code > 255) exit_code = 6;
    std::fflush(stdout);
    std::fflush(stderr);
    MPI_Abort(MPI_COMM_WORLD, exit_code);
    _exit(exit_code);
  }

 private:
  Communicator world_;  // Holds the session, which ends MPI when it goes.
};

}  // namespace

StatusOr<std::unique_ptr<MpiWorld>> MpiWorld::Create(
    const MpiWorldOptions& options) {
  SP_ASSIGN_OR_RETURN(std::shared_ptr<MpiSession> session,
                      MpiSession::Create(options));
  MPI_Comm comm = MPI_COMM_NULL;
  SP_RETURN_IF_ERROR(
      MpiStatus(MPI_Comm_dup(MPI_COMM_WORLD, &comm), "MPI_Comm_dup"));
  SP_ASSIGN_OR_RETURN(std::shared_ptr<Backend> backend,
                      MpiBackend::Create(std::move(session), comm));
  if (options.wrap != nullptr) backend = options.wrap(std::move(backend));
  return std::unique_ptr<MpiWorld>(
      std::make_unique<MpiWorldImpl>(std::move(backend)));
}

StatusOr<std::string> MpiVersion() {
  std::string text(MPI_MAX_LIBRARY_VERSION_STRING, '\0');
  int length = 0;
  SP_RETURN_IF_ERROR(MpiStatus(MPI_Get_library_version(text.data(), &length),
                               "MPI_Get_library_version"));
  text.resize(static_cast<size_t>(length));
  // MPICH's text goes on with how it was configured, line by line, and Open MPI counts the null at the end.
  text.resize(
      std::min(text.size(), text.find_first_of(std::string_view("\n\0", 2))));
  return text;
}

}  // namespace shardproof
