// What of a rank's buffers a request reads and writes, and where copies of it lie
// in memory that is shared with the process that serves the rank.
//
// Both sides have a block of `bytes`. The owner of the buffers fills it at
// `parts`, the process copies all of it to its device, runs the request with the
// pointers Send and Recv of that block, and copies what is `returned` back; the
// owner takes that from there. So what a primitive leaves alone is as it was, and
// buffers that overlap (in place) overlap in the same way.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_NCCL_PROCESS_STAGING_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_NCCL_PROCESS_STAGING_H_

#include <array>
#include <cstddef>
#include <cstdint>

#include "collectives/backend.h"
#include "collectives/backend/nccl/process/message.h"

namespace shardproof {

struct RequestBytes {
  size_t send = 0, recv = 0;
};

// How many bytes from `send` and `recv` on a request of rank `rank` among `ranks`
// may touch. None for a primitive that is unknown, and for counts that cannot be:
// the library's side refuses those.
RequestBytes BytesOf(const NativeRequest& request, int rank, int ranks);

struct Staging {
  static constexpr int64_t kNull = -1;

  size_t bytes = 0;
  // Of the request's pointers, from the beginning; kNull for null.
  int64_t send_at = kNull, recv_at = kNull;
  // What the request may write to.
  size_t returned_at = 0, returned_bytes = 0;

  // Pointers into a block at `base`.
  const std::byte* Send(std::byte* base) const { return At(base, send_at); }
  std::byte* Recv(std::byte* base) const { return At(base, recv_at); }
  // Whether two blocks are equal but in what the request may write to.
  bool RestIsEqual(const std::byte* one, const std::byte* other) const;

 private:
  static std::byte* At(std::byte* base, int64_t at) {
    return at == kNull ? nullptr : base + at;
  }
};

// Of the owner's side.
struct StagedRequest {
  struct Part {
    std::byte* data = nullptr;  // Of the rank. Written to where it is returned.
    size_t at = 0, bytes = 0;
    bool returned = false;
  };
  Staging staging;
  std::array<Part, 2> parts;

  void CopyIn(std::byte* base) const;
  void CopyOut(const std::byte* base) const;
};

// Room is left around each part, so that what is written beside it is noticed.
StagedRequest Stage(const NativeRequest& request, int rank, int ranks);

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_NCCL_PROCESS_STAGING_H_
