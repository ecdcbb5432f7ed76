// all_to_all over shared memory: every rank loads its blocks from all others.
// Small vectors travel with the flags.
//
// In place, blocks of the equal form change places pair by pair: rank a does the
// first half of the pair (a, b), a < b, and rank b the second. In the v form
// they lie anywhere, and all that is sent is copied aside first.
#include <algorithm>

#include "collectives/all_to_all/agree.h"
#include "collectives/all_to_all/all_to_all.h"
#include "collectives/checks.h"
#include "collectives/direct/eager.h"
#include "collectives/direct/move.h"
#include "collectives/direct/slices.h"
#include "collectives/direct/staged.h"
#include "collectives/direct/walk.h"
#include "collectives/kernels/copy.h"

namespace shardproof {
namespace {

using direct::ByteCount;

Status Eager(const Communicator& comm, const AllToAllArgs& args) {
  const size_t block = ByteCount(args.count, args.dtype);
  const auto rank = static_cast<size_t>(comm.rank());
  const auto ranks = static_cast<size_t>(comm.size());
  SP_ASSIGN_OR_RETURN(const Peers peers,
                      comm.MeetEager(args.send, ranks * block));
  auto* recv = static_cast<std::byte*>(args.recv);
  for (int r = 0; block != 0 && r < peers.size(); ++r, recv += block) {
    kernels::Copy(recv, peers.Read(r, rank * block, block), block);
  }
  return OkStatus();
}

// This rank's half of the exchange of `bytes` at a.send[b] and b.send[a], where
// `mine` is the offset of the first within each buffer of this rank, and
// `theirs` of the second within each buffer of `peer`. Half is loaded and half
// is stored: counted as one access of `bytes`.
void ExchangeHalf(const Peers& peers, int rank, int peer, size_t mine,
                  size_t theirs, size_t bytes) {
  if (bytes == 0) return;
  const size_t half = bytes / 2 / direct::kLineBytes * direct::kLineBytes;
  const size_t begin = rank < peer ? 0 : half;
  const size_t end = rank < peer ? half : bytes;
  const std::byte* in = peers.Read(peer, theirs, bytes);
  std::byte* out = peers.Write(peer, theirs, 0);
  const std::byte* my_in = peers.Read(rank, mine, bytes);
  std::byte* my_out = peers.Write(rank, mine, bytes);
  constexpr size_t kTile = 4096;
  alignas(64) std::byte tile[kTile];
  for (size_t i = begin; i < end; i += kTile) {
    const size_t n = std::min(kTile, end - i);
    kernels::Copy(tile, my_in + i, n);
    kernels::Copy(my_out + i, in + i, n);
    kernels::Copy(out + i, tile, n);
  }
}

// All blocks but the own one.
Status Exchange(const Peers& peers, int rank, DType dtype, const Blocks& in,
                const Blocks& out) {
  const int p = peers.size();
  const kernels::Walk walk =
      direct::WalkOf(peers, (in.Total() + out.Total()) * p, dtype);
  // Beginning with the next rank's, or the other way round: at no time do all
  // ranks read from the same one.
  for (int k = 1; k < p; ++k) {
    const int peer = (rank + (walk.backward ? p - k : k)) % p;
    const int64_t count = out.Count(peer);
    if (direct::InPlace(peers, rank) || direct::InPlace(peers, peer)) {
      ExchangeHalf(peers, rank, peer, ByteCount(out.Begin(peer), dtype),
                   ByteCount(out.Begin(rank), dtype), ByteCount(count, dtype));
    } else {
      direct::MoveOne(peers, dtype, count, peer, in.Begin(rank), rank,
                      out.Begin(peer), walk);
    }
  }
  return OkStatus();
}

// `begins[s]` is where rank s has its block for this one.
Status Pull(const Peers& peers, int rank, DType dtype,
            const direct::RankArray<int64_t>& begins, const Blocks& out) {
  const int p = peers.size();
  const kernels::Walk walk = direct::WalkOf(peers, 2 * out.Total() * p, dtype);
  for (int k = 0; k < p; ++k) {
    const int peer = (rank + (walk.backward ? p - 1 - k : k)) % p;
    const int64_t count = out.Count(peer);
    SP_RETURN_IF_ERROR(direct::CheckOffered(
        peers, peer, count == 0 ? 0 : ByteCount(begins[peer] + count, dtype),
        0));
    direct::MoveOne(peers, dtype, count, peer, begins[peer], rank,
                    out.Begin(peer), walk);
  }
  return OkStatus();
}

}  // namespace

Status AllToAllDirect(const Communicator& comm, const AllToAllArgs& args) {
  SP_RETURN_IF_ERROR(CheckCount(args.count));
  const OpScope op(
      comm,
      {.label = "all_to_all/direct", .dtype = args.dtype, .count = args.count});
  SP_RETURN_IF_ERROR(op.status());
  const Blocks blocks = Blocks::Even(args.count, comm.size());
  if (ByteCount(blocks.Total(), args.dtype) <= direct::kEagerLimit) {
    return Eager(comm, args);
  }
  const int rank = comm.rank();
  const int64_t touched = 2 * blocks.Total() * comm.size();
  return direct::RunDirect(
      comm, {args.send, blocks, args.recv, blocks, args.dtype}, {rank, rank},
      direct::WalkOf(op.sequence(), touched, args.dtype),
      [&](const Peers& peers, const Blocks& in, const Blocks& out) {
        return Exchange(peers, rank, args.dtype, in, out);
      });
}

Status AllToAllVDirect(const Communicator& comm, const AllToAllVArgs& args) {
  SP_RETURN_IF_ERROR(CheckOwnCounts(comm, args.send_counts, args.send_offsets));
  SP_RETURN_IF_ERROR(CheckOwnCounts(comm, args.recv_counts, args.recv_offsets));
  const Blocks out = Blocks::Listed(args.send_counts, args.send_offsets);
  const Blocks in = Blocks::Listed(args.recv_counts, args.recv_offsets);
  const OpScope op(comm, {.label = "all_to_all_v/direct",
                          .dtype = args.dtype,
                          .count = out.Total()});
  SP_RETURN_IF_ERROR(op.status());
  const int rank = comm.rank();
  SP_ASSIGN_OR_RETURN(
      Agreement agreement,
      Agree(comm, out, in, args.send != nullptr && args.send == args.recv));
  const direct::Ends ends = {args.send, out, args.recv, in, args.dtype};
  SP_ASSIGN_OR_RETURN(const Peers peers, comm.Meet(ends.offer()));
  if (peers.AllShared() && !agreement.any_in_place) {
    return direct::DepartAfter(
        Pull(peers, rank, args.dtype, agreement.begins, in), comm, peers);
  }
  SP_RETURN_IF_ERROR(comm.Depart(peers));
  return direct::RunStaged(
      comm, ends,
      [&](const Peers& met, const Blocks& staged, const Blocks& placed) {
        // In staging memory every rank has its block for this one at one place.
        for (int r = 0; r < comm.size(); ++r) {
          agreement.begins[r] = staged.Begin(rank);
        }
        return Pull(met, rank, args.dtype, agreement.begins, placed);
      },
      agreement.any_in_place ? direct::ChunkSize::kWhole
                             : direct::ChunkSize::kSmall);
}

}  // namespace shardproof
