// Packets: the few elements of an operand that one thread loads, computes on and stores together.
//
//     threads t of T, packets k = 0, 1, ... of N elements each
//
//     contiguous    element j of packet k of thread t is number (k T + t) N + j: one load of 16 bytes, or several
//     else          number (k N + j) T + t: N loads, in each of which the threads lie side by side
//
// Operands are contiguous where all of them begin at a multiple of 16 bytes. The second form is for the rest: as many
// bytes move, by more instructions.
//
//     const PacketMap<8> map(columns, team.thread(), team.threads(), AllAligned(x, y));
//     for (int k = 0; map.Has(k); ++k) {
//       Packet<BFloat16, 8> packet = LoadPacket(context, map, k, x);
//       ...
//       StorePacket(context, map, k, y, packet);
//     }
//
// A packet may reach over the end: what is loaded there is `fill`, and what is stored there is not stored.
#ifndef SHARDPROOF_LAYERS_KERNELS_CUDA_PACKET_H_
#define SHARDPROOF_LAYERS_KERNELS_CUDA_PACKET_H_

#include <cstdint>
#include <cstring>

#include "collectives/backend/cuda/kernels/walk.h"

namespace shardproof::cuda {

// f(i) for i in [0, kN), each in code of its own, so that what f does with arrays stays in registers.
template <int kN, class F>
SHARDPROOF_DEVICE void Unrolled(const F& f) {
#ifdef __CUDACC__
#pragma unroll
#endif
  for (int i = 0; i < kN; ++i) f(i);
}

template <class U, int kN>
struct Packet {
  U values[kN];
};

// Index is int for the columns of a row, of which there are at most 2^30, and int64_t for a whole tensor.
template <int kN, class Index = int>
class PacketMap {
 public:
  SHARDPROOF_DEVICE PacketMap(Index n, Index thread, Index threads,
                              bool contiguous)
      : n_(n), thread_(thread), threads_(threads), contiguous_(contiguous) {}

  SHARDPROOF_DEVICE Index n() const { return n_; }
  SHARDPROOF_DEVICE bool contiguous() const { return contiguous_; }
  SHARDPROOF_DEVICE Index Element(Index k, int j) const {
    return contiguous_ ? (k * threads_ + thread_) * kN + j
                       : (k * kN + j) * threads_ + thread_;
  }
  // Whether packet k has an element at all.
  SHARDPROOF_DEVICE bool Has(Index k) const { return Element(k, 0) < n_; }
  SHARDPROOF_DEVICE bool Has(Index k, int j) const {
    return Element(k, j) < n_;
  }
  SHARDPROOF_DEVICE bool IsWhole(Index k) const {
    return contiguous_ && Element(k, 0) + kN <= n_;
  }

 private:
  Index n_, thread_, threads_;
  bool contiguous_;
};

// Null is aligned: an operand that is not there.
template <class... Pointers>
SHARDPROOF_DEVICE bool AllAligned(const Pointers*... operands) {
  return ((reinterpret_cast<uintptr_t>(operands) | ...) % kVectorBytes) == 0;
}

// Of a multiple of 16 bytes at a multiple of 16 bytes.
template <int kN, class Context, class U>
SHARDPROOF_DEVICE Packet<U, kN> LoadWhole(Context& context, const U* from) {
  constexpr int kPer = kPerVector<U>;
  static_assert(kN % kPer == 0);
  const auto* const vectors = reinterpret_cast<const Vector*>(from);
  Packet<U, kN> packet;
  Unrolled<kN / kPer>([&](int v) {
    const Vector vector = context.Load(vectors + v);
    memcpy(static_cast<void*>(packet.values + v * kPer), &vector,
           sizeof(vector));
  });
  return packet;
}

template <class Context, class U, int kN>
SHARDPROOF_DEVICE void StoreWhole(Context& context, U* to,
                                  const Packet<U, kN>& packet) {
  constexpr int kPer = kPerVector<U>;
  static_assert(kN % kPer == 0);
  auto* const vectors = reinterpret_cast<Vector*>(to);
  Unrolled<kN / kPer>([&](int v) {
    Vector vector;
    memcpy(&vector, static_cast<const void*>(packet.values + v * kPer),
           sizeof(vector));
    context.Store(vectors + v, vector);
  });
}

template <class Context, int kN, class Index, class U>
SHARDPROOF_DEVICE Packet<U, kN> LoadPacket(Context& context,
                                           const PacketMap<kN, Index>& map,
                                           Index k, const U* from,
                                           U fill = U{}) {
  if (map.IsWhole(k)) return LoadWhole<kN>(context, from + map.Element(k, 0));
  Packet<U, kN> packet;
  Unrolled<kN>([&](int j) {
    packet.values[j] = fill;
    if (map.Has(k, j)) {
      packet.values[j] = context.Load(from + map.Element(k, j));
    }
  });
  return packet;
}

template <class Context, int kN, class Index, class U>
SHARDPROOF_DEVICE void StorePacket(Context& context,
                                   const PacketMap<kN, Index>& map, Index k,
                                   U* to, const Packet<U, kN>& packet) {
  if (map.IsWhole(k)) {
    StoreWhole(context, to + map.Element(k, 0), packet);
    return;
  }
  Unrolled<kN>([&](int j) {
    if (map.Has(k, j)) context.Store(to + map.Element(k, j), packet.values[j]);
  });
}

// f(packet numbers k) of a whole tensor of n elements, shared by all threads of all blocks.
template <int kN, class Context, class F>
SHARDPROOF_DEVICE void ForTensor(const Context& context, int64_t n,
                                 bool contiguous, const F& f) {
  const PacketMap<kN, int64_t> map(
      n,
      static_cast<int64_t>(context.block()) * context.threads() +
          context.thread(),
      static_cast<int64_t>(context.blocks()) * context.threads(), contiguous);
  for (int64_t k = 0; map.Has(k); ++k) f(map, k);
}

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_LAYERS_KERNELS_CUDA_PACKET_H_
