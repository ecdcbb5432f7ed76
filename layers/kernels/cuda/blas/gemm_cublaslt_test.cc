// Products by cuBLASLt's interface against those of the host, and against the reference of the linear layer. What multiplies
// is a library for tests: shown is what it is asked, not what NVIDIA's answers.
#include "layers/kernels/cuda/blas/gemm_cublaslt.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <future>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <tuple>
#include <vector>

#include "collectives/backend/cuda/device/emulated_stream.h"
#include "layers/kernels/cuda/blas/testing/gemm_fixture.h"
#include "layers/kernels/gemm.h"
#include "layers/kernels/kernel_testing.h"
#include "reference/linear.h"

namespace shardproof {
namespace {

using testing::BlasGpu;
using testing::Integers;

constexpr DType kTypes[] = {DType::kF32, DType::kF64, DType::kBF16,
                            DType::kF16};

struct Sizes {
  int64_t m, n, k;
};

enum class Addend { kNone, kAccumulate, kBias };

// The product on the GPU and on the host, of the same matrices.
void ExpectAsOnHost(BlasGpu& gpu, DType dtype, const Sizes& s, bool ta, bool tb,
                    Addend addend) {
  SCOPED_TRACE(fmt::format("{} {} x {} x {}{}{}, addend {}", Name(dtype), s.m,
                           s.n, s.k, ta ? ", a transposed" : "",
                           tb ? ", b transposed" : "",
                           static_cast<int>(addend)));
  const Tensor a = Integers(dtype, ta ? Shape{s.k, s.m} : Shape{s.m, s.k}, "a");
  const Tensor b = Integers(dtype, tb ? Shape{s.n, s.k} : Shape{s.k, s.n}, "b");
  const Tensor bias = Integers(dtype, {s.n}, "bias");
  Tensor got = Integers(dtype, {s.m, s.n}, "c");
  Tensor want = Integers(dtype, {s.m, s.n}, "c");
  GemmArgs args{.a = a.view(),
                .transpose_a = ta,
                .b = b.view(),
                .transpose_b = tb,
                .c = want.view(),
                .accumulate = addend == Addend::kAccumulate,
                .bias = addend == Addend::kBias ? bias.raw() : nullptr};
  ASSERT_TRUE(Gemm(Stream::Inline(), args).ok());
  args.c = got.view();
  // The first pins an algorithm; the second finds it.
  for (int i = 0; i < 2; ++i) {
    if (addend == Addend::kAccumulate) {
      const Tensor fresh = Integers(dtype, {s.m, s.n}, "c");
      std::copy(fresh.bytes().begin(), fresh.bytes().end(),
                got.bytes().begin());
    }
    const std::optional<Status> done = gpu.Gemm(args);
    ASSERT_TRUE(done.has_value());
    ASSERT_TRUE(done->ok()) << done->ToString();
    ASSERT_EQ(Doubles(got), Doubles(want)) << "call " << i;
  }
}

class CublasLtGemmTest
    : public ::testing::TestWithParam<std::tuple<DType, Sizes>> {};

TEST_P(CublasLtGemmTest, IsTheHostsProduct) {
  const auto [dtype, sizes] = GetParam();
  for (const bool no_epilogues : {false, true}) {
    BlasGpu gpu;
    gpu.behaviour().no_epilogues = no_epilogues;
    for (const bool ta : {false, true}) {
      for (const bool tb : {false, true}) {
        for (const Addend addend :
             {Addend::kNone, Addend::kAccumulate, Addend::kBias}) {
          ExpectAsOnHost(gpu, dtype, sizes, ta, tb, addend);
        }
      }
    }
  }
}

// Numbers that are no integers: f32 within the bounds of f32, which TF32 is not.
TEST_P(CublasLtGemmTest, IsTheReferencesForwardPass) {
  const auto [dtype, sizes] = GetParam();
  const auto [tokens, out, in] = sizes;
  BlasGpu gpu;
  const Tensor x = Filled(Uniform(dtype), {tokens, in}, "x");
  const Tensor w = Filled(Uniform(dtype), {out, in}, "w");
  const Tensor b = Filled(Uniform(dtype), {out}, "b");
  Tensor y(dtype, {tokens, out});
  const std::optional<Status> done = gpu.Gemm({.a = x.view(),
                                               .b = w.view(),
                                               .transpose_b = true,
                                               .c = y.view(),
                                               .bias = b.raw()});
  ASSERT_TRUE(done.has_value() && done->ok());
  const Matrix want =
      LinearForward({x.view(), w.view(), b.view()}, Arithmetic::For(dtype));
  const std::vector<double> got = Doubles(y);
  ASSERT_EQ(got.size(), want.values.size());
  for (size_t i = 0; i < got.size(); ++i) {
    ASSERT_LE(std::abs(got[i] - want.values[i].value), want.values[i].worst)
        << "element " << i;
  }
}

// At one row, one column, one term, and without any of them.
INSTANTIATE_TEST_SUITE_P(
    All, CublasLtGemmTest,
    ::testing::Combine(::testing::ValuesIn(kTypes),
                       ::testing::Values(Sizes{17, 29, 33}, Sizes{1, 1, 65},
                                         Sizes{3, 130, 1}, Sizes{5, 3, 300},
                                         Sizes{9, 1, 7}, Sizes{1, 9, 7},
                                         Sizes{4, 6, 0}, Sizes{0, 6, 4},
                                         Sizes{4, 0, 6})),
    [](const auto& info) {
      const Sizes s = std::get<1>(info.param);
      return fmt::format("{}_{}x{}x{}", Name(std::get<0>(info.param)), s.m, s.n,
                         s.k);
    });

// More than there are zeros at hand.
TEST(CublasLtEmptyTest, ManyZeros) {
  BlasGpu gpu;
  const Tensor a(DType::kF32, {300, 0}), b(DType::kF32, {0, 301});
  Tensor c = Integers(DType::kF32, {300, 301}, "c");
  const std::optional<Status> done =
      gpu.Gemm({.a = a.view(), .b = b.view(), .c = c.view()});
  ASSERT_TRUE(done.has_value() && done->ok());
  EXPECT_EQ(Doubles(c), std::vector<double>(300 * 301, 0.0));
  EXPECT_EQ(gpu.seen().heuristics, 0);
}

TEST(CublasLtTypesTest, LeavesIntegersToOthers) {
  BlasGpu gpu;
  Tensor a(DType::kI32, {2, 2}), c(DType::kI32, {2, 2});
  EXPECT_EQ(gpu.Gemm({.a = a.view(), .b = a.view(), .c = c.view()}),
            std::nullopt);
}

// What is behind on the stream keeps nobody from queueing more.
TEST(CublasLtQueueTest, WaitsForNothingOnceItIsPinned) {
  BlasGpu gpu;
  const Tensor a = Integers(DType::kF32, {4, 5}, "a");
  const Tensor b = Integers(DType::kF32, {5, 6}, "b");
  Tensor c(DType::kF32, {4, 6});
  const GemmArgs args{.a = a.view(), .b = b.view(), .c = c.view()};
  ASSERT_TRUE(gpu.Gemm(args)->ok());
  const std::vector<double> want = Doubles(c), zeros(24, 0.0);
  // The same memory, and so the same kind.
  std::fill(c.bytes().begin(), c.bytes().end(), std::byte{0});
  std::promise<void> go_on;
  auto* const queue =
      static_cast<cuda::EmulatedStreamHandle*>(gpu.stream().handle());
  queue->enqueue(
      queue,
      [](void* promise) {
        static_cast<std::promise<void>*>(promise)->get_future().wait();
      },
      &go_on);
  const std::optional<Status> queued = gpu.gemm().Gemm(gpu.stream(), args);
  ASSERT_TRUE(queued.has_value() && queued->ok());
  EXPECT_FALSE(gpu.stream().Done().value());
  EXPECT_EQ(Doubles(c), zeros);
  go_on.set_value();
  ASSERT_TRUE(gpu.Finish(queued)->ok());
  EXPECT_EQ(Doubles(c), want);
}

TEST(CublasLtThreadsTest, SeveralAtOnce) {
  // The machine's clock: that of the library goes on for all streams at once.
  BlasGpu gpu(/*virtual_clock=*/false);
  constexpr int kThreads = 4, kRounds = 40, kShapes = 3;
  std::vector<Tensor> as, bs, wants;
  for (int i = 0; i < kShapes; ++i) {
    as.push_back(Integers(DType::kBF16, {3 + i, 7}, "a"));
    bs.push_back(Integers(DType::kBF16, {7, 5 + i}, "b"));
    wants.emplace_back(DType::kBF16, Shape{3 + i, 5 + i});
    ASSERT_TRUE(Gemm(Stream::Inline(), {.a = as.back().view(),
                                        .b = bs.back().view(),
                                        .c = wants.back().view()})
                    .ok());
  }
  std::vector<std::unique_ptr<cuda::GpuStream>> streams;
  for (int t = 0; t < kThreads; ++t) streams.push_back(gpu.NewStream());
  std::atomic<int> wrong = 0;
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      cuda::GpuStream& stream = *streams[static_cast<size_t>(t)];
      for (int round = 0; round < kRounds; ++round) {
        const auto i = static_cast<size_t>((round + t) % kShapes);
        Tensor c = Tensor::Zeros(DType::kBF16, wants[i].shape());
        const std::optional<Status> done = gpu.gemm().Gemm(
            stream, {.a = as[i].view(), .b = bs[i].view(), .c = c.view()});
        const bool right =
            done.has_value() && done->ok() &&
            cuda::Synchronize(stream, std::chrono::minutes(5)).ok() &&
            Doubles(c) == Doubles(wants[i]);
        wrong += right ? 0 : 1;
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(wrong, 0) << "of " << kThreads * kRounds;
  // Each kind once; a shape is of more than one where a matrix happens to lie on 256 bytes.
  std::set<std::string> kinds;
  for (const PinnedAlgorithm& one : gpu.gemm().Pinned()) {
    EXPECT_TRUE(kinds.insert(one.product).second) << one.product;
  }
  EXPECT_GE(kinds.size(), static_cast<size_t>(kShapes));
  EXPECT_EQ(static_cast<size_t>(gpu.seen().heuristics), kinds.size());
}

}  // namespace
}  // namespace shardproof
