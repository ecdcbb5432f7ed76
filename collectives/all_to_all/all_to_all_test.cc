#include "collectives/all_to_all/all_to_all.h"

#include <gtest/gtest.h>

#include <array>
#include <string>
#include <vector>

#include "collectives/backend/thread/thread_world.h"
#include "collectives/testing/check.h"
#include "collectives/uneven.h"

namespace shardproof {
namespace {

using testing::Check;
using testing::ForEachWorld;

struct Variant {
  std::string name;
  Status (*run)(const Communicator&, const AllToAllArgs&);
  Cost (*cost)(int, int64_t, DType);
};
const Variant kVariants[] = {
    {"pairwise", AllToAllPairwise, AllToAllPairwiseCost},
    {"bruck", AllToAllBruck, AllToAllBruckCost}};

Status CheckAllToAll(const Communicator& comm, const Variant& variant,
                     int64_t count, DType dtype) {
  const InputFn input = testing::SmallIntegers(dtype, comm.size());
  const AllToAllLayout layout = AllToAllLayout::Even(comm.size(), count);
  for (const bool in_place : {false, true}) {
    SP_RETURN_IF_ERROR(Check(
        comm,
        {.name = variant.name,
         .dtype = dtype,
         .send_count = count * comm.size(),
         .recv_count = count * comm.size(),
         .in_place_at = in_place ? std::optional<int64_t>(0) : std::nullopt,
         .input = input,
         .run =
             [&](const void* send, void* recv) {
               return variant.run(comm, {send, recv, count, dtype});
             },
         .expected =
             [&](std::span<Bounded> out) {
               AllToAllExpected(layout, input, comm.rank(), 0, out);
             },
         .traffic = variant.cost(comm.size(), count, dtype).total}));
  }
  return OkStatus();
}

// How many elements each rank sends to each: zeros, and rows and columns that
// differ.
std::vector<std::vector<int64_t>> PairCounts(int ranks, int64_t scale) {
  std::vector<std::vector<int64_t>> counts;
  for (int s = 0; s < ranks; ++s) {
    counts.push_back(UnevenCounts(ranks, scale, s));
  }
  return counts;
}

Status CheckV(const Communicator& comm, int64_t scale, bool gaps, DType dtype) {
  const int p = comm.size();
  const InputFn input = testing::SmallIntegers(dtype, p);
  const auto counts = PairCounts(p, scale);
  AllToAllLayout layout = AllToAllLayout::FromCounts(counts);
  std::vector<int64_t> all;
  for (const auto& row : counts) all.insert(all.end(), row.begin(), row.end());
  if (gaps) {
    for (auto* side : {&layout.send, &layout.recv}) {
      for (Layout& one : *side) {
        one.displacements = GappedOffsets(one.counts);
      }
    }
  }
  const auto r = static_cast<size_t>(comm.rank());
  const Layout &send_layout = layout.send[r], &recv_layout = layout.recv[r];
  const std::vector<int64_t> none;
  for (const bool in_place : {false, true}) {
    SP_RETURN_IF_ERROR(Check(
        comm,
        {.name = "pairwise v",
         .dtype = dtype,
         .send_count = send_layout.extent(),
         .recv_count = recv_layout.extent(),
         .in_place_at = in_place ? std::optional<int64_t>(0) : std::nullopt,
         .input = input,
         .run =
             [&](const void* send, void* recv) {
               return AllToAllVPairwise(
                   comm,
                   {.send = send,
                    .recv = recv,
                    .send_counts = send_layout.counts,
                    .recv_counts = recv_layout.counts,
                    .send_offsets = gaps ? send_layout.displacements : none,
                    .recv_offsets = gaps ? recv_layout.displacements : none,
                    .dtype = dtype});
             },
         .expected =
             [&](std::span<Bounded> out) {
               AllToAllExpected(layout, input, comm.rank(), 0, out);
             },
         .traffic = AllToAllVPairwiseCost(p, all, dtype).total}));
  }
  return OkStatus();
}

TEST(AllToAll, MatchesTheReferenceAndItsCost) {
  ForEachWorld(testing::kWorldSizes, [](const Communicator& comm) {
    for (const Variant& variant : kVariants) {
      SP_RETURN_IF_ERROR(testing::ForEachCount([&](int64_t count, DType dtype) {
        return CheckAllToAll(comm, variant, count, dtype);
      }));
    }
    return OkStatus();
  });
}

TEST(AllToAllV, MatchesTheReferenceAndItsCost) {
  ForEachWorld(testing::kWorldSizes, [](const Communicator& comm) {
    for (const bool gaps : {false, true}) {
      SP_RETURN_IF_ERROR(testing::ForEachCount([&](int64_t count, DType dtype) {
        return CheckV(comm, count, gaps, dtype);
      }));
    }
    return OkStatus();
  });
}

TEST(AllToAll, RefusesANegativeCountOnEveryRank) {
  ForEachWorld({3}, [](const Communicator& comm) {
    for (const Variant& variant : kVariants) {
      if (variant.run(comm, {.count = -1}).code() !=
          StatusCode::kInvalidArgument) {
        return Internal("{} takes a count of -1", variant.name);
      }
    }
    return OkStatus();
  });
}

// One rank alone has a bad count: the others must not wait for it.
TEST(AllToAllV, EndsTheWaitsOfThePeersOfARankThatRefuses) {
  auto world = ThreadWorld::Create({.ranks = 3, .pin = false});
  ASSERT_TRUE(world.ok()) << world.status().ToString();
  std::array<StatusCode, 3> codes{};
  (void)(*world)->Run([&](const Communicator& comm) {
    std::vector<int64_t> counts(3, 1);
    if (comm.rank() == 1) counts[2] = -1;
    std::vector<float> x(3, 1), y(3);
    codes[static_cast<size_t>(comm.rank())] =
        AllToAllVPairwise(comm, {.send = x.data(),
                                 .recv = y.data(),
                                 .send_counts = counts,
                                 .recv_counts = counts})
            .code();
    return OkStatus();
  });
  EXPECT_EQ(codes[0], StatusCode::kAborted);
  EXPECT_EQ(codes[1], StatusCode::kInvalidArgument);
  EXPECT_EQ(codes[2], StatusCode::kAborted);
}

// The rows of the table in the design. Its n counts a rank's block for itself,
// which does not travel.
TEST(AllToAll, CostsWhatTheTableSays) {
  const int64_t count = 100;
  const double n = 8 * 4.0 * static_cast<double>(count);
  const Cost pairwise = AllToAllPairwiseCost(8, count, DType::kF32);
  EXPECT_EQ(pairwise.alpha_count, 7);
  EXPECT_EQ(pairwise.beta_bytes, n * 7 / 8);
  const Cost bruck = AllToAllBruckCost(8, count, DType::kF32);
  EXPECT_EQ(bruck.alpha_count, 3);
  EXPECT_EQ(bruck.beta_bytes, n / 2 * 3);
}

}  // namespace
}  // namespace shardproof
