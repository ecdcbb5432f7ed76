#include "collectives/all_to_all/agree.h"

#include <cstring>

namespace shardproof {

StatusOr<Agreement> Agree(const Communicator& comm, const Blocks& out,
                          const Blocks& in, bool in_place) {
  const int p = comm.size(), rank = comm.rank();
  // My block for each rank, and at last whether I work in place.
  direct::RankArray<Chunk> mine(p + 1);
  for (int r = 0; r < p; ++r) mine[r] = {out.Begin(r), out.Count(r)};
  mine[p] = {in_place ? 1 : 0, 0};
  SP_ASSIGN_OR_RETURN(const Peers peers,
                      comm.MeetEager(mine.data(), mine.view().size_bytes()));
  Agreement agreement(p);
  for (int s = 0; s < p; ++s) {
    const auto entry = [&](int index) {
      Chunk chunk;
      std::memcpy(
          &chunk,
          peers.Read(s, 0, 0) + static_cast<size_t>(index) * sizeof(chunk),
          sizeof(chunk));
      return chunk;
    };
    agreement.begins[s] = entry(rank).begin;
    agreement.any_in_place |= entry(p).begin != 0;
    if (entry(rank).count != in.Count(s)) [[unlikely]] {
      Status refusal = InvalidArgument(
          "rank {} sends {} elements to rank {}, which expects {}", s,
          entry(rank).count, rank, in.Count(s));
      comm.Abort(refusal.message());
      return refusal;
    }
  }
  return agreement;
}

}  // namespace shardproof
