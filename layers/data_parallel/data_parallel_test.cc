// What the case cannot say: refusals, what overlaps with what, how buckets are
// packed, and gradients of nothing.
#include "layers/data_parallel/data_parallel.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <functional>
#include <thread>
#include <vector>

#include "collectives/backend/thread/thread_world.h"
#include "layers/data_parallel/linear_stack.h"

namespace shardproof {
namespace {

using Floats = std::vector<float>;

TEST(GradientBuckets, FillInTheOrderOfWriting) {
  const std::vector<int64_t> counts = {100, 10, 50, 0, 30};
  const GradientBuckets b =
      GradientBuckets::Pack(counts, ReverseOrder(5), /*capacity=*/64, 16);
  EXPECT_EQ(b.buckets(), (std::vector<GradientBucket>{
                             {0, 30, 2}, {32, 60, 2}, {96, 100, 1}}));
  EXPECT_EQ(b.slot(4), (GradientSlot{0, 0}));
  EXPECT_EQ(b.slot(3), (GradientSlot{0, 30}));
  EXPECT_EQ(b.slot(2), (GradientSlot{1, 32}));
  EXPECT_EQ(b.slot(1), (GradientSlot{1, 82}));
  EXPECT_EQ(b.slot(0), (GradientSlot{2, 96}));
  EXPECT_EQ(b.extent(), 196);
}

// The same error on every rank, which `spoil` provokes.
void ExpectRefusal(StatusCode code, const std::string& message,
                   const std::function<void(int, DataParallelConfig&)>& spoil) {
  std::vector<Status> refusals(3);
  const Status ran = RunThreads(3, [&](const Communicator& comm) {
    DataParallelConfig config = {.counts = {4, 5}};
    spoil(comm.rank(), config);
    refusals[static_cast<size_t>(comm.rank())] =
        DataParallel::Create(comm, config).status();
    return OkStatus();
  });
  ASSERT_TRUE(ran.ok()) << ran.ToString();
  for (const Status& refusal : refusals) {
    EXPECT_EQ(refusal.code(), code);
    EXPECT_NE(std::string(refusal.message()).find(message), std::string::npos)
        << refusal.message();
  }
}

TEST(DataParallel, RefusesOnEveryRankAlike) {
  using Config = DataParallelConfig;
  ExpectRefusal(StatusCode::kInvalidArgument, "counts 4 6",
                [](int rank, Config& c) {
                  if (rank == 2) c.counts[1] = 6;
                });
  ExpectRefusal(StatusCode::kInvalidArgument, "overlapped",
                [](int rank, Config& c) { c.overlap = rank == 1; });
  ExpectRefusal(StatusCode::kInvalidArgument, "parameter 1 has -5 elements",
                [](int, Config& c) { c.counts[1] = -5; });
  ExpectRefusal(StatusCode::kInvalidArgument, "a bucket must hold something",
                [](int, Config& c) { c.bucket_bytes = 0; });
  ExpectRefusal(StatusCode::kInvalidArgument,
                "an order of 2 parameters names 2 once each: 0 0",
                [](int, Config& c) {
                  c.order = {0, 0};
                });
  ExpectRefusal(StatusCode::kUnsupported, "i32",
                [](int, Config& c) { c.dtype = DType::kI32; });
}

// What one rank does with three parameters of 4, 5 and 6 elements in buckets of
// 11 (2 and 1) and 4 (0).
DataParallelConfig Three(bool overlap) {
  return {.counts = {4, 5, 6},
          .bucket_bytes = 11 * sizeof(float),
          .overlap = overlap};
}

Status WriteGradient(DataParallel& gradients, int parameter, int64_t count,
                     float value) {
  SP_ASSIGN_OR_RETURN(const DataParallel::Target to, gradients.Open(parameter));
  auto* const data = static_cast<float*>(to.data);
  for (int64_t i = 0; i < count; ++i) {
    data[i] = to.accumulate ? data[i] + value : value;
  }
  return gradients.Close(parameter);
}

Floats Read(const DataParallel& gradients, int parameter, int64_t count) {
  const auto* const data =
      static_cast<const float*>(gradients.gradient(parameter));
  return data == nullptr ? Floats() : Floats(data, data + count);
}

void OnRanks(int ranks, const std::function<Status(const Communicator&)>& f) {
  const Status ran = RunThreads(ranks, f);
  EXPECT_TRUE(ran.ok()) << ran.ToString();
}

// The first bucket arrives while the last gradient is still to be written:
// nobody would get past the wait if the reduction came after backward.
TEST(DataParallel, ReducesWhileBackwardRuns) {
  OnRanks(3, [](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(DataParallel g,
                        DataParallel::Create(comm, Three(true)));
    SP_RETURN_IF_ERROR(g.BeginStep());
    SP_RETURN_IF_ERROR(g.BeginMicroBatch(1, true));
    SP_RETURN_IF_ERROR(WriteGradient(g, 2, 6, 6));
    EXPECT_EQ(g.WaitFor(0).code(), StatusCode::kInvalidArgument);
    SP_RETURN_IF_ERROR(WriteGradient(g, 1, 5, 9));
    SP_RETURN_IF_ERROR(g.WaitFor(0));
    EXPECT_EQ(Read(g, 2, 6), Floats(6, 6));
    EXPECT_EQ(Read(g, 1, 5), Floats(5, 9));
    SP_RETURN_IF_ERROR(WriteGradient(g, 0, 4, 3));
    SP_RETURN_IF_ERROR(g.Finish());
    EXPECT_EQ(Read(g, 0, 4), Floats(4, 3));
    return OkStatus();
  });
}

// Backward is queued on a stream: a bucket waits for what is queued, not for the
// call that queued it.
TEST(DataParallel, WaitsForWhatIsQueued) {
  for (const bool overlap : {false, true}) {
    OnRanks(2, [overlap](const Communicator& comm) -> Status {
      SP_ASSIGN_OR_RETURN(DataParallel g,
                          DataParallel::Create(comm, Three(overlap)));
      SP_ASSIGN_OR_RETURN(const Stream compute, Stream::Create("compute"));
      SP_RETURN_IF_ERROR(g.BeginStep());
      SP_RETURN_IF_ERROR(g.BeginMicroBatch(2, true));
      const std::vector<int64_t> counts = {4, 5, 6};
      for (const int i : {2, 1, 0}) {
        SP_ASSIGN_OR_RETURN(const DataParallel::Target to, g.Open(i));
        SP_RETURN_IF_ERROR(compute.Run([to, n = counts[i]] {
          std::this_thread::sleep_for(std::chrono::milliseconds(20));
          std::fill_n(static_cast<float*>(to.data), n, 8.0f);
          return OkStatus();
        }));
        SP_RETURN_IF_ERROR(g.Close(i, compute));
      }
      SP_RETURN_IF_ERROR(g.Finish(compute));
      for (const int i : {0, 1, 2}) {
        EXPECT_EQ(Read(g, i, counts[i]), Floats(counts[i], 2 * 8 / 4.0f));
      }
      return compute.Synchronize();
    });
  }
}

// Ranks use different parameters, so that their buckets become full in another
// order; the tokens are 1, 2 and 3.
TEST(DataParallel, SumsWhatEachRankUses) {
  for (const bool overlap : {false, true}) {
    OnRanks(3, [overlap](const Communicator& comm) -> Status {
      SP_ASSIGN_OR_RETURN(DataParallel g,
                          DataParallel::Create(comm, Three(overlap)));
      const int rank = comm.rank();
      for (int step = 0; step < 3; ++step) {
        SP_RETURN_IF_ERROR(g.BeginStep());
        SP_RETURN_IF_ERROR(g.BeginMicroBatch(1 + rank, true));
        if (rank == 0) SP_RETURN_IF_ERROR(WriteGradient(g, 0, 4, 12));
        if (rank == 1) SP_RETURN_IF_ERROR(WriteGradient(g, 2, 6, 18));
        SP_RETURN_IF_ERROR(g.Finish());
        EXPECT_EQ(Read(g, 0, 4), Floats(4, 2));
        EXPECT_EQ(Read(g, 1, 5), Floats(5, 0));
        EXPECT_EQ(Read(g, 2, 6), Floats(6, 3));
      }
      return OkStatus();
    });
  }
}

// Used in the first micro-batch only, and twice in it.
TEST(DataParallel, KeepsWhatOnlyAnEarlierMicroBatchUsed) {
  OnRanks(2, [](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(DataParallel g,
                        DataParallel::Create(comm, Three(true)));
    SP_RETURN_IF_ERROR(g.BeginStep());
    SP_RETURN_IF_ERROR(g.BeginMicroBatch(1, false));
    SP_RETURN_IF_ERROR(WriteGradient(g, 0, 4, 3));
    SP_RETURN_IF_ERROR(WriteGradient(g, 0, 4, 4));
    EXPECT_EQ(Read(g, 0, 4), Floats(4, 7));
    EXPECT_EQ(g.gradient(1), nullptr);
    SP_RETURN_IF_ERROR(g.BeginMicroBatch(0, true));
    SP_RETURN_IF_ERROR(WriteGradient(g, 1, 5, 5));
    SP_RETURN_IF_ERROR(g.Finish());
    EXPECT_EQ(Read(g, 0, 4), Floats(4, 7));
    EXPECT_EQ(Read(g, 1, 5), Floats(5, 5));
    EXPECT_EQ(Read(g, 2, 6), Floats(6, 0));
    return OkStatus();
  });
}

TEST(DataParallel, MovesWhatIsAccumulatedWhenRebuilt) {
  OnRanks(2, [](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(DataParallel g,
                        DataParallel::Create(comm, Three(true)));
    SP_RETURN_IF_ERROR(g.BeginStep());
    SP_RETURN_IF_ERROR(g.BeginMicroBatch(1, false));
    SP_RETURN_IF_ERROR(WriteGradient(g, 2, 6, 1));
    SP_RETURN_IF_ERROR(WriteGradient(g, 0, 4, 2));
    SP_RETURN_IF_ERROR(g.Rebuild(std::vector<int>{1, 0, 2}));
    EXPECT_EQ(g.buckets(),
              (std::vector<GradientBucket>{{0, 9, 2}, {16, 6, 1}}));
    EXPECT_EQ(Read(g, 2, 6), Floats(6, 1));
    EXPECT_EQ(Read(g, 0, 4), Floats(4, 2));
    EXPECT_EQ(g.gradient(1), nullptr);
    SP_RETURN_IF_ERROR(g.BeginMicroBatch(0, true));
    SP_RETURN_IF_ERROR(WriteGradient(g, 2, 6, 10));
    // Buckets may be on their way.
    EXPECT_EQ(g.Rebuild(std::vector<int>{2, 1, 0}).code(),
              StatusCode::kInvalidArgument);
    SP_RETURN_IF_ERROR(g.Finish());
    EXPECT_EQ(Read(g, 2, 6), Floats(6, 11));
    EXPECT_EQ(Read(g, 0, 4), Floats(4, 2));
    // The order of one rank is not that of the other.
    EXPECT_EQ(g.Rebuild(comm.rank() == 0 ? std::vector<int>{2, 1, 0}
                                         : std::vector<int>{0, 1, 2})
                  .code(),
              StatusCode::kInvalidArgument);
    EXPECT_EQ(g.Rebuild(std::vector<int>{2, 1}).code(),
              StatusCode::kInvalidArgument);
    return OkStatus();
  });
}

TEST(DataParallel, RefusesStepsOutOfOrder) {
  OnRanks(1, [](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(DataParallel g,
                        DataParallel::Create(comm, Three(false)));
    constexpr StatusCode kBad = StatusCode::kInvalidArgument;
    SP_RETURN_IF_ERROR(g.BeginStep());
    EXPECT_EQ(g.Finish().code(), kBad);  // Before the last micro-batch.
    SP_RETURN_IF_ERROR(g.BeginMicroBatch(1, true));
    EXPECT_EQ(g.BeginMicroBatch(1, true).code(), kBad);
    EXPECT_EQ(g.Open(3).status().code(), kBad);
    EXPECT_EQ(g.Close(-1).code(), kBad);
    EXPECT_EQ(g.Close(1).code(), kBad);  // Never opened.
    SP_RETURN_IF_ERROR(WriteGradient(g, 1, 5, 1));
    EXPECT_EQ(g.Close(1).code(), kBad);  // Twice.
    // It may be on its way.
    EXPECT_EQ(g.Open(1).status().code(), kBad);
    EXPECT_EQ(g.BeginStep().code(), kBad);
    SP_RETURN_IF_ERROR(g.Finish());
    EXPECT_EQ(g.Finish().code(), kBad);
    return g.BeginStep();
  });
}

TEST(DataParallel, WithoutATokenSumsAreLeft) {
  OnRanks(2, [](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(DataParallel g,
                        DataParallel::Create(comm, Three(false)));
    SP_RETURN_IF_ERROR(g.BeginStep());
    SP_RETURN_IF_ERROR(g.BeginMicroBatch(0, true));
    SP_RETURN_IF_ERROR(g.Finish());
    EXPECT_EQ(Read(g, 1, 5), Floats(5, 0));
    return OkStatus();
  });
}

TEST(DataParallel, WithoutParameters) {
  OnRanks(2, [](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(DataParallel g,
                        DataParallel::Create(comm, {.overlap = true}));
    SP_RETURN_IF_ERROR(g.BeginStep());
    SP_RETURN_IF_ERROR(g.BeginMicroBatch(1, true));
    return g.Finish();
  });
}

// 2 (d - 1)/d Psi e from each rank, and 8 (d - 1) bytes of the count.
TEST(DataParallel, CostsTwoPassesOverTheGradients) {
  const DataParallelConfig config = {.counts = {120, 60, 600},
                                     .bucket_bytes = 400};
  for (const int d : {2, 3, 5}) {
    const int64_t psi = 780;
    const Cost cost = DataParallelStepCost(d, config, kRingCollectives);
    const Cost count = AllReduceRingCost(d, 1, DType::kI64);
    EXPECT_EQ(cost.total.bytes - count.total.bytes, 2 * (d - 1) * psi * 4);
    EXPECT_LE(count.total.bytes, 8 * 2 * (d - 1));
  }
}

TEST(LinearStack, RefusesWhatIsNoStack) {
  EXPECT_EQ(LinearStack::Create({.widths = {3}}).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(LinearStack::Create({.widths = {3, -1}}).status().code(),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(
      LinearStack::Create({.widths = {3, 1}, .tokens = -1}).status().code(),
      StatusCode::kInvalidArgument);
  EXPECT_EQ(LinearStack::Create({.widths = {3, 1}, .dtype = DType::kI8})
                .status()
                .code(),
            StatusCode::kUnsupported);
}

}  // namespace
}  // namespace shardproof
