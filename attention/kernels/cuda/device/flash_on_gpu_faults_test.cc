// What an attention on a GPU leaves to the host, what it refuses, and what goes wrong with GPUs, planted.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <utility>

#include "attention/kernels/cuda/device/flash_on_gpu.h"
#include "attention/kernels/cuda/device/flash_work.h"
#include "attention/kernels/cuda/testing/gpu_problem.h"
#include "attention/kernels/flash_kernels.h"
#include "collectives/rank_context.h"

namespace shardproof::cuda {
namespace {

using testing::EmulatedFlash;
using testing::GpuProblem;
using ::testing::HasSubstr;

const FlashShape kShape = ShapeOf(DType::kBF16, 40, 40, 64);
const TokenRun kTokens = {.count = 40};

GpuProblem Problem(const Visibility& visibility = {.causal = true}) {
  return GpuProblem(kShape, visibility, kTokens, kTokens);
}

// --- What is left to the host ----------------------------------------------------------------------------------------

TEST(FlashOfHostTest, OtherTypesAndHeadDims) {
  const EmulatedFlash emulated;
  int64_t left = 0;
  for (const DType dtype : kFlashTypes) {
    for (const int64_t d : {1, 16, 64, 80, 128, 256}) {
      const bool gpu = (dtype == DType::kBF16 || dtype == DType::kF16) &&
                       (d == 64 || d == 128);
      left += gpu ? 0 : 1;
      EXPECT_EQ(emulated.Create(ShapeOf(dtype, 4, 4, d)) != nullptr, gpu)
          << Name(dtype) << " of " << d;
    }
  }
  EXPECT_EQ(emulated.kernels->counts().host_shapes, left);
}

// What a scheme asks for, on a thread of a rank that has a GPU.
TEST(FlashOfHostTest, IsFoundInTheContext) {
  const EmulatedFlash emulated;
  auto context = std::make_shared<RankServices>();
  context->Put<FlashKernels>(emulated.kernels);
  SetCurrentContext(context);
  const auto on_gpu = FlashAttention::Create(kShape);
  const auto on_host = FlashAttention::Create(ShapeOf(DType::kF32, 40, 40, 64));
  SetCurrentContext(nullptr);
  ASSERT_TRUE(on_gpu.ok() && on_host.ok());
  GpuProblem mine = Problem();
  ASSERT_TRUE(mine.RunOnGpu(**on_gpu).ok());
  mine.ExpectAllRight();
  EXPECT_EQ(emulated.kernels->counts().launches, 3);
  FlashProblem other(ShapeOf(DType::kF32, 40, 40, 64), {.causal = true},
                     kTokens, kTokens);
  ASSERT_TRUE(other.Run(**on_host).ok());
  other.ExpectRight();
  const FlashGpuCounts counts = emulated.kernels->counts();
  EXPECT_EQ(counts.launches, 3);
  EXPECT_EQ(counts.host_shapes, 1);
  EXPECT_GT((*on_gpu)->working_bytes(),
            (*FlashAttention::CreateOnHost(kShape))->working_bytes());
}

TEST(FlashOfHostTest, Documents) {
  const EmulatedFlash emulated;
  const auto flash = emulated.Create(kShape);
  GpuProblem problem = Problem({.causal = true, .cu_seqlens = {0, 11, 40}});
  ASSERT_TRUE(problem.RunOnGpu(*flash).ok());
  problem.ExpectRight();  // Within the bounds of the host's kernels.
  const FlashGpuCounts counts = emulated.kernels->counts();
  EXPECT_EQ(counts.launches, 0);
  EXPECT_EQ(counts.gpu_calls, 0);
  EXPECT_EQ(counts.host_calls, 2);
}

TEST(FlashOfHostTest, FlashWorkOfSaysWhatKernelsDo) {
  const auto takes = [](const TokenRun& queries, const TokenRun& keys,
                        const Visibility& visibility) {
    return FlashWorkOf(kShape, {queries, keys, &visibility}).has_value();
  };
  constexpr int64_t kFar = int64_t{1} << 31;
  const Visibility causal = {.causal = true};
  EXPECT_TRUE(takes(kTokens, kTokens, causal));
  EXPECT_TRUE(takes({.offset = 7, .stride = 3, .count = 40}, kTokens,
                    {.causal = true, .window = 5}));
  EXPECT_FALSE(takes(kTokens, kTokens, {.cu_seqlens = {0, 40}}));
  EXPECT_FALSE(takes(kTokens, kTokens, {.window = kFar}));
  EXPECT_FALSE(takes({.offset = kFar, .count = 1}, kTokens, causal));
  // What an int makes 5 of.
  EXPECT_FALSE(takes({.offset = 2 * kFar + 5, .count = 1}, kTokens, causal));
  EXPECT_FALSE(takes({.offset = kFar - 20, .count = 40}, kTokens, causal));
  EXPECT_FALSE(takes({.stride = kFar, .count = 2}, kTokens, causal));
  EXPECT_FALSE(takes({.count = 41}, kTokens, causal));
  EXPECT_FALSE(takes({.offset = -1, .count = 1}, kTokens, causal));
  EXPECT_FALSE(FlashWorkOf(kShape, {kTokens, kTokens, nullptr}).has_value());
  FlashShape many = kShape;
  many.heads = many.kv_heads = 1 << 20;
  many.sequences = 1 << 12;
  EXPECT_FALSE(FlashWorkOf(many, {kTokens, kTokens, &causal}).has_value());
}

// Positions from 2^31 on: right, by the host.
TEST(FlashOfHostTest, FarPositions) {
  const EmulatedFlash emulated;
  const auto flash = emulated.Create(kShape);
  constexpr int64_t kFar = int64_t{1} << 40;
  GpuProblem problem(kShape, {.causal = true},
                     {.offset = kFar + 40, .count = 40},
                     {.offset = kFar + 31, .count = 40});
  ASSERT_TRUE(problem.RunOnGpu(*flash).ok());
  problem.ExpectRight();
  EXPECT_EQ(emulated.kernels->counts().host_calls, 2);
}

// --- What is refused -------------------------------------------------------------------------------------------------

TEST(FlashRefusalTest, IsThatOfTheHost) {
  const EmulatedFlash emulated;
  FlashShape forward_only = kShape;
  forward_only.backward = false;
  const auto flash = emulated.Create(kShape);
  const auto forward = emulated.Create(forward_only);
  GpuProblem problem = Problem();
  const auto expect = [&](const Status& status, const char* words) {
    EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr(words));
  };
  FlashAttention::ForwardArgs args = problem.ForwardOnGpu();
  args.o_type = DType::kF16;
  expect(flash->Forward({}, args), "not f16");
  args = problem.ForwardOnGpu();
  args.block.visibility = nullptr;
  expect(flash->Forward({}, args), "no visibility");
  args = problem.ForwardOnGpu();
  args.block.keys.count = 41;
  expect(flash->Forward({}, args), "40 queries and 41 keys");
  expect(forward->Backward({}, problem.BackwardOnGpu(true)), "forward only");
  const FlashGpuCounts counts = emulated.kernels->counts();
  EXPECT_EQ(counts.launches + counts.gpu_calls + counts.host_calls, 0);
}

TEST(FlashRefusalTest, OutOfMemory) {
  const EmulatedFlash emulated({.memory_bytes = 10 << 10});
  const auto refused = emulated.kernels->Create(kShape);
  EXPECT_EQ(refused.status().code(), StatusCode::kOutOfMemory);
  EXPECT_THAT(std::string(refused.status().message()),
              HasSubstr("GPU 0 (emulated)"));
}

// What says that it is no emulated GPU, and gets the kernels that this program has for real ones: none.
class Real : public GpuSystem {
 public:
  explicit Real(std::shared_ptr<GpuSystem> inner) : inner_(std::move(inner)) {}
  int count() const override { return inner_->count(); }
  Gpu& gpu(int index) override { return inner_->gpu(index); }
  bool emulated() const override { return false; }
  std::string Describe() const override { return inner_->Describe(); }
  bool Addresses(const void* data) const override {
    return inner_->Addresses(data);
  }

