#include "layers/kernels/embedding.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "collectives/kernels/streaming.h"
#include "collectives/kernels/targets.h"
#include "layers/kernels/layer_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/kernels/embedding.cc"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

// After highway.h, once per instruction set.
#include "collectives/kernels/codec-inl.h"
#include "collectives/kernels/copy-inl.h"

HWY_BEFORE_NAMESPACE();
namespace shardproof::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// out[0, 4 lanes) = sum over k of dy[order[k], 0.. 4 lanes), from out or from 0.
// Four sums at a time, so that additions need not wait for one another.
template <typename T, class D>
HWY_INLINE void SumFour(D d, const T* dy, int64_t hidden,
                        std::span<const int64_t> order, bool accumulate,
                        T* out) {
  const size_t two = 2 * hn::Lanes(d);
  auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
  if (accumulate) {
    Codec<T>::LoadTwo(d, out, s0, s1);
    Codec<T>::LoadTwo(d, out + two, s2, s3);
  }
  for (const int64_t i : order) {
    const T* const row = dy + i * hidden;
    auto v0 = s0, v1 = s0, v2 = s0, v3 = s0;
    Codec<T>::LoadTwo(d, row, v0, v1);
    Codec<T>::LoadTwo(d, row + two, v2, v3);
    s0 = hn::Add(s0, v0);
    s1 = hn::Add(s1, v1);
    s2 = hn::Add(s2, v2);
    s3 = hn::Add(s3, v3);
  }
  Codec<T>::StoreTwo(s0, s1, d, out);
  Codec<T>::StoreTwo(s2, s3, d, out + two);
}

template <typename T, class D>
HWY_INLINE void SumOne(D d, const T* dy, int64_t hidden,
                       std::span<const int64_t> order, bool accumulate,
                       T* out) {
  auto sum = accumulate ? Codec<T>::Load(d, out) : hn::Zero(d);
  for (const int64_t i : order) {
    sum = hn::Add(sum, Codec<T>::Load(d, dy + i * hidden));
  }
  Codec<T>::Store(sum, d, out);
}

template <typename T>
void SumRowsTyped(const void* dy_data, int64_t hidden,
                  std::span<const int64_t> order, bool accumulate,
                  void* out_data) {
  using Lane = typename Codec<T>::Lane;
  const auto* dy = static_cast<const T*>(dy_data);
  auto* out = static_cast<T*>(out_data);
  const hn::ScalableTag<Lane> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t j = 0;
  for (; j + 4 * lanes <= hidden; j += 4 * lanes) {
    SumFour<T>(d, dy + j, hidden, order, accumulate, out + j);
  }
  for (; j + lanes <= hidden; j += lanes) {
    SumOne<T>(d, dy + j, hidden, order, accumulate, out + j);
  }
  for (; j < hidden; ++j) {
    SumOne<T>(hn::CappedTag<Lane, 1>(), dy + j, hidden, order, accumulate,
              out + j);
  }
}

// The row of `out` that the tokens in `order` belong to.
void SumRows(DType dtype, const void* dy, int64_t hidden,
             std::span<const int64_t> order, bool accumulate, void* out) {
  switch (dtype) {
    case DType::kF64:
      return SumRowsTyped<double>(dy, hidden, order, accumulate, out);
    case DType::kF32:
      return SumRowsTyped<float>(dy, hidden, order, accumulate, out);
    case DType::kBF16:
      return SumRowsTyped<BFloat16>(dy, hidden, order, accumulate, out);
    default:
      return SumRowsTyped<Float16>(dy, hidden, order, accumulate, out);
  }
}

