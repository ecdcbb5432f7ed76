// all_reduce, reduce_scatter and reduce over memory that every rank can address. Every element is folded by one thread
// of one rank, over ranks 0..p-1 in this order; so all ranks hold the same bits, and the bits do not depend on the
// schedule.
//
//     kernel(rounds, args)     between rounds.Begin() and rounds.End(); false after a failure
//
// Buffers are aligned to their element. In place as the host's primitives: send == recv, and for reduce_scatter recv ==
// send + rank * count elements. Why that needs no copy stands with each kernel.
#ifndef SHARDPROOF_COLLECTIVES_BACKEND_CUDA_KERNELS_REDUCING_H_
#define SHARDPROOF_COLLECTIVES_BACKEND_CUDA_KERNELS_REDUCING_H_

#include <cstddef>
#include <cstdint>

#include "collectives/backend/cuda/kernels/fold.h"
#include "collectives/backend/cuda/kernels/walk.h"
#include "collectives/backend/cuda/kernels/world.h"
#include "reference/reduce_op.h"

namespace shardproof::cuda {

// Folds elements send_begin.. of all inputs into elements recv_begin.. of the outputs of ranks first..last-1.
template <class T, ReduceOp kOp, class Context>
SHARDPROOF_DEVICE void FoldRange(Context& context, int ranks,
                                 const CollectiveArgs& args, int64_t send_begin,
                                 int64_t recv_begin, int64_t count, int first,
                                 int last) {
  const auto source = [&](int rank, int64_t i) {
    return static_cast<const T*>(args.send[rank]) + send_begin + i;
  };
  const auto target = [&](int rank, int64_t i) {
    return static_cast<T*>(args.recv[rank]) + recv_begin + i;
  };
  Alignment alignment;
  for (int rank = 0; rank < ranks; ++rank) alignment.Add(source(rank, 0));
  for (int rank = first; rank < last; ++rank) alignment.Add(target(rank, 0));
  // From this rank on, so that ranks do not all write to the same one at a time.
  const auto each_target = [&](const auto& store) {
    int rank = context.rank() < first || context.rank() >= last
                   ? first
                   : context.rank();
    for (int n = first; n < last; ++n) {
      store(rank);
      if (++rank == last) rank = first;
    }
  };
  Walk<T>(
      context, count, alignment.Head<T>(count),
      [&](int64_t i) {
        const Vector sum = FoldVector<T, kOp>(ranks, args, [&](int rank) {
          return context.Load(reinterpret_cast<const Vector*>(source(rank, i)));
        });
        each_target([&](int rank) {
          context.Store(reinterpret_cast<Vector*>(target(rank, i)), sum);
        });
      },
      [&](int64_t i) {
        const T sum = FoldElement<T, kOp>(ranks, args, [&](int rank) {
          return context.Load(source(rank, i));
        });
        each_target([&](int rank) { context.Store(target(rank, i), sum); });
      });
}

// recv_r = op over s of send_s, for every r. Two rounds, whatever the size; each rank loads and stores its part of
// everything. In place: part r of any buffer is touched by rank r alone, and an element by one thread, which loads it
// first.
template <class T, ReduceOp kOp, class Rounds>
SHARDPROOF_DEVICE bool AllReduceTwoShot(Rounds& rounds,
                                        const CollectiveArgs& args) {
  if (!rounds.Enter()) return false;
  const Part part = PartOf<T>(args.count, rounds.ranks(), rounds.rank());
  FoldRange<T, kOp>(rounds.context(), rounds.ranks(), args, part.begin,
                    part.begin, part.count, 0, rounds.ranks());
  return rounds.Depart();
}

// recv_r = op over s of send_s[r * count ..]. In place: block r of any input is touched by rank r alone, as above.
template <class T, ReduceOp kOp, class Rounds>
SHARDPROOF_DEVICE bool ReduceScatter(Rounds& rounds,
                                     const CollectiveArgs& args) {
  if (!rounds.Enter()) return false;
  FoldRange<T, kOp>(rounds.context(), rounds.ranks(), args,
                    rounds.rank() * args.count, 0, args.count, rounds.rank(),
                    rounds.rank() + 1);
  return rounds.Depart();
}

// recv_root = op over s of send_s. Every rank folds a part for the root. In place as the two-shot.
template <class T, ReduceOp kOp, class Rounds>
SHARDPROOF_DEVICE bool Reduce(Rounds& rounds, const CollectiveArgs& args) {
  if (!rounds.Enter()) return false;
  const Part part = PartOf<T>(args.count, rounds.ranks(), rounds.rank());
  FoldRange<T, kOp>(rounds.context(), rounds.ranks(), args, part.begin,
                    part.begin, part.count, args.root, args.root + 1);
  return rounds.Depart();
}

// Elements i..i+n-1 of a buffer of any alignment, as a vector whose other elements are 0.
template <class T, class Context>
SHARDPROOF_DEVICE Vector LoadUpTo(Context& context, const T* from, int64_t n) {
  if (n >= kPerVector<T> &&
      reinterpret_cast<uintptr_t>(from) % kVectorBytes == 0) {
    return context.Load(reinterpret_cast<const Vector*>(from));
  }
  Elements<T> elements = {};
  for (int i = 0; i < kPerVector<T>; ++i) {
    if (i < n) elements.values[i] = context.Load(from + i);
  }
  return Pack(elements);
}

template <class T, class Context>
SHARDPROOF_DEVICE void StoreUpTo(Context& context, T* to, const Vector& vector,
                                 int64_t n) {
  if (n >= kPerVector<T> &&
      reinterpret_cast<uintptr_t>(to) % kVectorBytes == 0) {
    context.Store(reinterpret_cast<Vector*>(to), vector);
    return;
  }
  const Elements<T> elements = Unpack<T>(vector);
  for (int i = 0; i < kPerVector<T>; ++i) {
    if (i < n) context.Store(to + i, elements.values[i]);
  }
}

// Calls part(begin, count) for as many slots as `count` elements need, and each_vector(v) inside for the vectors of
// this thread: the same thread for the same vector on all ranks and in all stages, because a round orders only blocks
// of one number.
template <class T, class Context, class EachVector>
SHARDPROOF_DEVICE void WalkSlot(const Context& context, int64_t count,
                                int shift, const EachVector& each_vector) {
  const int64_t vectors = (count + kPerVector<T> - 1) / kPerVector<T>;
  const int64_t first =
      static_cast<int64_t>(context.block()) * context.threads() +
      context.thread();
  const int64_t step =
      static_cast<int64_t>(context.blocks()) * context.threads();
  for (int64_t v = first; v < vectors; v += step) {
    each_vector((v + shift) % vectors);
  }
}

// As the two-shot, through staging memory: every rank puts its input into a slot of every rank, and folds its own
// slots. One round for what fits into a slot, which is the point of it, and one more for each further part. The buffers
// of a call are touched by their own rank alone, so that peers need not address them, nothing is to be entered or
// departed from, and in place is like out of place.
template <class T, ReduceOp kOp, class Rounds>
SHARDPROOF_DEVICE bool AllReduceOneShot(Rounds& rounds,
                                        const CollectiveArgs& args) {
  auto& context = rounds.context();
  const int p = rounds.ranks();
  const int64_t most = rounds.world().slot_bytes / int64_t{sizeof(T)};
  const auto* const send = static_cast<const T*>(args.send[rounds.rank()]);
  auto* const recv = static_cast<T*>(args.recv[rounds.rank()]);
  for (int64_t begin = 0; begin < args.count; begin += most) {
    const int64_t n = most < args.count - begin ? most : args.count - begin;
    WalkSlot<T>(context, n, 0, [&](int64_t v) {
      const int64_t i = v * kPerVector<T>;
      const Vector mine = LoadUpTo(context, send + begin + i, n - i);
      int target = rounds.rank();
      for (int k = 0; k < p; ++k) {
        context.Store(
            reinterpret_cast<Vector*>(rounds.NextSlot(target, rounds.rank())) +
                v,
            mine);
        if (++target == p) target = 0;
      }
    });
    if (!rounds.Meet()) return false;
    WalkSlot<T>(context, n, Rounds::Protocol::kStageShift, [&](int64_t v) {
      const int64_t i = v * kPerVector<T>;
      const Vector sum = FoldVector<T, kOp>(p, args, [&](int rank) {
        return context.Load(
            reinterpret_cast<const Vector*>(rounds.LastSlot(rank)) + v);
      });
      StoreUpTo(context, recv + begin + i, sum, n - i);
    });
  }
  return true;
}

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_COLLECTIVES_BACKEND_CUDA_KERNELS_REDUCING_H_
