#include "collectives/backend/node/abort_flag.h"

#include <gtest/gtest.h>

#include <barrier>
#include <string>
#include <thread>

namespace shardproof {
namespace {

TEST(AbortFlagTest, IsDownAtFirst) {
  const AbortFlag flag;
  EXPECT_FALSE(flag.raised());
  EXPECT_TRUE(flag.status().ok());
}

TEST(AbortFlagTest, TheFirstReasonStays) {
  AbortFlag flag;
  flag.Raise("first");
  flag.Raise("second");
  EXPECT_TRUE(flag.raised());
  EXPECT_EQ(flag.status().code(), StatusCode::kAborted);
  EXPECT_EQ(flag.status().message(), "first");
}

TEST(AbortFlagTest, CutsALongReason) {
  AbortFlag flag;
  flag.Raise(std::string(10000, 'a'));
  EXPECT_EQ(flag.status().message(), std::string(500, 'a'));
}

// Whoever sees that the flag is up can read why, however soon.
TEST(AbortFlagTest, TheReasonIsThereWhenTheFlagIsUp) {
  const std::string reason(500, 'r');
  for (int trial = 0; trial < 5000; ++trial) {
    AbortFlag flag;
    std::barrier start(2);
    std::thread raiser([&] {
      start.arrive_and_wait();
      flag.Raise(reason);
    });
    start.arrive_and_wait();
    while (!flag.raised()) {
    }
    const Status status = flag.status();
    raiser.join();
    ASSERT_EQ(status.code(), StatusCode::kAborted) << "trial " << trial;
    ASSERT_EQ(status.message(), reason) << "trial " << trial;
  }
}

TEST(AbortFlagTest, IsUpForTheLaterOfTwoRaisers) {
  const std::string reason(500, 'r');
  for (int trial = 0; trial < 5000; ++trial) {
    AbortFlag flag;
    std::barrier start(2);
    std::thread other([&] {
      start.arrive_and_wait();
      flag.Raise(reason);
    });
    start.arrive_and_wait();
    flag.Raise(reason);
    const bool raised = flag.raised();
    other.join();
    ASSERT_TRUE(raised) << "trial " << trial;
  }
}

}  // namespace
}  // namespace shardproof
