#include "layers/kernels/dropout.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "collectives/kernels/targets.h"
#include "layers/kernels/layer_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/kernels/dropout.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

// After highway.h, once per instruction set.
#include "collectives/kernels/codec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace shardproof::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

using Words = hn::ScalableTag<uint64_t>;

// Counters that one vector holds.
HWY_INLINE int64_t Batch() { return static_cast<int64_t>(hn::Lanes(Words())); }

// The product of the lower half of each lane and m.
template <class V>
HWY_INLINE V MulLower(V a, uint32_t m) {
#if HWY_TARGET == HWY_SCALAR
  return hn::Set(Words(), (hn::GetLane(a) & 0xffffffff) * m);
#else
  const hn::Repartition<uint32_t, Words> d32;
  return hn::MulEven(hn::BitCast(d32, a), hn::Set(d32, m));
#endif
}

// Lanes of a and b in turn.
template <class V>
HWY_INLINE void StoreInTurn(V a, V b, uint64_t* out) {
#if HWY_TARGET == HWY_SCALAR
  hn::Store(a, Words(), out);
  hn::Store(b, Words(), out + 1);
#else
  hn::StoreInterleaved2(a, b, Words(), out);
#endif
}

// The words of Batch() counters, of which `low` is the first half of the first
// one, to out[0, 4 Batch()), each xor `flip`. A word of the state is the lower
// half of a 64-bit lane: what a product leaves in the upper half is of no
// consequence to the next one.
HWY_INLINE void PhiloxBatch(uint64_t seed, uint64_t call, uint64_t low,
                            uint64_t flip, uint32_t* out) {
  const Words d;
  const auto counter = hn::Add(hn::Iota(d, 0), hn::Set(d, low));
  auto c0 = counter, c1 = hn::ShiftRight<32>(counter);
  auto c2 = hn::Set(d, call), c3 = hn::Set(d, call >> 32);
  uint32_t k0 = static_cast<uint32_t>(seed);
  uint32_t k1 = static_cast<uint32_t>(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    const auto a = MulLower(c0, 0xD2511F53U);
    const auto b = MulLower(c2, 0xCD9E8D57U);
    c0 = hn::Xor(hn::Xor(hn::ShiftRight<32>(b), c1), hn::Set(d, k0));
    c1 = b;
    c2 = hn::Xor(hn::Xor(hn::ShiftRight<32>(a), c3), hn::Set(d, k1));
    c3 = a;
    k0 += 0x9E3779B9U;
    k1 += 0xBB67AE85U;
  }
  const auto half = hn::Set(d, uint64_t{0xffffffff}), f = hn::Set(d, flip);
  const auto w01 = hn::Or(hn::And(c0, half), hn::ShiftLeft<32>(c1));
  const auto w23 = hn::Or(hn::And(c2, half), hn::ShiftLeft<32>(c3));
  HWY_ALIGN std::array<uint64_t, 2 * hn::MaxLanes(d)> words;
  StoreInTurn(hn::Xor(w01, f), hn::Xor(w23, f), words.data());
  std::memcpy(out, words.data(), static_cast<size_t>(Batch()) * 16);
}

void PhiloxWordsDispatched(uint64_t seed, uint64_t call, uint64_t counter,
                           int64_t counters, uint32_t* words) {
  std::array<uint32_t, 4 * hn::MaxLanes(Words())> batch;
  for (int64_t k = 0; k < counters; k += Batch()) {
    PhiloxBatch(seed, call, counter + static_cast<uint64_t>(k), 0,
                batch.data());
    std::memcpy(words + 4 * k, batch.data(),
                static_cast<size_t>(std::min(Batch(), counters - k)) * 16);
  }
}

// The words at p, which were flipped into signed order, as lanes as wide as
// those of d.
template <class D>
HWY_INLINE hn::Vec<hn::RebindToSigned<D>> LoadWords(D /*d*/, const int32_t* p) {
  const hn::RebindToSigned<D> wide;
  if constexpr (sizeof(hn::TFromD<D>) == sizeof(int32_t)) {
    return hn::LoadU(wide, p);
  } else {
    return hn::PromoteTo(wide, hn::LoadU(hn::Rebind<int32_t, D>(), p));
  }
}

constexpr int64_t kBlock = 1024;
constexpr uint32_t kSign = 0x80000000U;

