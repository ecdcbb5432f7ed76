#include "layers/kernels/cuda/launch.h"

#include <gtest/gtest.h>

#include "reference/dtype.h"

namespace shardproof::cuda {
namespace {

constexpr int64_t kSizes[] = {0, 1, 31, 33, 1000, 4096, 8192, 16384, 50257};

void ExpectLaunchable(const LaunchShape& shape) {
  EXPECT_GE(shape.blocks, 1);
  EXPECT_GE(shape.threads, kLanes);
  EXPECT_LE(shape.threads, kMaxTeam);
  EXPECT_EQ(shape.threads % kLanes, 0);
}

TEST(LaunchTest, RowsStayInRegistersWithAsFewWarpsAsThatNeeds) {
  for (const int bytes : {2, 4}) {
    for (const int packets : {2, 4}) {
      for (const int64_t columns : kSizes) {
        const int threads = RowThreads(columns, bytes, packets);
        const int64_t of_thread = int64_t{16} / bytes * packets;
        ExpectLaunchable({1, threads});
        EXPECT_TRUE(threads * of_thread >= columns || threads == kMaxTeam);
        EXPECT_TRUE((threads - kLanes) * of_thread < columns ||
                    threads == kLanes);
      }
    }
  }
  // What the headers say.
  EXPECT_EQ(RowThreads(4096, SizeOf(DType::kBF16)), 128);
  EXPECT_EQ(RowThreads(16384, SizeOf(DType::kBF16)), kMaxTeam);
  EXPECT_EQ((RowPass<8, 4>::Capacity(kMaxTeam)), 16384);
}

TEST(LaunchTest, GridsCoverEverythingAndNoMoreThanTheGpuHolds) {
  constexpr int kMultiprocessors = 132;
  for (const int64_t rows : kSizes) {
    EXPECT_EQ(RowLaunch(rows, 64, 2).blocks, std::max<int64_t>(rows, 1));
    for (const int64_t columns : kSizes) {
      const LaunchShape sums = RowSumLaunch(rows, columns, 2, kMultiprocessors);
      ExpectLaunchable(sums);
      EXPECT_LE(sums.blocks, std::max<int64_t>(rows, 1));
      EXPECT_LE(sums.blocks * sums.threads, kMultiprocessors * kMaxTeam);
      const LaunchShape partial = PartialSumLaunch(sums.blocks, columns);
      ExpectLaunchable(partial);
      EXPECT_GE(int64_t{partial.blocks} * kLanes, columns);
    }
    const LaunchShape tensor = TensorLaunch(rows, 2, kMultiprocessors);
    ExpectLaunchable(tensor);
    EXPECT_LE(tensor.blocks, 8 * kMultiprocessors);
    EXPECT_TRUE(int64_t{tensor.blocks} * tensor.threads * 8 >= rows ||
                tensor.blocks == 8 * kMultiprocessors);
    // No block without an element.
    EXPECT_TRUE(int64_t{tensor.blocks - 1} * tensor.threads * 8 < rows ||
                tensor.blocks == 1);
  }
  EXPECT_EQ(RowLaunch(int64_t{1} << 40, 8, 4).blocks, kMostBlocks);
}

}  // namespace
}  // namespace shardproof::cuda
