#include "collectives/checks.h"

namespace shardproof {
namespace {

// Ends the waits of the peers of a rank that refuses alone.
Status RefuseAlone(const Communicator& comm, Status status) {
  if (!status.ok()) comm.Abort(status.ToString());
  return status;
}

}  // namespace

Status CheckCount(int64_t count) {
  if (count >= 0) [[likely]] {
    return OkStatus();
  }
  return InvalidArgument("count is {}; it must not be negative", count);
}

Status CheckRoot(const Communicator& comm, int root) {
  if (root >= 0 && root < comm.size()) [[likely]] {
    return OkStatus();
  }
  return InvalidArgument("root is {}; the communicator has ranks 0 to {}", root,
                         comm.size() - 1);
}

Status CheckCounts(const Communicator& comm, std::span<const int64_t> counts,
                   std::span<const int64_t> offsets) {
  const auto ranks = static_cast<size_t>(comm.size());
  if (counts.size() != ranks) {
    return InvalidArgument("{} counts for {} ranks", counts.size(), ranks);
  }
  if (!offsets.empty() && offsets.size() != ranks) {
    return InvalidArgument("{} offsets for {} ranks", offsets.size(), ranks);
  }
  for (size_t r = 0; r < ranks; ++r) {
    if (counts[r] < 0) {
      return InvalidArgument("the count of rank {} is {}", r, counts[r]);
    }
    if (!offsets.empty() && offsets[r] < 0) {
      return InvalidArgument("the offset of rank {} is {}", r, offsets[r]);
    }
  }
  return OkStatus();
}

Status CheckOwnCounts(const Communicator& comm, std::span<const int64_t> counts,
                      std::span<const int64_t> offsets) {
  return RefuseAlone(comm, CheckCounts(comm, counts, offsets));
}

Status CheckOwnPeer(const Communicator& comm, int peer, std::string_view role) {
  if (peer >= -1 && peer < comm.size()) [[likely]] {
    return OkStatus();
  }
  return RefuseAlone(
      comm, InvalidArgument("the {} of rank {} is {}; the communicator has "
                            "ranks 0 to {}, and -1 stands for nobody",
                            role, comm.rank(), peer, comm.size() - 1));
}

}  // namespace shardproof
