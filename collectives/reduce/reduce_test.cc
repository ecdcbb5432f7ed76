#include "collectives/reduce/reduce.h"

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
  Status (*run)(const Communicator&, const ReduceArgs&);
  Cost (*cost)(int, int64_t, DType);
};
const Variant kVariants[] = {
    {"binomial", ReduceBinomial, ReduceBinomialCost},
    {"scatter, gather", ReduceScatterGather, ReduceScatterGatherCost}};

Status CheckReduce(const Communicator& comm, const Variant& variant,
                   int64_t count, DType dtype, ReduceOp op, int root) {
  const InputFn input = testing::ExactInput(dtype, op, comm.size());
  const bool at_root = comm.rank() == root;
  for (const bool in_place : {false, true}) {
    SP_RETURN_IF_ERROR(Check(
        comm, {.name = variant.name,
               .dtype = dtype,
               .send_count = count,
               .recv_count = at_root ? count : 0,
               .in_place_at = in_place && at_root ? std::optional<int64_t>(0)
                                                  : std::nullopt,
               .input = input,
               .run =
                   [&](const void* send, void* recv) {
                     return variant.run(
                         comm, {send, recv, count, dtype, op,
                                testing::ExactScale(comm.rank()), root});
                   },
               .expected =
                   [&](std::span<Bounded> out) {
                     ReduceExpected(
                         testing::ExactReduction(dtype, op, comm.size()), root,
                         input, comm.rank(), 0, out);
                   },
               .traffic = variant.cost(comm.size(), count, dtype).total}));
  }
  return OkStatus();
}

TEST(Reduce, MatchesTheReferenceAndItsCost) {
  ForEachWorld(testing::kWorldSizes, [](const Communicator& comm) {
    for (const Variant& variant : kVariants) {
      for (const int root : std::set{0, comm.size() / 2, comm.size() - 1}) {
        SP_RETURN_IF_ERROR(testing::ForEachReduction(
            [&](int64_t count, DType dtype, ReduceOp op) {
              return CheckReduce(comm, variant, count, dtype, op, root);
            }));
      }
    }
    return OkStatus();
  });
}

TEST(Reduce, TravelsInSegmentsWhenLarge) {
  ForEachWorld({2, 3}, [](const Communicator& comm) {
    for (const Variant& variant : kVariants) {
      SP_RETURN_IF_ERROR(CheckReduce(comm, variant, 70001, DType::kF64,
                                     ReduceOp::kSum, comm.size() - 1));
    }
    return OkStatus();
  });
}

TEST(Reduce, RefusesBadArgumentsOnEveryRank) {
  ForEachWorld({3}, [](const Communicator& comm) {
    for (const Variant& variant : kVariants) {
      for (const ReduceArgs& args :
           {ReduceArgs{.count = -1}, ReduceArgs{.root = -1},
            ReduceArgs{.root = comm.size()}}) {
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
TEST(Reduce, CostsWhatTheTableSays) {
  const int64_t count = 8 * 1024;
  const double n = 4.0 * static_cast<double>(count);
  const Cost binomial = ReduceBinomialCost(8, count, DType::kF32);
  EXPECT_EQ(binomial.alpha_count, 3);
  EXPECT_EQ(binomial.beta_bytes, 3 * n);
  EXPECT_EQ(binomial.gamma_bytes, 3 * n);
  const Cost rabenseifner = ReduceScatterGatherCost(8, count, DType::kF32);
  EXPECT_EQ(rabenseifner.alpha_count, 6);
  EXPECT_EQ(rabenseifner.beta_bytes, 2 * n * 7 / 8);
  EXPECT_EQ(rabenseifner.gamma_bytes, n * 7 / 8);
}

}  // namespace
}  // namespace shardproof
