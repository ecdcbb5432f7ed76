// Dropout on a GPU: the contract of ../dropout.h, for f32, bf16 and f16, bit for bit: the same mask.
//
//     void(DropoutArgs)        any grid
//
// Bytes, for n elements of e bytes: n e read and written. The mask is made anew, four elements to a counter of Philox; where
// operands are no multiples of 16 bytes, a counter serves one element.
#ifndef SHARDPROOF_LAYERS_KERNELS_CUDA_DROPOUT_H_
#define SHARDPROOF_LAYERS_KERNELS_CUDA_DROPOUT_H_

#include <cmath>
#include <cstdint>

#include "layers/kernels/cuda/packet.h"
#include "layers/kernels/dropout.h"

namespace shardproof::cuda {

struct PhiloxWords {
  uint32_t w0, w1, w2, w3;
};

// Ten rounds: reference/dropout.h.
SHARDPROOF_DEVICE PhiloxWords Philox(uint64_t seed, uint64_t call,
                                     uint64_t counter) {
  auto c0 = static_cast<uint32_t>(counter);
  auto c1 = static_cast<uint32_t>(counter >> 32);
  auto c2 = static_cast<uint32_t>(call);
  auto c3 = static_cast<uint32_t>(call >> 32);
  auto k0 = static_cast<uint32_t>(seed);
  auto k1 = static_cast<uint32_t>(seed >> 32);
  Unrolled<10>([&](int /*round*/) {
    const uint64_t a = uint64_t{0xD2511F53U} * c0;
    const uint64_t b = uint64_t{0xCD9E8D57U} * c2;
    c0 = static_cast<uint32_t>(b >> 32) ^ c1 ^ k0;
    c1 = static_cast<uint32_t>(b);
    c2 = static_cast<uint32_t>(a >> 32) ^ c3 ^ k1;
    c3 = static_cast<uint32_t>(a);
    k0 += 0x9E3779B9U;
    k1 += 0xBB67AE85U;
  });
  return {c0, c1, c2, c3};
}

// The words of indices that mostly follow one another.
class MaskWords {
 public:
  SHARDPROOF_DEVICE MaskWords(uint64_t seed, uint64_t call)
      : seed_(seed), call_(call) {}

  SHARDPROOF_DEVICE uint32_t At(uint64_t index) {
    if (!drawn_ || index / 4 != counter_) {
      counter_ = index / 4;
      words_ = Philox(seed_, call_, counter_);
      drawn_ = true;
    }
    const auto i = static_cast<uint32_t>(index) % 4;
    return i == 0   ? words_.w0
           : i == 1 ? words_.w1
           : i == 2 ? words_.w2
                    : words_.w3;
  }

 private:
  uint64_t seed_, call_;
  uint64_t counter_ = 0;
  PhiloxWords words_ = {0, 0, 0, 0};
  bool drawn_ = false;
};

template <class T, class Context>
SHARDPROOF_DEVICE void Dropout(Context& context, const DropoutArgs& a) {
  constexpr int kN = kPerVector<T>;
  const auto* const x = static_cast<const T*>(a.x);
  auto* const y = static_cast<T*>(a.y);
  const double words = rint(a.probability * 0x1p32);
  const auto threshold =
      static_cast<uint32_t>(words < 0x1p32 - 1 ? words : 0x1p32 - 1);
  const auto scale = static_cast<float>(1 / (1 - a.probability));
  // Rows that follow one another need no division.
  const bool whole = a.row_stride == a.columns;
  ForTensor<kN>(
      context, a.rows * a.columns, AllAligned(x, y),
      [&](const auto& map, int64_t k) {
        auto packet = LoadPacket(context, map, k, x);
        MaskWords mask(a.seed, a.call);
        Unrolled<kN>([&](int j) {
          const int64_t e = map.Element(k, j);
          const int64_t index =
              whole ? e : e / a.columns * a.row_stride + e % a.columns;
          const bool kept =
              mask.At(a.first + static_cast<uint64_t>(index)) >= threshold;
          // +0 whatever it was.
          packet.values[j] = context.template Narrow<T>(
              kept ? context.Widen(packet.values[j]) * scale : 0.0F);
        });
        StorePacket(context, map, k, y, packet);
      });
}

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_LAYERS_KERNELS_CUDA_DROPOUT_H_