// Zeros around the caches; without the fence that must follow.
void ZeroStreaming(uint8_t* to, size_t bytes) {
  const hn::ScalableTag<uint8_t> d;
  const size_t lanes = hn::Lanes(d);
  const size_t head = std::min(bytes, BytesToAlignment(d, to));
  std::memset(to, 0, head);
  size_t i = head;
  for (; i + lanes <= bytes; i += lanes) hn::Stream(hn::Zero(d), d, to + i);
  std::memset(to + i, 0, bytes - i);
}

}  // namespace shardproof::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shardproof {
namespace kernels {

HWY_EXPORT(SumRows);
HWY_EXPORT(ZeroStreaming);

namespace {

Status CheckType(DType dtype) {
  if (dtype == DType::kF64 || dtype == DType::kF32 || dtype == DType::kBF16 ||
      dtype == DType::kF16) {
    return OkStatus();
  }
  return Unsupported("embeddings are of f64, f32, bf16 or f16, not {}",
                     Name(dtype));
}

// The row of an id in this part of the table, or a number that is no row.
uint64_t RowOf(const EmbeddingShape& shape, int64_t id) {
  return static_cast<uint64_t>(id) - static_cast<uint64_t>(shape.begin);
}

void Lookup(const EmbeddingShape& shape, const int64_t* ids, const void* table,
            void* y) {
  const auto bytes = static_cast<size_t>(shape.hidden * SizeOf(shape.dtype));
  if (bytes == 0) return;
  const auto* from = static_cast<const std::byte*>(table);
  auto* to = static_cast<std::byte*>(y);
  for (int64_t i = 0; i < shape.tokens; ++i, to += bytes) {
    const uint64_t row = RowOf(shape, ids[i]);
    if (row < static_cast<uint64_t>(shape.rows)) {
      std::memcpy(to, from + row * bytes, bytes);
    } else {
      std::memset(to, 0, bytes);
    }
  }
}

// Counting sort, stable: starts[k] is where row k begins in `order`.
void SortByRow(const EmbeddingShape& shape, const int64_t* ids,
               const EmbeddingScratch& scratch) {
  const std::span<int64_t> starts = scratch.starts;
  std::fill(starts.begin(), starts.end(), 0);
  const auto rows = static_cast<uint64_t>(shape.rows);
  for (int64_t i = 0; i < shape.tokens; ++i) {
    const uint64_t row = RowOf(shape, ids[i]);
    if (row < rows) ++starts[row + 1];
  }
  for (size_t k = 1; k < starts.size(); ++k) starts[k] += starts[k - 1];
  for (int64_t i = 0; i < shape.tokens; ++i) {
    const uint64_t row = RowOf(shape, ids[i]);
    if (row < rows) scratch.order[static_cast<size_t>(starts[row]++)] = i;
  }
  // Each has moved on to where the next row begins.
  for (size_t k = starts.size() - 1; k > 0; --k) starts[k] = starts[k - 1];
  starts[0] = 0;
}

void Gradient(const EmbeddingShape& shape, const int64_t* ids, const void* dy,
              bool accumulate, const EmbeddingScratch& scratch, void* dtable) {
  const auto bytes = static_cast<size_t>(shape.hidden * SizeOf(shape.dtype));
  if (bytes == 0 || shape.rows == 0) return;
  SortByRow(shape, ids, scratch);
  // Of a table that no cache holds, rows without a token are most of the work.
  const bool streaming =
      !accumulate && ShouldStream(static_cast<size_t>(shape.rows) * bytes);
  const auto row = [&](int64_t k) {
    return static_cast<std::byte*>(dtable) + static_cast<size_t>(k) * bytes;
  };
  const auto begin = [&](int64_t k) {
    return static_cast<size_t>(scratch.starts[static_cast<size_t>(k)]);
  };
  for (int64_t k = 0; k < shape.rows;) {
    const int64_t first = k;
    while (k < shape.rows && begin(k) == begin(k + 1)) ++k;
    if (k > first && !accumulate) {
      const size_t size = static_cast<size_t>(k - first) * bytes;
      if (streaming) {
        HWY_DYNAMIC_DISPATCH(ZeroStreaming)
        (reinterpret_cast<uint8_t*>(row(first)), size);
      } else {
        std::memset(row(first), 0, size);
      }
    }
    if (k == shape.rows) break;
    HWY_DYNAMIC_DISPATCH(SumRows)
    (shape.dtype, dy, shape.hidden,
     std::span<const int64_t>(scratch.order)
         .subspan(begin(k), begin(k + 1) - begin(k)),
     accumulate, row(k));
    ++k;
  }
  if (streaming) hwy::FlushStream();
}

}  // namespace
}  // namespace kernels

int64_t FirstIdOutside(std::span<const int64_t> ids, int64_t vocabulary) {
  // A negative id is a very large one.
  const auto found = std::find_if(ids.begin(), ids.end(), [&](int64_t id) {
    return static_cast<uint64_t>(id) >= static_cast<uint64_t>(vocabulary);
  });
  return found == ids.end() ? -1 : found - ids.begin();
}

Status EmbeddingLookup(const Stream& stream, const EmbeddingShape& shape,
                       const int64_t* ids, const void* table, void* y) {
  SP_RETURN_IF_ERROR(kernels::CheckType(shape.dtype));
  return RunKernel(
      stream,
      [=](LayerKernels& device) {
        return device.EmbeddingLookup(shape, ids, table, y);
      },
      [=] {
        kernels::Lookup(shape, ids, table, y);
        return Status();
      });
}

Status EmbeddingGradient(const Stream& stream, const EmbeddingShape& shape,
                         const int64_t* ids, const void* dy, bool accumulate,
                         const EmbeddingScratch& scratch, void* dtable) {
  SP_RETURN_IF_ERROR(kernels::CheckType(shape.dtype));
  if (scratch.order.size() != static_cast<size_t>(shape.tokens) ||
      scratch.starts.size() != static_cast<size_t>(shape.rows) + 1) {
    return InvalidArgument(
        "an embedding of {} tokens and {} rows got scratch for {} and {}",
        shape.tokens, shape.rows, scratch.order.size(), scratch.starts.size());
  }
  return RunKernel(
      stream,
      [=](LayerKernels& device) {
        return device.EmbeddingGradient(shape, ids, dy, accumulate, scratch,
                                        dtable);
      },
      [=] {
        kernels::Gradient(shape, ids, dy, accumulate, scratch, dtable);
        return Status();
      });
}

}  // namespace shardproof
#endif  // HWY_ONCE
