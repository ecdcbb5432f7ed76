// The loops of Reduce, for one element type and one instruction set.
//
// A block is kUnroll vectors. Per block, every source is loaded once, folded in registers and stored to every
// destination, so that each byte crosses the memory interface as rarely as the operation allows. What does not fill a
// block is folded in single vectors, and what does not fill a vector in single lanes: with the same code, hence
// the same bits.
#include <algorithm>
#include <cstddef>
#include <cstdint>

#include "hwy/cache_control.h"
#include "hwy/highway.h"
#include "reference/dtype.h"
#include "reference/reduce_op.h"

#if defined(SHARDPROOF_COLLECTIVES_KERNELS_REDUCE_INL_H_) == \
    defined(HWY_TARGET_TOGGLE)
#ifdef SHARDPROOF_COLLECTIVES_KERNELS_REDUCE_INL_H_
#undef SHARDPROOF_COLLECTIVES_KERNELS_REDUCE_INL_H_
#else
#define SHARDPROOF_COLLECTIVES_KERNELS_REDUCE_INL_H_
#endif

#include "collectives/kernels/codec-inl.h"
#include "collectives/kernels/copy-inl.h"
#include "collectives/kernels/fold-inl.h"
#include "collectives/kernels/request.h"
#include "collectives/kernels/streaming.h"

HWY_BEFORE_NAMESPACE();
namespace shardproof::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// What Reduce was asked to do, with types.
template <typename T>
struct Job {
  const T* const* sources;
  size_t source_count;
  T* const* destinations;
  size_t destination_count;
  const double* scales;  // Null: none.
  int64_t divisor;       // 1: none.
  Walk walk;
  size_t origin = 0;  // The element at which the destinations begin.
};

enum class Into { kCache, kMemory };

// __builtin_prefetch(p, 1) asks for a copy to read unless the compiler may
// assume PREFETCHW, which every x86-64 processor decodes.
HWY_INLINE void PrefetchToWrite(void* p) {
#if HWY_ARCH_X86_64
  asm volatile("prefetchw %0" : : "m"(*static_cast<const char*>(p)));
#else
  __builtin_prefetch(p, 1);
#endif
}

// The steps of a loop over elements [begin, end), `step` at a time while a whole
// step fits, and the lines that it asks for ahead of its stores.
//
// A store to a line that this core does not own waits for it, and only a few
// dozen stores can wait. Streaming stores wait for nothing, but the hardware
// looks no further ahead of loads than the end of a page. Two ranks, f32 pairs
// on one AVX-512 machine, medians of the time saved: 8, 10 and 10 percent at 256
// KiB, 1 and 16 MiB, and 5 and 9 when streaming 64 and 256 MiB. At 16 KiB, where
// the lines are here already, asking takes 60 percent more.
template <Into kInto, typename T>
class Steps {
 public:
  Steps(const Job<T>& job, size_t begin, size_t end, size_t step)
      : begin_(begin),
        step_(step),
        count_((end - begin) / step),
        backward_(kInto == Into::kCache && job.walk.backward),
        ahead_(backward_ ? -kAhead : kAhead),
        asks_((end - begin) * sizeof(T) >= kFar) {}

  size_t count() const { return count_; }
  // The element at which step `k` begins.
  size_t At(size_t k) const {
    return begin_ + (backward_ ? count_ - 1 - k : k) * step_;
  }
  // Behind the last step, forward.
  size_t end() const { return begin_ + count_ * step_; }

  // Before the step at element `i`: ask for the lines of a step to come, where it
  // loads from (`p` is where this step does) and where it stores to.
  HWY_INLINE void PrefetchSource(size_t i, const T* p) const {
    if (kInto == Into::kCache || !Asks(i)) return;
    for (size_t j = 0; j < step_; j += kLine) hwy::Prefetch(p + ahead_ + j);
  }
  HWY_INLINE void PrefetchDestination(size_t i, T* p) const {
    if (kInto == Into::kMemory || !Asks(i)) return;
    for (size_t j = 0; j < step_; j += kLine) PrefetchToWrite(p + ahead_ + j);
  }

 private:
  static constexpr size_t kLine = 64 / sizeof(T);
  static constexpr ptrdiff_t kAhead = 1024 / sizeof(T);
  static constexpr size_t kFar = size_t{32} << 10;

  // Not beyond the range, where another rank may be at work.
  HWY_INLINE bool Asks(size_t i) const {
    const size_t at = i - begin_ + static_cast<size_t>(ahead_);
    return asks_ && at <= (count_ - 1) * step_;
  }

