// For the tests of launches: the kernels of an emulated GPU in this thread's
// context, and operands in its memory or in ordinary memory.
#ifndef SHARDPROOF_LAYERS_KERNELS_CUDA_DEVICE_DEVICE_TESTING_H_
#define SHARDPROOF_LAYERS_KERNELS_CUDA_DEVICE_DEVICE_TESTING_H_

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstring>
#include <memory>
#include <string_view>
#include <utility>
#include <vector>

#include "collectives/backend/cuda/device/emulated_gpu.h"
#include "collectives/rank_context.h"
#include "layers/kernels/cuda/device/layer_kernels_on_gpu.h"
#include "layers/kernels/cuda/testing/fiber_launch.h"
#include "layers/kernels/layer_kernels.h"
#include "reference/status.h"

namespace shardproof::cuda::testing {

enum class Memory { kOfGpu, kOrdinary };

inline std::shared_ptr<GpuSystem> OpenGpus(const EmulatedGpuOptions& options) {
  auto gpus = OpenEmulatedGpus(options);
  EXPECT_TRUE(gpus.ok()) << gpus.status().ToString();
  return *std::move(gpus);
}

// While it lives, this thread computes on an emulated GPU.
class OnGpu {
 public:
  explicit OnGpu(const EmulatedGpuOptions& options = {},
                 std::chrono::milliseconds timeout = std::chrono::seconds(60))
      : gpus_(OpenGpus(options)),
        kernels_(std::make_shared<LayerKernelsOnGpu>(
            GpuLanesOptions{.gpus = gpus_, .gpu = 0, .timeout = timeout})) {
    auto context = std::make_shared<RankServices>();
    context->Put<LayerKernels>(kernels_);
    context_ = std::move(context);
    SetCurrentContext(context_);
  }
  ~OnGpu() { SetCurrentContext(nullptr); }
  OnGpu(const OnGpu&) = delete;
  OnGpu& operator=(const OnGpu&) = delete;

  GpuSystem& gpus() { return *gpus_; }
  LayerKernelsOnGpu& kernels() { return *kernels_; }
  LayerKernelCounts counts() const { return kernels_->counts(); }

  // That so many kernels run, and that nothing is left to the host.
  template <class F>
  void ExpectLaunches(int64_t launches, const F& f) {
    const LayerKernelCounts before = counts();
    const Status status = f();
    ASSERT_TRUE(status.ok()) << status.ToString();
    EXPECT_EQ(counts().launches - before.launches, launches);
    EXPECT_EQ(counts().left_to_host, before.left_to_host);
  }
  // The same on the host.
  template <class F>
  void OnHost(const F& f) {
    SetCurrentContext(nullptr);
    const Status status = f();
    SetCurrentContext(context_);
    ASSERT_TRUE(status.ok()) << status.ToString();
  }

 private:
  std::shared_ptr<GpuSystem> gpus_;
  std::shared_ptr<LayerKernelsOnGpu> kernels_;
  std::shared_ptr<const RankServices> context_;
};

// An operand of a test in one of the two kinds of memory, as far off a multiple
// of 16 bytes as it was and with guards around it.
class Placed {
 public:
  Placed(OnGpu& on, Memory memory, Operand operand)
      : operand_(std::move(operand)) {
    if (memory == Memory::kOrdinary) return;
    begin_ = kGuard + reinterpret_cast<uintptr_t>(operand_.raw()) % kGuard;
    const std::vector<std::byte> contents = operand_.Contents();
    auto buffer =
        on.gpus().gpu(0).Allocate(begin_ + contents.size() + 2 * kGuard);
    EXPECT_TRUE(buffer.ok()) << buffer.status().ToString();
    buffer_ = *std::move(buffer);
    std::memset(buffer_.data(), 0xff, buffer_.bytes());
    std::copy(contents.begin(), contents.end(), buffer_.data() + begin_);
  }

  void* raw() {
    return buffer_.bytes() == 0 ? operand_.raw() : buffer_.data() + begin_;
  }
  template <class T>
  T* as() {
    return static_cast<T*>(raw());
  }
  // As it is now.
  const Operand& Now() {
    if (buffer_.bytes() == 0) return operand_;
    const size_t bytes = operand_.Contents().size();
    const auto intact = [](std::byte b) { return b == std::byte{0xff}; };
    const std::byte* const data = buffer_.data();
    EXPECT_TRUE(std::all_of(data, data + begin_, intact));
    EXPECT_TRUE(
        std::all_of(data + begin_ + bytes, data + buffer_.bytes(), intact));
    if (bytes > 0) std::memcpy(operand_.raw(), raw(), bytes);
    return operand_;
  }
  std::vector<double> Doubles() { return Now().Doubles(); }

 private:
  static constexpr size_t kGuard = 64;

  Operand operand_;
  Buffer buffer_;
  size_t begin_ = 0;
};

// Types, memories, and operands on and off multiples of 16 bytes.
struct Setting {
  DType dtype = DType::kF32;
  Memory memory = Memory::kOfGpu;
  int64_t offset = 0;
};

class OnGpuTest : public ::testing::TestWithParam<int64_t> {
 protected:
  // body(setting) for all of them.
  template <class Body>
  void ForAll(const Body& body) {
    for (const DType dtype : kTypes) {
      for (const Memory memory : {Memory::kOfGpu, Memory::kOrdinary}) {
        for (const int64_t offset : {0, 1}) {
          SCOPED_TRACE(fmt::format(
              "{}, {}, offset {}", Name(dtype),
              memory == Memory::kOfGpu ? "the GPU's memory" : "ordinary memory",
              offset));
          body(Setting{dtype, memory, offset});
          if (HasFatalFailure() || HasNonfatalFailure()) return;
        }
      }
    }
  }
  Placed Random(const Setting& s, int64_t n, std::string_view name,
                double scale) {
    return {on_, s.memory, Operand::Random(s.dtype, n, name, scale, s.offset)};
  }
  Placed RandomF32(const Setting& s, int64_t n, std::string_view name,
                   double scale) {
    return {on_, s.memory,
            Operand::Random(DType::kF32, n, name, scale, s.offset)};
  }
  Placed Empty(const Setting& s, int64_t n) {
    return {on_, s.memory, Operand(s.dtype, n, s.offset)};
  }
  Placed EmptyF32(const Setting& s, int64_t n) {
    return {on_, s.memory, Operand(DType::kF32, n, s.offset)};
  }
  // Integers whose sums of so many terms are exact.
  Placed Exact(const Setting& s, int terms, int64_t n, std::string_view name) {
    return {
        on_, s.memory,
        Operand::Of(Filled(*ExactSum(s.dtype, terms), {n}, name), s.offset)};
  }
  Placed Of(const Setting& s, DType dtype, const std::vector<double>& values,
            int64_t offset = 0) {
    const auto n = static_cast<int64_t>(values.size());
    Operand out(dtype, n, offset);
    FromDouble(dtype, values.data(), n, out.raw());
    return {on_, s.memory, std::move(out)};
  }
  template <class F>
  void Launches(int64_t launches, const F& f) {
    on_.ExpectLaunches(launches, f);
  }

  OnGpu on_;
  const Stream stream_ = Stream::Inline();
};

}  // namespace shardproof::cuda::testing

#endif  // SHARDPROOF_LAYERS_KERNELS_CUDA_DEVICE_DEVICE_TESTING_H_
