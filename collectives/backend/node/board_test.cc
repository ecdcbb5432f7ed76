#include "collectives/backend/node/board.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <thread>
#include <vector>

namespace shardproof {
namespace {

constexpr AddressWindow kEverything{
    .base = 0, .bytes = std::numeric_limits<size_t>::max()};

struct FreeDeleter {
  void operator()(std::byte* p) const { std::free(p); }
};
using Control = std::unique_ptr<std::byte, FreeDeleter>;

Control MakeControl(int ranks) {
  const size_t bytes = NodeBoard::BytesNeeded(ranks);
  Control control(static_cast<std::byte*>(
      std::aligned_alloc(128, (bytes + 127) / 128 * 128)));
  std::fill_n(control.get(), bytes, std::byte{0});
  return control;
}

// Runs `body` with a board of its own on each of `ranks` threads.
void RunRanks(int ranks, bool spin, const std::function<void(NodeBoard&)>& body,
              AbortFlag* abort = nullptr) {
  AbortFlag own;
  const Control control = MakeControl(ranks);
  std::vector<std::thread> threads;
  for (int r = 0; r < ranks; ++r) {
    threads.emplace_back([&, r] {
      NodeBoard board(control.get(), r, ranks,
                      std::vector<AddressWindow>(ranks, kEverything),
                      {.abort = abort != nullptr ? abort : &own, .spin = spin});
      body(board);
    });
  }
  for (std::thread& thread : threads) thread.join();
}

// A delay that differs between ranks and rounds, none most of the time.
void Dawdle(int rank, int round) {
  const uint32_t hash = (rank * 7919u + round) * 2654435761u;
  if (hash >> 24 < 4) {
    std::this_thread::sleep_for(std::chrono::microseconds(hash >> 8 & 127));
  } else if (hash >> 24 < 32) {
    std::this_thread::yield();
  }
}

struct Shape {
  int ranks;
  bool spin;
};

class Board : public ::testing::TestWithParam<Shape> {};

INSTANTIATE_TEST_SUITE_P(Ranks, Board,
                         ::testing::Values(Shape{1, true}, Shape{2, true},
                                           Shape{2, false}, Shape{3, false},
                                           Shape{5, false}, Shape{8, false}),
                         [](const auto& info) {
                           return fmt::format(
                               "{}{}", info.param.ranks,
                               info.param.spin ? "spinning" : "yielding");
                         });

TEST_P(Board, PeersSeeWhatWasWrittenBeforeTheMeeting) {
  const int ranks = GetParam().ranks;
  std::vector<std::vector<int>> send(ranks), recv(ranks);
  RunRanks(ranks, GetParam().spin, [&](NodeBoard& board) {
    const int me = board.rank();
    std::vector<PeerBuffers> peers(ranks);
    send[me].resize(100 + me);
    recv[me].resize(ranks);
    for (int round = 0; round < 300; ++round) {
      std::fill(send[me].begin(), send[me].end(), round * 10 + me);
      Dawdle(me, round);
      bool all_shared = false;
      const Status met = board.Meet({send[me].data(), send[me].size() * 4,
                                     recv[me].data(), recv[me].size() * 4},
                                    peers, &all_shared);
      ASSERT_TRUE(met.ok()) << met.ToString();
      ASSERT_TRUE(all_shared);
      for (int r = 0; r < ranks; ++r) {
        ASSERT_EQ(peers[r].send_bytes, (100u + r) * 4);
        ASSERT_EQ(peers[r].recv_bytes, 4u * ranks);
        const int* theirs = reinterpret_cast<const int*>(peers[r].send);
        ASSERT_EQ(theirs[0], round * 10 + r);
        ASSERT_EQ(theirs[99 + r], round * 10 + r);
        reinterpret_cast<int*>(peers[r].recv)[me] = round + me * r;
      }
      ASSERT_TRUE(board.Sync().ok());
      // Everyone's stores are here, and nobody reads `send` any more.
      for (int r = 0; r < ranks; ++r) ASSERT_EQ(recv[me][r], round + me * r);
    }
  });
}

TEST_P(Board, EagerPayloadsOfChangingSizesArriveWhole) {
  const int ranks = GetParam().ranks;
  constexpr size_t kSizes[] = {0,  1,  4,   8,    12,   47,
                               48, 49, 100, 1000, 4096, NodeBoard::kEagerBytes};
  RunRanks(ranks, GetParam().spin, [&](NodeBoard& board) {
    const int me = board.rank();
    std::vector<PeerBuffers> peers(ranks);
    const auto size_of = [&](int rank, int round) {
      return kSizes[(rank * 5 + round) % std::size(kSizes)];
    };
    const auto byte_of = [](int rank, int round) {
      return static_cast<std::byte>(rank * 31 + round);
    };
    std::vector<std::byte> data(NodeBoard::kEagerBytes);
    for (int round = 0; round < 300; ++round) {
      std::fill(data.begin(), data.end(), byte_of(me, round));
      const Status met =
          board.MeetEager(data.data(), size_of(me, round), peers);
      ASSERT_TRUE(met.ok()) << met.ToString();
      // A copy was published: the original may go.
      std::fill(data.begin(), data.end(), std::byte{0xee});
      Dawdle(me, round);
      for (int r = 0; r < ranks; ++r) {
        ASSERT_EQ(peers[r].send_bytes, size_of(r, round));
        ASSERT_EQ(reinterpret_cast<uintptr_t>(peers[r].send) %
                      alignof(std::max_align_t),
                  0U);
        ASSERT_TRUE(
            std::all_of(peers[r].send, peers[r].send + peers[r].send_bytes,
                        [&](std::byte b) { return b == byte_of(r, round); }))
            << "rank " << r << " as seen by " << me << " in round " << round;
      }
    }
  });
}

TEST_P(Board, RoundsOfAllKindsFollowOneAnother) {
  const int ranks = GetParam().ranks;
  RunRanks(ranks, GetParam().spin, [&](NodeBoard& board) {
    std::vector<PeerBuffers> peers(ranks);
    for (int round = 0; round < 400; ++round) {
      int value = round * 100 + board.rank();
      switch (round * 7 % 5) {
        case 0: {
          bool all_shared = false;
          ASSERT_TRUE(
              board.Meet({&value, 4, nullptr, 0}, peers, &all_shared).ok());
          for (int r = 0; r < ranks; ++r) {
            ASSERT_EQ(*reinterpret_cast<const int*>(peers[r].send),
                      round * 100 + r);
            ASSERT_EQ(peers[r].recv, nullptr);
          }
          ASSERT_TRUE(board.Sync().ok());
          break;
        }
        case 1:
          ASSERT_TRUE(board.Sync().ok());
          break;
        default:
          ASSERT_TRUE(board.MeetEager(&value, 4, peers).ok());
          for (int r = 0; r < ranks; ++r) {
            int theirs = 0;
            std::memcpy(&theirs, peers[r].send, 4);
            ASSERT_EQ(theirs, round * 100 + r);
          }
      }
    }
  });
}

TEST_P(Board, TheEpochWrapsAround) {
  const int ranks = GetParam().ranks;
  RunRanks(ranks, GetParam().spin, [&](NodeBoard& board) {
    board.StartAt(std::numeric_limits<uint32_t>::max() - 50);
    std::vector<PeerBuffers> peers(ranks);
    for (int round = 0; round < 100; ++round) {
      const int value = round * 100 + board.rank();
      ASSERT_TRUE(board.MeetEager(&value, 4, peers).ok());
      for (int r = 0; r < ranks; ++r) {
        int theirs = 0;
        std::memcpy(&theirs, peers[r].send, 4);
        ASSERT_EQ(theirs, round * 100 + r);
      }
    }
  });
}

TEST_P(Board, AbortEndsEveryKindOfWait) {
  const int ranks = std::max(2, GetParam().ranks);  // One alone never waits.
  for (int kind = 0; kind < 3; ++kind) {
    AbortFlag abort;
    RunRanks(
        ranks, GetParam().spin,
        [&](NodeBoard& board) {
          std::vector<PeerBuffers> peers(ranks);
          ASSERT_TRUE(board.Sync().ok());
          if (board.rank() == ranks - 1) {
            // Long enough that the others have gone to sleep.
            std::this_thread::sleep_for(std::chrono::milliseconds(30));
            abort.Raise("rank 1 ran out of patience");
            return;
          }
          bool all_shared = false;
          const Status status = kind == 0 ? board.Sync()
                                : kind == 1
                                    ? board.Meet({}, peers, &all_shared)
                                    : board.MeetEager(nullptr, 0, peers);
          EXPECT_EQ(status.code(), StatusCode::kAborted);
          EXPECT_EQ(status.message(), "rank 1 ran out of patience");
        },
        &abort);
  }
}

TEST(BoardWindows, AddressesAreTranslatedAndOthersRefused) {
  // Two "processes" whose windows lie in different places for each of them: both
  // are views of one piece of memory here, so that the addresses can be followed.
  std::vector<std::byte> memory(1000);
  const auto base = reinterpret_cast<uintptr_t>(memory.data());
  const AddressWindow first{.base = base, .bytes = 400};
  const AddressWindow second{.base = base + 400, .bytes = 600};
  std::byte outside{};
  const Control control = MakeControl(2);
  AbortFlag abort;
  const auto rank_main = [&](int rank) {
    // Rank 1 knows itself as the first window and rank 0 as the second: what it
    // publishes at 10 of its own is at 400 + 10 for rank 0.
    NodeBoard board(control.get(), rank, 2,
                    {rank == 0 ? first : second, rank == 0 ? second : first},
                    {.abort = &abort, .spin = false});
    std::vector<PeerBuffers> peers(2);
    bool all_shared = false;
    ASSERT_TRUE(board
                    .Meet({memory.data() + 10, 20, memory.data() + 30,
                           rank == 0 ? size_t{370} : size_t{0}},
                          peers, &all_shared)
                    .ok());
    EXPECT_TRUE(all_shared);
    EXPECT_EQ(peers[rank].send, memory.data() + 10);
    EXPECT_EQ(peers[1 - rank].send, memory.data() + 410);
    EXPECT_EQ(peers[1 - rank].recv, memory.data() + 430);
    EXPECT_EQ(peers[rank].send_bytes, 20u);
    ASSERT_TRUE(board.Sync().ok());

    // One byte too long for the window, on rank 1 only; both learn of it.
    ASSERT_TRUE(board
                    .Meet({memory.data(), rank == 0 ? size_t{400} : size_t{401},
                           nullptr, 0},
                          peers, &all_shared)
                    .ok());
    EXPECT_FALSE(all_shared);
    EXPECT_EQ(peers[1].send, nullptr);
    EXPECT_NE(peers[0].send, nullptr);
    EXPECT_EQ(peers[1].send_bytes, 401u);

    ASSERT_TRUE(board.Meet({nullptr, 0, &outside, 1}, peers, &all_shared).ok());
    EXPECT_FALSE(all_shared);
    // Null is not "memory that cannot be addressed".
    ASSERT_TRUE(board.Meet({}, peers, &all_shared).ok());
    EXPECT_TRUE(all_shared);
  };
  std::thread other([&] { rank_main(1); });
  rank_main(0);
  other.join();
}

TEST(BoardErrors, RanksInDifferentOperationsAreTold) {
  RunRanks(3, false, [](NodeBoard& board) {
    std::vector<PeerBuffers> peers(3);
    bool all_shared = false;
    const Status status = board.rank() == 1
                              ? board.MeetEager(nullptr, 0, peers)
                              : board.Meet({}, peers, &all_shared);
    EXPECT_EQ(status.code(), StatusCode::kInternal);
    EXPECT_EQ(
        status.message(),
        board.rank() == 1
            ? "the ranks are not in the same operation: rank 1 is in an "
              "eager meeting, rank 0 in a meeting"
            : fmt::format("the ranks are not in the same operation: rank "
                          "{} is in a meeting, rank 1 in an eager meeting",
                          board.rank()));
  });
}

TEST(Window, HoldsWhatLiesInIt) {
  const AddressWindow window{.base = 1000, .bytes = 100};
  const auto at = [](uintptr_t p) { return reinterpret_cast<void*>(p); };
  EXPECT_TRUE(window.Holds(at(1000), 100));
  EXPECT_TRUE(window.Holds(at(1100), 0));
  EXPECT_FALSE(window.Holds(at(999), 1));
  EXPECT_FALSE(window.Holds(at(1000), 101));
  EXPECT_FALSE(window.Holds(at(1101), 0));
  EXPECT_FALSE(window.Holds(at(1050), std::numeric_limits<size_t>::max()));
  EXPECT_TRUE(kEverything.Holds(at(1), 1 << 20));
}

}  // namespace
}  // namespace shardproof
