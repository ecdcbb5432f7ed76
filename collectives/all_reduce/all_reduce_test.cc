#include "collectives/all_reduce/all_reduce.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "collectives/all_reduce/hierarchy.h"
#include "collectives/backend/thread/thread_world.h"
#include "collectives/testing/check.h"

namespace shardproof {
namespace {

using testing::Check;
using testing::ForEachWorld;

struct Variant {
  std::string name;
  Status (*run)(const Communicator&, const AllReduceArgs&);
  Cost (*cost)(const Communicator&, int64_t, DType);
};

template <Cost (*kCost)(int, int64_t, DType)>
Cost OfRanks(const Communicator& comm, int64_t count, DType dtype) {
  return kCost(comm.size(), count, dtype);
}

Cost OfTopology(const Communicator& comm, int64_t count, DType dtype) {
  return AllReduceHierarchicalCost(comm.topology(), count, dtype);
}

const Variant kVariants[] = {
    {"ring", AllReduceRing, OfRanks<AllReduceRingCost>},
    {"recursive doubling", AllReduceRecursiveDoubling,
     OfRanks<AllReduceRecursiveDoublingCost>},
    {"rabenseifner", AllReduceRabenseifner, OfRanks<AllReduceRabenseifnerCost>},
    {"hierarchical", AllReduceHierarchical, OfTopology}};

Status CheckAllReduce(const Communicator& comm, const Variant& variant,
                      int64_t count, DType dtype, ReduceOp op) {
  const InputFn input = testing::ExactInput(dtype, op, comm.size());
  for (const bool in_place : {false, true}) {
    SP_RETURN_IF_ERROR(Check(
        comm,
        {.name = variant.name,
         .dtype = dtype,
         .send_count = count,
         .recv_count = count,
         .in_place_at = in_place ? std::optional<int64_t>(0) : std::nullopt,
         .input = input,
         .run =
             [&](const void* send, void* recv) {
               return variant.run(comm,
                                  {.send = send,
                                   .recv = recv,
                                   .count = count,
                                   .dtype = dtype,
                                   .op = op,
                                   .scale = testing::ExactScale(comm.rank())});
             },
         .expected =
             [&](std::span<Bounded> out) {
               AllReduceExpected(
                   testing::ExactReduction(dtype, op, comm.size()), input,
                   comm.rank(), 0, out);
             },
         .traffic = variant.cost(comm, count, dtype).total}));
  }
  return OkStatus();
}

Status CheckAll(const Communicator& comm) {
  for (const Variant& variant : kVariants) {
    SP_RETURN_IF_ERROR(
        testing::ForEachReduction([&](int64_t count, DType dtype, ReduceOp op) {
          return CheckAllReduce(comm, variant, count, dtype, op);
        }));
  }
  return OkStatus();
}

TEST(AllReduce, MatchesTheReferenceAndItsCost) {
  ForEachWorld(testing::kWorldSizes, CheckAll);
}

TEST(AllReduce, TravelsInSegmentsWhenLarge) {
  // A vector of three segments, chunks of two.
  ForEachWorld({2, 3}, [](const Communicator& comm) {
    for (const Variant& variant : kVariants) {
      SP_RETURN_IF_ERROR(
          CheckAllReduce(comm, variant, 70001, DType::kF64, ReduceOp::kSum));
    }
    return OkStatus();
  });
}

TEST(AllReduce, CrossesNodesOfUnequalSize) {
  for (const int ranks_per_node : {1, 2, 3, 5}) {
    auto world = ThreadWorld::Create(
        {.ranks = 8, .ranks_per_node = ranks_per_node, .pin = false});
    ASSERT_TRUE(world.ok()) << world.status().ToString();
    const Status status = (*world)->Run(CheckAll);
    EXPECT_TRUE(status.ok()) << status.ToString();
  }
}

TEST(AllReduce, FormsGroupsOfTheLargestDivisorNotAboveTheRoot) {
  const auto groups = [](int ranks) {
    return HierarchyGroups(
        {.node_of = std::vector<int>(static_cast<size_t>(ranks), 0)});
  };
  EXPECT_EQ(groups(1), (std::vector<int>{0}));
  EXPECT_EQ(groups(5), (std::vector<int>{0, 1, 2, 3, 4}));
  EXPECT_EQ(groups(6), (std::vector<int>{0, 0, 1, 1, 2, 2}));
  EXPECT_EQ(groups(9), (std::vector<int>{0, 0, 0, 1, 1, 1, 2, 2, 2}));
  const Topology nodes{.node_of = {0, 0, 1}, .nodes = 2};
  EXPECT_EQ(HierarchyGroups(nodes), nodes.node_of);
}

// Where the order of the operands shows: a NaN, and zeros of both signs.
TEST(AllReduce, LeavesTheSameBitsOnEveryRank) {
  ForEachWorld({2, 3, 5, 8}, [](const Communicator& comm) -> Status {
    constexpr int64_t kCount = 40;
    const InputFn noise = testing::SmallIntegers(DType::kF32, comm.size());
    for (const Variant& variant : kVariants) {
      for (const ReduceOp op : kAllReduceOps) {
        std::vector<double> wide(kCount);
        noise(comm.rank(), 0, wide);
        std::vector<float> x(kCount), y(kCount);
        for (size_t i = 0; i < x.size(); ++i) {
          x[i] = static_cast<float>(wide[i]) / 3;
        }
        x[0] = comm.rank() == comm.size() - 1
                   ? std::numeric_limits<float>::quiet_NaN()
                   : 1;
        x[1] = comm.rank() == 0 ? -0.0f : 0.0f;
        SP_RETURN_IF_ERROR(variant.run(comm, {.send = x.data(),
                                              .recv = y.data(),
                                              .count = kCount,
                                              .dtype = DType::kF32,
                                              .op = op,
                                              .scale = 0.7}));
        if (!std::isnan(y[0])) {
          return Internal("{}, {}: the NaN of the last rank is lost",
                          variant.name, Name(op));
        }
        const std::string bits(reinterpret_cast<const char*>(y.data()),
                               kCount * sizeof(float));
        SP_ASSIGN_OR_RETURN(const std::vector<std::string> all,
                            comm.ExchangeControl(bits));
        if (std::ranges::count(all, bits) != comm.size()) {
          return Internal("{}, {}: ranks differ", variant.name, Name(op));
        }
      }
    }
    return OkStatus();
  });
}

TEST(AllReduce, RefusesANegativeCountOnEveryRank) {
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

// The rows of the table in the design, for sizes that divide evenly and fit a
// segment.
TEST(AllReduce, CostsWhatTheTableSays) {
  const int64_t count = 8 * 1024;
  const double n = 4.0 * static_cast<double>(count);
  const Cost ring = AllReduceRingCost(8, count, DType::kF32);
  EXPECT_EQ(ring.alpha_count, 14);
  EXPECT_EQ(ring.beta_bytes, 2 * n * 7 / 8);
  EXPECT_EQ(ring.gamma_bytes, n * 7 / 8);
  const Cost doubling = AllReduceRecursiveDoublingCost(8, count, DType::kF32);
  EXPECT_EQ(doubling.alpha_count, 3);
  EXPECT_EQ(doubling.beta_bytes, 3 * n);
  EXPECT_EQ(doubling.gamma_bytes, 3 * n);
  const Cost rabenseifner = AllReduceRabenseifnerCost(8, count, DType::kF32);
  EXPECT_EQ(rabenseifner.alpha_count, 6);
  EXPECT_EQ(rabenseifner.beta_bytes, 2 * n * 7 / 8);
  EXPECT_EQ(rabenseifner.gamma_bytes, n * 7 / 8);
  // p = 6 folds to 4 members.
  const Cost folded = AllReduceRabenseifnerCost(6, count, DType::kF32);
  EXPECT_EQ(folded.alpha_count, 6);
  EXPECT_EQ(folded.beta_bytes, (2 * 3.0 / 4 + 2) * n);
  EXPECT_EQ(folded.gamma_bytes, (1 + 3.0 / 4) * n);
}

}  // namespace
}  // namespace shardproof
