// Staging, what is left to the host, several threads, and what a GPU refuses.
#include "layers/kernels/cuda/device/gpu_call.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <numeric>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "layers/kernels/activation.h"
#include "layers/kernels/cuda/device/device_testing.h"
#include "layers/kernels/dropout.h"
#include "layers/kernels/norm.h"
#include "layers/kernels/optimizer.h"

namespace shardproof::cuda {
namespace {

using std::chrono::milliseconds;
using ::testing::AllOf;
using ::testing::HasSubstr;
using testing::OnGpu;
using testing::OpenGpus;

std::string MessageOf(const Status& status) {
  return std::string(status.message());
}

// What `from` holds, read and written by a kernel that is none.
void Touch(FiberThread& thread, void* const* parameters) {
  const auto* const from = *static_cast<const int64_t* const*>(parameters[0]);
  auto* const to = *static_cast<int64_t* const*>(parameters[1]);
  const int64_t n = *static_cast<const int64_t*>(parameters[2]);
  if (thread.block() != 0 || thread.thread() != 0) return;
  for (int64_t i = 0; i < n; ++i) to[i] = from[i] + 1;
}
GridLaunch TouchLaunch(const int64_t* from, int64_t* to, int64_t n) {
  GridLaunch launch;
  launch.name = "Touch";
  launch.emulated = &Touch;
  SetParameters(launch, from, to, n);
  return launch;
}

TEST(GpuCallTest, StagesWhatTheGpuCannotAddress) {
  const auto gpus = OpenGpus({});
  GpuLanes lanes({.gpus = gpus, .gpu = 0});
  const Buffer there = gpus->gpu(0).Allocate(80).value();
  auto* const managed = there.as<int64_t>();
  std::iota(managed, managed + 10, 0);
  std::vector<int64_t> host(10);
  GpuCall call(lanes);
  const int64_t* const in = call.In(managed, 80);
  int64_t* const out = call.Out(host.data(), 80);
  EXPECT_EQ(in, managed);
  EXPECT_NE(out, host.data());
  EXPECT_TRUE(gpus->Addresses(out));
  EXPECT_EQ(reinterpret_cast<uintptr_t>(out) % 64, 0u);
  call.Launch(TouchLaunch(in, out, 10));
  const Status done = call.Finish();
  ASSERT_TRUE(done.ok()) << done.ToString();
  EXPECT_THAT(host, ::testing::ElementsAre(1, 2, 3, 4, 5, 6, 7, 8, 9, 10));
  EXPECT_EQ(lanes.staged_bytes(), 80);
  EXPECT_EQ(lanes.launches(), 1);
}

TEST(GpuCallTest, StagesTheSameMemoryOnceWhateverComesFirst) {
  for (const bool out_first : {false, true}) {
    const auto gpus = OpenGpus({});
    GpuLanes lanes({.gpus = gpus, .gpu = 0});
    std::vector<int64_t> data = {4, 5, 6};
    GpuCall call(lanes);
    int64_t* out = out_first ? call.Out(data.data(), 24) : nullptr;
    const int64_t* const in = call.In(data.data(), 24);
    if (!out_first) out = call.Out(data.data(), 24);
    EXPECT_EQ(in, out);
    call.Launch(TouchLaunch(in, out, 3));
    ASSERT_TRUE(call.Finish().ok());
    EXPECT_THAT(data, ::testing::ElementsAre(5, 6, 7));
    EXPECT_EQ(lanes.staged_bytes(), 24);
  }
}

TEST(GpuCallTest, LeavesNullAndEmptyOperandsAsTheyAre) {
  const auto gpus = OpenGpus({});
  GpuLanes lanes({.gpus = gpus, .gpu = 0});
  std::vector<int64_t> data = {4};
  GpuCall call(lanes);
  EXPECT_EQ(call.In(static_cast<const int64_t*>(nullptr), 80), nullptr);
  EXPECT_EQ(call.Out(data.data(), 0), data.data());
  ASSERT_TRUE(call.Finish().ok());
  EXPECT_EQ(lanes.staged_bytes(), 0);
}

// What lies between rows is neither read nor written.
TEST(GpuCallTest, StagesRowsAlone) {
  const auto gpus = OpenGpus({});
  GpuLanes lanes({.gpus = gpus, .gpu = 0});
  std::vector<int64_t> data = {1, 2, 100, 3, 4, 100, 5, 6};
  GpuCall call(lanes);
  const GpuCall::Staged rows =
      call.InOutRows(data.data(), {.count = 3, .bytes = 16, .stride = 24});
  EXPECT_EQ(rows.stride, 16);
  auto* const at = static_cast<int64_t*>(rows.data);
  EXPECT_THAT(std::vector<int64_t>(at, at + 6),
              ::testing::ElementsAre(1, 2, 3, 4, 5, 6));
  data[2] = 200;
  call.Launch(TouchLaunch(at, at, 6));
  ASSERT_TRUE(call.Finish().ok());
  EXPECT_THAT(data, ::testing::ElementsAre(2, 3, 200, 4, 5, 100, 6, 7));
}

// More than the first chunk, and then again.
TEST(GpuCallTest, ScratchGrowsAndIsReused) {
  const auto gpus = OpenGpus({});
  GpuLanes lanes({.gpus = gpus, .gpu = 0});
  std::vector<int64_t*> pieces;
  for (int round = 0; round < 4; ++round) {
    GpuCall call(lanes);
    auto* const small = call.Make<int64_t>(5, true);
    EXPECT_EQ(std::accumulate(small, small + 5, int64_t{0}), 0);
    std::fill_n(small, 5, 7);
    auto* const large = call.Make<int64_t>(40000);
    std::fill_n(large, 40000, 1);
    EXPECT_EQ(small[0], 7);
    EXPECT_EQ(small[4], 7);
    ASSERT_TRUE(call.Finish().ok());
    pieces.push_back(small);
  }
  // Chunks double until one holds a whole call.
  EXPECT_NE(pieces[0], pieces[3]);
  EXPECT_EQ(pieces[2], pieces[3]);
}

TEST(GpuCallTest, GridsOfAnEmulatedGpuAreSmall) {
  for (const int multiprocessors : {1, 8}) {
    const auto gpus = OpenGpus({.multiprocessors = multiprocessors});
    const GpuLanes lanes({.gpus = gpus, .gpu = 0});
    const LaunchShape large = lanes.Limited({1000, 512});
    EXPECT_EQ(large.blocks, multiprocessors == 1 ? 1 : 2);
    EXPECT_EQ(large.threads, 64);
    const LaunchShape small = lanes.Limited({1, 32});
    EXPECT_EQ(small.blocks, 1);
    EXPECT_EQ(small.threads, 32);
  }
}

TEST(LayerLaunchTest, EveryKernelHasANameAndABody) {
  std::set<std::string_view> names;
  std::set<FiberBody> bodies;
  size_t wanted = 0;
  for (int number = 0; number < kLayerKernels; ++number) {
    const auto kernel = static_cast<LayerKernel>(number);
    names.insert(Name(kernel));
    for (const DType dtype : testing::kTypes) {
      const FiberBody body = FindLayerKernelForFibers(kernel, dtype);
      ASSERT_NE(body, nullptr) << Name(kernel) << " of " << Name(dtype);
      bodies.insert(body);
    }
    wanted += IsOfOneType(kernel) ? 1 : 3;
  }
  EXPECT_EQ(names.size(), static_cast<size_t>(kLayerKernels));
  EXPECT_EQ(names.count(""), 0u);
  EXPECT_EQ(Name(LayerKernel::kRope), "Rope");
  // The two of f32 parameters with f32 gradients may be one.
  EXPECT_GE(bodies.size(), wanted - 2);
  EXPECT_EQ(FindLayerKernelForFibers(LayerKernel::kGelu, DType::kF64), nullptr);
}

// --- What is left to the host -----------------------------------------------

const Stream kStream = Stream::Inline();

TEST(LeftToHostTest, OtherTypesAndPlaces) {
  OnGpu on;
  std::vector<double> x = {1, 2}, y(2);
  ASSERT_TRUE(Gelu(kStream, DType::kF64, 2, x.data(), y.data()).ok());
  EXPECT_GT(y[1], 1.9);
  EXPECT_EQ(on.counts().left_to_host, 1);
  // Rounded where it is.
  std::vector<float> sums = {1, 2};
  ASSERT_TRUE(
      RoundSums(kStream, DType::kBF16, 2, sums.data(), sums.data()).ok());
  EXPECT_EQ(on.counts().left_to_host, 2);
  EXPECT_EQ(on.counts().launches, 0);
  const int64_t many = (int64_t{1} << 30) + 1;
  EXPECT_FALSE(
      on.kernels().AddBias(DType::kF32, 1, many, nullptr, nullptr).has_value());
  EXPECT_EQ(on.counts().left_to_host, 3);
}

TEST(LeftToHostTest, NothingIsLaunchedForNothing) {
  OnGpu on;
  std::vector<float> sums(3, -1);
  ASSERT_TRUE(Gelu(kStream, DType::kF32, 0, nullptr, nullptr).ok());
  // No rows: the host writes zeros.
  ASSERT_TRUE(ColumnSum(kStream, DType::kF32, 0, 3, nullptr, sums.data()).ok());
  EXPECT_THAT(sums, ::testing::Each(0));
  EXPECT_EQ(on.counts().launches, 0);
  EXPECT_EQ(on.counts().left_to_host, 0);
}

// --- Threads ----------------------------------------------------------------

TEST(GpuCallTest, ServesSeveralThreads) {
  OnGpu on;
  constexpr int kThreads = 4, kCalls = 20;
  std::vector<std::string> wrong(kThreads);
  std::vector<std::thread> threads;
  for (int t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t, context = CurrentContext()] {
      SetCurrentContext(context);
      for (int k = 0; k < kCalls; ++k) {
        const int64_t n = 1 + (t * 31 + k * 7) % 100;
        std::vector<float> x(static_cast<size_t>(n), static_cast<float>(t));
        std::vector<float> b(x.size(), static_cast<float>(k));
        const Status status =
            AddBias(kStream, DType::kF32, 1, n, b.data(), x.data());
        if (!status.ok()) wrong[t] = status.ToString();
        for (const float v : x) {
          if (v != static_cast<float>(t + k)) wrong[t] = "a wrong sum";
        }
      }
      SetCurrentContext(nullptr);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_THAT(wrong, ::testing::Each(""));
  EXPECT_EQ(on.counts().launches, kThreads * kCalls);
}

// --- Failures ---------------------------------------------------------------

Status BiasOfOne(std::vector<float>& y) {
  const std::vector<float> b(y.size(), 1);
  return AddBias(kStream, DType::kF32, 1, static_cast<int64_t>(y.size()),
                 b.data(), y.data());
}

// What fails leaves the result as it was, and the next call works.
TEST(GpuFaultsTest, ALaunchThatIsRefusedOrFailsIsAnError) {
  for (const bool refused : {false, true}) {
    EmulatedFaults faults;
    (refused ? faults.refused_launch : faults.failing_launch) = 0;
    OnGpu on({.faults = faults});
    std::vector<float> y(10, 5);
    const Status status = BiasOfOne(y);
    EXPECT_EQ(status.code(), StatusCode::kInternal);
    EXPECT_THAT(MessageOf(status),
                AllOf(HasSubstr("AddBias"),
                      HasSubstr(refused ? "refused" : "told to fail")));
    EXPECT_THAT(y, ::testing::Each(5));
    ASSERT_TRUE(BiasOfOne(y).ok());
    EXPECT_THAT(y, ::testing::Each(6));
  }
}

// The second of three: the first is waited for, the third is not launched.
TEST(GpuFaultsTest, ALaterLaunchThatIsRefusedEndsTheCall) {
  OnGpu on({.faults = {.refused_launch = 1}});
  std::vector<BFloat16> x(100, BFloat16(1.F)), sums(20, BFloat16(-1.F));
  const Status status =
      ColumnSum(kStream, DType::kBF16, 5, 20, x.data(), sums.data());
  EXPECT_THAT(MessageOf(status),
              AllOf(HasSubstr("SumPartials"), HasSubstr("refused")));
  EXPECT_EQ(on.counts().launches, 1);
  for (const BFloat16 sum : sums) EXPECT_EQ(static_cast<float>(sum), -1);
  ASSERT_TRUE(
      ColumnSum(kStream, DType::kBF16, 5, 20, x.data(), sums.data()).ok());
  for (const BFloat16 sum : sums) EXPECT_EQ(static_cast<float>(sum), 5);
}

TEST(GpuFaultsTest, AFailedSumIsNotAddedTo) {
  OnGpu on({.faults = {.failing_launch = 0}});
  SquareSum total = {.sum = 3};
  const std::vector<float> x(10, 2);
  EXPECT_FALSE(AddSquares(kStream, DType::kF32, 10, x.data(), &total).ok());
  EXPECT_EQ(total.sum, 3);
}

TEST(GpuFaultsTest, ALaunchWithoutEndIsATimeoutAndEndsAllThatFollow) {
  OnGpu on({.faults = {.endless_launch = 0}}, milliseconds(50));
  std::vector<float> y(10, 5);
  const Status status = BiasOfOne(y);
  EXPECT_EQ(status.code(), StatusCode::kTimeout);
  EXPECT_THAT(MessageOf(status),
              HasSubstr("GPU 0 (emulated): AddBias: the stream was not done"));
  const Status next = BiasOfOne(y);
  EXPECT_EQ(next.code(), StatusCode::kTimeout);
  EXPECT_EQ(MessageOf(next), MessageOf(status));
  EXPECT_EQ(on.counts().launches, 1);
  EXPECT_THAT(y, ::testing::Each(5));
}

// A kernel that works until somebody has asked for the health of the world.
void UntilAsked(FiberThread& /*thread*/, void* const* parameters) {
  const auto* const asked =
      *static_cast<const std::atomic<bool>* const*>(parameters[0]);
  while (!asked->load()) std::this_thread::yield();
}

TEST(GpuAbortTest, AKernelThatEndsSoonAfterItLosesNothing) {
  const auto gpus = OpenGpus({});
  GpuLanes lanes({.gpus = gpus,
                  .gpu = 0,
                  .timeout = std::chrono::minutes(1),
                  .grace = std::chrono::minutes(1)});
  std::atomic<bool> asked = false;
  const WorldHealth health = [&] {
    asked = true;
    return Aborted("rank 3 gave up");
  };
  {
    GpuCall call(lanes, &health);
    GridLaunch launch;
    launch.name = "UntilAsked";
    launch.emulated = &UntilAsked;
    SetParameters(launch, static_cast<const std::atomic<bool>*>(&asked));
    call.Launch(launch);
    EXPECT_EQ(call.Finish().ToString(),
              "aborted: GPU 0 (emulated): UntilAsked: rank 3 gave up");
  }
  // Of another world.
  std::vector<int64_t> data = {4, 5, 6};
  GpuCall next(lanes);
  int64_t* const at = next.InOut(data.data(), 24);
  next.Launch(TouchLaunch(at, at, 3));
  const Status done = next.Finish();
  ASSERT_TRUE(done.ok()) << done.ToString();
  EXPECT_THAT(data, ::testing::ElementsAre(5, 6, 7));
}

TEST(GpuAbortTest, AKernelWithoutEndIsGivenUp) {
  const auto gpus = OpenGpus({.faults = {.endless_launch = 0}});
  const LayerKernelsOnGpu all(
      GpuLanesOptions{.gpus = gpus,
                      .gpu = 0,
                      .timeout = std::chrono::minutes(1),
                      .grace = milliseconds(20)});
  const auto of_rank = all.ForWorld([] { return Aborted("rank 3 gave up"); });
  std::vector<float> b(10, 1), y(10, 5);
  const auto add = [&] {
    return *of_rank->AddBias(DType::kF32, 1, 10, b.data(), y.data());
  };
  EXPECT_EQ(add().ToString(),
            "aborted: GPU 0 (emulated): AddBias: rank 3 gave up");
  EXPECT_EQ(all.counts().launches, 1);
  const Status next = add();
  EXPECT_EQ(next.code(), StatusCode::kTimeout);
  EXPECT_THAT(MessageOf(next), HasSubstr("was not done within 20 ms"));
  EXPECT_THAT(y, ::testing::Each(5));
}

TEST(GpuFaultsTest, NoMemoryForStagingIsAnError) {
  OnGpu on({.memory_bytes = size_t{128} << 10});
  std::vector<float> large(100000, 5), small(10, 5);
  const Status status = BiasOfOne(large);
  EXPECT_EQ(status.code(), StatusCode::kOutOfMemory);
  EXPECT_THAT(MessageOf(status), HasSubstr("GPU 0 (emulated)"));
  EXPECT_EQ(on.counts().launches, 0);
  EXPECT_THAT(large, ::testing::Each(5));
  ASSERT_TRUE(BiasOfOne(small).ok());
  EXPECT_THAT(small, ::testing::Each(6));
}

// Emulated GPUs run no code for CUDA, and GPUs no fibers.
TEST(GpuFaultsTest, AKernelThatIsNotThereIsUnsupported) {
  const auto gpus = OpenGpus({});
  GpuLanes lanes({.gpus = gpus, .gpu = 0});
  GridLaunch launch;
  launch.name = "Nothing";
  GpuCall call(lanes);
  call.Launch(launch);
  EXPECT_EQ(call.Finish().code(), StatusCode::kUnsupported);
}

}  // namespace
}  // namespace shardproof::cuda