 private:
  const std::shared_ptr<GpuSystem> inner_;
};

TEST(FlashOfHostTest, EverythingWhereThereIsNoKernel) {
  const EmulatedFlash emulated;
  FlashKernelsOnGpu kernels({.gpus = std::make_shared<Real>(emulated.gpus),
                             .find = &FindFlashKernel});
  const auto made = kernels.Create(kShape);
  ASSERT_TRUE(made.ok());
  EXPECT_EQ(*made, nullptr);
  EXPECT_EQ(kernels.counts().host_shapes, 1);
}

// --- What goes wrong -------------------------------------------------------------------------------------------------

// Launch 0 is Forward's, 1 and 2 are Backward's.
TEST(FlashFaultTest, RefusedLaunch) {
  for (const int launch : {0, 1, 2}) {
    const EmulatedFlash emulated({.faults = {.refused_launch = launch}});
    const auto flash = emulated.Create(kShape);
    GpuProblem problem = Problem();
    const Status status = problem.RunOnGpu(*flash);
    EXPECT_EQ(status.code(), StatusCode::kInternal);
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("attention on GPU 0 (emulated): flash_"));
    // The next call works.
    ASSERT_TRUE(problem.RunOnGpu(*flash).ok());
    problem.ExpectAllRight();
    EXPECT_EQ(emulated.kernels->counts().host_calls, 0);
  }
}

