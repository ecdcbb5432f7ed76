#include "collectives/send_recv/send_recv.h"

#include <gtest/gtest.h>

#include <array>
#include <vector>

#include "collectives/backend/thread/thread_world.h"
#include "collectives/testing/check.h"

namespace shardproof {
namespace {

using testing::Check;
using testing::ForEachWorld;

Status CheckShift(const Communicator& comm, int distance, int64_t count,
                  DType dtype) {
  const int p = comm.size(), r = comm.rank();
  const InputFn input = testing::SmallIntegers(dtype, p);
  for (const bool in_place : {false, true}) {
    SP_RETURN_IF_ERROR(Check(
        comm,
        {.name = "message",
         .dtype = dtype,
         .send_count = count,
         .recv_count = count,
         .in_place_at = in_place ? std::optional<int64_t>(0) : std::nullopt,
         .input = input,
         .run =
             [&](const void* send, void* recv) {
               return SendRecvMessage(
                   comm, {send, recv, count, dtype, (r + distance) % p,
                          (r + p - distance) % p});
             },
         .expected =
             [&](std::span<Bounded> out) {
               SendRecvExpected(p, distance, input, r, 0, out);
             },
         .traffic = SendRecvMessageCost(p, count, dtype, distance).total}));
  }
  return OkStatus();
}

TEST(SendRecv, ShiftsAroundTheRing) {
  ForEachWorld(testing::kWorldSizes, [](const Communicator& comm) {
    for (int distance = 0; distance < comm.size(); ++distance) {
      SP_RETURN_IF_ERROR(testing::ForEachCount([&](int64_t count, DType dtype) {
        return CheckShift(comm, distance, count, dtype);
      }));
    }
    return OkStatus();
  });
}

// A hop down a pipeline: the first rank receives nothing, the last sends
// nothing, and nobody waits for either.
TEST(SendRecv, EndsOfAPipelineHaveNoPartner) {
  ForEachWorld({1, 2, 3, 4}, [](const Communicator& comm) {
    const int p = comm.size(), r = comm.rank();
    const InputFn input = testing::SmallIntegers(DType::kF32, p);
    return Check(comm, {.name = "pipeline",
                        .dtype = DType::kF32,
                        .send_count = 7,
                        .recv_count = 7,
                        .input = input,
                        .run =
                            [&](const void* send, void* recv) {
                              return SendRecvMessage(
                                  comm, {.send = send,
                                         .recv = recv,
                                         .count = 7,
                                         .destination = r + 1 < p ? r + 1 : -1,
                                         .source = r - 1});
                            },
                        .expected =
                            [&](std::span<Bounded> out) {
                              if (r == 0) return;
                              SendRecvExpected(p, 1, input, r, 0, out);
                            },
                        .traffic = Traffic{28 * (p - 1), p - 1}});
  });
}

TEST(SendRecv, EndsTheWaitsOfThePeersOfARankThatRefuses) {
  auto world = ThreadWorld::Create({.ranks = 2, .pin = false});
  ASSERT_TRUE(world.ok()) << world.status().ToString();
  std::array<StatusCode, 2> codes{};
  (void)(*world)->Run([&](const Communicator& comm) {
    const int r = comm.rank();
    float x = 1, y = 0;
    codes[static_cast<size_t>(r)] =
        SendRecvMessage(comm, {.send = &x,
                               .recv = &y,
                               .count = 1,
                               .destination = r == 0 ? 2 : 0,
                               .source = 1 - r})
            .code();
    return OkStatus();
  });
  EXPECT_EQ(codes[0], StatusCode::kInvalidArgument);
  EXPECT_EQ(codes[1], StatusCode::kAborted);
}

TEST(SendRecv, CostsWhatTheTableSays) {
  const Cost cost = SendRecvMessageCost(4, 100, DType::kF32, 1);
  EXPECT_EQ(cost.alpha_count, 1);
  EXPECT_EQ(cost.beta_bytes, 400);
  EXPECT_EQ(SendRecvMessageCost(4, 100, DType::kF32, 4).total, Traffic());
}

}  // namespace
}  // namespace shardproof
