#include "layers/kernels/embedding.h"

#include <algorithm>
#include <cstddef>
#include <cstring>

#include "collectives/kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/kernels/embedding.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

// After highway.h, once per instruction set.
#include "collectives/kernels/codec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace shardproof::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// out[0, lanes) = sum over k of dy[order[k], 0.. lanes), from out or from 0.
// Four sums at a time, so that additions need not wait for one another.
template <typename T, int kSums, class D>
HWY_INLINE void SumVectors(D d, const T* dy, int64_t hidden,
                           std::span<const int64_t> order, bool accumulate,
                           T* out) {
  const size_t lanes = hn::Lanes(d);
  const auto load = [&](const T* p, size_t i) {
    return Codec<T>::Load(d, p + i * lanes);
  };
  auto s0 = accumulate ? load(out, 0) : hn::Zero(d);
  auto s1 = hn::Zero(d), s2 = s1, s3 = s1;
  if constexpr (kSums == 4) {
    if (accumulate) {
      s1 = load(out, 1);
      s2 = load(out, 2);
      s3 = load(out, 3);
    }
  }
  for (const int64_t i : order) {
    const T* row = dy + i * hidden;
    s0 = hn::Add(s0, load(row, 0));
    if constexpr (kSums == 4) {
      s1 = hn::Add(s1, load(row, 1));
      s2 = hn::Add(s2, load(row, 2));
      s3 = hn::Add(s3, load(row, 3));
    }
  }
  Codec<T>::Store(s0, d, out);
  if constexpr (kSums == 4) {
    Codec<T>::Store(s1, d, out + lanes);
    Codec<T>::Store(s2, d, out + 2 * lanes);
    Codec<T>::Store(s3, d, out + 3 * lanes);
  }
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
    SumVectors<T, 4>(d, dy + j, hidden, order, accumulate, out + j);
  }
  for (; j + lanes <= hidden; j += lanes) {
    SumVectors<T, 1>(d, dy + j, hidden, order, accumulate, out + j);
  }
  for (; j < hidden; ++j) {
    SumVectors<T, 1>(hn::CappedTag<Lane, 1>(), dy + j, hidden, order,
                     accumulate, out + j);
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

}  // namespace shardproof::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shardproof {
namespace kernels {

HWY_EXPORT(SumRows);

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
  auto* out = static_cast<std::byte*>(dtable);
  for (int64_t k = 0; k < shape.rows; ++k, out += bytes) {
    const auto begin = static_cast<size_t>(scratch.starts[k]);
    const auto end = static_cast<size_t>(scratch.starts[k + 1]);
    if (begin == end) {
      if (!accumulate) std::memset(out, 0, bytes);
      continue;
    }
    HWY_DYNAMIC_DISPATCH(SumRows)
    (shape.dtype, dy, shape.hidden,
     std::span<const int64_t>(scratch.order).subspan(begin, end - begin),
     accumulate, out);
  }
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
  return stream.Run([shape, ids, table, y] {
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
  return stream.Run([=] {
    kernels::Gradient(shape, ids, dy, accumulate, scratch, dtable);
    return Status();
  });
}

}  // namespace shardproof
#endif  // HWY_ONCE
