#include "collectives/host_memory.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#include "collectives/backend/node/available_memory.h"

namespace shardproof {
namespace {

TEST(HostMemory, IsAlignedAndWritable) {
  for (const Pages pages : {Pages::kOrdinary, Pages::kHuge}) {
    for (const size_t bytes :
         {size_t{0}, size_t{1}, size_t{129}, (size_t{2} << 20) - 1,
          size_t{2} << 20, (size_t{2} << 20) + 1, size_t{11} << 20}) {
      const auto buffer = AllocateHostMemory(bytes, pages);
      ASSERT_TRUE(buffer.ok()) << buffer.status().ToString();
      EXPECT_EQ(buffer->bytes(), bytes);
      ASSERT_NE(buffer->data(), nullptr);
      const size_t alignment = bytes >= 2 << 20 ? 2 << 20 : 128;
      EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->data()) % alignment, 0u);
      std::fill_n(buffer->data(), bytes, std::byte{1});
      EXPECT_TRUE(std::all_of(buffer->data(), buffer->data() + bytes,
                              [](std::byte b) { return b == std::byte{1}; }));
    }
  }
}

TEST(HostMemory, MoreThanThereIsIsAnError) {
  const size_t available = AvailableMemory();
  for (const size_t bytes :
       {available, size_t{1} << 60, ~size_t{0} - (8 << 20)}) {
    const auto buffer = AllocateHostMemory(bytes, Pages::kHuge);
    EXPECT_EQ(buffer.status().code(), StatusCode::kOutOfMemory);
    EXPECT_EQ(buffer.status().message().rfind(FormatBytes(bytes), 0), 0u)
        << buffer.status().ToString();
    EXPECT_NE(buffer.status().message().find(" are available"),
              std::string_view::npos);
  }
  EXPECT_EQ(AllocateOrdinary(size_t{1} << 60).status().code(),
            StatusCode::kOutOfMemory);
}

// Bytes that this process holds in memory. What the machine has left says
// less: others take and give back gigabytes meanwhile.
size_t ResidentMemory() {
  std::ifstream file("/proc/self/statm");
  size_t mapped = 0;
  size_t resident = 0;
  file >> mapped >> resident;
  EXPECT_TRUE(file.good());
  return resident * static_cast<size_t>(sysconf(_SC_PAGESIZE));
}

TEST(HostMemory, WhatIsGrantedIsNotAvailableAnyMore) {
  constexpr size_t kBytes = size_t{256} << 20;
  constexpr size_t kOfOthers = size_t{8} << 20;
  for (const Pages pages : {Pages::kOrdinary, Pages::kHuge}) {
    const size_t before = ResidentMemory();
    {
      const auto buffer = AllocateHostMemory(kBytes, pages);
      ASSERT_TRUE(buffer.ok());
      EXPECT_GE(ResidentMemory() + kOfOthers, before + kBytes);
    }
    EXPECT_LE(ResidentMemory(), before + kOfOthers);
  }
}

TEST(HostMemory, ZeroedMemoryIsZero) {
  for (const size_t bytes : {size_t{1}, size_t{4096}, size_t{3} << 20}) {
    const auto buffer = AllocateZeroed(bytes);
    ASSERT_TRUE(buffer.ok());
    EXPECT_EQ(buffer->bytes(), bytes);
    EXPECT_EQ(reinterpret_cast<uintptr_t>(buffer->data()) % 4096, 0u);
    EXPECT_TRUE(std::all_of(buffer->data(), buffer->data() + bytes,
                            [](std::byte b) { return b == std::byte{0}; }));
  }
}

TEST(HostMemory, ABufferMoves) {
  auto first = AllocateHostMemory(100, Pages::kOrdinary);
  ASSERT_TRUE(first.ok());
  std::byte* const data = first->data();
  Buffer second = *std::move(first);
  EXPECT_EQ(second.data(), data);
  EXPECT_EQ(second.bytes(), 100u);
  EXPECT_EQ(second.as<int>(), reinterpret_cast<int*>(data));
  Buffer third;
  third = std::move(second);
  EXPECT_EQ(third.data(), data);
  EXPECT_EQ(second.data(), nullptr);  // NOLINT(bugprone-use-after-move)
  EXPECT_EQ(second.bytes(), 0u);
}

}  // namespace
}  // namespace shardproof
