// For the tests of kernels: launches in fibers, and operands that lie anywhere and have guards around them.
//
//     Operand x = Operand::Of(tensor, /*offset=*/1), y(DType::kBF16, n, 1);
//     Launch({.blocks = 2, .threads = 64}, seed, [&](auto& context) {
//       Team team(context);
//       Normalize<BFloat16>(team, rows, {.x = x.raw(), .y = y.raw(), ...});
//     });
//     y.Doubles(); y.GuardsAreIntact();
#ifndef SHARDPROOF_LAYERS_KERNELS_CUDA_TESTING_FIBER_LAUNCH_H_
#define SHARDPROOF_LAYERS_KERNELS_CUDA_TESTING_FIBER_LAUNCH_H_

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <vector>

#include "collectives/backend/cuda/fiber/fiber_context.h"
#include "collectives/backend/cuda/fiber/fiber_scheduler.h"
#include "collectives/backend/cuda/kernels/walk.h"
#include "layers/kernels/cuda/launch.h"
#include "layers/kernels/kernel_testing.h"
#include "reference/bounded.h"
#include "reference/dtype.h"
#include "reference/tensor.h"

namespace shardproof::cuda::testing {

inline constexpr DType kTypes[] = {DType::kF32, DType::kBF16, DType::kF16};
// More than any kernel asks for.
inline constexpr int kSharedBytes = 8192;

using cuda::LaunchShape;

// Fibers are kept from one launch to the next.
class Launcher {
 public:
  // Returns what the scheduler says.
  template <class Body>
  Status Try(const LaunchShape& shape, uint64_t seed, const Body& body) {
    // In two of three schedules a warp is far behind the others.
    const int slow =
        static_cast<int>(seed / 3) % std::max(1, shape.threads / kWarp);
    return scheduler_.Run(
        {.ranks = 1,
         .blocks = shape.blocks,
         .threads = shape.threads,
         .shared_bytes = kSharedBytes},
        {.seed = seed, .slow_warp = seed % 3 == 0 ? -1 : slow},
        [&](FiberThread& thread) {
          FiberContext<> context(thread);
          body(context);
        });
  }
  template <class Body>
  void operator()(const LaunchShape& shape, uint64_t seed, const Body& body) {
    const Status status = Try(shape, seed, body);
    ASSERT_TRUE(status.ok()) << status.ToString();
  }

 private:
  FiberScheduler scheduler_;
};

// `n` elements, `offset` of them behind a multiple of 16 bytes. All bits are 1 at first, a NaN, as are those of the
// guards.
class Operand {
 public:
  Operand(DType dtype, int64_t n, int64_t offset = 0)
      : dtype_(dtype),
        n_(n),
        begin_(kGuard + static_cast<size_t>(offset * SizeOf(dtype))),
        memory_((begin_ + Bytes() + kGuard) / sizeof(Vector) + 1) {
    std::memset(static_cast<void*>(memory_.data()), 0xff,
                memory_.size() * sizeof(Vector));
  }
  static Operand Of(const Tensor& tensor, int64_t offset = 0) {
    Operand out(tensor.dtype(), tensor.num_elements(), offset);
    if (out.n_ > 0) std::memcpy(out.raw(), tensor.raw(), out.Bytes());
    return out;
  }
  static Operand Random(DType dtype, int64_t n, std::string_view name,
                        double scale, int64_t offset = 0) {
    return Of(Filled(Uniform(dtype, scale), Shape{n}, name), offset);
  }

  void* raw() { return base() + begin_; }
  template <class T>
  T* as() {
    return reinterpret_cast<T*>(raw());
  }
  int64_t size() const { return n_; }
  DType dtype() const { return dtype_; }
  Tensor ToTensor(const Shape& shape) const {
    Tensor out(dtype_, shape);
    if (n_ > 0) std::memcpy(out.raw(), base() + begin_, Bytes());
    return out;
  }
  std::vector<double> Doubles() const {
    return shardproof::Doubles(ToTensor(Shape{n_}));
  }
  std::vector<std::byte> Contents() const {
    return {base() + begin_, base() + begin_ + Bytes()};
  }
  bool GuardsAreIntact() const {
    const auto intact = [](std::byte b) { return b == std::byte{0xff}; };
    const std::byte* const end = base() + memory_.size() * sizeof(Vector);
    return std::all_of(base(), base() + begin_, intact) &&
           std::all_of(base() + begin_ + Bytes(), end, intact);
  }

 private:
  static constexpr size_t kGuard = 64;
  size_t Bytes() const { return static_cast<size_t>(n_ * SizeOf(dtype_)); }
  const std::byte* base() const {
    return reinterpret_cast<const std::byte*>(memory_.data());
  }
  std::byte* base() { return reinterpret_cast<std::byte*>(memory_.data()); }

  DType dtype_;
  int64_t n_;
  size_t begin_;
  std::vector<Vector> memory_;
};

// Calls f with the type that `dtype` is stored as: f32, bf16 or f16.
template <class F>
void VisitStored(DType dtype, const F& f) {
  if (dtype == DType::kF32) {
    f(TypeTag<float>());
  } else if (dtype == DType::kBF16) {
    f(TypeTag<BFloat16>());
  } else {
    f(TypeTag<Float16>());
  }
}

inline void ExpectWithin(std::string_view what, const Operand& got,
                         std::span<const Bounded> want) {
  ASSERT_TRUE(got.GuardsAreIntact()) << what;
  const std::vector<double> values = got.Doubles();
  ASSERT_EQ(values.size(), want.size()) << what;
  for (size_t i = 0; i < values.size(); ++i) {
    // Not within, so that a NaN fails.
    ASSERT_LE(std::abs(values[i] - want[i].value), want[i].worst)
        << what << " " << i << " is " << values[i] << ", not " << want[i].value;
  }
}

// The same bits.
inline void ExpectSame(std::string_view what, const Operand& got,
                       const Operand& want) {
  ASSERT_TRUE(got.GuardsAreIntact()) << what;
  ASSERT_TRUE(got.Contents() == want.Contents()) << what;
}

}  // namespace shardproof::cuda::testing

#endif  // SHARDPROOF_LAYERS_KERNELS_CUDA_TESTING_FIBER_LAUNCH_H_
