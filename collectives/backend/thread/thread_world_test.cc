#include "collectives/backend/thread/thread_world.h"

#include <gtest/gtest.h>
#include <pthread.h>
#include <sched.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <set>
#include <thread>
#include <vector>

#include "collectives/backend/node/wait.h"
#include "collectives/current_rank.h"

namespace shardproof {
namespace {

std::unique_ptr<ThreadWorld> MakeWorld(const ThreadWorldOptions& options) {
  auto world = ThreadWorld::Create(options);
  EXPECT_TRUE(world.ok()) << world.status().ToString();
  return *std::move(world);
}

TEST(ThreadWorldTest, RunsEveryRankOnce) {
  for (const int ranks : {1, 2, 3, 5, 8}) {
    const auto world = MakeWorld({.ranks = ranks});
    EXPECT_EQ(world->ranks(), ranks);
    std::vector<int> calls(ranks);
    for (int run = 1; run <= 3; ++run) {
      const Status status = world->Run([&](const Communicator& comm) {
        EXPECT_EQ(comm.size(), ranks);
        EXPECT_EQ(comm.backend_name(), "thread");
        EXPECT_EQ(CurrentRank(), comm.rank());
        ++calls[comm.rank()];
        return OkStatus();
      });
      EXPECT_TRUE(status.ok()) << status.ToString();
      EXPECT_EQ(calls, std::vector<int>(ranks, run));
    }
    EXPECT_TRUE(world->healthy());
  }
  EXPECT_EQ(CurrentRank(), -1);
}

TEST(ThreadWorldTest, RanksKeepTheirThreads) {
  const auto world = MakeWorld({.ranks = 3});
  std::vector<std::thread::id> first(3), second(3);
  for (auto* ids : {&first, &second}) {
    ASSERT_TRUE(world
                    ->Run([ids](const Communicator& comm) {
                      (*ids)[comm.rank()] = std::this_thread::get_id();
                      return OkStatus();
                    })
                    .ok());
  }
  EXPECT_EQ(first, second);
  EXPECT_EQ(std::set<std::thread::id>(first.begin(), first.end()).size(), 3u);
}

TEST(ThreadWorldTest, PinsWhenThereAreEnoughCores) {
  const int cores = UsableCores();
  for (const bool pin : {true, false}) {
    for (const int ranks : {1, cores, cores + 1}) {
      const auto world = MakeWorld({.ranks = ranks, .pin = pin});
      std::vector<int> allowed(ranks);
      ASSERT_TRUE(world
                      ->Run([&](const Communicator& comm) {
                        cpu_set_t set;
                        EXPECT_EQ(pthread_getaffinity_np(pthread_self(),
                                                         sizeof(set), &set),
                                  0);
                        allowed[comm.rank()] = CPU_COUNT(&set);
                        return OkStatus();
                      })
                      .ok());
      const int expected = pin && ranks <= cores ? 1 : cores;
      EXPECT_EQ(allowed, std::vector<int>(ranks, expected));
    }
  }
}

TEST(ThreadWorldTest, TheErrorOfOneRankEndsTheWaitsOfTheOthers) {
  const auto world = MakeWorld({.ranks = 4});
  std::vector<Status> seen(4);
  const Status status = world->Run([&](const Communicator& comm) -> Status {
    if (comm.rank() == 2) return InvalidArgument("there is no answer");
    return seen[comm.rank()] = comm.Barrier();
  });
  EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "rank 2: there is no answer");
  for (const int r : {0, 1, 3}) {
    EXPECT_EQ(seen[r].code(), StatusCode::kAborted);
    EXPECT_EQ(seen[r].message(), "rank 2: there is no answer");
  }
  EXPECT_FALSE(world->healthy());
  bool ran = false;
  const Status again = world->Run([&ran](const Communicator&) {
    ran = true;
    return OkStatus();
  });
  EXPECT_EQ(again.code(), StatusCode::kAborted);
  EXPECT_FALSE(ran);
}

TEST(ThreadWorldTest, AbortFromOutsideEndsEveryKindOfWait) {
  for (int kind = 0; kind < 8; ++kind) {
    const auto world =
        MakeWorld({.ranks = 3, .ranks_per_node = kind == 7 ? 2 : 0});
    std::thread watchdog([&world] {
      std::this_thread::sleep_for(std::chrono::milliseconds(20));
      world->Abort("out of time");
    });
    const Status status =
        world->Run([kind](const Communicator& comm) -> Status {
          // Rank 2 never comes.
          if (comm.rank() == 2) {
            while (comm.health().ok()) std::this_thread::yield();
            return comm.health();
          }
          std::vector<std::byte> data(1 << 20);
          switch (kind) {
            case 0:
              return comm.Meet({}).status();
            case 1:
              return comm.MeetEager(nullptr, 0).status();
            case 2:
              return comm.Sync();
            case 3:
              return comm.Recv(data.data(), 1, 2);
            case 4:
              return comm.Send(data.data(), data.size(), 2);
            case 5:
              return comm.Split(0, 0).status();
            case 6:
              return comm.ExchangeControl("x").status();
            default:
              return comm.Barrier();  // By messages: the ranks span nodes.
          }
        });
    watchdog.join();
    EXPECT_EQ(status.code(), StatusCode::kAborted) << "kind " << kind;
    EXPECT_NE(status.message().find("out of time"), std::string_view::npos)
        << status.ToString();
  }
}

TEST(ThreadWorldTest, SimulatedNodesShareNoMemory) {
  const auto world = MakeWorld({.ranks = 5, .ranks_per_node = 2});
  const Status status = world->Run([](const Communicator& comm) -> Status {
    EXPECT_EQ(comm.topology().nodes, 3);
    EXPECT_EQ(comm.topology().node_of, (std::vector<int>{0, 0, 1, 1, 2}));
    EXPECT_FALSE(comm.SharesMemory());
    EXPECT_EQ(comm.EagerLimit(), 0u);
    EXPECT_EQ(comm.Meet({}).status().code(), StatusCode::kUnsupported);
    EXPECT_EQ(comm.MeetEager(nullptr, 0).status().code(),
              StatusCode::kUnsupported);
    EXPECT_EQ(comm.Sync().code(), StatusCode::kUnsupported);
    const int node = comm.topology().node_of[comm.rank()];
    for (int r = 0; r < 5; ++r) {
      EXPECT_EQ(comm.backend().Progress(r) != nullptr,
                comm.topology().node_of[r] == node);
    }

    SP_ASSIGN_OR_RETURN(const Communicator local, comm.Split(node, 0));
    EXPECT_TRUE(local.SharesMemory());
    EXPECT_EQ(local.topology().nodes, 1);
    EXPECT_EQ(local.size(), node == 2 ? 1 : 2);
    const int mine = comm.rank();
    SP_ASSIGN_OR_RETURN(const Peers peers,
                        local.MeetEager(&mine, sizeof(mine)));
    for (int r = 0; r < local.size(); ++r) {
      EXPECT_EQ(*reinterpret_cast<const int*>(peers.Read(r, 0, 4)),
                2 * node + r);
    }

    // Nodes are renumbered in the order in which they appear.
    SP_ASSIGN_OR_RETURN(const Communicator reversed,
                        comm.Split(0, -comm.rank()));
    EXPECT_EQ(reversed.topology().node_of, (std::vector<int>{0, 1, 1, 2, 2}));
    SP_ASSIGN_OR_RETURN(const auto all, comm.ExchangeControl("ab"));
    EXPECT_EQ(all, std::vector<std::string>(5, "ab"));
    return comm.Barrier();
  });
  EXPECT_TRUE(status.ok()) << status.ToString();
}

TEST(ThreadWorldTest, ProgressShowsWhoEnteredWhat) {
  const auto world = MakeWorld({.ranks = 3});
  std::atomic<bool> looked{false};
  std::thread watchdog([&] {
    const auto progress = world->Progress();
    ASSERT_EQ(progress.size(), 3u);
    while (progress[0]->entered.load() < 2 || progress[2]->entered.load() < 2) {
      std::this_thread::yield();
    }
    EXPECT_EQ(progress[0]->finished.load(), 1u);
    EXPECT_EQ(progress[0]->Label().view(), "second/one");
    while (progress[1]->finished.load() < 1) std::this_thread::yield();
    EXPECT_EQ(progress[1]->entered.load(), 1u);
    EXPECT_EQ(progress[1]->Label().view(), "first");
    looked = true;
  });
  const Status status = world->Run([&](const Communicator& comm) -> Status {
    { const OpScope op(comm, {.label = "first"}); }
    if (comm.rank() == 1) {
      while (!looked) std::this_thread::yield();
    }
    const OpScope op(comm, {.label = "second/one"});
    return comm.Barrier();
  });
  watchdog.join();
  EXPECT_TRUE(status.ok()) << status.ToString();
}

TEST(ThreadWorldTest, AllocatesAlignedMemoryThatPeersSee) {
  const Status status = RunThreads(2, [](const Communicator& comm) -> Status {
    for (const size_t bytes : {size_t{0}, size_t{1}, size_t{5000},
                               size_t{2} << 20, (size_t{5} << 20) + 1}) {
      SP_ASSIGN_OR_RETURN(const Buffer buffer, comm.Allocate(bytes));
      EXPECT_EQ(buffer.bytes(), bytes);
      const auto at = reinterpret_cast<uintptr_t>(buffer.data());
      EXPECT_EQ(at % (bytes >= 2 << 20 ? 2 << 20 : 128), 0u);
      if (bytes != 0) {
        buffer.data()[bytes - 1] = static_cast<std::byte>(comm.rank() + 1);
      }
      SP_ASSIGN_OR_RETURN(const Peers peers,
                          comm.Meet({buffer.data(), bytes, nullptr, 0}));
      EXPECT_TRUE(peers.AllShared());
      if (bytes != 0) {
        EXPECT_EQ(*peers.Read(1 - comm.rank(), bytes - 1, 1),
                  static_cast<std::byte>(2 - comm.rank()));
      }
      SP_RETURN_IF_ERROR(comm.Depart(peers));
    }
    return OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status.ToString();
}

TEST(ThreadWorldTest, SaysSoWhenThereIsNotEnoughMemory) {
  const Status status = RunThreads(2, [](const Communicator& comm) {
    return comm.Allocate(size_t{1} << 50).status();
  });
  EXPECT_EQ(status.code(), StatusCode::kOutOfMemory);
  EXPECT_NE(status.message().find("1024 TiB of memory were asked for, and "),
            std::string_view::npos)
      << status.ToString();
}

TEST(ThreadWorldTest, MemoryFreedAfterAnAbortStaysWhilePeersMayUseIt) {
  const auto world = MakeWorld({.ranks = 2});
  std::atomic<bool> freed{false};
  const Status status = world->Run([&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(Buffer buffer, comm.Allocate(4 << 20));
    buffer.data()[12345] = std::byte{42};
    SP_ASSIGN_OR_RETURN(const Peers peers,
                        comm.Meet({buffer.data(), buffer.bytes(), nullptr, 0}));
    if (comm.rank() == 0) {
      comm.Abort("rank 0 gives up");
      buffer = Buffer();
      freed = true;
      return comm.health();
    }
    while (!freed) std::this_thread::yield();
    EXPECT_EQ(*peers.Read(0, 12345, 1), std::byte{42});
    return comm.Depart(peers);
  });
  EXPECT_EQ(status.code(), StatusCode::kAborted);
}

TEST(ThreadWorldTest, RefusesWhatMakesNoSense) {
  for (const int ranks : {-1, 0, 100000}) {
    const auto world = ThreadWorld::Create({.ranks = ranks});
    EXPECT_EQ(world.status().code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(
        world.status().message(),
        fmt::format("{} ranks as threads: there must be 1 to 1024", ranks));
  }
  EXPECT_EQ(
      ThreadWorld::Create({.ranks = 2, .ranks_per_node = -1}).status().code(),
      StatusCode::kInvalidArgument);
  const auto world = MakeWorld({.ranks = 2});
  const Status nested = world->Run([&](const Communicator&) {
    return world->Run([](const Communicator&) { return OkStatus(); });
  });
  EXPECT_EQ(nested.code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(nested.message(),
            "rank 0: a rank cannot start a run of its own world");
}

TEST(ThreadWorldTest, NativeIsUnsupportedWithAReason) {
  const Status status = RunThreads(1, [](const Communicator& comm) {
    return comm.Native({.primitive = "all_reduce"});
  });
  EXPECT_EQ(status.code(), StatusCode::kUnsupported);
  EXPECT_NE(status.message().find("mpi backend"), std::string_view::npos);
}

}  // namespace
}  // namespace shardproof
