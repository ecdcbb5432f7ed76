// Looking rows up in a part of a table, and adding gradients into it, on a GPU: the contract of ../embedding.h, for f32,
// bf16 and f16, bit for bit.
//
//     void(EmbeddingShape, EmbeddingRows)
//
//     EmbeddingLookup    a block for each token
//     EmbeddingCount     counts[k] = how many tokens have row k             any grid
//     EmbeddingStarts    where the tokens of row k begin in `order`         one block
//     EmbeddingPlace     tokens to their rows, in the order that the threads came in; counts are zeros again
//     EmbeddingOrder     each row's tokens, ascending                       a block for each row
//     EmbeddingGradient  sums, in that order                                a block for each row
//
// in this order in one stream. Integers are counted by atomic additions, whose order does not show in `counts` and is
// undone by EmbeddingOrder, which ranks each token of a row among the others of it: quadratic in the tokens that share a
// row, and shared by the threads of a block.
//
// Bytes, for n = tokens x hidden elements of e bytes: the lookup n e read and written; the gradient n e read, and the table
// written, and read where it is added to. What the sorting moves is 8 bytes a few times for each token and row.
//
// Rejected: atomic additions to the table, whose bits depend on who comes first.
#ifndef SHARDPROOF_LAYERS_KERNELS_CUDA_EMBEDDING_H_
#define SHARDPROOF_LAYERS_KERNELS_CUDA_EMBEDDING_H_

#include <cstdint>

#include "layers/kernels/cuda/packet.h"
#include "layers/kernels/cuda/team.h"
#include "layers/kernels/embedding.h"

