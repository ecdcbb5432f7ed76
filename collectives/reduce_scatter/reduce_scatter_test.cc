#include "collectives/reduce_scatter/reduce_scatter.h"

#include <gtest/gtest.h>

#include <numeric>
#include <string>
#include <utility>
#include <vector>

#include "collectives/testing/check.h"
#include "collectives/uneven.h"

namespace shardproof {
namespace {

using testing::Check;
using testing::ForEachWorld;

struct Variant {
  std::string name;
  Status (*run)(const Communicator&, const ReduceScatterArgs&);
  Cost (*cost)(int, int64_t, DType);
  Status (*run_v)(const Communicator&, const ReduceScatterVArgs&);
  Cost (*cost_v)(std::span<const int64_t>, DType);
};
const Variant kVariants[] = {
    {"ring", ReduceScatterRing, ReduceScatterRingCost, ReduceScatterVRing,
     ReduceScatterVRingCost},
    {"pairwise", ReduceScatterPairwise, ReduceScatterPairwiseCost,
     ReduceScatterVPairwise, ReduceScatterVPairwiseCost},
    {"halving", ReduceScatterHalving, ReduceScatterHalvingCost,
     ReduceScatterVHalving, ReduceScatterVHalvingCost}};

using Run = std::function<Status(const void* send, void* recv)>;

Status CheckLayout(const Communicator& comm, const std::string& name,
                   const Layout& layout, DType dtype, ReduceOp op,
                   const Traffic& traffic, const Run& run) {
  const InputFn input = testing::ExactInput(dtype, op, comm.size());
  const auto r = static_cast<size_t>(comm.rank());
  for (const bool in_place : {false, true}) {
    SP_RETURN_IF_ERROR(Check(
        comm, {.name = name,
               .dtype = dtype,
               .send_count = layout.extent(),
               .recv_count = layout.counts[r],
               .in_place_at = in_place ? std::optional(layout.displacements[r])
                                       : std::nullopt,
               .input = input,
               .run = run,
               .expected =
                   [&](std::span<Bounded> out) {
                     ReduceScatterExpected(
                         testing::ExactReduction(dtype, op, comm.size()),
                         layout, input, comm.rank(), 0, out);
                   },
               .traffic = traffic}));
  }
  return OkStatus();
}

Status CheckEven(const Communicator& comm, const Variant& variant,
                 int64_t count, DType dtype, ReduceOp op) {
  return CheckLayout(comm, variant.name, Layout::Even(comm.size(), count),
                     dtype, op, variant.cost(comm.size(), count, dtype).total,
                     [&](const void* send, void* recv) {
                       return variant.run(comm,
                                          {send, recv, count, dtype, op,
                                           testing::ExactScale(comm.rank())});
                     });
}

Status CheckUneven(const Communicator& comm, const Variant& variant,
                   int64_t count, DType dtype, ReduceOp op) {
  const auto counts = UnevenCounts(comm.size(), count);
  return CheckLayout(
      comm, variant.name + " v", Layout::Packed(counts), dtype, op,
      variant.cost_v(counts, dtype).total, [&](const void* send, void* recv) {
        return variant.run_v(comm, {send, recv, counts, dtype, op,
                                    testing::ExactScale(comm.rank())});
      });
}

TEST(ReduceScatter, MatchesTheReferenceAndItsCost) {
  ForEachWorld(testing::kWorldSizes, [](const Communicator& comm) {
    for (const Variant& variant : kVariants) {
      SP_RETURN_IF_ERROR(testing::ForEachReduction(
          [&](int64_t count, DType dtype, ReduceOp op) {
            return CheckEven(comm, variant, count, dtype, op);
          }));
    }
    return OkStatus();
  });
}

TEST(ReduceScatterV, MatchesTheReferenceAndItsCost) {
  ForEachWorld(testing::kWorldSizes, [](const Communicator& comm) {
    for (const Variant& variant : kVariants) {
      for (const int64_t count : {0, 1, 7, 40, 999}) {
        for (const ReduceOp op : {ReduceOp::kSum, ReduceOp::kAvg}) {
          SP_RETURN_IF_ERROR(
              CheckUneven(comm, variant, count, DType::kF32, op));
          SP_RETURN_IF_ERROR(CheckUneven(comm, variant, count, DType::kI8, op));
        }
      }
    }
    return OkStatus();
  });
}

TEST(ReduceScatter, TravelsInSegmentsWhenLarge) {
  ForEachWorld({2, 3}, [](const Communicator& comm) {
    for (const Variant& variant : kVariants) {
      SP_RETURN_IF_ERROR(
          CheckUneven(comm, variant, 70001, DType::kF64, ReduceOp::kSum));
    }
    return OkStatus();
  });
}

TEST(ReduceScatter, RefusesBadArgumentsOnEveryRank) {
  ForEachWorld({3}, [](const Communicator& comm) {
    const std::vector<int64_t> negative(static_cast<size_t>(comm.size()), -1);
    for (const Variant& variant : kVariants) {
      if (variant.run(comm, {.count = -1}).code() !=
              StatusCode::kInvalidArgument ||
          variant.run_v(comm, {.counts = negative}).code() !=
              StatusCode::kInvalidArgument) {
        return Internal("{} takes a negative count", variant.name);
      }
    }
    return OkStatus();
  });
}

// The rows of the table in the design.
TEST(ReduceScatter, CostsWhatTheTableSays) {
  const int64_t count = 100;
  const double n = 8 * 4.0 * static_cast<double>(count);
  for (const auto& [cost, alpha] :
       {std::pair(ReduceScatterRingCost(8, count, DType::kF32), 7),
        std::pair(ReduceScatterPairwiseCost(8, count, DType::kF32), 7),
        std::pair(ReduceScatterHalvingCost(8, count, DType::kF32), 3)}) {
    EXPECT_EQ(cost.alpha_count, alpha);
    EXPECT_EQ(cost.beta_bytes, n * 7 / 8);
    EXPECT_EQ(cost.gamma_bytes, n * 7 / 8);
    EXPECT_EQ(cost.total.bytes, 7 * n);
  }
}

}  // namespace
}  // namespace shardproof
