#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <deque>
#include <functional>
#include <vector>

#include "collectives/backend/thread/thread_world.h"
#include "collectives/communicator.h"

namespace shardproof {
namespace {

// Sizes on both sides of what is copied at once, in one piece and in several.
constexpr size_t kSizes[] = {1, 4, 4096, 4097, 100000, (1 << 20) + 3};

std::vector<std::byte> Pattern(size_t bytes, int from, int number) {
  std::vector<std::byte> data(bytes);
  uint32_t x = 977u * from + number;
  for (std::byte& b : data) {
    b = static_cast<std::byte>((x = x * 1664525u + 1013904223u) >> 24);
  }
  return data;
}

class Messages : public ::testing::TestWithParam<int> {
 protected:
  void Run(const std::function<Status(const Communicator&)>& rank_main) {
    const Status status = RunThreads(GetParam(), rank_main);
    EXPECT_TRUE(status.ok()) << status.ToString();
  }
};
INSTANTIATE_TEST_SUITE_P(Ranks, Messages, ::testing::Values(1, 2, 3, 5, 8));

TEST_P(Messages, TravelAroundARing) {
  Run([](const Communicator& comm) -> Status {
    const int ranks = comm.size(), me = comm.rank();
    const int next = (me + 1) % ranks, previous = (me + ranks - 1) % ranks;
    for (const size_t bytes : kSizes) {
      for (int round = 0; round < 6; ++round) {
        const auto out = Pattern(bytes, me, round);
        std::vector<std::byte> in(bytes);
        SP_RETURN_IF_ERROR(comm.SendRecv(out.data(), bytes, next, in.data(),
                                         bytes, previous, round));
        EXPECT_EQ(in, Pattern(bytes, previous, round));
      }
    }
    return OkStatus();
  });
}

TEST_P(Messages, BlockingOnesMeetInEitherOrder) {
  Run([](const Communicator& comm) -> Status {
    const int me = comm.rank();
    for (const size_t bytes : kSizes) {
      for (int r = 0; r < comm.size(); ++r) {
        if (r == me) continue;
        const auto out = Pattern(bytes, me, r);
        std::vector<std::byte> in(bytes);
        // The lower rank sends first.
        if (me < r) SP_RETURN_IF_ERROR(comm.Send(out.data(), bytes, r));
        SP_RETURN_IF_ERROR(comm.Recv(in.data(), bytes, r));
        if (me > r) SP_RETURN_IF_ERROR(comm.Send(out.data(), bytes, r));
        EXPECT_EQ(in, Pattern(bytes, r, me));
      }
    }
    return OkStatus();
  });
}

TEST_P(Messages, ManyInFlightBetweenAllPairs) {
  Run([](const Communicator& comm) -> Status {
    constexpr int kEach = 24;
    const int ranks = comm.size(), me = comm.rank();
    const auto bytes_of = [](int number) {
      return static_cast<size_t>(number % 6 == 0 ? 20000 : 10 + number);
    };
    std::deque<std::vector<std::byte>> in, out;
    std::vector<Request> requests;
    // Receives are posted in the reverse order of tags, between the sends.
    for (int number = 0; number < kEach; ++number) {
      for (int r = 0; r < ranks; ++r) {
        const auto& data =
            out.emplace_back(Pattern(bytes_of(number), me, number));
        SP_ASSIGN_OR_RETURN(const Request send,
                            comm.Isend(data.data(), data.size(), r, number));
        auto& space = in.emplace_back(bytes_of(kEach - 1 - number));
        SP_ASSIGN_OR_RETURN(
            const Request receive,
            comm.Irecv(space.data(), space.size(), r, kEach - 1 - number));
        requests.insert(requests.end(), {receive, send});
      }
    }
    SP_RETURN_IF_ERROR(comm.WaitAll(requests));
    for (int i = 0; i < kEach * ranks; ++i) {
      const int number = kEach - 1 - i / ranks;
      EXPECT_EQ(in[i], Pattern(bytes_of(number), i % ranks, number))
          << "from rank " << i % ranks << ", number " << number;
    }
    return OkStatus();
  });
}

TEST_P(Messages, EqualTagsKeepTheirOrder) {
  Run([](const Communicator& comm) -> Status {
    const int ranks = comm.size(), me = comm.rank();
    const int next = (me + 1) % ranks, previous = (me + ranks - 1) % ranks;
    // Of both kinds, in turn: small ones must not overtake large ones.
    const auto bytes_of = [](int i) { return i % 3 == 0 ? size_t{9000} : 8; };
    std::deque<std::vector<std::byte>> out, in;
    std::vector<Request> requests;
    for (int i = 0; i < 100; ++i) {
      out.push_back(Pattern(bytes_of(i), me, i));
      SP_ASSIGN_OR_RETURN(const Request send,
                          comm.Isend(out.back().data(), bytes_of(i), next, 5));
      requests.push_back(send);
    }
    for (int i = 0; i < 100; ++i) {
      in.emplace_back(bytes_of(i));
      SP_ASSIGN_OR_RETURN(
          const Request receive,
          comm.Irecv(in.back().data(), bytes_of(i), previous, 5));
      requests.push_back(receive);
    }
    // Waited for backwards.
    for (size_t i = requests.size(); i-- > 0;) {
      SP_RETURN_IF_ERROR(comm.Wait(requests[i]));
    }
    for (int i = 0; i < 100; ++i) {
      EXPECT_EQ(in[i], Pattern(bytes_of(i), previous, i)) << "message " << i;
    }
    return OkStatus();
  });
}

TEST_P(Messages, ToOneselfAndEmpty) {
  Run([](const Communicator& comm) -> Status {
    const int me = comm.rank();
    const Traffic before = comm.traffic();
    for (const size_t bytes : kSizes) {
      const auto out = Pattern(bytes, me, 1);
      std::vector<std::byte> in(bytes);
      SP_RETURN_IF_ERROR(
          comm.SendRecv(out.data(), bytes, me, in.data(), bytes, me));
      EXPECT_EQ(in, out);
    }
    SP_RETURN_IF_ERROR(comm.Send(nullptr, 0, (me + 1) % comm.size()));
    SP_RETURN_IF_ERROR(comm.Recv(nullptr, 0, (me + 1) % comm.size()));
    EXPECT_EQ(comm.traffic(), before);
    return OkStatus();
  });
}

TEST_P(Messages, TrafficIsCountedAtTheSender) {
  Run([](const Communicator& comm) -> Status {
    const int ranks = comm.size(), me = comm.rank();
    std::vector<std::byte> data(5000);
    const Traffic before = comm.traffic();
    if (me == 0) {
      for (int r = 1; r < ranks; ++r) {
        SP_RETURN_IF_ERROR(comm.Send(data.data(), 1000 * (r % 5) + r, r));
      }
    } else {
      SP_RETURN_IF_ERROR(comm.Recv(data.data(), 1000 * (me % 5) + me, 0));
    }
    Traffic expected;
    for (int r = 1; me == 0 && r < ranks; ++r) {
      expected += {.bytes = 1000 * (r % 5) + r, .messages = 1};
    }
    EXPECT_EQ(comm.traffic() - before, expected);
    return OkStatus();
  });
}

TEST(MessageErrors, LengthsThatDifferAreNamed) {
  const Status status = RunThreads(3, [](const Communicator& comm) -> Status {
    std::vector<std::byte> data(100);
    if (comm.rank() == 1) return comm.Recv(data.data(), 99, 2, 17);
    if (comm.rank() == 2) return comm.Send(data.data(), 100, 1, 17);
    return OkStatus();
  });
  EXPECT_EQ(status.code(), StatusCode::kDataLoss);
  EXPECT_NE(
      status.message().find("rank 2 sent 100 bytes with tag 17 to rank 1, "
                            "which expected 99"),
      std::string_view::npos)
      << status.ToString();
}

TEST(MessageErrors, ArgumentsAreChecked) {
  const Status status = RunThreads(2, [](const Communicator& comm) -> Status {
    char byte = 0;
    const auto message = [](const Status& s) {
      EXPECT_EQ(s.code(), StatusCode::kInvalidArgument);
      return std::string(s.message());
    };
    EXPECT_EQ(message(comm.Send(&byte, 1, 2)),
              "destination 2 is not a rank: there are 2");
    EXPECT_EQ(message(comm.Recv(&byte, 1, -1)),
              "source -1 is not a rank: there are 2");
    EXPECT_EQ(message(comm.Send(nullptr, 1, 0)),
              "a message of 1 bytes (destination 0) has no buffer");
    EXPECT_EQ(message(comm.Irecv(nullptr, 3, 1).status()),
              "a message of 3 bytes (source 1) has no buffer");
    EXPECT_EQ(message(comm.Isend(&byte, 1, 0, -3).status()),
              "tag -3 is not between 0 and 28671");
    EXPECT_EQ(message(comm.Send(nullptr, 0, 5)),  // Empty, but to nobody.
              "destination 5 is not a rank: there are 2");
    // Nothing was posted before the mistake was seen.
    EXPECT_EQ(message(comm.SendRecv(&byte, 1, 9, &byte, 1, 1 - comm.rank())),
              "destination 9 is not a rank: there are 2");
    char in = 0, out = static_cast<char>(comm.rank() + 1);
    SP_RETURN_IF_ERROR(
        comm.SendRecv(&out, 1, 1 - comm.rank(), &in, 1, 1 - comm.rank()));
    EXPECT_EQ(in, 2 - comm.rank());
    return OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status.ToString();
}

TEST(MessageErrors, AWaitedRequestIsSpent) {
  const Status status = RunThreads(1, [](const Communicator& comm) -> Status {
    int out = 5, in = 0;
    SP_ASSIGN_OR_RETURN(Request receive, comm.Irecv(&in, 4, 0));
    SP_RETURN_IF_ERROR(comm.Send(&out, 4, 0));
    SP_RETURN_IF_ERROR(comm.Wait(receive));
    EXPECT_EQ(in, 5);
    return comm.Wait(receive);  // Returns at once.
  });
  EXPECT_TRUE(status.ok()) << status.ToString();
}

}  // namespace
}  // namespace shardproof
