// Lookups and gradients in fibers against those of the host, bit for bit: both add in the order of the ids.
#include "layers/kernels/cuda/embedding.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "layers/kernels/cuda/testing/fiber_launch.h"

namespace shardproof::cuda {
namespace {

using testing::ExpectSame;
using testing::Launcher;
using testing::LaunchShape;
using testing::Operand;
using testing::VisitStored;

using Ids = std::vector<int64_t>;

constexpr int64_t kBegin = 10, kRows = 70;

// Rows 10 to 79 of a larger table: ids on both sides of it, one that many tokens share, and rows without any.
Ids SomeIds(int64_t tokens) {
  Ids ids;
  for (int64_t i = 0; i < tokens; ++i) {
    ids.push_back(
        i % 3 == 0
            ? 25
            : static_cast<int64_t>(
                  RandomBits({.seed = 3}, static_cast<uint64_t>(i)) % 90));
  }
  return ids;
}

class EmbeddingTest : public ::testing::TestWithParam<int64_t> {
 protected:
  template <class Body>
  void ForAll(const Body& body) {
    uint64_t seed = 0;
    for (const DType dtype : testing::kTypes) {
      for (const int64_t offset : {0, 1}) {
        for (const LaunchShape& shape :
             {LaunchShape{3, 32}, LaunchShape{2, 96}}) {
          SCOPED_TRACE(fmt::format("{}, offset {}, {} threads", Name(dtype),
                                   offset, shape.threads));
          const EmbeddingShape embedding = {
              .dtype = dtype,
              .tokens = static_cast<int64_t>(ids_.size()),
              .hidden = GetParam(),
              .begin = kBegin,
              .rows = kRows};
          VisitStored(dtype, [&]<class T>(TypeTag<T> type) {
            body(type, embedding, offset, shape, ++seed);
          });
          if (HasFatalFailure()) return;
        }
      }
    }
  }

  const Ids ids_ = SomeIds(101);
  Launcher launch_;
};

TEST_P(EmbeddingTest, LooksUpOwnRowsAndLeavesZeros) {
  ForAll([&]<class T>(TypeTag<T>, const EmbeddingShape& e, int64_t offset,
                      const LaunchShape& shape, uint64_t seed) {
    Operand table =
        Operand::Random(e.dtype, e.rows * e.hidden, "table", 2, offset);
    Operand y(e.dtype, e.tokens * e.hidden, offset), want = y;
    launch_(shape, seed, [&](auto& context) {
      const EmbeddingRows args = {
          .ids = ids_.data(), .table = table.raw(), .y = y.raw()};
      EmbeddingLookup<T>(context, e, args);
    });
    ASSERT_TRUE(shardproof::EmbeddingLookup(Stream::Inline(), e, ids_.data(),
                                            table.raw(), want.raw())
                    .ok());
    ExpectSame("y", y, want);
  });
}

TEST_P(EmbeddingTest, AddsGradientsOfRepeatedIdsInOrder) {
  ForAll([&]<class T>(TypeTag<T>, const EmbeddingShape& e, int64_t offset,
                      const LaunchShape& shape, uint64_t seed) {
    Operand dy = Operand::Random(e.dtype, e.tokens * e.hidden, "dy", 2, offset);
    Ids counts(kRows, 0), starts(kRows + 1, -1), placed(ids_.size(), -1);
    for (const bool accumulate : {false, true}) {
      Operand dtable =
          Operand::Random(e.dtype, e.rows * e.hidden, "dtable", 2, offset);
      Operand want = dtable;
      Ids order(ids_.size(), -1);
      Ids host_order(ids_.size(), -1), host_starts(kRows + 1, -1);
      EmbeddingRows a;
      a.ids = ids_.data();
      a.dy = dy.raw();
      a.accumulate = accumulate;
      a.dtable = dtable.raw();
      a.counts = counts.data();
      a.starts = starts.data();
      a.placed = placed.data();
      a.order = order.data();
      launch_(shape, seed,
              [&](auto& context) { EmbeddingCount(context, e, a); });
      launch_(shape, seed, [&](auto& context) {
        EmbeddingStarts<StandardProtocolOfTeams>(context, e, a);
      });
      launch_(shape, seed,
              [&](auto& context) { EmbeddingPlace(context, e, a); });
      launch_(shape, seed,
              [&](auto& context) { EmbeddingOrder(context, e, a); });
      launch_(shape, seed,
              [&](auto& context) { EmbeddingGradient<T>(context, e, a); });
      ASSERT_TRUE(shardproof::EmbeddingGradient(
                      Stream::Inline(), e, ids_.data(), dy.raw(), accumulate,
                      {host_order, host_starts}, want.raw())
                      .ok());
      ASSERT_EQ(starts, host_starts);
      ASSERT_EQ(order, host_order);
      ASSERT_EQ(counts, Ids(kRows, 0));
      ExpectSame("dtable", dtable, want);
    }
  });
}

INSTANTIATE_TEST_SUITE_P(Widths, EmbeddingTest,
                         ::testing::Values(1, 7, 31, 33, 64, 1000));

}  // namespace
}  // namespace shardproof::cuda
