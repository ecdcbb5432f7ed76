// Cross entropies, embeddings and the rows of a mixture of experts, launched on
// an emulated GPU, against references and the host: in the GPU's memory and
// staged.
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "layers/kernels/cross_entropy.h"
#include "layers/kernels/cuda/cross_entropy.h"
#include "layers/kernels/cuda/device/device_testing.h"
#include "layers/kernels/embedding.h"
#include "layers/kernels/moe.h"
#include "reference/bounded.h"
#include "reference/cross_entropy.h"

namespace shardproof::cuda {
namespace {

using testing::ExpectSame;
using testing::ExpectWithin;
using testing::Memory;
using testing::OnGpuTest;
using testing::Operand;
using testing::Placed;
using testing::Setting;

using Ids = std::vector<int64_t>;

class TokensOnGpuTest : public OnGpuTest {
 protected:
  // Numbers of the host, or the same in the GPU's memory.
  const int64_t* IdsAt(const Setting& s, const Ids& ids) {
    if (s.memory == Memory::kOrdinary) return ids.data();
    auto buffer = on_.gpus().gpu(0).Allocate(ids.size() * sizeof(int64_t));
    EXPECT_TRUE(buffer.ok());
    std::copy(ids.begin(), ids.end(), buffer->as<int64_t>());
    kept_.push_back(*std::move(buffer));
    return kept_.back().as<int64_t>();
  }

