// Messages of MpiBackend: non-blocking MPI, and waits that an abort ends.
//
// The progress threads of several communicators call these at the same time,
// which is why MPI runs with MPI_THREAD_MULTIPLE.
#include <cstring>

#include "collectives/backend/mpi/mpi_backend.h"
#include "collectives/backend/mpi/mpi_types.h"
#include "collectives/backend/mpi/mpi_wait.h"

namespace shardproof {
namespace {

// A transfer's state is the request itself: both libraries have handles that
// fit, a pointer (Open MPI) or an int (MPICH), and never 0 while under way.
static_assert(sizeof(MPI_Request) <= sizeof(void*));

void* Pack(MPI_Request request) {
  void* state = nullptr;
  // A pointer or an int is meant.
  // NOLINTNEXTLINE(bugprone-bitwise-pointer-cast,bugprone-sizeof-expression)
  std::memcpy(&state, &request, sizeof(request));
  return state;
}

MPI_Request Unpack(void* state) {
  MPI_Request request;
  // A pointer or an int is meant.
  // NOLINTNEXTLINE(bugprone-bitwise-pointer-cast,bugprone-sizeof-expression)
  std::memcpy(&request, &state, sizeof(request));
  return request;
}

// What MPI says of a finished message, against what was agreed.
Status CheckArrival(const Transfer& transfer, int code,
                    const MPI_Status& status) {
  if (code != MPI_SUCCESS) {
    int kind = MPI_SUCCESS;
    MPI_Error_class(code, &kind);
    if (kind == MPI_ERR_TRUNCATE) {
      return DataLoss("rank {} sent more than the {} bytes that were expected",
                      transfer.peer, transfer.bytes);
    }
    return MpiStatus(code, transfer.receive ? "MPI_Irecv" : "MPI_Isend");
  }
  if (!transfer.receive) return OkStatus();
  MPI_Count arrived = 0;
  MPI_Get_elements_x(&status, MPI_BYTE, &arrived);
  if (static_cast<size_t>(arrived) == transfer.bytes) return OkStatus();
  return DataLoss("rank {} sent {} bytes where {} were expected", transfer.peer,
                  static_cast<int64_t>(arrived), transfer.bytes);
}

}  // namespace

Status MpiBackend::CheckMessage(int peer, int tag) const {
  if (peer < 0 || peer >= size_) {
    return InvalidArgument("a message with rank {} among {} ranks", peer,
                           size_);
  }
  if (tag < 0 || tag > largest_tag_) {
    return InvalidArgument("tag {} is not in 0 to {}", tag, largest_tag_);
  }
  return OkStatus();
}

StatusOr<Transfer> MpiBackend::StartSend(const void* data, size_t bytes,
                                         int destination, int tag) {
  SP_RETURN_IF_ERROR(CheckMessage(destination, tag));
  SP_ASSIGN_OR_RETURN(const Elements payload,
                      Elements::Of(MPI_BYTE, static_cast<int64_t>(bytes)));
  MPI_Request request = MPI_REQUEST_NULL;
  SP_RETURN_IF_ERROR(MpiStatus(MPI_Isend(data, payload.count(), payload.type(),
                                         destination, tag, comm_, &request),
                               "MPI_Isend"));
  return Transfer{.state = Pack(request),
                  .receive = false,
                  .peer = destination,
                  .data = nullptr,
                  .bytes = bytes};
}

StatusOr<Transfer> MpiBackend::StartReceive(void* data, size_t bytes,
                                            int source, int tag) {
  SP_RETURN_IF_ERROR(CheckMessage(source, tag));
  SP_ASSIGN_OR_RETURN(const Elements payload,
                      Elements::Of(MPI_BYTE, static_cast<int64_t>(bytes)));
  MPI_Request request = MPI_REQUEST_NULL;
  SP_RETURN_IF_ERROR(MpiStatus(MPI_Irecv(data, payload.count(), payload.type(),
                                         source, tag, comm_, &request),
                               "MPI_Irecv"));
  return Transfer{.state = Pack(request),
                  .receive = true,
                  .peer = source,
                  .data = static_cast<std::byte*>(data),
                  .bytes = bytes};
}

StatusOr<bool> MpiBackend::Test(Transfer& transfer) {
  if (transfer.state == nullptr) return true;
  MPI_Request request = Unpack(transfer.state);
  MPI_Status status;
  int done = 0;
  const int code = MPI_Test(&request, &done, &status);
  if (done == 0 && code == MPI_SUCCESS) {
    if (session_->waiting().abort->raised()) [[unlikely]] {
      // Left to MPI, which is not ended any more.
      transfer.state = nullptr;
      return session_->Health();
    }
    return false;
  }
  transfer.state = nullptr;
  SP_RETURN_IF_ERROR(CheckArrival(transfer, code, status));
  return true;
}

Status MpiBackend::Wait(Transfer& transfer) {
  MpiPatience patience(*session_);
  while (true) {
    SP_ASSIGN_OR_RETURN(const bool done, Test(transfer));
    if (done) return OkStatus();
    if (Status status = patience.Pause(); !status.ok()) {
      transfer.state = nullptr;
      return status;
    }
  }
}

}  // namespace shardproof