namespace shardproof::cuda {

// The parameters of the functions of ../embedding.h; each kernel has some of them.
struct EmbeddingRows {
  const int64_t* ids = nullptr;
  const void* table = nullptr;
  void* y = nullptr;
  const void* dy = nullptr;
  bool accumulate = false;
  void* dtable = nullptr;
  int64_t* counts = nullptr;  // rows, zeros before and after
  int64_t* starts = nullptr;  // rows + 1
  int64_t* placed = nullptr;  // tokens
  int64_t* order = nullptr;   // tokens
};

// The row of an id in this part of the table, or -1.
SHARDPROOF_DEVICE int64_t RowOfId(const EmbeddingShape& shape, int64_t id) {
  const int64_t row = id - shape.begin;
  return row >= 0 && row < shape.rows ? row : -1;
}

template <class T, class Context>
SHARDPROOF_DEVICE void EmbeddingLookup(Context& context,
                                       const EmbeddingShape& shape,
                                       const EmbeddingRows& a) {
  constexpr int kN = kPerVector<T>;
  for (int64_t i = context.block(); i < shape.tokens; i += context.blocks()) {
    const int64_t row = RowOfId(shape, context.Load(a.ids + i));
    const T* const from =
        static_cast<const T*>(a.table) + (row < 0 ? 0 : row) * shape.hidden;
    T* const to = static_cast<T*>(a.y) + i * shape.hidden;
    const PacketMap<kN> map(static_cast<int>(shape.hidden), context.thread(),
                            context.threads(), AllAligned(from, to));
    for (int k = 0; map.Has(k); ++k) {
      Packet<T, kN> packet{};
      if (row >= 0) packet = LoadPacket(context, map, k, from);
      StorePacket(context, map, k, to, packet);
    }
  }
}

// f(token, row) for every token whose row is here.
template <class Context, class F>
SHARDPROOF_DEVICE void ForTokensHere(Context& context,
                                     const EmbeddingShape& shape,
                                     const EmbeddingRows& a, const F& f) {
  ForTensor<1>(context, shape.tokens, false, [&](const auto& map, int64_t k) {
    const int64_t i = map.Element(k, 0);
    const int64_t row = RowOfId(shape, context.Load(a.ids + i));
    if (row >= 0) f(i, row);
  });
}

template <class Context>
SHARDPROOF_DEVICE void EmbeddingCount(Context& context,
                                      const EmbeddingShape& shape,
                                      const EmbeddingRows& a) {
  ForTokensHere(context, shape, a, [&](int64_t /*token*/, int64_t row) {
    context.AtomicAdd(a.counts + row, int64_t{1});
  });
}

// Each thread has a range of rows, and adds up what the threads before it have.
template <class Protocol, class Context>
SHARDPROOF_DEVICE void EmbeddingStarts(Context& context,
                                       const EmbeddingShape& shape,
                                       const EmbeddingRows& a) {
  if (context.block() != 0) return;
  auto* const sums = reinterpret_cast<int64_t*>(
      context.template Shared<kMaxTeam * sizeof(int64_t)>());
  const int64_t size = (shape.rows + context.threads() - 1) / context.threads();
  const auto clamped = [&](int64_t row) {
    return row < shape.rows ? row : shape.rows;
  };
  const int64_t begin = clamped(context.thread() * size);
  const int64_t end = clamped(begin + size);
  int64_t sum = 0;
  for (int64_t row = begin; row < end; ++row) {
    sum += context.Load(a.counts + row);
  }
  context.Store(sums + context.thread(), sum);
  if constexpr (Protocol::kSyncs) context.Sync();
  int64_t start = 0;
  for (int t = 0; t < context.thread(); ++t) start += context.Load(sums + t);
  for (int64_t row = begin; row < end; ++row) {
    context.Store(a.starts + row, start);
    start += context.Load(a.counts + row);
  }
  if (context.thread() == context.threads() - 1) {
    context.Store(a.starts + shape.rows, start);
  }
}

template <class Context>
SHARDPROOF_DEVICE void EmbeddingPlace(Context& context,
                                      const EmbeddingShape& shape,
                                      const EmbeddingRows& a) {
  ForTokensHere(context, shape, a, [&](int64_t token, int64_t row) {
    const int64_t left = context.AtomicAdd(a.counts + row, int64_t{-1});
    context.Store(a.placed + context.Load(a.starts + row) + left - 1, token);
  });
}

template <class Context>
SHARDPROOF_DEVICE void EmbeddingOrder(Context& context,
                                      const EmbeddingShape& shape,
                                      const EmbeddingRows& a) {
  for (int64_t row = context.block(); row < shape.rows;
       row += context.blocks()) {
    const int64_t begin = context.Load(a.starts + row);
    const int64_t end = context.Load(a.starts + row + 1);
    for (int64_t e = begin + context.thread(); e < end;
         e += context.threads()) {
      const int64_t token = context.Load(a.placed + e);
      int64_t rank = 0;
      for (int64_t other = begin; other < end; ++other) {
        rank += context.Load(a.placed + other) < token ? 1 : 0;
      }
      context.Store(a.order + begin + rank, token);
    }
  }
}

template <class T, class Context>
SHARDPROOF_DEVICE void EmbeddingGradient(Context& context,
                                         const EmbeddingShape& shape,
                                         const EmbeddingRows& a) {
  constexpr int kN = kPerVector<T>;
  const auto* const dy = static_cast<const T*>(a.dy);
  for (int64_t row = context.block(); row < shape.rows;
       row += context.blocks()) {
    const int64_t begin = context.Load(a.starts + row);
    const int64_t end = context.Load(a.starts + row + 1);
    if (begin == end && a.accumulate) continue;
    T* const out = static_cast<T*>(a.dtable) + row * shape.hidden;
    const PacketMap<kN> map(static_cast<int>(shape.hidden), context.thread(),
                            context.threads(),
                            shape.hidden % kN == 0 && AllAligned(dy, out));
    for (int k = 0; map.Has(k); ++k) {
      Packet<T, kN> packet{};
      if (a.accumulate) packet = LoadPacket(context, map, k, out);
      Packet<float, kN> sum;
      Unrolled<kN>(
          [&](int j) { sum.values[j] = context.Widen(packet.values[j]); });
      for (int64_t e = begin; e < end; ++e) {
        const auto other = LoadPacket(
            context, map, k, dy + context.Load(a.order + e) * shape.hidden);
        Unrolled<kN>(
            [&](int j) { sum.values[j] += context.Widen(other.values[j]); });
      }
      Unrolled<kN>([&](int j) {
        packet.values[j] = context.template Narrow<T>(sum.values[j]);
      });
      StorePacket(context, map, k, out, packet);
    }
  }
}

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_LAYERS_KERNELS_CUDA_EMBEDDING_H_
