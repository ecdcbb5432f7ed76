#include "collectives/barrier/barrier.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>

#include "collectives/backend/thread/thread_world.h"
#include "collectives/testing/check.h"

namespace shardproof {
namespace {

// Each rank counts itself in before every barrier; behind it all must have been
// counted, however late the last one came.
TEST(Barrier, NobodyLeavesBeforeEverybodyEntered) {
  for (const int p : testing::kWorldSizes) {
    SCOPED_TRACE(p);
    auto world = ThreadWorld::Create({.ranks = p, .pin = false});
    ASSERT_TRUE(world.ok()) << world.status().ToString();
    std::atomic<int> entered = 0;
    const Status status = (*world)->Run([&](const Communicator& comm) {
      for (int round = 1; round <= 20; ++round) {
        if (comm.rank() == round % p) {
          std::this_thread::sleep_for(std::chrono::milliseconds(1));
        }
        ++entered;
        SP_RETURN_IF_ERROR(BarrierDissemination(comm));
        if (entered < round * p) {
          return Internal("rank {} left round {} when {} of {} had entered",
                          comm.rank(), round, entered - (round - 1) * p, p);
        }
        // So that the count stands still while it is read.
        SP_RETURN_IF_ERROR(comm.Barrier());
      }
      return OkStatus();
    });
    EXPECT_TRUE(status.ok()) << status.ToString();
  }
}

TEST(Barrier, CostsWhatItSends) {
  for (const int p : testing::kWorldSizes) {
    auto world = ThreadWorld::Create({.ranks = p, .pin = false});
    ASSERT_TRUE(world.ok()) << world.status().ToString();
    std::atomic<int64_t> bytes = 0, messages = 0;
    const Status status = (*world)->Run([&](const Communicator& comm) {
      const Traffic before = comm.traffic();
      SP_RETURN_IF_ERROR(BarrierDissemination(comm));
      const Traffic mine = comm.traffic() - before;
      bytes += mine.bytes;
      messages += mine.messages;
      return OkStatus();
    });
    EXPECT_TRUE(status.ok()) << status.ToString();
    const Cost cost = BarrierDisseminationCost(p);
    EXPECT_EQ(cost.total, (Traffic{bytes, messages})) << p;
  }
  EXPECT_EQ(BarrierDisseminationCost(1).alpha_count, 0);
  EXPECT_EQ(BarrierDisseminationCost(5).alpha_count, 3);
  EXPECT_EQ(BarrierDisseminationCost(8).alpha_count, 3);
}

}  // namespace
}  // namespace shardproof