  std::vector<Buffer> kept_;
};

// All four passes on one part of all, whose gradient takes the place of the
// logits; two columns are padding.
TEST_P(TokensOnGpuTest, CrossEntropy) {
  constexpr int64_t kPadding = 2;
  const int64_t vocabulary = GetParam() + 3;
  const Ids targets = {0, -100, 3, 1, 0};
  const auto tokens = static_cast<int64_t>(targets.size());
  for (const double smoothing : {0.0, 0.1}) {
    ForAll([&](const Setting& s) {
      const int64_t columns = vocabulary + kPadding;
      const Tensor x = Filled(Uniform(s.dtype, 3), {tokens, vocabulary}, "x");
      const Tensor up = Filled(Uniform(DType::kF32), {tokens}, "up");
      std::vector<double> padded;
      const std::vector<double> values = Doubles(x);
      for (int64_t i = 0; i < tokens * columns; ++i) {
        const int64_t j = i % columns;
        padded.push_back(j < vocabulary ? values[i / columns * vocabulary + j]
                                        : NAN);
      }
      Placed logits = Of(s, s.dtype, padded, s.offset);
      Placed upstream(on_, s.memory, Operand::Of(up));
      Placed max = EmptyF32(s, tokens), sums = EmptyF32(s, 2 * tokens);
      Placed loss = EmptyF32(s, tokens);
      const int64_t* const ids = IdsAt(s, targets);
      const CrossEntropyShape shape = {.dtype = s.dtype,
                                       .tokens = tokens,
                                       .columns = columns,
                                       .valid = vocabulary,
                                       .vocabulary = vocabulary,
                                       .smoothing = smoothing};
      Launches(1, [&] {
        return shardproof::CrossEntropyLocal(shape, logits.raw(), ids,
                                             max.raw(), sums.raw());
      });
      Launches(1, [&] {
        return shardproof::CrossEntropyRescale(
            shape, logits.raw(), ids, max.raw(), max.raw(), sums.raw());
      });
      double total = 0;
      Launches(1, [&]() -> Status {
        SP_ASSIGN_OR_RETURN(total, shardproof::CrossEntropyLoss(
                                       shape, ids, sums.raw(), loss.raw()));
        return OkStatus();
      });
      Launches(1, [&] {
        return shardproof::CrossEntropyGradient(
            shape, logits.raw(), ids, max.raw(), sums.raw(),
            {.upstream = upstream.raw(), .per_token = true, .count = 1},
            logits.raw());
      });
      // As the kernels' own test counts them.
      const int64_t group = kCrossEntropyGroup * 16 / SizeOf(s.dtype);
      const CrossEntropyResult want = CrossEntropyReference(
          {.logits = x.view(),
           .targets = targets,
           .vocabulary = vocabulary,
           .smoothing = smoothing,
           .upstream = up.view(),
           .per_token = true},
          Arithmetic::For(s.dtype, 1),
          {.rescalings = static_cast<int>(vocabulary / (group * kLanes)) + 3});
      const std::vector<double> got = loss.Doubles(), dx = logits.Doubles();
      double sum = 0, size = 0;
      for (size_t i = 0; i < targets.size(); ++i) {
        ASSERT_LE(std::abs(got[i] - want.loss[i].value), want.loss[i].worst);
        sum += got[i];
        size += std::abs(got[i]);
      }
      EXPECT_LE(std::abs(total - sum), 2 * Gamma(5, kSlack) * size);
      EXPECT_GT(total, 0);
      for (int64_t i = 0; i < tokens * columns; ++i) {
        const int64_t j = i % columns;
        if (j >= vocabulary) {
          ASSERT_EQ(dx[i], 0) << "padding";
          continue;
        }
        const Bounded& w = want.dlogits.values[i / columns * vocabulary + j];
        ASSERT_LE(std::abs(dx[i] - w.value), w.worst) << i;
      }
    });
  }
}

// Rows 10 to 79 of a larger table: ids on both sides of it, one that many
// tokens share, and rows without any.
TEST_P(TokensOnGpuTest, EmbeddingsAreTheHosts) {
  constexpr int64_t kTokens = 101;
  Ids ids;
  for (int64_t i = 0; i < kTokens; ++i) {
    ids.push_back(i % 3 == 0 ? 25 : i * 37 % 90);
  }
  ForAll([&](const Setting& s) {
    const EmbeddingShape shape = {.dtype = s.dtype,
                                  .tokens = kTokens,
                                  .hidden = GetParam(),
                                  .begin = 10,
                                  .rows = 70};
    const int64_t* const at = IdsAt(s, ids);
    Placed table = Random(s, shape.rows * shape.hidden, "table", 2);
    Placed dy = Random(s, kTokens * shape.hidden, "dy", 2);
    Placed y = Empty(s, kTokens * shape.hidden);
    Placed want_y = Empty(s, kTokens * shape.hidden);
    Launches(1, [&] {
      return shardproof::EmbeddingLookup(stream_, shape, at, table.raw(),
                                         y.raw());
    });
    on_.OnHost([&] {
      return shardproof::EmbeddingLookup(stream_, shape, at, table.raw(),
                                         want_y.raw());
    });
    ExpectSame("y", y.Now(), want_y.Now());
    for (const bool accumulate : {false, true}) {
      Placed dtable = Random(s, shape.rows * shape.hidden, "dtable", 2);
      Placed want = Random(s, shape.rows * shape.hidden, "dtable", 2);
      Ids order(kTokens), starts(static_cast<size_t>(shape.rows) + 1);
      Launches(5, [&] {
        return shardproof::EmbeddingGradient(stream_, shape, at, dy.raw(),
                                             accumulate, {order, starts},
                                             dtable.raw());
      });
      on_.OnHost([&] {
        return shardproof::EmbeddingGradient(stream_, shape, at, dy.raw(),
                                             accumulate, {order, starts},
                                             want.raw());
      });
      ExpectSame("dtable", dtable.Now(), want.Now());
    }
  });
}

TEST_P(TokensOnGpuTest, RowsOfExperts) {
  constexpr int64_t kTokens = 4, kK = 3;
  const int64_t width = GetParam();
  const Ids index = {3, 0, 0, 4, 2, 1, 3};
  const Ids places = {0, 5, 8, -1, 2, -1, -1, -1, -1, 4, 4, 1};
  const std::vector<double> scale = {1, 0.5, 2, -1, 0.25, 4, -2};
  const std::vector<double> weight = {1, 2, -1, 1, -2, 1, 1, 1, 1, 1, -1, 2};
  ForAll([&](const Setting& s) {
    Placed source = Exact(s, 16, 9 * width, "x");
    Placed scales = Of(s, DType::kF32, scale);
    Placed weights = Of(s, DType::kF32, weight);
    const std::vector<double> x = source.Doubles();
    const int64_t* const index_at = IdsAt(s, index);
    const int64_t* const place_at = IdsAt(s, places);
    for (const bool more : {false, true}) {
      Placed out = Empty(s, 7 * width);
      Launches(1, [&] {
        return shardproof::GatherRows(stream_, s.dtype,
                                      {.rows = 7,
                                       .width = width,
                                       .source = source.raw(),
                                       .index = index_at,
                                       .scale = more ? scales.raw() : nullptr,
                                       .out = out.raw()});
      });
      ASSERT_TRUE(out.Now().GuardsAreIntact());
      const std::vector<double> got = out.Doubles();
      for (int64_t i = 0; i < 7 * width; ++i) {
        const int64_t r = i / width;
        ASSERT_EQ(got[i],
                  x[index[r] * width + i % width] * (more ? scale[r] : 1));
      }
      // In the place of an addend.
      Placed narrow = Exact(s, 16, kTokens * width, "n");
      Placed wide =
          Of(s, DType::kF32,
             std::vector<double>(static_cast<size_t>(kTokens * width), 3));
      const std::vector<double> n = narrow.Doubles();
      Launches(1, [&] {
        return shardproof::CombineRows(
            stream_, s.dtype,
            {.tokens = kTokens,
             .k = kK,
             .width = width,
             .source = source.raw(),
             .place = place_at,
             .weights = more ? weights.raw() : nullptr,
             .wide = more ? wide.raw() : nullptr,
             .narrow = narrow.raw(),
             .out = narrow.raw()});
      });
      ASSERT_TRUE(narrow.Now().GuardsAreIntact());
      const std::vector<double> sum = narrow.Doubles();
      for (int64_t i = 0; i < kTokens * width; ++i) {
        double want = n[i] + (more ? 3 : 0);
        for (int64_t p = i / width * kK; p < (i / width + 1) * kK; ++p) {
          if (places[p] < 0) continue;
          want += (more ? weight[p] : 1) * x[places[p] * width + i % width];
        }
        ASSERT_EQ(sum[i], want) << i;
      }
    }
    Placed y = Random(s, kTokens * width, "y", 2);
    Placed dots = EmptyF32(s, kTokens * kK);
    const std::vector<double> a = y.Doubles();
    Launches(1, [&] {
      return shardproof::RowDots(stream_, s.dtype,
                                 {.tokens = kTokens,
                                  .k = kK,
                                  .width = width,
                                  .y = y.raw(),
                                  .source = source.raw(),
                                  .place = place_at,
                                  .dots = dots.raw()});
    });
    std::vector<Bounded> want;
    for (int64_t p = 0; p < kTokens * kK; ++p) {
      std::vector<Bounded> left, right;
      for (int64_t j = 0; places[p] >= 0 && j < width; ++j) {
        left.push_back({.value = a[p / kK * width + j]});
        right.push_back({.value = x[places[p] * width + j]});
      }
      want.push_back(Dot(left, right, UnitRoundoff(DType::kF32)));
    }
    ExpectWithin("dots", dots.Now(), want);
  });
}

INSTANTIATE_TEST_SUITE_P(Widths, TokensOnGpuTest,
                         ::testing::Values(1, 33, 600));

}  // namespace
}  // namespace shardproof::cuda
