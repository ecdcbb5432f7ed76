// Messages between two ranks: checked, counted and shown to the interceptor
// here, carried by the backend.
#include "collectives/communicator.h"
#include "collectives/communicator_impl.h"

namespace shardproof {

Status Communicator::Impl::CheckMessage(const void* data, size_t bytes,
                                        int peer, const char* role,
                                        int tag) const {
  if (peer < 0 || peer >= size) [[unlikely]] {
    return InvalidArgument("{} {} is not a rank: there are {}", role, peer,
                           size);
  }
  if (data == nullptr && bytes != 0) [[unlikely]] {
    return InvalidArgument("a message of {} bytes ({} {}) has no buffer", bytes,
                           role, peer);
  }
  if (tag < 0 || tag >= kUserTags) [[unlikely]] {
    return InvalidArgument("tag {} is not between 0 and {}", tag,
                           kUserTags - 1);
  }
  return OkStatus();
}

StatusOr<Request> Communicator::Isend(const void* data, size_t bytes,
                                      int destination, int tag) const {
  Impl& impl = *impl_;
  SP_RETURN_IF_ERROR(impl.Note(
      impl.CheckMessage(data, bytes, destination, "destination", tag)));
  if (bytes == 0) return Request();
  if (impl.interceptor != nullptr) [[unlikely]] {
    impl.interceptor->OnSend(*impl.current, impl.rank, destination,
                             {static_cast<const std::byte*>(data), bytes});
  }
  if (destination != impl.rank) impl.traffic->Count(bytes);
  StatusOr<Request> request =
      impl.backend->StartSend(data, bytes, destination, tag);
  if (!request.ok()) [[unlikely]]
    ++impl.failures;
  return request;
}

StatusOr<Request> Communicator::Irecv(void* data, size_t bytes, int source,
                                      int tag) const {
  Impl& impl = *impl_;
  SP_RETURN_IF_ERROR(
      impl.Note(impl.CheckMessage(data, bytes, source, "source", tag)));
  if (bytes == 0) return Request();
  StatusOr<Request> request =
      impl.backend->StartReceive(data, bytes, source, tag);
  if (!request.ok()) [[unlikely]]
    ++impl.failures;
  return request;
}

Status Communicator::Wait(Request& request) const {
  Impl& impl = *impl_;
  if (request.state != nullptr) {
    SP_RETURN_IF_ERROR(impl.Note(impl.backend->Wait(request)));
  }
  // A receive can be complete when it starts. It counts as arrived here, once.
  if (request.receive) {
    request.receive = false;
    if (impl.interceptor != nullptr) [[unlikely]] {
      impl.interceptor->OnReceive(*impl.current, impl.rank, request.peer,
                                  {request.data, request.bytes});
    }
  }
  return OkStatus();
}

Status Communicator::WaitAll(std::span<Request> requests) const {
  // All of them, even after an error: buffers must not be in use when this
  // returns.
  Status first;
  for (Request& request : requests) {
    Status status = Wait(request);
    if (first.ok() && !status.ok()) first = std::move(status);
  }
  return first;
}

Status Communicator::Send(const void* data, size_t bytes, int destination,
                          int tag) const {
  SP_ASSIGN_OR_RETURN(Request request, Isend(data, bytes, destination, tag));
  return Wait(request);
}

Status Communicator::Recv(void* data, size_t bytes, int source, int tag) const {
  SP_ASSIGN_OR_RETURN(Request request, Irecv(data, bytes, source, tag));
  return Wait(request);
}

Status Communicator::SendRecv(const void* out, size_t out_bytes,
                              int destination, void* in, size_t in_bytes,
                              int source, int tag) const {
  // Checked first: with a receive posted there is no way back.
  SP_RETURN_IF_ERROR(impl_->Note(
      impl_->CheckMessage(out, out_bytes, destination, "destination", tag)));
  SP_ASSIGN_OR_RETURN(Request receive, Irecv(in, in_bytes, source, tag));
  StatusOr<Request> send = Isend(out, out_bytes, destination, tag);
  if (!send.ok()) [[unlikely]] {
    // Only an abort fails here, or the peer's mistake: then nobody may answer.
    Abort(send.status().ToString());
    static_cast<void>(Wait(receive));
    return std::move(send).status();
  }
  Request requests[] = {receive, *send};
  return WaitAll(requests);
}

}  // namespace shardproof
