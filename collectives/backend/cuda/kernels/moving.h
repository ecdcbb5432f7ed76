// all_gather, broadcast, all_to_all, send_recv and barrier over memory that every rank can address. Bytes move as they
// are, so one kernel serves all types: in units U of 16, 4 or 1 bytes, chosen by the alignment of the buffers.
//
//     kernel(rounds, args)     between rounds.Begin() and rounds.End(); false after a failure
//
// In place as the host's primitives: send == recv; for all_gather send == recv + rank * count elements.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_CUDA_KERNELS_MOVING_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_CUDA_KERNELS_MOVING_H_

#include <cstddef>
#include <cstdint>

#include "collectives/backend/cuda/kernels/reducing.h"
#include "collectives/backend/cuda/kernels/walk.h"
#include "collectives/backend/cuda/kernels/world.h"

namespace shardproof::cuda {

SHARDPROOF_DEVICE bool InFours(const void* address) {
  return reinterpret_cast<uintptr_t>(address) % sizeof(uint32_t) == 0;
}

// Bytes `begin`.. of the buffer of each rank.
SHARDPROOF_DEVICE const std::byte* SendAt(const CollectiveArgs& args, int rank,
                                          int64_t begin) {
  return static_cast<const std::byte*>(args.send[rank]) + begin;
}
SHARDPROOF_DEVICE std::byte* RecvAt(const CollectiveArgs& args, int rank,
                                    int64_t begin) {
  return static_cast<std::byte*>(args.recv[rank]) + begin;
}

template <class U, class Context>
SHARDPROOF_DEVICE void SpreadUnits(Context& context, const CollectiveArgs& args,
                                   const std::byte* from, int64_t recv_begin,
                                   int64_t bytes, int first, int last) {
  const int64_t count = bytes / int64_t{sizeof(U)};
  Alignment alignment;
  alignment.Add(from);
  for (int rank = first; rank < last; ++rank) {
    alignment.Add(RecvAt(args, rank, recv_begin));
  }
  const auto store = [&](int64_t i, const auto& value) {
    using V = std::remove_cvref_t<decltype(value)>;
    int rank = context.rank() < first || context.rank() >= last
                   ? first
                   : context.rank();
    for (int n = first; n < last; ++n) {
      std::byte* const to =
          RecvAt(args, rank, recv_begin + i * int64_t{sizeof(U)});
      // In place there is nothing to do.
      if (to != from + i * int64_t{sizeof(U)}) {
        context.Store(reinterpret_cast<V*>(to), value);
      }
      if (++rank == last) rank = first;
    }
  };
  const auto* const units = reinterpret_cast<const U*>(from);
  Walk<U>(
      context, count, alignment.Head<U>(count),
      [&](int64_t i) {
        store(i, context.Load(reinterpret_cast<const Vector*>(units + i)));
      },
      [&](int64_t i) { store(i, context.Load(units + i)); });
}

// Copies `bytes` at `from` to recv_begin of the outputs of ranks first..last-1.
template <class Context>
SHARDPROOF_DEVICE void Spread(Context& context, const CollectiveArgs& args,
                              const std::byte* from, int64_t recv_begin,
                              int64_t bytes, int first, int last) {
  bool fours = InFours(from) && bytes % int64_t{sizeof(uint32_t)} == 0;
  for (int rank = first; rank < last; ++rank) {
    fours = fours && InFours(RecvAt(args, rank, recv_begin));
  }
  if (fours) {
    SpreadUnits<uint32_t>(context, args, from, recv_begin, bytes, first, last);
  } else {
    SpreadUnits<uint8_t>(context, args, from, recv_begin, bytes, first, last);
  }
}

// recv_r[s * count ..] = send_s for all r, s. Every rank stores its block to all. In place: block s of any output is
// touched by rank s alone.
template <class Rounds>
SHARDPROOF_DEVICE bool AllGather(Rounds& rounds, const CollectiveArgs& args) {
  if (!rounds.Enter()) return false;
  const int64_t bytes = args.count * args.element_bytes;
  Spread(rounds.context(), args, SendAt(args, rounds.rank(), 0),
         rounds.rank() * bytes, bytes, 0, rounds.ranks());
  return rounds.Depart();
}

// recv_r = send_root. Rank r loads part r from the root and stores it to all, so that the root's link carries the whole
// once. In place: part r of any buffer is touched by rank r alone.
template <class Rounds>
SHARDPROOF_DEVICE bool Broadcast(Rounds& rounds, const CollectiveArgs& args) {
  if (!rounds.Enter()) return false;
  const Part part = PartOf<uint8_t>(args.count * args.element_bytes,
                                    rounds.ranks(), rounds.rank());
  Spread(rounds.context(), args, SendAt(args, args.root, part.begin),
         part.begin, part.count, 0, rounds.ranks());
  return rounds.Depart();
}

// Exchanges a block of rank a for one of rank b, each at its own place in send and recv. Both are loaded before either
// is stored: in place, the one is where the other goes.
template <class U, class Context>
SHARDPROOF_DEVICE void ExchangeUnits(Context& context, const std::byte* send_a,
                                     std::byte* recv_a, const std::byte* send_b,
                                     std::byte* recv_b, int64_t bytes) {
  const int64_t count = bytes / int64_t{sizeof(U)};
  Alignment alignment;
  alignment.Add(send_a);
  alignment.Add(recv_a);
  alignment.Add(send_b);
  alignment.Add(recv_b);
  const auto exchange = [&]<class V>(int64_t i, const V* /*unit*/) {
    const int64_t at = i * int64_t{sizeof(U)};
    const V a = context.Load(reinterpret_cast<const V*>(send_a + at));
    const V b = context.Load(reinterpret_cast<const V*>(send_b + at));
    context.Store(reinterpret_cast<V*>(recv_b + at), a);
    context.Store(reinterpret_cast<V*>(recv_a + at), b);
  };
  Walk<U>(
      context, count, alignment.Head<U>(count),
      [&](int64_t i) { exchange(i, static_cast<const Vector*>(nullptr)); },
      [&](int64_t i) { exchange(i, static_cast<const U*>(nullptr)); });
}

// recv_r[s * count ..] = send_s[r * count ..]. The blocks that two ranks have for each other are exchanged in two
// parts, one by each of them. In place: an element belongs to one thread of one of the two.
template <class Rounds>
SHARDPROOF_DEVICE bool AllToAll(Rounds& rounds, const CollectiveArgs& args) {
  if (!rounds.Enter()) return false;
  const int64_t bytes = args.count * args.element_bytes;
  const int me = rounds.rank();
  int peer = me;
  for (int k = 0; k < rounds.ranks(); ++k) {
    // With itself, a rank does both parts.
    const Part half = PartOf<uint8_t>(bytes, peer == me ? 1 : 2, me > peer);
    const std::byte* const send_a = SendAt(args, me, peer * bytes + half.begin);
    const std::byte* const send_b = SendAt(args, peer, me * bytes + half.begin);
    std::byte* const recv_a = RecvAt(args, me, peer * bytes + half.begin);
    std::byte* const recv_b = RecvAt(args, peer, me * bytes + half.begin);
    const bool fours = InFours(send_a) && InFours(send_b) && InFours(recv_a) &&
                       InFours(recv_b) &&
                       half.count % int64_t{sizeof(uint32_t)} == 0;
    if (fours) {
      ExchangeUnits<uint32_t>(rounds.context(), send_a, recv_a, send_b, recv_b,
                              half.count);
    } else {
      ExchangeUnits<uint8_t>(rounds.context(), send_a, recv_a, send_b, recv_b,
                             half.count);
    }
    if (++peer == rounds.ranks()) peer = 0;
  }
  return rounds.Depart();
}

// send_recv where some rank sends from where it receives: what it has would be overwritten before it has sent it. So
// everything goes through the slots of the receiver, a slot's worth at a time; an element of recv is written only after
// the one of send was put into a slot, by the same thread. No round to enter or to depart, as in the one-shot
// all_reduce.
template <class Rounds>
SHARDPROOF_DEVICE bool SendRecvStaged(Rounds& rounds,
                                      const CollectiveArgs& args, int source) {
  auto& context = rounds.context();
  const int64_t bytes = args.count * args.element_bytes;
  const int64_t most = rounds.world().slot_bytes;
  const int destination = args.destination[rounds.rank()];
  using U = uint8_t;
  const auto* const send = static_cast<const U*>(args.send[rounds.rank()]);
  auto* const recv = static_cast<U*>(args.recv[rounds.rank()]);
  for (int64_t begin = 0; begin < bytes; begin += most) {
    const int64_t n = most < bytes - begin ? most : bytes - begin;
    WalkSlot<U>(context, n, 0, [&](int64_t v) {
      if (destination < 0) return;
      const int64_t i = v * kVectorBytes;
      context.Store(reinterpret_cast<Vector*>(
                        rounds.NextSlot(destination, rounds.rank())) +
                        v,
                    LoadUpTo(context, send + begin + i, n - i));
    });
    if (!rounds.Meet()) return false;
    WalkSlot<U>(context, n, Rounds::Protocol::kStageShift, [&](int64_t v) {
      if (source < 0) return;
      const int64_t i = v * kVectorBytes;
      StoreUpTo(
          context, recv + begin + i,
          context.Load(
              reinterpret_cast<const Vector*>(rounds.LastSlot(source)) + v),
          n - i);
    });
  }
  return true;
}

// recv_d = send_r, where d is the destination of r.
template <class Rounds>
SHARDPROOF_DEVICE bool SendRecv(Rounds& rounds, const CollectiveArgs& args) {
  bool in_place = false;
  int source = -1;
  for (int rank = 0; rank < rounds.ranks(); ++rank) {
    in_place = in_place || args.send[rank] == args.recv[rank];
    if (args.destination[rank] == rounds.rank()) source = rank;
  }
  if (in_place) return SendRecvStaged(rounds, args, source);
  if (!rounds.Enter()) return false;
  const int destination = args.destination[rounds.rank()];
  if (destination >= 0) {
    Spread(rounds.context(), args, SendAt(args, rounds.rank(), 0), 0,
           args.count * args.element_bytes, destination, destination + 1);
  }
  return rounds.Depart();
}

// Every rank is here.
template <class Rounds>
SHARDPROOF_DEVICE bool Barrier(Rounds& rounds) {
  return rounds.Enter();
}

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_CUDA_KERNELS_MOVING_H_
