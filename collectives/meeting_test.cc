// Meetings as algorithms use them. The rounds themselves are tested with the
// board (backend/node/board_test.cc).
#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#include "collectives/backend/thread/thread_world.h"
#include "collectives/communicator.h"

namespace shardproof {
namespace {

class Meeting : public ::testing::TestWithParam<int> {
 protected:
  void Run(const std::function<Status(const Communicator&)>& rank_main) {
    const Status status = RunThreads(GetParam(), rank_main);
    EXPECT_TRUE(status.ok()) << status.ToString();
  }
};
INSTANTIATE_TEST_SUITE_P(Ranks, Meeting, ::testing::Values(1, 2, 3, 5, 8));

TEST_P(Meeting, ATwoShotExchangeGivesEveryoneEverything) {
  Run([](const Communicator& comm) -> Status {
    const int ranks = comm.size(), me = comm.rank();
    std::vector<int> send(ranks), recv(ranks);
    for (int round = 0; round < 150; ++round) {
      for (int i = 0; i < ranks; ++i) send[i] = round + 100 * me + i;
      SP_ASSIGN_OR_RETURN(const Peers peers,
                          comm.Meet({send.data(), send.size() * 4, recv.data(),
                                     recv.size() * 4}));
      EXPECT_EQ(peers.size(), ranks);
      EXPECT_TRUE(peers.AllShared());
      EXPECT_EQ(peers.SendBytes(ranks - 1), 4u * ranks);
      EXPECT_EQ(peers.RecvBytes(0), 4u * ranks);
      // Slice `me` of every input, summed, into slice `me` of every output.
      int sum = 0;
      for (int r = 0; r < ranks; ++r) {
        sum += *reinterpret_cast<const int*>(peers.Read(r, 4 * me, 4));
      }
      for (int r = 0; r < ranks; ++r) {
        std::memcpy(peers.Write(r, 4 * me, 4), &sum, 4);
      }
      SP_RETURN_IF_ERROR(comm.Sync());
      const auto total = [&](int slice) {
        return ranks * (round + slice) + 100 * ranks * (ranks - 1) / 2;
      };
      for (int r = 0; r < ranks; ++r) {
        EXPECT_EQ(*reinterpret_cast<const int*>(peers.ReadBack(r, 4 * r, 4)),
                  total(r));
        EXPECT_EQ(recv[r], total(r));
      }
      SP_RETURN_IF_ERROR(comm.Depart(peers));
    }
    return OkStatus();
  });
}

TEST_P(Meeting, AnEagerExchangeInsideAMeetingLeavesItAsItIs) {
  Run([](const Communicator& comm) -> Status {
    const int mine = comm.rank() + 10, eager = comm.rank() + 20;
    SP_ASSIGN_OR_RETURN(const Peers open, comm.Meet({&mine, 4, nullptr, 0}));
    SP_ASSIGN_OR_RETURN(const Peers inner, comm.MeetEager(&eager, 4));
    for (int r = 0; r < comm.size(); ++r) {
      EXPECT_EQ(*reinterpret_cast<const int*>(inner.Read(r, 0, 4)), r + 20);
      EXPECT_EQ(*reinterpret_cast<const int*>(open.Read(r, 0, 4)), r + 10);
    }
    return comm.Depart(open);
  });
}

// The last rank comes only after all others did what they do meanwhile.
TEST_P(Meeting, WhatIsDoneMeanwhileWaitsForNobody) {
  std::atomic<int> met{0}, departed{0};
  const auto last_waits_for = [](const std::atomic<int>& done, int others) {
    const auto limit =
        std::chrono::steady_clock::now() + std::chrono::seconds(20);
    while (done < others && std::chrono::steady_clock::now() < limit) {
      std::this_thread::yield();
    }
    EXPECT_EQ(done, others);
  };
  Run([&](const Communicator& comm) -> Status {
    const int ranks = comm.size(), mine = comm.rank() + 10;
    const bool last = comm.rank() == ranks - 1;
    if (last) last_waits_for(met, ranks - 1);
    SP_ASSIGN_OR_RETURN(
        const Peers peers,
        comm.Meet({.send = &mine, .send_bytes = 4}, [&] { ++met; }));
    EXPECT_GE(met, ranks - 1);
    EXPECT_TRUE(peers.AllShared());
    for (int r = 0; r < ranks; ++r) {
      EXPECT_EQ(*reinterpret_cast<const int*>(peers.Read(r, 0, 4)), r + 10);
    }
    if (last) last_waits_for(departed, ranks - 1);
    SP_RETURN_IF_ERROR(comm.Depart(peers, [&] { ++departed; }));
    EXPECT_GE(departed, ranks - 1);
    return OkStatus();
  });
}

TEST_P(Meeting, TrafficCountsWhatCrossesBetweenRanks) {
  Run([](const Communicator& comm) -> Status {
    const int ranks = comm.size(), me = comm.rank();
    std::vector<std::byte> data(1000), out(1000);
    const Traffic before = comm.traffic();
    SP_ASSIGN_OR_RETURN(const Peers peers,
                        comm.Meet({data.data(), 1000, out.data(), 1000}));
    EXPECT_EQ(comm.traffic(), before);  // Meeting alone moves no payload.
    for (int r = 0; r < ranks; ++r) {
      peers.Read(r, 0, 100 + r);
      peers.Write(r, 10, 7);
      peers.ReadBack(r, 0, 1);
      peers.Read(r, 1000, 0);  // Nothing.
    }
    SP_RETURN_IF_ERROR(comm.Depart(peers));
    const int others = ranks - 1;
    const int64_t read = 100 * others + ranks * (ranks - 1) / 2 - me;
    EXPECT_EQ(comm.traffic() - before,
              (Traffic{.bytes = read + 8 * others, .messages = 3 * others}));
    return OkStatus();
  });
}

TEST_P(Meeting, StagingIsKeptAndPeersCanAddressIt) {
  Run([](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(const auto first, comm.Staging(1000));
    SP_ASSIGN_OR_RETURN(const auto again, comm.Staging(500));
    EXPECT_EQ(first.data(), again.data());
    EXPECT_EQ(first.size(), 1000u);
    EXPECT_EQ(again.size(), 500u);
    SP_ASSIGN_OR_RETURN(const auto larger, comm.Staging(3 << 20));
    EXPECT_EQ(larger.size(), 3u << 20);
    larger.back() = static_cast<std::byte>(comm.rank());
    SP_ASSIGN_OR_RETURN(const Peers peers,
                        comm.Meet({larger.data(), larger.size(), nullptr, 0}));
    EXPECT_TRUE(peers.AllShared());
    for (int r = 0; r < comm.size(); ++r) {
      EXPECT_EQ(*peers.Read(r, (3 << 20) - 1, 1), static_cast<std::byte>(r));
    }
    return comm.Depart(peers);
  });
}

TEST(MeetingErrors, BadOffersAreRefusedBeforeAnyoneWaits) {
  const Status status = RunThreads(2, [](const Communicator& comm) -> Status {
    int value = 0;
    const Status send = comm.Meet({nullptr, 8, &value, 4}).status();
    EXPECT_EQ(send.code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(send.message(),
              "a meeting offers null as send buffer of 8 bytes");
    EXPECT_EQ(comm.Meet({&value, 4, nullptr, 9}).status().message(),
              "a meeting offers null as recv buffer of 9 bytes");
    std::vector<std::byte> large(comm.EagerLimit() + 1);
    EXPECT_EQ(comm.MeetEager(large.data(), large.size()).status().code(),
              StatusCode::kInvalidArgument);
    EXPECT_EQ(comm.MeetEager(nullptr, 1).status().code(),
              StatusCode::kInvalidArgument);
    // All of it was local: the ranks are still in step.
    return comm.Sync();
  });
  EXPECT_TRUE(status.ok()) << status.ToString();
}

}  // namespace
}  // namespace shardproof
