// Masks in fibers: the published vectors, and the host's results bit for bit.
#include "layers/kernels/cuda/dropout.h"

#include <gtest/gtest.h>

#include <array>
#include <cmath>

#include "layers/kernels/cuda/testing/fiber_launch.h"

namespace shardproof::cuda {
namespace {

using testing::ExpectSame;
using testing::Launcher;
using testing::Operand;
using testing::VisitStored;

// kat_vectors of Random123.
TEST(PhiloxTest, PublishedVectors) {
  const auto expect = [](uint64_t seed, uint64_t call, uint64_t counter,
                         const std::array<uint32_t, 4>& want) {
    const PhiloxWords w = Philox(seed, call, counter);
    EXPECT_EQ((std::array<uint32_t, 4>{w.w0, w.w1, w.w2, w.w3}), want);
  };
  expect(0, 0, 0, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
  const uint64_t ones = ~uint64_t{0};
  expect(ones, ones, ones, {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
  expect(0x299f31d0a4093822, 0x0370734413198a2e, 0x85a308d3243f6a88,
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});
}

class DropoutTest : public ::testing::TestWithParam<int64_t> {};

// Rows that begin anywhere in a counter, and indices across 2^34, where the lower half of the counter ends.
TEST_P(DropoutTest, IsTheHostsBitForBit) {
  Launcher launch;
  uint64_t seed = 0;
  const int64_t columns = GetParam();
  for (const DType dtype : testing::kTypes) {
    for (const double p : {0.0, 0.1, 0.5, 1 - 0x1p-32}) {
      for (const uint64_t first : {0ULL, 5ULL, (1ULL << 34) - 21}) {
        for (const int64_t stride : {columns, columns + 6}) {
          for (const int64_t offset : {0, 1}) {
            SCOPED_TRACE(fmt::format("{}, p {}, from {}, stride {}, offset {}",
                                     Name(dtype), p, first, stride, offset));
            Operand x = Operand::Random(dtype, 3 * columns, "x", 3, offset);
            Operand want(dtype, 3 * columns, offset);
            DropoutArgs args = {.dtype = dtype,
                                .rows = 3,
                                .columns = columns,
                                .first = first,
                                .row_stride = stride,
                                .probability = p,
                                .seed = 0x123456789,
                                .call = 0xabcdef0123,
                                .x = x.raw(),
                                .y = want.raw()};
            ASSERT_TRUE(shardproof::Dropout(Stream::Inline(), args).ok());
            // In place.
            args.y = x.raw();
            VisitStored(dtype, [&]<class T>(TypeTag<T> /*type*/) {
              launch({3, 32}, ++seed,
                     [&](auto& context) { Dropout<T>(context, args); });
            });
            ExpectSame("y", x, want);
          }
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Columns, DropoutTest,
                         ::testing::Values(1, 7, 31, 33, 1000, 4097));

TEST(DropoutNanTest, IsDroppedToo) {
  Launcher launch;
  std::vector<float> x(100, NAN);
  const DropoutArgs args = {.rows = 1,
                            .columns = 100,
                            .row_stride = 100,
                            .probability = 0.5,
                            .seed = 1,
                            .x = x.data(),
                            .y = x.data()};
  launch({2, 32}, 1, [&](auto& context) { Dropout<float>(context, args); });
  int zeros = 0;
  for (const float v : x) {
    if (std::isnan(v)) continue;
    EXPECT_EQ(v, 0);
    EXPECT_FALSE(std::signbit(v));
    ++zeros;
  }
  EXPECT_GT(zeros, 20);
  EXPECT_LT(zeros, 80);
}

}  // namespace
}  // namespace shardproof::cuda
