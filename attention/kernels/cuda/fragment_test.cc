// The maps of registers against the text of the PTX ISA, and against what a product and a load must be.
#include "attention/kernels/cuda/fragment.h"

#include <gtest/gtest.h>

#include <set>
#include <utility>

namespace shardproof::cuda {
namespace {

constexpr int kLanes = 32;

// "row = groupID for ai where 0 <= i < 2 || 4 <= i < 6, groupID + 8 otherwise; col = (threadID_in_group * 2) + (i & 0x1)
// for ai where i < 4, (threadID_in_group * 2) + (i & 0x1) + 8 for ai where i >= 4", and so on for b and c.
TEST(FragmentTest, IsThatOfPtx) {
  for (int lane = 0; lane < kLanes; ++lane) {
    const int group = lane >> 2, in_group = lane % 4;
    for (int i = 0; i < 8; ++i) {
      const int row =
          (0 <= i && i < 2) || (4 <= i && i < 6) ? group : group + 8;
      const int column = in_group * 2 + (i & 1) + (i >= 4 ? 8 : 0);
      EXPECT_EQ(PlaceInA(lane, i), (FragmentPlace{row, column}))
          << lane << " " << i;
    }
    for (int i = 0; i < 4; ++i) {
      EXPECT_EQ(
          PlaceInB(lane, i),
          (FragmentPlace{in_group * 2 + (i & 1) + (i >= 2 ? 8 : 0), group}));
      EXPECT_EQ(PlaceInC(lane, i), (FragmentPlace{i < 2 ? group : group + 8,
                                                  in_group * 2 + (i & 1)}));
    }
  }
  // Of the figures: T5 holds a0 = (1, 2), a7 = (9, 11), b3 = (11, 1) and c2 = (9, 2).
  EXPECT_EQ(PlaceInA(5, 0), (FragmentPlace{1, 2}));
  EXPECT_EQ(PlaceInA(5, 7), (FragmentPlace{9, 11}));
  EXPECT_EQ(PlaceInB(5, 3), (FragmentPlace{11, 1}));
  EXPECT_EQ(PlaceInC(5, 2), (FragmentPlace{9, 2}));
}

template <class PlaceOf>
void ExpectEachOnce(const PlaceOf& place_of, int rows, int columns) {
  std::set<std::pair<int, int>> places;
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int i = 0; i < rows * columns / kLanes; ++i) {
      const FragmentPlace place = place_of(lane, i);
      EXPECT_TRUE(place.row >= 0 && place.row < rows);
      EXPECT_TRUE(place.column >= 0 && place.column < columns);
      EXPECT_TRUE(places.emplace(place.row, place.column).second);
    }
  }
  EXPECT_EQ(places.size(), static_cast<size_t>(rows * columns));
}

TEST(FragmentTest, EveryElementIsHeldOnce) {
  ExpectEachOnce(PlaceInA, kMmaRows, kMmaDepth);
  ExpectEachOnce(PlaceInB, kMmaDepth, kMmaColumns);
  ExpectEachOnce(PlaceInC, kMmaRows, kMmaColumns);
}

// What ldmatrix.x4 gives a lane, from the addresses that the lanes give: the place in the stored matrix.
template <class RowAddress>
FragmentPlace Loaded(const RowAddress& row_address, int lane, int word,
                     int element, bool transposed) {
  const FragmentPlace in = LoadedPlace(lane, element, transposed);
  const FragmentPlace row = row_address(8 * word + in.row);
  return {row.row, row.column + in.column};
}

TEST(FragmentTest, LoadsAreOperands) {
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int i = 0; i < 8; ++i) {
      EXPECT_EQ(Loaded(RowAddressOfA, lane, i / 2, i % 2, false),
                PlaceInA(lane, i));
    }
    for (int pair = 0; pair < 2; ++pair) {
      for (int i = 0; i < 4; ++i) {
        const FragmentPlace b = PlaceInB(lane, i);
        const int word = 2 * pair + i / 2;
        // Stored by columns of B, and by its rows.
        EXPECT_EQ(Loaded(RowAddressOfB, lane, word, i % 2, false),
                  (FragmentPlace{b.column + 8 * pair, b.row}));
        EXPECT_EQ(Loaded(RowAddressOfTransposedB, lane, word, i % 2, true),
                  (FragmentPlace{b.row, b.column + 8 * pair}));
      }
    }
  }
}

// A row address is the beginning of 8 elements, and the 32 of them are all that is loaded.
TEST(FragmentTest, LanesAddressEveryRowOnce) {
  for (const auto& address :
       {RowAddressOfA, RowAddressOfB, RowAddressOfTransposedB}) {
    std::set<std::pair<int, int>> rows;
    for (int lane = 0; lane < kLanes; ++lane) {
      const FragmentPlace place = address(lane);
      EXPECT_EQ(place.column % 8, 0);
      EXPECT_TRUE(place.row < 16 && place.column < 16);
      rows.emplace(place.row, place.column);
    }
    EXPECT_EQ(rows.size(), 32u);
  }
}

// Two results side by side are an operand of 16 columns.
TEST(FragmentTest, ResultsAreOperands) {
  for (int lane = 0; lane < kLanes; ++lane) {
    for (int i = 0; i < 8; ++i) {
      const WordOfC from = WordOfAFromC(i / 2);
      FragmentPlace place = PlaceInC(lane, from.first + i % 2);
      place.column += from.tile * kMmaColumns;
      EXPECT_EQ(place, PlaceInA(lane, i)) << lane << " " << i;
    }
  }
}

}  // namespace
}  // namespace shardproof::cuda
