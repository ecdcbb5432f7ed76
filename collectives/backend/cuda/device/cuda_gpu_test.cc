// The GPUs of this machine: what is said where there is none, and, where there are, memory, streams, events, and every
// primitive by the kernels against the serial reference.
#include "collectives/backend/cuda/device/cuda_gpu.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <memory>
#include <numeric>
#include <string>
#include <string_view>
#include <vector>

#include "collectives/backend/cuda/device/cuda_world.h"
#include "collectives/testing/check.h"
#include "collectives/testing/native_check.h"

namespace shardproof::cuda {
namespace {

using ::testing::AnyOf;
using ::testing::HasSubstr;
using ::testing::Not;

constexpr std::chrono::seconds kLong(60);

StatusOr<std::shared_ptr<GpuSystem>>& Gpus() {
  static auto* const gpus =
      new StatusOr<std::shared_ptr<GpuSystem>>(OpenCudaGpus());
  return *gpus;
}

TEST(CudaGpuTest, SaysInOneSentenceWhatIsMissing) {
  if (Gpus().ok()) {
    EXPECT_GE((*Gpus())->count(), 1);
    return;
  }
  EXPECT_EQ(Gpus().status().code(), StatusCode::kUnavailable);
  const std::string why(Gpus().status().message());
  EXPECT_THAT(why, AnyOf(HasSubstr("no CUDA driver"), HasSubstr("too old"),
                         HasSubstr("no GPU")));
  EXPECT_THAT(why, Not(HasSubstr("\n")));
}

class OnGpuTest : public ::testing::Test {
 protected:
  void SetUp() override {
    if (Gpus().ok()) return;
    const char* required = std::getenv("SHARDPROOF_REQUIRE_GPU");
    if (required != nullptr && std::string_view(required) == "1") {
      GTEST_FAIL() << Gpus().status().ToString();
    }
    GTEST_SKIP() << Gpus().status().message();
  }
};

TEST_F(OnGpuTest, SharesManagedMemoryWithTheHost) {
  Gpu& gpu = (*Gpus())->gpu(0);
  constexpr size_t kCount = size_t{1} << 20;
  const Buffer a = gpu.Allocate(kCount * sizeof(int)).value();
  const Buffer b = gpu.Allocate(kCount * sizeof(int)).value();
  EXPECT_EQ(reinterpret_cast<uintptr_t>(a.data()) % (2 << 20), 0u);
  std::iota(a.as<int>(), a.as<int>() + kCount, 7);
  const auto stream = gpu.NewStream().value();
  const auto from = gpu.NewEvent().value();
  const auto to = gpu.NewEvent().value();
  ASSERT_TRUE(stream->Record(*from).ok());
  ASSERT_TRUE(stream->Copy(b.data(), a.data(), a.bytes()).ok());
  ASSERT_TRUE(stream->Record(*to).ok());
  const Status done = Synchronize(*stream, kLong);
  ASSERT_TRUE(done.ok()) << done.ToString();
  EXPECT_TRUE(std::equal(a.as<int>(), a.as<int>() + kCount, b.as<int>()));
  EXPECT_GT(gpu.Microseconds(*from, *to).value(), 0);
}

TEST_F(OnGpuTest, KnowsWhatKernelsAddress) {
  const Buffer data = (*Gpus())->gpu(0).Allocate(100).value();
  const std::vector<std::byte> ordinary(100);
  EXPECT_TRUE((*Gpus())->Addresses(data.data() + 50));
  EXPECT_FALSE((*Gpus())->Addresses(ordinary.data()));
  EXPECT_FALSE((*Gpus())->Addresses(nullptr));
}

TEST_F(OnGpuTest, RefusesMoreBlocksThanItHolds) {
  const CollectiveLaunch launch{
      .ranks = 16, .blocks = kMaxBlocks, .threads = 512};
  EXPECT_EQ((*Gpus())->gpu(0).Prepare(launch).code(), StatusCode::kUnsupported);
}

// Some ranks share a GPU and some do not, as many as there are GPUs.
class RanksOnGpuTest : public OnGpuTest,
                       public ::testing::WithParamInterface<int> {};
INSTANTIATE_TEST_SUITE_P(, RanksOnGpuTest, ::testing::Values(1, 2, 3, 4, 8));

TEST_P(RanksOnGpuTest, MatchTheReference) {
  const auto world = CreateCudaWorld({.ranks = GetParam(), .gpus = *Gpus()});
  ASSERT_TRUE(world.ok()) << world.status().ToString();
  const Status status = (*world)->Run([](const Communicator& comm) {
    return testing::CheckNative(
        comm, {.run = [&](const NativeRequest& r) { return comm.Native(r); },
               .refuses =
                   [](const NativeRequest& r) {
                     return r.primitive.ends_with("_v") ||
                            r.primitive == "gather" || r.primitive == "scatter";
                   },
               .allocated = true});
  });
  EXPECT_TRUE(status.ok()) << status.ToString();
}

}  // namespace
}  // namespace shardproof::cuda
