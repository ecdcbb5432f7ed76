#include "collectives/gather/gather.h"

#include <gtest/gtest.h>

#include <set>
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
  Status (*run)(const Communicator&, const GatherArgs&);
  Cost (*cost)(int, int64_t, DType);
  Status (*run_v)(const Communicator&, const GatherVArgs&);
  Cost (*cost_v)(std::span<const int64_t>, DType, int);
};
const Variant kVariants[] = {{"binomial", GatherBinomial, GatherBinomialCost,
                              GatherVBinomial, GatherVBinomialCost},
                             {"linear", GatherLinear, GatherLinearCost,
                              GatherVLinear, GatherVLinearCost}};

using Run = std::function<Status(const void* send, void* recv)>;

Status CheckLayout(const Communicator& comm, const std::string& name,
                   const Layout& layout, DType dtype, int root,
                   const Traffic& traffic, const Run& run) {
  const InputFn input = testing::SmallIntegers(dtype, comm.size());
  const auto r = static_cast<size_t>(comm.rank());
  const bool at_root = comm.rank() == root;
  for (const bool in_place : {false, true}) {
    SP_RETURN_IF_ERROR(Check(
        comm, {.name = name,
               .dtype = dtype,
               .send_count = layout.counts[r],
               .recv_count = at_root ? layout.extent() : 0,
               .in_place_at = in_place && at_root
                                  ? std::optional(layout.displacements[r])
                                  : std::nullopt,
               .input = input,
               .run = run,
               .expected =
                   [&](std::span<Bounded> out) {
                     GatherExpected(layout, root, input, comm.rank(), 0, out);
                   },
               .traffic = traffic}));
  }
  return OkStatus();
}

Status CheckEven(const Communicator& comm, const Variant& variant,
                 int64_t count, DType dtype, int root) {
  return CheckLayout(
      comm, variant.name, Layout::Even(comm.size(), count), dtype, root,
      variant.cost(comm.size(), count, dtype).total,
      [&](const void* send, void* recv) {
        return variant.run(comm, {send, recv, count, dtype, root});
      });
}

Status CheckUneven(const Communicator& comm, const Variant& variant,
                   int64_t count, bool gaps, DType dtype, int root) {
  Layout layout = Layout::Packed(UnevenCounts(comm.size(), count));
  std::vector<int64_t> offsets;
  if (gaps) {
    offsets = layout.displacements = GappedOffsets(layout.counts);
  }
  return CheckLayout(comm, variant.name + " v", layout, dtype, root,
                     variant.cost_v(layout.counts, dtype, root).total,
                     [&](const void* send, void* recv) {
                       return variant.run_v(comm, {send, recv, layout.counts,
                                                   offsets, dtype, root});
                     });
}

TEST(Gather, MatchesTheReferenceAndItsCost) {
  ForEachWorld(testing::kWorldSizes, [](const Communicator& comm) {
    for (const Variant& variant : kVariants) {
      for (const int root : std::set{0, comm.size() / 2, comm.size() - 1}) {
        SP_RETURN_IF_ERROR(
            testing::ForEachCount([&](int64_t count, DType dtype) {
              return CheckEven(comm, variant, count, dtype, root);
            }));
      }
    }
    return OkStatus();
  });
}

TEST(GatherV, MatchesTheReferenceAndItsCost) {
  ForEachWorld(testing::kWorldSizes, [](const Communicator& comm) {
    for (const Variant& variant : kVariants) {
      for (const int root : std::set{0, comm.size() / 2, comm.size() - 1}) {
        for (const bool gaps : {false, true}) {
          SP_RETURN_IF_ERROR(
              testing::ForEachCount([&](int64_t count, DType dtype) {
                return CheckUneven(comm, variant, count, gaps, dtype, root);
              }));
        }
      }
    }
    return OkStatus();
  });
}

TEST(Gather, RefusesBadArgumentsOnEveryRank) {
  ForEachWorld({3}, [](const Communicator& comm) {
    const std::vector<int64_t> good(static_cast<size_t>(comm.size()), 1),
        negative(good.size(), -1);
    for (const Variant& variant : kVariants) {
      for (const Status& status :
           {variant.run(comm, {.count = -1}),
            variant.run(comm, {.root = comm.size()}),
            variant.run_v(comm, {.counts = negative}),
            variant.run_v(comm, {.counts = good, .root = -1})}) {
        if (status.code() != StatusCode::kInvalidArgument) {
          return Internal("{} takes bad arguments", variant.name);
        }
      }
    }
    return OkStatus();
  });
}

// The rows of the table in the design.
TEST(Gather, CostsWhatTheTableSays) {
  const int64_t count = 100;
  const double n = 8 * 4.0 * static_cast<double>(count);
  const Cost binomial = GatherBinomialCost(8, count, DType::kF32);
  EXPECT_EQ(binomial.alpha_count, 3);
  EXPECT_EQ(binomial.beta_bytes, n * 7 / 8);
  const Cost linear = GatherLinearCost(8, count, DType::kF32);
  EXPECT_EQ(linear.alpha_count, 7);
  EXPECT_EQ(linear.beta_bytes, n * 7 / 8);
}

}  // namespace
}  // namespace shardproof
