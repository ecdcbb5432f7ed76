#include "collectives/direct/staged.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <string>
#include <thread>
#include <vector>

#include "collectives/backend/thread/thread_world.h"

namespace shardproof::direct {
namespace {

constexpr int kRanks = 3;
constexpr int kFailing = 1;
constexpr int64_t kCount = 200'000;  // Four chunks of staging memory.

struct Form {
  std::string name;
  int cores;  // How often a rank's core is called.
  Status (*run)(const Communicator&, const Ends&,
                const std::function<Core>& core);
};
const Form kForms[] = {
    {"direct", 1,
     [](const Communicator& comm, const Ends& ends,
        const std::function<Core>& core) {
       return RunDirect(comm, ends, core);
     }},
    {"with a block of its own", 1,
     [](const Communicator& comm, const Ends& ends,
        const std::function<Core>& core) {
       return RunDirect(comm, ends, {}, {}, core);
     }},
    {"staged", 4,
     [](const Communicator& comm, const Ends& ends,
        const std::function<Core>& core) {
       return RunStaged(comm, ends, core);
     }},
};

// Its buffers are free to go once it has returned.
TEST(Staged, WhoFailsWaitsForThoseAtWorkInItsBuffers) {
  for (const Form& form : kForms) {
    std::atomic<bool> failed = false;
    std::atomic<int> at_work = (kRanks - 1) * form.cores;
    const auto core = [&](const Communicator& comm) {
      if (comm.rank() == kFailing) {
        failed = true;
        return Internal("rank {} fails", kFailing);
      }
      while (!failed) std::this_thread::yield();
      // Long enough for a rank that does not wait to be gone.
      std::this_thread::sleep_for(std::chrono::milliseconds(5));
      --at_work;
      return OkStatus();
    };
    const Status world =
        RunThreads(kRanks, [&](const Communicator& comm) -> Status {
          std::vector<float> send(kCount), recv(kCount);
          const Blocks whole = Blocks::Even(kCount, 1);
          const Status status = form.run(
              comm, {send.data(), whole, recv.data(), whole, DType::kF32},
              [&](const Peers&, const Blocks&, const Blocks&) {
                return core(comm);
              });
          if (comm.rank() != kFailing) return status;
          EXPECT_EQ(status.ToString(), Internal("rank 1 fails").ToString());
          if (at_work != 0) return Internal("{} are at work", at_work.load());
          return OkStatus();
        });
    EXPECT_TRUE(world.ok()) << form.name << ": " << world.ToString();
  }
}

}  // namespace
}  // namespace shardproof::direct
