// Shapes, owned tensors and views: row-major, contiguous, nothing more.
//
//   Tensor x(DType::kF32, Shape{512, 4096});
//   x.data<float>()[3] = 1;
//   Consume(ConstTensorView(x.view()));     // {dtype, shape, data}

#ifndef SHARDPROOF_REFERENCE_TENSOR_H_
#define SHARDPROOF_REFERENCE_TENSOR_H_

#include <array>
#include <cassert>
#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <span>
#include <string>

#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof {

// Extents, outermost first. At most kMaxRank of them, held inline.
class Shape {
 public:
  static constexpr int kMaxRank = 8;

  Shape() = default;
  Shape(std::initializer_list<int64_t> dims)
      : Shape(std::span<const int64_t>(dims.begin(), dims.size())) {}
  explicit Shape(std::span<const int64_t> dims);

  int rank() const { return rank_; }
  int64_t operator[](int i) const { return dims_[i]; }
  int64_t& operator[](int i) { return dims_[i]; }
  const int64_t* begin() const { return dims_.data(); }
  const int64_t* end() const { return dims_.data() + rank_; }
  // The product; 1 for rank 0.
  int64_t NumElements() const;
  bool operator==(const Shape& other) const;
  // "[512, 4096]"
  std::string ToString() const;

 private:
  std::array<int64_t, kMaxRank> dims_ = {};
  int rank_ = 0;
};

// The coordinates of the element at `flat`: flat = sum_i c_i prod_{j>i}
// shape_j.
Shape Coordinates(const Shape& shape, int64_t flat);

struct TensorView {
  DType dtype = DType::kF32;
  Shape shape;
  void* data = nullptr;

  int64_t num_elements() const { return shape.NumElements(); }
  int64_t num_bytes() const { return num_elements() * SizeOf(dtype); }
  template <typename T>
  T* as() const {
    assert(DTypeOf<T>() == dtype);
    return static_cast<T*>(data);
  }
};

struct ConstTensorView {
  DType dtype = DType::kF32;
  Shape shape;
  const void* data = nullptr;

  ConstTensorView() = default;
  ConstTensorView(DType d, const Shape& s, const void* p)
      : dtype(d), shape(s), data(p) {}
  ConstTensorView(const TensorView& v)  // NOLINT(google-explicit-constructor):
                                        // as T* to const T*
      : dtype(v.dtype), shape(v.shape), data(v.data) {}

  int64_t num_elements() const { return shape.NumElements(); }
  int64_t num_bytes() const { return num_elements() * SizeOf(dtype); }
  template <typename T>
  const T* as() const {
    assert(DTypeOf<T>() == dtype);
    return static_cast<const T*>(data);
  }
};

// Owns its elements, 64-byte aligned. Move-only. New contents are unspecified:
// poison or fill them.
class Tensor {
 public:
  Tensor() = default;
  // Throws std::bad_alloc; use Create where the size is the user's.
  Tensor(DType dtype, const Shape& shape);
  // kInvalidArgument for a negative extent or an overflow, kOutOfMemory.
  static StatusOr<Tensor> Create(DType dtype, const Shape& shape);
  static Tensor Zeros(DType dtype, const Shape& shape);

  DType dtype() const { return dtype_; }
  const Shape& shape() const { return shape_; }
  int64_t num_elements() const { return shape_.NumElements(); }
  int64_t num_bytes() const { return num_elements() * SizeOf(dtype_); }

  void* raw() { return bytes_.get(); }
  const void* raw() const { return bytes_.get(); }
  std::span<std::byte> bytes() {
    return {bytes_.get(), static_cast<size_t>(num_bytes())};
  }
  std::span<const std::byte> bytes() const {
    return {bytes_.get(), static_cast<size_t>(num_bytes())};
  }
  template <typename T>
  T* data() {
    assert(DTypeOf<T>() == dtype_);
    return reinterpret_cast<T*>(bytes_.get());
  }
  template <typename T>
  const T* data() const {
    assert(DTypeOf<T>() == dtype_);
    return reinterpret_cast<const T*>(bytes_.get());
  }

  TensorView view() { return {dtype_, shape_, bytes_.get()}; }
  ConstTensorView view() const { return {dtype_, shape_, bytes_.get()}; }

 private:
  struct Free {
    void operator()(std::byte* p) const;
  };
  DType dtype_ = DType::kF32;
  Shape shape_ = {0};
  std::unique_ptr<std::byte[], Free> bytes_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_REFERENCE_TENSOR_H_
