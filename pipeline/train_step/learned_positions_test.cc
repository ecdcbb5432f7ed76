// Tables and sums small enough to write down.
#include "pipeline/train_step/learned_positions.h"

#include <gtest/gtest.h>

#include <vector>

namespace shardproof {
namespace {

// The first and the last quarter of sequences of eight tokens, as zigzag has them.
const std::vector<int64_t> kSequence = {0, 1, 6, 7};

TokenPositions Of(Chunk tokens) {
  return {.dtype = DType::kF64,
          .hidden = 2,
          .sequence = kSequence,
          .tokens = tokens};
}

TEST(LearnedPositions, AreAddedToTokensOfARangeThatCrossesSequences) {
  std::vector<double> table;
  for (int p = 0; p < 8; ++p) table.insert(table.end(), {1.0 * p, 10.0 * p});
  // The last two tokens of the first sequence and the first of the second.
  std::vector<double> y = {100, 100, 100, 100, 100, 100};
  ASSERT_TRUE(AddPositions(Of({2, 3}), table.data(), y.data()).ok());
  EXPECT_EQ(y, (std::vector<double>{106, 160, 107, 170, 100, 100}));
}

TEST(LearnedPositions, SumGradientsOfEveryTokenInTheirPlace) {
  const std::vector<double> dy = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10};
  std::vector<double> d_table(16, -1.0);  // What was there does not count.
  ASSERT_TRUE(PositionGradients(Of({2, 5}), dy.data(), 8, d_table.data()).ok());
  // Positions 6 7 0 1 6.
  EXPECT_EQ(d_table, (std::vector<double>{5, 6, 7, 8, 0, 0, 0, 0,  //
                                          0, 0, 0, 0, 10, 12, 3, 4}));
}

TEST(LearnedPositions, OfNoTokensAreZero) {
  std::vector<double> d_table(16, -1.0);
  ASSERT_TRUE(PositionGradients(Of({3, 0}), nullptr, 8, d_table.data()).ok());
  EXPECT_EQ(d_table, std::vector<double>(16, 0.0));
}

}  // namespace
}  // namespace shardproof
