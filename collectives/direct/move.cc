#include "collectives/direct/move.h"

#include "collectives/direct/rank_array.h"
#include "collectives/direct/slices.h"
#include "collectives/kernels/copy.h"

namespace shardproof::direct {

void MoveOne(const Peers& peers, DType dtype, int64_t count, int from,
             int64_t from_begin, int to, int64_t to_begin,
             const kernels::Walk& walk) {
  if (count == 0) return;
  const size_t bytes = ByteCount(count, dtype);
  const std::byte* source =
      peers.Read(from, ByteCount(from_begin, dtype), bytes);
  kernels::Copy(peers.Write(to, ByteCount(to_begin, dtype), bytes), source,
                bytes, walk);
}

void MoveToAll(const Peers& peers, DType dtype, int64_t count, int from,
               int64_t from_begin, int64_t to_begin, const kernels::Walk& walk,
               int except) {
  if (count == 0) return;
  const size_t bytes = ByteCount(count, dtype);
  const std::byte* source =
      peers.Read(from, ByteCount(from_begin, dtype), bytes);
  RankArray<void*> destinations(peers.size());
  int n = 0;
  for (int r = 0; r < peers.size(); ++r) {
    if (r == except) continue;
    destinations[n++] = peers.Write(r, ByteCount(to_begin, dtype), bytes);
  }
  kernels::CopyToAll(destinations.first(n), source, bytes, walk);
}

Status CheckOffered(const Peers& peers, int rank, size_t send_bytes,
                    size_t recv_bytes) {
  if (peers.SendBytes(rank) >= send_bytes &&
      peers.RecvBytes(rank) >= recv_bytes) [[likely]] {
    return OkStatus();
  }
  return Internal(
      "rank {} offers {} bytes to read and {} to write, and {} and {} are "
      "needed: the ranks disagree about the operation",
      rank, peers.SendBytes(rank), peers.RecvBytes(rank), send_bytes,
      recv_bytes);
}

bool InPlace(const Peers& peers, int rank) {
  return peers.SendBytes(rank) != 0 &&
         peers.Read(rank, 0, 0) == peers.Write(rank, 0, 0);
}

bool AnyInPlace(const Peers& peers) {
  for (int r = 0; r < peers.size(); ++r) {
    if (InPlace(peers, r)) return true;
  }
  return false;
}

}  // namespace shardproof::direct
