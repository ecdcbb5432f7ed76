#include "collectives/broadcast/broadcast.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "collectives/testing/check.h"

namespace shardproof {
namespace {

using testing::Check;
using testing::ForEachWorld;

struct Variant {
  std::string name;
  Status (*run)(const Communicator&, const BroadcastArgs&);
  Cost (*cost)(int, int64_t, DType);
};
const Variant kVariants[] = {
    {"binomial", BroadcastBinomial, BroadcastBinomialCost},
    {"scatter, all_gather", BroadcastScatterAllGather,
     BroadcastScatterAllGatherCost},
    {"chain", BroadcastChain, BroadcastChainCost}};

Status CheckBroadcast(const Communicator& comm, const Variant& variant,
                      int64_t count, DType dtype, int root) {
  const InputFn input = testing::SmallIntegers(dtype, comm.size());
  for (const bool in_place : {false, true}) {
    SP_RETURN_IF_ERROR(Check(
        comm,
        {.name = variant.name,
         .dtype = dtype,
         .send_count = in_place || comm.rank() == root ? count : 0,
         .recv_count = count,
         .in_place_at = in_place ? std::optional<int64_t>(0) : std::nullopt,
         .input = input,
         .run =
             [&](const void* send, void* recv) {
               return variant.run(comm, {send, recv, count, dtype, root});
             },
         .expected =
             [&](std::span<Bounded> out) {
               BroadcastExpected(root, input, comm.rank(), 0, out);
             },
         .traffic = variant.cost(comm.size(), count, dtype).total}));
  }
  return OkStatus();
}

TEST(Broadcast, MatchesTheReferenceAndItsCost) {
  ForEachWorld(testing::kWorldSizes, [](const Communicator& comm) {
    for (const Variant& variant : kVariants) {
      for (const int root : std::set{0, comm.size() / 2, comm.size() - 1}) {
        SP_RETURN_IF_ERROR(
            testing::ForEachCount([&](int64_t count, DType dtype) {
              return CheckBroadcast(comm, variant, count, dtype, root);
            }));
      }
    }
    return OkStatus();
  });
}

TEST(Broadcast, ChainsManySegments) {
  // More segments than a rank keeps under way.
  const int64_t count = 40 * (16 << 10) + 5;
  EXPECT_EQ(BroadcastChainSegments(8 * count), 41);
  ForEachWorld({2, 3}, [](const Communicator& comm) {
    for (const Variant& variant : kVariants) {
      SP_RETURN_IF_ERROR(
          CheckBroadcast(comm, variant, count, DType::kF64, comm.size() - 1));
    }
    return OkStatus();
  });
}

TEST(Broadcast, RefusesBadArgumentsOnEveryRank) {
  ForEachWorld({3}, [](const Communicator& comm) {
    for (const Variant& variant : kVariants) {
      for (const BroadcastArgs& args :
           {BroadcastArgs{.count = -1}, BroadcastArgs{.root = -1},
            BroadcastArgs{.root = comm.size()}}) {
        if (variant.run(comm, args).code() != StatusCode::kInvalidArgument) {
          return Internal("{} takes count {}, root {}", variant.name,
                          args.count, args.root);
        }
      }
    }
    return OkStatus();
  });
}

// The rows of the table in the design.
TEST(Broadcast, CostsWhatTheTableSays) {
  const int64_t count = 8 * (64 << 10);
  const double n = 4.0 * static_cast<double>(count);
  const Cost binomial = BroadcastBinomialCost(8, count, DType::kF32);
  EXPECT_EQ(binomial.alpha_count, 3);
  EXPECT_EQ(binomial.beta_bytes, 3 * n);
  const Cost scatter = BroadcastScatterAllGatherCost(8, count, DType::kF32);
  EXPECT_EQ(scatter.alpha_count, 3 + 7);
  EXPECT_EQ(scatter.beta_bytes, 2 * n * 7 / 8);
  const Cost chain = BroadcastChainCost(8, count, DType::kF32);
  const auto k =
      static_cast<double>(BroadcastChainSegments(static_cast<int64_t>(n)));
  EXPECT_EQ(chain.alpha_count, 8 + k - 2);
  EXPECT_EQ(chain.beta_bytes, (8 + k - 2) * n / k);
}

}  // namespace
}  // namespace shardproof