  size_t begin_, step_, count_;
  bool backward_;
  ptrdiff_t ahead_;
  bool asks_;
};

template <Into kInto, typename T, class D>
HWY_INLINE void StoreTo(hn::Vec<D> v, D d, T* HWY_RESTRICT p) {
  if constexpr (kInto == Into::kMemory) {
    hn::Stream(v, d, p);
  } else {
    Codec<T>::Store(v, d, p);
  }
}

template <typename T, class D>
HWY_INLINE hn::Vec<D> LoadScaled(D d, const Job<T>& job, size_t source,
                                 size_t i) {
  using Lane = typename Codec<T>::Lane;
  const auto v = Codec<T>::Load(d, job.sources[source] + i);
  if (job.scales == nullptr) return v;
  if constexpr (std::is_floating_point_v<Lane>) {
    return hn::Mul(v, hn::Set(d, static_cast<Lane>(job.scales[source])));
  } else {
    return Multiply(d, v,
                    hn::Set(d, static_cast<Lane>(
                                   static_cast<int64_t>(job.scales[source]))));
  }
}

// Folds elements [begin, end) in steps of `kUnroll` vectors of D while a whole step fits; returns where the rest begins.
template <ReduceOp kOp, Into kInto, int kUnroll, typename T, class D>
HWY_INLINE size_t FoldSteps(D d, const Job<T>& job, size_t begin, size_t end) {
  const size_t n = hn::Lanes(d);
  const Steps<kInto, T> steps(job, begin, end, kUnroll * n);
  for (size_t k = 0; k < steps.count(); ++k) {
    const size_t i = steps.At(k);
    for (size_t t = 0; t < job.destination_count; ++t) {
      steps.PrefetchDestination(i, job.destinations[t] + (i - job.origin));
    }
    for (size_t s = 0; s < job.source_count; ++s) {
      steps.PrefetchSource(i, job.sources[s] + i);
    }
    hn::Vec<D> sum[kUnroll];
    for (int u = 0; u < kUnroll; ++u) sum[u] = LoadScaled(d, job, 0, i + u * n);
    for (size_t s = 1; s < job.source_count; ++s) {
      for (int u = 0; u < kUnroll; ++u)
        sum[u] = Combine<kOp>(d, sum[u], LoadScaled(d, job, s, i + u * n));
    }
    if (job.divisor != 1) {
      for (int u = 0; u < kUnroll; ++u) sum[u] = Divide(d, sum[u], job.divisor);
    }
    for (size_t t = 0; t < job.destination_count; ++t) {
      for (int u = 0; u < kUnroll; ++u)
        StoreTo<kInto>(sum[u], d,
                       job.destinations[t] + (i - job.origin) + u * n);
    }
  }
  return steps.end();
}

// The same for two sources and one or two destinations without factors, where the loop over pointers would show.
template <ReduceOp kOp, Into kInto, int kUnroll, bool kTwoDestinations,
          typename T, class D>
HWY_INLINE size_t FoldPairs(D d, const Job<T>& job, size_t begin, size_t end) {
  const size_t n = hn::Lanes(d);
  const T* a = job.sources[0];
  const T* b = job.sources[1];
  T* y = job.destinations[0];
  T* z = job.destinations[kTwoDestinations ? 1 : 0];
  const Steps<kInto, T> steps(job, begin, end, kUnroll * n);
  for (size_t k = 0; k < steps.count(); ++k) {
    const size_t i = steps.At(k);
    const size_t to = i - job.origin;
    steps.PrefetchSource(i, a + i);
    steps.PrefetchSource(i, b + i);
    steps.PrefetchDestination(i, y + to);
    if constexpr (kTwoDestinations) steps.PrefetchDestination(i, z + to);
    hn::Vec<D> x[kUnroll], sum[kUnroll];
    for (int u = 0; u < kUnroll; ++u) x[u] = Codec<T>::Load(d, a + i + u * n);
    for (int u = 0; u < kUnroll; ++u)
      sum[u] = Combine<kOp>(d, x[u], Codec<T>::Load(d, b + i + u * n));
    for (int u = 0; u < kUnroll; ++u) StoreTo<kInto>(sum[u], d, y + to + u * n);
    if constexpr (kTwoDestinations) {
      for (int u = 0; u < kUnroll; ++u)
        StoreTo<kInto>(sum[u], d, z + to + u * n);
    }
  }
  return steps.end();
}

