#include "reference/tensor.h"

#include <cstring>
#include <limits>
#include <new>

namespace shardproof {
namespace {
constexpr std::align_val_t kAlignment{64};
}  // namespace

Shape::Shape(std::span<const int64_t> dims)
    : rank_(static_cast<int>(dims.size())) {
  if (dims.size() > kMaxRank) {
    internal::DieOnBadValue(InvalidArgument(
        "a shape of {} dimensions; at most {}", dims.size(), kMaxRank));
  }
  std::copy(dims.begin(), dims.end(), dims_.begin());
}

int64_t Shape::NumElements() const {
  int64_t n = 1;
  for (int64_t d : *this) n *= d;
  return n;
}

bool Shape::operator==(const Shape& other) const {
  return std::equal(begin(), end(), other.begin(), other.end());
}

std::string Shape::ToString() const {
  std::string s = "[";
  for (int i = 0; i < rank_; ++i) {
    s += fmt::format("{}{}", i == 0 ? "" : ", ", dims_[i]);
  }
  return s + "]";
}

Shape Coordinates(const Shape& shape, int64_t flat) {
  Shape c = shape;
  for (int i = shape.rank() - 1; i >= 0; --i) {
    const int64_t extent = shape[i] > 0 ? shape[i] : 1;
    c[i] = flat % extent;
    flat /= extent;
  }
  return c;
}

void Tensor::Free::operator()(std::byte* p) const {
  ::operator delete[](p, kAlignment);
}

Tensor::Tensor(DType dtype, const Shape& shape) : dtype_(dtype), shape_(shape) {
  bytes_.reset(static_cast<std::byte*>(
      ::operator new[](static_cast<size_t>(num_bytes()), kAlignment)));
}

StatusOr<Tensor> Tensor::Create(DType dtype, const Shape& shape) {
  int64_t bytes = SizeOf(dtype);
  for (int64_t d : shape) {
    if (d < 0) {
      return InvalidArgument("shape {} has a negative extent",
                             shape.ToString());
    }
    if (__builtin_mul_overflow(bytes, d, &bytes)) {
      return InvalidArgument("shape {} of {} has more bytes than 2^63",
                             shape.ToString(), Name(dtype));
    }
  }
  Tensor tensor;
  tensor.dtype_ = dtype;
  tensor.shape_ = shape;
  tensor.bytes_.reset(static_cast<std::byte*>(
      ::operator new[](static_cast<size_t>(bytes), kAlignment, std::nothrow)));
  if (tensor.bytes_ == nullptr) {
    return OutOfMemory("no {} bytes for a tensor {} of {}", bytes,
                       shape.ToString(), Name(dtype));
  }
  return tensor;
}

Tensor Tensor::Zeros(DType dtype, const Shape& shape) {
  Tensor tensor(dtype, shape);
  std::memset(tensor.raw(), 0, static_cast<size_t>(tensor.num_bytes()));
  return tensor;
}

}  // namespace shardproof
