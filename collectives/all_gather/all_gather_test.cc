#include "collectives/all_gather/all_gather.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

#include "collectives/testing/check.h"
#include "collectives/uneven.h"

namespace shardproof {
namespace {

using testing::Check;
using testing::ForEachWorld;

struct Variant {
  std::string name;
  Status (*run)(const Communicator&, const AllGatherArgs&);
  Cost (*cost)(int, int64_t, DType);
};
const Variant kVariants[] = {{"ring", AllGatherRing, AllGatherRingCost},
                             {"recursive doubling", AllGatherRecursiveDoubling,
                              AllGatherRecursiveDoublingCost},
                             {"bruck", AllGatherBruck, AllGatherBruckCost}};

struct VariantV {
  std::string name;
  Status (*run)(const Communicator&, const AllGatherVArgs&);
  Cost (*cost)(std::span<const int64_t>, DType);
};
const VariantV kVariantsV[] = {
    {"ring v", AllGatherVRing, AllGatherVRingCost},
    {"bruck v", AllGatherVBruck, AllGatherVBruckCost}};

Status CheckAllGather(const Communicator& comm, const Variant& variant,
                      int64_t count, DType dtype) {
  const InputFn input = testing::SmallIntegers(dtype, comm.size());
  const Layout layout = Layout::Even(comm.size(), count);
  for (const bool in_place : {false, true}) {
    SP_RETURN_IF_ERROR(Check(
        comm, {.name = variant.name,
               .dtype = dtype,
               .send_count = count,
               .recv_count = count * comm.size(),
               .in_place_at =
                   in_place ? std::optional(count * comm.rank()) : std::nullopt,
               .input = input,
               .run =
                   [&](const void* send, void* recv) {
                     return variant.run(comm, {send, recv, count, dtype});
                   },
               .expected =
                   [&](std::span<Bounded> out) {
                     AllGatherExpected(layout, input, comm.rank(), 0, out);
                   },
               .traffic = variant.cost(comm.size(), count, dtype).total}));
  }
  return OkStatus();
}

Status CheckAllGatherV(const Communicator& comm, const VariantV& variant,
                       const std::vector<int64_t>& counts,
                       const std::vector<int64_t>& offsets, DType dtype) {
  const InputFn input = testing::SmallIntegers(dtype, comm.size());
  Layout layout = Layout::Packed(counts);
  if (!offsets.empty()) layout.displacements = offsets;
  const auto r = static_cast<size_t>(comm.rank());
  for (const bool in_place : {false, true}) {
    SP_RETURN_IF_ERROR(Check(
        comm,
        {.name = variant.name,
         .dtype = dtype,
         .send_count = counts[r],
         .recv_count = layout.extent(),
         .in_place_at =
             in_place ? std::optional(layout.displacements[r]) : std::nullopt,
         .input = input,
         .run =
             [&](const void* send, void* recv) {
               return variant.run(comm, {send, recv, counts, offsets, dtype});
             },
         .expected =
             [&](std::span<Bounded> out) {
               AllGatherExpected(layout, input, comm.rank(), 0, out);
             },
         .traffic = variant.cost(counts, dtype).total}));
  }
  return OkStatus();
}

TEST(AllGather, MatchesTheReferenceAndItsCost) {
  ForEachWorld(testing::kWorldSizes, [](const Communicator& comm) {
    for (const Variant& variant : kVariants) {
      SP_RETURN_IF_ERROR(testing::ForEachCount([&](int64_t count, DType dtype) {
        return CheckAllGather(comm, variant, count, dtype);
      }));
    }
    return OkStatus();
  });
}

TEST(AllGatherV, MatchesTheReferenceAndItsCost) {
  ForEachWorld(testing::kWorldSizes, [](const Communicator& comm) {
    for (const VariantV& variant : kVariantsV) {
      SP_RETURN_IF_ERROR(testing::ForEachCount([&](int64_t count, DType dtype) {
        const auto counts = UnevenCounts(comm.size(), count);
        SP_RETURN_IF_ERROR(CheckAllGatherV(comm, variant, counts, {}, dtype));
        return CheckAllGatherV(comm, variant, counts, GappedOffsets(counts),
                               dtype);
      }));
    }
    return OkStatus();
  });
}

TEST(AllGatherV, RefusesBadCountsOnEveryRank) {
  ForEachWorld({3}, [](const Communicator& comm) {
    const auto ranks = static_cast<size_t>(comm.size());
    const std::vector<int64_t> good(ranks, 1), negative(ranks, -1),
        missing(ranks + 1, 1);
    for (const VariantV& variant : kVariantsV) {
      for (const AllGatherVArgs& args :
           {AllGatherVArgs{.counts = negative},
            AllGatherVArgs{.counts = missing},
            AllGatherVArgs{.counts = good, .offsets = negative},
            AllGatherVArgs{.counts = good, .offsets = missing}}) {
        if (variant.run(comm, args).code() != StatusCode::kInvalidArgument) {
          return Internal("{} takes bad counts", variant.name);
        }
      }
    }
    return OkStatus();
  });
}

// The rows of the table in the design.
TEST(AllGather, CostsWhatTheTableSays) {
  const int64_t count = 100;
  const double n = 8 * 4.0 * static_cast<double>(count);
  for (const auto& [cost, alpha] :
       {std::pair(AllGatherRingCost(8, count, DType::kF32), 7),
        std::pair(AllGatherRecursiveDoublingCost(8, count, DType::kF32), 3),
        std::pair(AllGatherBruckCost(8, count, DType::kF32), 3)}) {
    EXPECT_EQ(cost.alpha_count, alpha);
    EXPECT_EQ(cost.beta_bytes, n * 7 / 8);
    EXPECT_EQ(cost.total.bytes, 7 * n);
  }
  EXPECT_EQ(AllGatherBruckCost(5, count, DType::kF32).alpha_count, 3);
}

}  // namespace
}  // namespace shardproof