// n <= kBlock elements, the first of index `index`.
template <typename T>
void DropBlock(const DropoutArgs& a, int32_t threshold,
               typename Codec<T>::Lane scale, uint64_t index, int64_t n,
               const T* x, T* y) {
  using Lane = typename Codec<T>::Lane;
  using Signed = hwy::MakeSigned<Lane>;
  // Words before the first that is needed, and behind the last.
  constexpr int64_t kMargin = 4 + 4 * hn::MaxLanes(Words());
  std::array<int32_t, kBlock + kMargin> words;
  const auto skip = static_cast<int64_t>(index % 4);
  const int64_t counters = (skip + n + 3) / 4;
  for (int64_t k = 0; k < counters; k += Batch()) {
    PhiloxBatch(a.seed, a.call, index / 4 + static_cast<uint64_t>(k),
                uint64_t{kSign} << 32 | kSign,
                reinterpret_cast<uint32_t*>(words.data()) + 4 * k);
  }
  const auto drop = [&](auto d, int64_t i) {
    const auto w = LoadWords(d, words.data() + skip + i);
    const auto dropped = hn::Lt(
        w, hn::Set(hn::RebindToSigned<decltype(d)>(), Signed{threshold}));
    const auto v = hn::Mul(Codec<T>::Load(d, x + i), hn::Set(d, scale));
    Codec<T>::Store(hn::IfThenZeroElse(hn::RebindMask(d, dropped), v), d,
                    y + i);
  };
  const hn::ScalableTag<Lane> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) drop(d, i);
  for (; i < n; ++i) drop(hn::CappedTag<Lane, 1>(), i);
}

template <typename T>
void DropTyped(const DropoutArgs& a, uint32_t threshold) {
  using Lane = typename Codec<T>::Lane;
  const auto scale = static_cast<Lane>(1 / (1 - a.probability));
  const auto flipped = static_cast<int32_t>(threshold ^ kSign);
  for (int64_t i = 0; i < a.rows; ++i) {
    const uint64_t row = a.first + static_cast<uint64_t>(i * a.row_stride);
    const T* x = static_cast<const T*>(a.x) + i * a.columns;
    T* y = static_cast<T*>(a.y) + i * a.columns;
    for (int64_t j = 0; j < a.columns; j += kBlock) {
      DropBlock<T>(a, flipped, scale, row + static_cast<uint64_t>(j),
                   std::min(kBlock, a.columns - j), x + j, y + j);
    }
  }
}

void DropoutDispatched(const DropoutArgs& a, uint32_t threshold) {
  switch (a.dtype) {
    case DType::kF64:
      return DropTyped<double>(a, threshold);
    case DType::kF32:
      return DropTyped<float>(a, threshold);
    case DType::kBF16:
      return DropTyped<BFloat16>(a, threshold);
    default:
      return DropTyped<Float16>(a, threshold);
  }
}

}  // namespace shardproof::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shardproof {
namespace kernels {

HWY_EXPORT(PhiloxWordsDispatched);
HWY_EXPORT(DropoutDispatched);

void PhiloxWords(uint64_t seed, uint64_t call, uint64_t counter,
                 int64_t counters, uint32_t* words) {
  HWY_DYNAMIC_DISPATCH(PhiloxWordsDispatched)
  (seed, call, counter, counters, words);
}

namespace {

Status Run(const DropoutArgs& args) {
  const double words = std::nearbyint(args.probability * 0x1p32);
  const auto threshold = static_cast<uint32_t>(std::min(words, 0x1p32 - 1));
  DropoutArgs merged = args;
  if (args.row_stride == args.columns) {
    merged.columns *= args.rows;
    merged.rows = 1;
  }
  HWY_DYNAMIC_DISPATCH(DropoutDispatched)(merged, threshold);
  return OkStatus();
}

}  // namespace
}  // namespace kernels

Status Dropout(const Stream& stream, const DropoutArgs& args) {
  if (args.dtype != DType::kF64 && args.dtype != DType::kF32 &&
      args.dtype != DType::kBF16 && args.dtype != DType::kF16) {
    return Unsupported("dropout is of f64, f32, bf16 or f16, not {}",
                       Name(args.dtype));
  }
  if (!(args.probability >= 0 && args.probability < 1)) {
    return InvalidArgument(
        "the probability of being dropped is {}, not in [0, 1)",
        args.probability);
  }
  return RunKernel(
      stream, [args](LayerKernels& device) { return device.Dropout(args); },
      [args] { return kernels::Run(args); });
}

}  // namespace shardproof
#endif  // HWY_ONCE
