#include "layers/testing/allocations.h"

#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <new>
#include <thread>

namespace shardproof {
namespace {

struct alignas(64) Line {
  char bytes[64];
};

// Kept where the compiler cannot see that it is not used.
void* volatile kept = nullptr;  // NOLINT

template <class Make>
void ExpectCounted(const char* what, int64_t large, Make make) {
  const int64_t all_before = Allocations(), large_before = LargeAllocations();
  const auto p = make();
  kept = p.get();
  EXPECT_EQ(Allocations(), all_before + 1) << what;
  EXPECT_EQ(LargeAllocations(), large_before + large) << what;
}

TEST(Allocations, CountsEveryFormOfNew) {
  ExpectCounted("plain", 0, [] { return std::make_unique<int>(1); });
  ExpectCounted("just too small", 0,
                [] { return std::make_unique<char[]>(4095); });
  ExpectCounted("array", 1, [] { return std::make_unique<char[]>(4096); });
  ExpectCounted("aligned", 0, [] { return std::make_unique<Line>(); });
  ExpectCounted("aligned array", 1,
                [] { return std::make_unique<Line[]>(64); });
  ExpectCounted("nothrow", 1, [] {
    return std::unique_ptr<char[]>(new (std::nothrow) char[5000]);
  });
  ExpectCounted("aligned nothrow", 1, [] {
    return std::unique_ptr<Line[]>(new (std::nothrow) Line[64]);
  });
}

TEST(Allocations, CountsThoseOfOtherThreads) {
  const int64_t before = LargeAllocations();
  std::thread([] {
    const auto p = std::make_unique<char[]>(8192);
    kept = p.get();
  }).join();
  EXPECT_EQ(LargeAllocations(), before + 1);
}

TEST(Allocations, WhatIsAlignedIsAligned) {
  const auto p = std::make_unique<Line>();
  EXPECT_EQ(reinterpret_cast<uintptr_t>(p.get()) % alignof(Line), 0U);
}

}  // namespace
}  // namespace shardproof
