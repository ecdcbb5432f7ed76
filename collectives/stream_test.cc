#include <gtest/gtest.h>
#include <sched.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <string>
#include <thread>
#include <vector>

#include "collectives/backend/thread/thread_world.h"
#include "collectives/communicator.h"
#include "collectives/current_rank.h"
#include "collectives/device.h"

namespace shardproof {
namespace {

Stream MakeStream(const std::string& name) {
  auto stream = Stream::Create(name);
  EXPECT_TRUE(stream.ok()) << stream.status().ToString();
  return *std::move(stream);
}

TEST(StreamTest, TheInlineStreamRunsAtOnceOnTheCaller) {
  const Stream stream = Stream::Inline();
  EXPECT_TRUE(stream.is_inline());
  std::thread::id ran_on;
  EXPECT_TRUE(stream
                  .Run([&] {
                    ran_on = std::this_thread::get_id();
                    return OkStatus();
                  })
                  .ok());
  EXPECT_EQ(ran_on, std::this_thread::get_id());
  EXPECT_EQ(stream.Run([] { return Internal("at once"); }).message(),
            "at once");
  EXPECT_TRUE(stream.Synchronize().ok());
  const auto event = stream.Record();
  ASSERT_TRUE(event.ok());
  EXPECT_TRUE(event->Done());
  EXPECT_TRUE(event->Synchronize().ok());
}

TEST(StreamTest, WorkRunsInOrderOnAThreadOfItsOwn) {
  const Stream stream = MakeStream("a name longer than the system takes");
  EXPECT_FALSE(stream.is_inline());
  std::vector<int> order;  // Touched by the stream only, until it is idle.
  std::thread::id ran_on;
  for (int i = 0; i < 1000; ++i) {
    ASSERT_TRUE(stream
                    .Run([&, i] {
                      order.push_back(i);
                      ran_on = std::this_thread::get_id();
                      return OkStatus();
                    })
                    .ok());
  }
  EXPECT_TRUE(stream.Synchronize().ok());
  EXPECT_NE(ran_on, std::this_thread::get_id());
  ASSERT_EQ(order.size(), 1000u);
  for (int i = 0; i < 1000; ++i) EXPECT_EQ(order[i], i);
  EXPECT_TRUE(stream.Synchronize().ok());  // Idle.
}

TEST(StreamTest, RunReturnsBeforeTheWorkIsDone) {
  const Stream stream = MakeStream("later");
  std::atomic<bool> go{false}, done{false};
  ASSERT_TRUE(stream
                  .Run([&] {
                    while (!go) std::this_thread::yield();
                    done = true;
                    return OkStatus();
                  })
                  .ok());
  const auto event = stream.Record();
  ASSERT_TRUE(event.ok());
  EXPECT_FALSE(event->Done());
  EXPECT_FALSE(done);
  go = true;
  EXPECT_TRUE(event->Synchronize().ok());
  EXPECT_TRUE(done);
  EXPECT_TRUE(event->Done());
}

TEST(StreamTest, TheFirstErrorIsKeptAndWhatFollowsIsDropped) {
  const Stream stream = MakeStream("failing");
  int ran = 0;
  const auto count = [&ran] {
    ++ran;
    return OkStatus();
  };
  ASSERT_TRUE(stream.Run(count).ok());
  const auto before = stream.Record();
  ASSERT_TRUE(stream.Run([] { return DataLoss("first"); }).ok());
  const auto after = stream.Record();
  ASSERT_TRUE(stream.Run([] { return DataLoss("second"); }).ok());
  ASSERT_TRUE(stream.Run(count).ok());
  EXPECT_TRUE(before->Synchronize().ok());
  EXPECT_EQ(after->Synchronize().message(),
            "first");  // Completed all the same.
  EXPECT_EQ(stream.Synchronize().message(), "first");
  EXPECT_EQ(ran, 1);
  // Cleared: the stream goes on.
  EXPECT_TRUE(stream.Synchronize().ok());
  ASSERT_TRUE(stream.Run(count).ok());
  EXPECT_TRUE(stream.Synchronize().ok());
  EXPECT_EQ(ran, 2);
}

TEST(StreamTest, DestructionDrains) {
  std::atomic<int> ran{0};
  {
    const Stream stream = MakeStream("short-lived");
    // A second handle is meant.
    // NOLINTNEXTLINE(performance-unnecessary-copy-initialization)
    const Stream copy = stream;
    for (int i = 0; i < 100; ++i) {
      ASSERT_TRUE(copy.Run([&ran] {
                        std::this_thread::sleep_for(
                            std::chrono::microseconds(50));
                        ++ran;
                        return OkStatus();
                      })
                      .ok());
    }
  }
  EXPECT_EQ(ran, 100);
}

TEST(StreamTest, TheLastHandleMayGoOnTheStreamItself) {
  std::atomic<bool> ran{false};
  {
    auto stream = std::make_unique<Stream>(MakeStream("own grave"));
    const Stream& queue = *stream;
    std::atomic<bool> handed_over{false};
    Stream captured = *stream;
    ASSERT_TRUE(queue
                    .Run([captured = std::move(captured), &handed_over, &ran] {
                      while (!handed_over) std::this_thread::yield();
                      ran = true;
                      return OkStatus();
                    })
                    .ok());
    stream.reset();
    handed_over = true;
    while (!ran) std::this_thread::yield();
  }
  EXPECT_TRUE(ran);
}

TEST(StreamTest, EventsOrderWorkAcrossStreams) {
  const Stream producer = MakeStream("producer"),
               consumer = MakeStream("consumer");
  int value = 0;  // Handed over by events alone: ThreadSanitizer checks.
  for (int i = 1; i <= 200; ++i) {
    ASSERT_TRUE(producer
                    .Run([&value, i] {
                      value = i;
                      return OkStatus();
                    })
                    .ok());
    const auto produced = producer.Record();
    ASSERT_TRUE(consumer.Wait(*produced).ok());
    ASSERT_TRUE(consumer
                    .Run([&value, i] {
                      return value == i ? OkStatus()
                                        : Internal("{} in round {}", value, i);
                    })
                    .ok());
    const auto consumed = consumer.Record();
    ASSERT_TRUE(producer.Wait(*consumed).ok());
  }
  EXPECT_TRUE(producer.Synchronize().ok());
  const Status status = consumer.Synchronize();
  EXPECT_TRUE(status.ok()) << status.ToString();
}

TEST(StreamTest, AnotherStreamsErrorIsNotInherited) {
  const Stream failing = MakeStream("failing"), healthy = MakeStream("healthy");
  ASSERT_TRUE(failing.Run([] { return Internal("mine"); }).ok());
  const auto event = failing.Record();
  ASSERT_TRUE(healthy.Wait(*event).ok());
  bool ran = false;
  ASSERT_TRUE(healthy
                  .Run([&ran] {
                    ran = true;
                    return OkStatus();
                  })
                  .ok());
  EXPECT_TRUE(healthy.Synchronize().ok());
  EXPECT_TRUE(ran);
  EXPECT_TRUE(Stream::Inline().Wait(*event).ok());
  EXPECT_EQ(failing.Synchronize().message(), "mine");
}

TEST(StreamTest, ADefaultEventIsDone) {
  const Event event;
  EXPECT_TRUE(event.Done());
  EXPECT_TRUE(event.Synchronize().ok());
  EXPECT_TRUE(MakeStream("any").Wait(event).ok());
}

TEST(StreamTest, CommunicationOverlapsWhatTheCallerDoes) {
  for (const int ranks : {1, 2, 3}) {
    const Status status =
        RunThreads(ranks, [](const Communicator& comm) -> Status {
          // Two streams, a communicator each, and the rank's own in between.
          SP_ASSIGN_OR_RETURN(const Stream first, Stream::Create("first"));
          SP_ASSIGN_OR_RETURN(const Stream second, Stream::Create("second"));
          SP_ASSIGN_OR_RETURN(const Communicator a, comm.Duplicate());
          SP_ASSIGN_OR_RETURN(const Communicator b, comm.Duplicate());
          std::atomic<int> sum{0};
          const auto add_all = [&sum](const Communicator& c) -> Status {
            EXPECT_EQ(CurrentRank(), c.rank());
            const int mine = c.rank() + 1;
            SP_ASSIGN_OR_RETURN(const Peers peers, c.MeetEager(&mine, 4));
            for (int r = 0; r < c.size(); ++r) {
              sum += *reinterpret_cast<const int*>(peers.Read(r, 0, 4));
            }
            return OkStatus();
          };
          for (int round = 0; round < 50; ++round) {
            SP_RETURN_IF_ERROR(first.Run([&] { return add_all(a); }));
            SP_RETURN_IF_ERROR(second.Run([&] { return add_all(b); }));
            SP_RETURN_IF_ERROR(add_all(comm));
          }
          SP_RETURN_IF_ERROR(first.Synchronize());
          SP_RETURN_IF_ERROR(second.Synchronize());
          EXPECT_EQ(sum, 150 * comm.size() * (comm.size() + 1) / 2);
          EXPECT_EQ(comm.traffic().messages, 150 * (comm.size() - 1));
          return OkStatus();
        });
    EXPECT_TRUE(status.ok()) << status.ToString();
  }
}

int CoresOf(pid_t thread) {
  cpu_set_t cores;
  CPU_ZERO(&cores);
  EXPECT_EQ(sched_getaffinity(thread, sizeof(cores), &cores), 0);
  return CPU_COUNT(&cores);
}

// A rank that is pinned to its core would share that one with its streams.
TEST(StreamTest, WorkMayRunOnEveryCoreThoughItsRankIsPinned) {
  const int all = CoresOf(getpid());
  const Status status =
      RunThreads(all >= 2 ? 2 : 1, [&](const Communicator&) -> Status {
        EXPECT_EQ(CoresOf(0), 1);
        SP_ASSIGN_OR_RETURN(const Stream stream, Stream::Create("anywhere"));
        SP_RETURN_IF_ERROR(stream.Run([&] {
          EXPECT_EQ(CoresOf(0), all);
          return OkStatus();
        }));
        return stream.Synchronize();
      });
  EXPECT_TRUE(status.ok()) << status.ToString();
}

TEST(StreamTest, AbortReachesQueuedWork) {
  const Status status = RunThreads(2, [](const Communicator& comm) -> Status {
    if (comm.rank() == 1) return Internal("rank 1 has had enough");
    SP_ASSIGN_OR_RETURN(const Stream stream, Stream::Create("waiting"));
    SP_RETURN_IF_ERROR(stream.Run([&comm] { return comm.Barrier(); }));
    return stream.Synchronize();
  });
  EXPECT_EQ(status.message(), "rank 1: rank 1 has had enough");
}

}  // namespace
}  // namespace shardproof
