// What a cost and an arithmetic are told about where the ranks are.
#include <gtest/gtest.h>

#include <vector>

#include "tools/harness/case.h"

namespace shardproof {
namespace {

struct P {
  int ranks = 1;
  Memory memory = Memory::kShared;
  std::vector<int> node_of = {};
};

TEST(Placed, CostAndArithmeticSeeTheNodes) {
  const ErasedVariant v = internal::EraseVariant(Variant<P>{
      .name = "v",
      .bind = nullptr,
      .cost =
          [](const P& p) {
            return Cost{.alpha_count = p.node_of.empty() ? 0.0 : p.node_of[1],
                        .beta_bytes = p.memory == Memory::kShared ? 1.0 : 2.0,
                        .total = {}};
          },
      .arithmetic =
          [](const P& p) {
            return Arithmetic::For(DType::kF32,
                                   static_cast<int>(p.node_of.size()) + 1);
          }});
  Instance instance{.params = P{.ranks = 2}, .values = {}, .ranks = 2};
  EXPECT_EQ(v.cost(instance)->alpha_count, 0);
  EXPECT_EQ(v.arithmetic(instance)->partials,
            Arithmetic::For(DType::kF32, 1).partials);
  instance.node_of = {0, 7};
  instance.memory = Memory::kOrdinary;
  EXPECT_EQ(v.cost(instance)->alpha_count, 7);
  EXPECT_EQ(v.cost(instance)->beta_bytes, 2);
  EXPECT_EQ(v.arithmetic(instance)->partials,
            Arithmetic::For(DType::kF32, 3).partials);
}

}  // namespace
}  // namespace shardproof