TEST(FlashFaultTest, FailingLaunch) {
  for (const int launch : {0, 1, 2}) {
    const EmulatedFlash emulated({.faults = {.failing_launch = launch}});
    const auto flash = emulated.Create(kShape);
    GpuProblem problem = Problem();
    const Status status = problem.RunOnGpu(*flash);
    EXPECT_EQ(status.code(), StatusCode::kInternal);
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("attention on GPU 0 (emulated): launch"));
    ASSERT_TRUE(problem.RunOnGpu(*flash).ok());
    problem.ExpectAllRight();
  }
}

// A kernel that does not end may write for as long as it likes: no call after it is right.
TEST(FlashFaultTest, EndlessLaunch) {
  const EmulatedFlash emulated({.faults = {.endless_launch = 0}},
                               std::chrono::milliseconds(50));
  const auto flash = emulated.Create(kShape);
  GpuProblem problem = Problem();
  for (int call = 0; call < 2; ++call) {
    const Status status = flash->Forward({}, problem.ForwardOnGpu());
    EXPECT_EQ(status.code(), StatusCode::kTimeout);
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("attention on GPU 0 (emulated)"));
  }
  EXPECT_EQ(emulated.kernels->counts().launches, 1);
  EXPECT_EQ(emulated.kernels->counts().gpu_calls, 0);
}

// The attention goes while its kernel goes on, and with it nothing that the
// kernel writes.
TEST(FlashFaultTest, AnAbortedWorldEndsTheWait) {
  const EmulatedFlash emulated({.faults = {.endless_launch = 0}},
                               std::chrono::minutes(10),
                               std::chrono::milliseconds(20));
  const auto of_rank =
      emulated.kernels->ForWorld([] { return Aborted("rank 3 gave up"); });
  GpuProblem problem = Problem();
  {
    auto flash = of_rank->Create(kShape);
    ASSERT_TRUE(flash.ok());
    EXPECT_EQ((*flash)->Forward({}, problem.ForwardOnGpu()).ToString(),
              "aborted: attention on GPU 0 (emulated): rank 3 gave up");
  }
  const Status next =
      emulated.Create(kShape)->Forward({}, problem.ForwardOnGpu());
  EXPECT_EQ(next.code(), StatusCode::kTimeout);
  EXPECT_THAT(std::string(next.message()),
              HasSubstr("was not done within 20 ms"));
  EXPECT_EQ(emulated.kernels->counts().launches, 1);
  EXPECT_EQ(of_rank->counts().gpu_calls, 0);
}

// Calls of several threads take turns: nothing is launched while another call
// waits for its kernel.
TEST(FlashFaultTest, OthersAwaitTheirTurn) {
  const EmulatedFlash emulated({.faults = {.endless_launch = 0}},
                               std::chrono::milliseconds(300));
  const auto stream = Stream::Create("attention");
  ASSERT_TRUE(stream.ok());
  const auto one = emulated.Create(kShape), other = emulated.Create(kShape);
  GpuProblem first = Problem(), second = Problem();
  ASSERT_TRUE(one->Forward(*stream, first.ForwardOnGpu()).ok());
  while (emulated.kernels->counts().launches == 0) std::this_thread::yield();
  EXPECT_EQ(other->Forward({}, second.ForwardOnGpu()).code(),
            StatusCode::kTimeout);
  EXPECT_EQ(stream->Synchronize().code(), StatusCode::kTimeout);
  EXPECT_EQ(emulated.kernels->counts().launches, 1);
}

// On a stream an error comes with its end.
TEST(FlashFaultTest, OnAStream) {
  const EmulatedFlash emulated({.faults = {.failing_launch = 0}});
  const auto stream = Stream::Create("attention");
  ASSERT_TRUE(stream.ok());
  const auto flash = emulated.Create(kShape);
  GpuProblem problem = Problem();
  EXPECT_TRUE(flash->Forward(*stream, problem.ForwardOnGpu()).ok());
  EXPECT_EQ(stream->Synchronize().code(), StatusCode::kInternal);
}

}  // namespace
}  // namespace shardproof::cuda
