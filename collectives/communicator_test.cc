#include "collectives/communicator.h"

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "collectives/backend/thread/thread_world.h"

namespace shardproof {
namespace {

class CommunicatorTest : public ::testing::TestWithParam<int> {
 protected:
  void Run(const std::function<Status(const Communicator&)>& rank_main) {
    const Status status = RunThreads(GetParam(), rank_main);
    EXPECT_TRUE(status.ok()) << status.ToString();
  }
};
INSTANTIATE_TEST_SUITE_P(Ranks, CommunicatorTest,
                         ::testing::Values(1, 2, 3, 5, 8));

// What every rank of `comm` gave, by an eager meeting and by messages.
Status ExpectRanks(const Communicator& comm, int mine,
                   const std::vector<int>& expected) {
  EXPECT_EQ(comm.size(), static_cast<int>(expected.size()));
  SP_ASSIGN_OR_RETURN(const Peers peers, comm.MeetEager(&mine, 4));
  for (int r = 0; r < comm.size(); ++r) {
    EXPECT_EQ(*reinterpret_cast<const int*>(peers.Read(r, 0, 4)), expected[r]);
  }
  for (int r = 0; r < comm.size(); ++r) {
    int theirs = -1;
    SP_RETURN_IF_ERROR(comm.SendRecv(&mine, 4, r, &theirs, 4, r));
    EXPECT_EQ(theirs, expected[r]);
  }
  return OkStatus();
}

TEST_P(CommunicatorTest, SplitsByColorAndOrdersByKey) {
  Run([](const Communicator& comm) -> Status {
    const int ranks = comm.size(), me = comm.rank();
    SP_ASSIGN_OR_RETURN(const Communicator part, comm.Split(me % 2, -me));
    std::vector<int> expected;
    for (int r = ranks - 1; r >= 0; --r) {
      if (r % 2 == me % 2) expected.push_back(r);
    }
    EXPECT_EQ(expected[part.rank()], me);
    SP_RETURN_IF_ERROR(ExpectRanks(part, me, expected));

    // Equal keys keep the order of ranks.
    SP_ASSIGN_OR_RETURN(const Communicator same, comm.Split(7, 0));
    EXPECT_EQ(same.rank(), me);
    // The last rank stays out.
    SP_ASSIGN_OR_RETURN(const Communicator most,
                        comm.Split(me == ranks - 1 ? -1 : 0, me));
    EXPECT_EQ(most.valid() ? most.size() : -1,
              me != ranks - 1 ? ranks - 1 : -1);
    // Parts split again.
    SP_ASSIGN_OR_RETURN(const Communicator alone, part.Split(part.rank(), 0));
    EXPECT_EQ(alone.size(), 1);
    return alone.Barrier();
  });
}

TEST_P(CommunicatorTest, CommunicatorsDoNotMixTheirMessages) {
  Run([](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(const Communicator twin, comm.Duplicate());
    EXPECT_EQ(twin.rank(), comm.rank());
    EXPECT_EQ(twin.size(), comm.size());
    const int next = (comm.rank() + 1) % comm.size();
    const int previous = (comm.rank() + comm.size() - 1) % comm.size();
    const int first = 1, second = 2;
    int a = 0, b = 0;
    SP_RETURN_IF_ERROR(comm.Send(&first, 4, next));
    SP_RETURN_IF_ERROR(twin.Send(&second, 4, next));
    SP_RETURN_IF_ERROR(twin.Recv(&b, 4, previous));
    SP_RETURN_IF_ERROR(comm.Recv(&a, 4, previous));
    EXPECT_EQ(a, 1);
    EXPECT_EQ(b, 2);
    // Nor their meetings: the inner one is not a round of the outer.
    SP_ASSIGN_OR_RETURN(const Peers outer, comm.Meet({&first, 4, nullptr, 0}));
    SP_RETURN_IF_ERROR(twin.Barrier());
    SP_ASSIGN_OR_RETURN(const Peers inner, twin.Meet({&second, 4, nullptr, 0}));
    EXPECT_EQ(*reinterpret_cast<const int*>(outer.Read(next, 0, 4)), 1);
    EXPECT_EQ(*reinterpret_cast<const int*>(inner.Read(next, 0, 4)), 2);
    SP_RETURN_IF_ERROR(twin.Depart(inner));
    return comm.Depart(outer);
  });
}

TEST_P(CommunicatorTest, TrafficIncludesThatOfPartsAndNotOfTheWhole) {
  Run([](const Communicator& comm) -> Status {
    const int me = comm.rank();
    const bool alone = comm.size() == 1;
    const int next = (me + 1) % comm.size();
    std::vector<std::byte> data(100);
    const auto exchange = [&](const Communicator& c, size_t bytes) {
      return c.SendRecv(data.data(), bytes, next, data.data() + 50, bytes,
                        (me + c.size() - 1) % c.size());
    };
    SP_ASSIGN_OR_RETURN(const Communicator twin, comm.Duplicate());
    SP_RETURN_IF_ERROR(exchange(comm, 10));
    SP_RETURN_IF_ERROR(exchange(twin, 3));
    const Traffic of_twin{.bytes = alone ? 0 : 3, .messages = alone ? 0 : 1};
    EXPECT_EQ(twin.traffic(), of_twin);
    EXPECT_EQ(comm.traffic() - of_twin,
              (Traffic{.bytes = alone ? 0 : 10, .messages = alone ? 0 : 1}));
    // Counts outlive the part that they were counted in.
    for (int i = 0; i < 5; ++i) {
      SP_ASSIGN_OR_RETURN(const Communicator short_lived, twin.Duplicate());
      SP_RETURN_IF_ERROR(exchange(short_lived, 20));
    }
    EXPECT_EQ(twin.traffic(),
              (Traffic{.bytes = alone ? 0 : 103, .messages = alone ? 0 : 6}));
    EXPECT_EQ(comm.traffic(),
              (Traffic{.bytes = alone ? 0 : 113, .messages = alone ? 0 : 7}));
    return OkStatus();
  });
}

// A part that goes does not take along what was split from it.
TEST_P(CommunicatorTest, TrafficIncludesThatOfPartsWhoseParentIsGone) {
  Run([](const Communicator& comm) -> Status {
    const int me = comm.rank();
    const bool alone = comm.size() == 1;
    std::vector<std::byte> data(100);
    SP_ASSIGN_OR_RETURN(Communicator parent, comm.Duplicate());
    SP_ASSIGN_OR_RETURN(Communicator middle, parent.Duplicate());
    SP_ASSIGN_OR_RETURN(const Communicator child, middle.Duplicate());
    middle = Communicator();
    parent = Communicator();
    for (int i = 1; i <= 3; ++i) {
      // Those that nobody holds are put together when another is born.
      SP_ASSIGN_OR_RETURN(const Communicator other, comm.Duplicate());
      SP_RETURN_IF_ERROR(child.SendRecv(data.data(), 7, (me + 1) % comm.size(),
                                        data.data() + 50, 7,
                                        (me + comm.size() - 1) % comm.size()));
      EXPECT_EQ(comm.traffic(), (Traffic{.bytes = alone ? 0 : 7 * i,
                                         .messages = alone ? 0 : i}));
    }
    return OkStatus();
  });
}

TEST_P(CommunicatorTest, ControlDataOfAnySizeIsExchangedUncounted) {
  Run([](const Communicator& comm) -> Status {
    const Traffic before = comm.traffic();
    const auto text_of = [](int rank, size_t bytes) {
      return std::string(bytes, static_cast<char>('a' + rank));
    };
    // Empty; all fit beside the flags; one does not; none does.
    const std::function<size_t(int)> sizes[] = {
        [](int) { return size_t{0}; },
        [](int r) { return static_cast<size_t>(r) * 10; },
        [](int r) { return static_cast<size_t>(r == 0 ? 100000 : 5 * r); },
        [](int r) { return static_cast<size_t>(50000 + r); }};
    for (int round = 0; round < 3; ++round) {
      for (const auto& size_of : sizes) {
        SP_ASSIGN_OR_RETURN(
            const std::vector<std::string> all,
            comm.ExchangeControl(text_of(comm.rank(), size_of(comm.rank()))));
        EXPECT_EQ(all.size(), static_cast<size_t>(comm.size()));
        for (int r = 0; r < comm.size(); ++r) {
          EXPECT_EQ(all[r], text_of(r, size_of(r)));
        }
      }
      SP_RETURN_IF_ERROR(comm.Barrier());
    }
    EXPECT_EQ(comm.traffic(), before);
    return OkStatus();
  });
}

TEST_P(CommunicatorTest, TheSameHoldsAcrossNodes) {
  auto world = ThreadWorld::Create({.ranks = GetParam(), .ranks_per_node = 1});
  ASSERT_TRUE(world.ok());
  std::vector<int> arrived(GetParam());
  const Status status = (*world)->Run([&](const Communicator& comm) -> Status {
    for (int round = 1; round <= 50; ++round) {
      arrived[comm.rank()] = round;
      SP_RETURN_IF_ERROR(comm.Barrier());
      for (const int other : arrived) EXPECT_EQ(other, round);
      SP_RETURN_IF_ERROR(comm.Barrier());
    }
    const std::string mine(comm.rank() * 1000, 'x');
    SP_ASSIGN_OR_RETURN(const auto all, comm.ExchangeControl(mine));
    for (int r = 0; r < comm.size(); ++r) {
      EXPECT_EQ(all[r], std::string(r * 1000, 'x'));
    }
    EXPECT_EQ(comm.traffic(), Traffic());
    return OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status.ToString();
}

TEST_P(CommunicatorTest, AttributesAreMadeOnceAndBelongToTheCommunicator) {
  Run([](const Communicator& comm) -> Status {
    int made = 0;
    const auto make = [&]() -> StatusOr<std::vector<int>> {
      ++made;
      return std::vector<int>{comm.rank(), made};
    };
    SP_ASSIGN_OR_RETURN(std::vector<int> * first,
                        comm.Attribute<std::vector<int>>("test/x", make));
    first->push_back(99);
    // NOLINTNEXTLINE(performance-unnecessary-copy-initialization): as callers do.
    const Communicator copy = comm;
    SP_ASSIGN_OR_RETURN(std::vector<int> * again,
                        copy.Attribute<std::vector<int>>("test/x", make));
    EXPECT_EQ(first, again);
    EXPECT_EQ(*again, (std::vector<int>{comm.rank(), 1, 99}));
    // A failure is not remembered.
    const auto fail = []() -> StatusOr<int> { return Unavailable("not yet"); };
    EXPECT_EQ(comm.Attribute<int>("test/y", fail).status().code(),
              StatusCode::kUnavailable);
    SP_ASSIGN_OR_RETURN(
        int* y,
        comm.Attribute<int>("test/y", []() -> StatusOr<int> { return 3; }));
    EXPECT_EQ(*y, 3);
    // Made collectively: a part in an attribute.
    SP_ASSIGN_OR_RETURN(Communicator * part,
                        comm.Attribute<Communicator>(
                            "test/part", [&] { return comm.Split(0, 0); }));
    SP_RETURN_IF_ERROR(part->Barrier());
    SP_ASSIGN_OR_RETURN(const Communicator twin, comm.Duplicate());
    SP_ASSIGN_OR_RETURN(
        int* other,
        twin.Attribute<int>("test/y", []() -> StatusOr<int> { return 4; }));
    EXPECT_EQ(*other, 4);
    return OkStatus();
  });
}

TEST_P(CommunicatorTest, OperationsAreNumberedAndRecorded) {
  Run([](const Communicator& comm) -> Status {
    const OpRecord* record = comm.backend().Progress(comm.rank());
    {
      const OpScope outer(comm, {.label = "outer", .root = 0});
      EXPECT_TRUE(outer.status().ok());
      EXPECT_EQ(outer.root(), 0);
      EXPECT_EQ(record->entered.load(), 1u);
      EXPECT_EQ(record->Label().view(), "outer");
      {
        const OpScope inner(comm, {.label = "inner"});
        EXPECT_EQ(record->entered.load(), 2u);
        EXPECT_EQ(record->Label().view(), "inner");
      }
      // The outer one goes on: nothing has finished.
      EXPECT_EQ(record->finished.load(), 0u);
    }
    EXPECT_EQ(record->finished.load(), 2u);
    const OpScope third(comm, {.label = "third"});
    EXPECT_EQ(record->entered.load(), 3u);
    EXPECT_EQ(record->finished.load(), 2u);
    return OkStatus();
  });
}

TEST(InvalidCommunicator, IsRefusedByEveryOperation) {
  const Communicator none;
  EXPECT_FALSE(none.valid());
  const OpScope op(none, {.label = "all_reduce/ring"});
  EXPECT_EQ(op.status().code(), StatusCode::kInvalidArgument);
  EXPECT_EQ(op.status().message(),
            "all_reduce/ring on an invalid communicator: this rank is in no "
            "group");
}

TEST(Label, HoldsThirtyOneCharacters) {
  constexpr OpLabel label("0123456789012345678901234567890123456789");
  EXPECT_EQ(label.view(), "0123456789012345678901234567890");
  EXPECT_EQ(OpLabel("x").view(), "x");
  EXPECT_EQ(OpLabel().view(), "");
}

}  // namespace
}  // namespace shardproof