// What is left when no block fits: less than a block, or, before the first alignment, less than a vector.
template <ReduceOp kOp, typename T>
HWY_NOINLINE void FoldRest(const Job<T>& job, size_t begin, size_t end) {
  using Lane = typename Codec<T>::Lane;
  const size_t i =
      FoldSteps<kOp, Into::kCache, 1>(hn::ScalableTag<Lane>(), job, begin, end);
  FoldSteps<kOp, Into::kCache, 1>(hn::CappedTag<Lane, 1>(), job, i, end);
}

template <ReduceOp kOp, Into kInto, typename T>
HWY_INLINE void FoldRange(const Job<T>& job, size_t begin, size_t end) {
  const hn::ScalableTag<typename Codec<T>::Lane> d;
  const bool plain = job.scales == nullptr && job.divisor == 1;
  size_t i = begin;
  if (plain && job.source_count == 2 && job.destination_count == 2) {
    i = FoldPairs<kOp, kInto, 4, true>(d, job, i, end);
  } else if (plain && job.source_count == 2 && job.destination_count == 1) {
    i = FoldPairs<kOp, kInto, 4, false>(d, job, i, end);
  } else {
    i = FoldSteps<kOp, kInto, 4>(d, job, i, end);
  }
  FoldRest<kOp>(job, i, end);
}

// Streaming stores need aligned vectors, so all destinations must reach an alignment at the same element. (Narrow types
// go through a copy, which aligns each destination by itself.)
template <typename T>
HWY_INLINE bool CanStream(const Job<T>& job) {
  if constexpr (Codec<T>::kNarrow) {
    return true;
  } else {
    const hn::ScalableTag<T> d;
    const size_t head = BytesToAlignment(d, job.destinations[0]);
    for (size_t t = 1; t < job.destination_count; ++t) {
      if (BytesToAlignment(d, job.destinations[t]) != head) return false;
    }
    return head % sizeof(T) == 0;
  }
}

template <ReduceOp kOp, typename T>
HWY_NOINLINE void Fold(const Job<T>& job, size_t count) {
  if (!job.walk.streaming || !CanStream(job)) {
    FoldRange<kOp, Into::kCache>(job, 0, count);
  } else if constexpr (!Codec<T>::kNarrow) {
    const size_t head = std::min(
        count, BytesToAlignment(hn::ScalableTag<T>(), job.destinations[0]) /
                   sizeof(T));
    FoldRest<kOp>(job, 0, head);
    FoldRange<kOp, Into::kMemory>(job, head, count);
    hwy::FlushStream();
  } else {
    // Vectors of f32 become parts of vectors when they are narrowed, too small to stream: collect them in a tile.
    constexpr size_t kTile = 4096 / sizeof(T);
    alignas(64) T tile[kTile];
    T* const tile_pointer = tile;
    for (size_t i = 0; i < count; i += kTile) {
      const size_t n = std::min(kTile, count - i);
      Job<T> part = job;
      part.destinations = &tile_pointer;
      part.destination_count = 1;
      part.origin = i;
      FoldRange<kOp, Into::kCache>(part, i, i + n);
      for (size_t t = 0; t < job.destination_count; ++t) {
        void* const to = job.destinations[t] + i;
        StreamToAll({&to, 1}, reinterpret_cast<const uint8_t*>(tile),
                    n * sizeof(T), /*side_by_side=*/false);
      }
    }
    hwy::FlushStream();
  }
}

template <typename T>
HWY_INLINE void ReduceTyped(const Request& r) {
  const Job<T> job = {
      .sources = reinterpret_cast<const T* const*>(r.sources.data()),
      .source_count = r.sources.size(),
      .destinations = reinterpret_cast<T* const*>(r.destinations.data()),
      .destination_count = r.destinations.size(),
      .scales = r.options.scales.empty() ? nullptr : r.options.scales.data(),
      .divisor = r.options.divisor,
      .walk = r.options.walk};
  switch (r.op) {
    case ReduceOp::kProd:
      return Fold<ReduceOp::kProd>(job, r.count);
    case ReduceOp::kMin:
      return Fold<ReduceOp::kMin>(job, r.count);
    case ReduceOp::kMax:
      return Fold<ReduceOp::kMax>(job, r.count);
    case ReduceOp::kSum:
    case ReduceOp::kAvg:
    case ReduceOp::kPremulSum:
      return Fold<ReduceOp::kSum>(job, r.count);
  }
}

}  // namespace shardproof::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif  // SHARDPROOF_COLLECTIVES_KERNELS_REDUCE_INL_H_
