// Direct operations on buffers of any kind.
//
// RunDirect meets and runs the core of an operation (what happens between the
// meeting and the parting) on the ranks' own buffers. Where some rank offers
// memory that its peers cannot address, it runs the same core chunk by chunk
// on copies in staging memory:
//
//     chunk c is the elements [c m, (c + 1) m) of every block that a rank sends
//     or receives, cut off where a block ends. In staging memory it lies with
//     its blocks m elements apart, so every rank knows where it lies on
//     every other. There are two places for it, used in turn:
//
//         copy in(0), flag round
//         for c = 0, 1, ...: core(c), copy in(c + 1), flag round, copy out(c)
//
//     One flag round per chunk is enough. Core(c) reads what all ranks copied
//     in before the last round, and writes outputs of parity c % 2, which
//     nobody has touched since copy out(c - 2). Copy in(c + 1) writes inputs of
//     the other parity, which core(c - 1) read before the last round.
//
// Rejected: one pass of whole messages through the mailboxes of the backend,
// which would need an implementation of its own for each primitive.
#ifndef SHARDPROOF_COLLECTIVES_DIRECT_STAGED_H_
#define SHARDPROOF_COLLECTIVES_DIRECT_STAGED_H_

#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

#include "collectives/chunks.h"
#include "collectives/communicator.h"
#include "collectives/direct/cut.h"
#include "collectives/direct/move.h"
#include "collectives/kernels/streaming.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof::direct {

// This rank's buffers. Null where it has no part: a broadcast sends at the root
// only. The blocks are known to every rank alike, or are this rank's
// own (all_to_all_v); in both cases there are as many on every rank.
struct Ends {
  const void* send = nullptr;
  Blocks send_blocks;
  void* recv = nullptr;
  Blocks recv_blocks;
  DType dtype;

  Offer offer() const {
    const auto size = static_cast<size_t>(SizeOf(dtype));
    return {
        send,
        send == nullptr ? 0 : static_cast<size_t>(send_blocks.Extent()) * size,
        recv,
        recv == nullptr ? 0 : static_cast<size_t>(recv_blocks.Extent()) * size};
  }
};

// core(peers, send_blocks, recv_blocks): where blocks lie in what each peer
// offers. Must not call the communicator.
using Core = Status(const Peers&, const Blocks&, const Blocks&);

// The staged form, whether or not memory is shared.
Status RunStaged(const Communicator& comm, const Ends& ends,
                 const std::function<Core>& core,
                 ChunkSize chunk_size = ChunkSize::kSmall);

// Departs, also where `done` is an error: peers may still be at work in what
// this rank offers, and wait for it. The first error.
template <class Meanwhile>
Status DepartAfter(const Status& done, const Communicator& comm,
                   const Peers& peers, const Meanwhile& meanwhile) {
  Status departed = comm.Depart(peers, meanwhile);
  return done.ok() ? departed : done;
}
inline Status DepartAfter(const Status& done, const Communicator& comm,
                          const Peers& peers) {
  return DepartAfter(done, comm, peers, [] {});
}

// Meets, runs `core`, departs.
template <class CoreFunction>
Status RunDirect(const Communicator& comm, const Ends& ends,
                 const CoreFunction& core) {
  SP_ASSIGN_OR_RETURN(const Peers peers, comm.Meet(ends.offer()));
  if (!peers.AllShared()) [[unlikely]] {
    SP_RETURN_IF_ERROR(comm.Depart(peers));
    return RunStaged(comm, ends, core);
  }
  return DepartAfter(core(peers, ends.send_blocks, ends.recv_blocks), comm,
                     peers);
}

// Block `sent` of what this rank sends is block `received` of what it receives.
struct OwnBlock {
  int sent = 0;
  int received = 0;
};

// The first or the second half of the block, in the order of `walk`.
void CopyOwnHalf(const Ends& ends, const OwnBlock& own, bool second,
                 const kernels::Walk& walk);

// RunDirect for an operation that besides `others` copies a block within each
// rank. That needs no peer, so half of it is copied while the offers of others
// are on their way, and half while they depart: it hides both flag rounds. In a
// program of two processes that did nothing else, all_to_all took 0.30 us
// instead of 0.35 for 16 KiB and 1.41 instead of 1.66 for 64 KiB (cores with
// AVX-512, 0.14 us a round).
template <class OthersFunction>
Status RunDirect(const Communicator& comm, const Ends& ends,
                 const OwnBlock& own, const kernels::Walk& walk,
                 const OthersFunction& others) {
  SP_ASSIGN_OR_RETURN(const Peers peers, comm.Meet(ends.offer(), [&] {
    CopyOwnHalf(ends, own, /*second=*/false, walk);
  }));
  if (!peers.AllShared()) [[unlikely]] {
    SP_RETURN_IF_ERROR(comm.Depart(peers));
    return RunStaged(
        comm, ends, [&](const Peers& met, const Blocks& in, const Blocks& out) {
          MoveOne(met, ends.dtype, in.Count(own.sent), comm.rank(),
                  in.Begin(own.sent), comm.rank(), out.Begin(own.received), {});
          return others(met, in, out);
        });
  }
  return DepartAfter(others(peers, ends.send_blocks, ends.recv_blocks), comm,
                     peers,
                     [&] { CopyOwnHalf(ends, own, /*second=*/true, walk); });
}

}  // namespace shardproof::direct

#endif  // SHARDPROOF_COLLECTIVES_DIRECT_STAGED_H_
