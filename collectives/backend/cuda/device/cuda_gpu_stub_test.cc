// What is said where this program was built without CUDA.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "collectives/backend/cuda/device/cuda_gpu.h"

namespace shardproof::cuda {
namespace {

TEST(CudaGpuStubTest, SaysThatThereIsNoCuda) {
  const auto gpus = OpenCudaGpus();
  EXPECT_EQ(gpus.status().code(), StatusCode::kUnavailable);
  EXPECT_THAT(std::string(gpus.status().message()),
              ::testing::HasSubstr("built without CUDA"));
}

}  // namespace
}  // namespace shardproof::cuda
