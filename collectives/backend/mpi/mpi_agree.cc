#include "collectives/backend/mpi/mpi_agree.h"

#include <algorithm>
#include <array>
#include <string>

#include "collectives/backend/mpi/mpi_types.h"

namespace shardproof {

Status Agree(MPI_Comm comm, const Status& mine) {
  int rank = 0;
  int size = 1;
  MPI_Comm_rank(comm, &rank);
  MPI_Comm_size(comm, &size);
  const int failed = mine.ok() ? size : rank;
  int first = size;
  SP_RETURN_IF_ERROR(
      MpiStatus(MPI_Allreduce(&failed, &first, 1, MPI_INT, MPI_MIN, comm),
                "MPI_Allreduce"));
  if (first == size) return OkStatus();
  // The code, then the text.
  std::array<char, 1024> words{};
  if (rank == first) {
    words[0] = static_cast<char>(mine.code());
    const size_t length = std::min(mine.message().size(), words.size() - 2);
    std::copy_n(mine.message().begin(), length, words.begin() + 1);
  }
  SP_RETURN_IF_ERROR(
      MpiStatus(MPI_Bcast(words.data(), static_cast<int>(words.size()),
                          MPI_CHAR, first, comm),
                "MPI_Bcast"));
  return Status(static_cast<StatusCode>(words[0]), words.data() + 1)
      .WithContext(fmt::format("rank {} of {}", first, size));
}

}  // namespace shardproof
