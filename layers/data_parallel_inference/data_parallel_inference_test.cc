// What the case cannot say: refusals, and who runs the model on what.
#include "layers/data_parallel_inference/data_parallel_inference.h"

#include <gtest/gtest.h>

#include <vector>

#include "collectives/backend/thread/thread_world.h"

namespace shardproof {
namespace {

using Floats = std::vector<float>;

TEST(DataParallelInference, RefusesOnEveryRankAlike) {
  std::vector<Status> refusals(3);
  const Status ran = RunThreads(3, [&](const Communicator& comm) {
    refusals[static_cast<size_t>(comm.rank())] =
        DataParallelInference::Create(
            comm, {.rows = comm.rank() == 1 ? 5 : 4, .in = 2, .out = 3})
            .status();
    return OkStatus();
  });
  ASSERT_TRUE(ran.ok()) << ran.ToString();
  for (const Status& refusal : refusals) {
    EXPECT_EQ(refusal.code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(refusal.message(),
              "ranks 0 and 1 make different layers: \"data_parallel_inference "
              "of 4 rows, 2 to 3, f32\" and \"data_parallel_inference of 5 "
              "rows, 2 to 3, f32\"");
  }
}

TEST(DataParallelInference, RefusesNegativeSizes) {
  const Status ran = RunThreads(2, [&](const Communicator& comm) {
    EXPECT_EQ(DataParallelInference::Create(comm, {.rows = -1}).status().code(),
              StatusCode::kInvalidArgument);
    return OkStatus();
  });
  EXPECT_TRUE(ran.ok()) << ran.ToString();
}

// y = (x_0, x_0 + x_1, the rank that made it).
void RunRows(int ranks, int64_t rows, const Floats& makers) {
  const Status ran = RunThreads(ranks, [&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(
        const DataParallelInference inference,
        DataParallelInference::Create(comm, {.rows = rows, .in = 2, .out = 3}));
    Floats x(static_cast<size_t>(2 * rows)), y(static_cast<size_t>(3 * rows));
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(10 + i);
    int calls = 0;
    SP_RETURN_IF_ERROR(inference.Run(
        x.data(), y.data(), [&](int64_t n, const void* in, void* out) {
          ++calls;
          const auto* const from = static_cast<const float*>(in);
          auto* const to = static_cast<float*>(out);
          for (int64_t i = 0; i < n; ++i) {
            to[3 * i] = from[2 * i];
            to[3 * i + 1] = from[2 * i] + from[2 * i + 1];
            to[3 * i + 2] = static_cast<float>(comm.rank());
          }
          return OkStatus();
        }));
    EXPECT_EQ(calls, inference.own().count > 0 ? 1 : 0);
    for (size_t i = 0; i < static_cast<size_t>(rows); ++i) {
      EXPECT_EQ(y[3 * i], x[2 * i]);
      EXPECT_EQ(y[3 * i + 1], x[2 * i] + x[2 * i + 1]);
      EXPECT_EQ(y[3 * i + 2], makers[i]) << "row " << i;
    }
    return OkStatus();
  });
  EXPECT_TRUE(ran.ok()) << ran.ToString();
}

TEST(DataParallelInference, CutsUnevenBatches) {
  RunRows(3, 7, {0, 0, 0, 1, 1, 2, 2});
}
TEST(DataParallelInference, MoreRanksThanRows) { RunRows(5, 2, {0, 1}); }
TEST(DataParallelInference, WithoutRows) { RunRows(2, 0, {}); }

}  // namespace
}  // namespace shardproof
