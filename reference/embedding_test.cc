#include "reference/embedding.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "reference/random.h"

namespace shardproof {
namespace {

using V = std::vector<double>;
using Ids = std::vector<int64_t>;

Tensor Make(DType dtype, const Shape& shape, const V& v) {
  Tensor t(dtype, shape);
  FromDouble(dtype, v.data(), static_cast<int64_t>(v.size()), t.raw());
  return t;
}

Tensor Draw(DType dtype, const Shape& shape, const char* name) {
  V v(static_cast<size_t>(shape.NumElements()));
  FillDouble(Uniform(dtype), {1, TensorId(name)}, 0, shape.NumElements(),
             v.data());
  return Make(dtype, shape, v);
}

V Doubles(const Tensor& t) {
  V v(static_cast<size_t>(t.num_elements()));
  ToDouble(t.dtype(), t.raw(), t.num_elements(), v.data());
  return v;
}

V Values(const Matrix& m) {
  V v;
  for (const Bounded& b : m.values) v.push_back(b.value);
  return v;
}

TEST(Embedding, ByHand) {
  const Tensor table = Make(DType::kF32, {3, 2}, {1, 2, 3, 4, 5, 6});
  const Tensor dy = Make(DType::kF32, {4, 2}, {1, 10, 2, 20, 3, 30, 4, 40});
  const Ids ids = {2, 0, 2, 2};
  const Arithmetic a = Arithmetic::For(DType::kF32);
  EXPECT_EQ(Values(EmbeddingForward(table.view(), ids)),
            (V{5, 6, 1, 2, 5, 6, 5, 6}));
  EXPECT_EQ(Values(EmbeddingForward(table.view(), ids, {1})), (V{1, 2}));
  EXPECT_EQ(Values(EmbeddingGrad(ids, dy.view(), 3, a)),
            (V{2, 20, 0, 0, 8, 80}));
  const Matrix onto = {
      .rows = {1, 2}, .cols = 2, .values = {{1}, {2}, {3}, {4}}};
  EXPECT_EQ(Values(EmbeddingGrad(ids, dy.view(), 3, a, {1, 2}, &onto)),
            (V{1, 2, 11, 84}));
}

// Copies, single terms and rows without any are exact; sums are not.
TEST(Embedding, BoundsOnlyWhatIsRounded) {
  const Tensor table = Draw(DType::kBF16, {3, 5}, "table");
  const Tensor dy = Draw(DType::kBF16, {3, 5}, "dy");
  const Ids ids = {1, 0, 1};
  for (const Bounded& b : EmbeddingForward(table.view(), ids).values) {
    EXPECT_EQ(b.worst, 0);
  }
  const Matrix grad =
      EmbeddingGrad(ids, dy.view(), 3, Arithmetic::For(DType::kBF16));
  for (int64_t j = 0; j < 5; ++j) {
    EXPECT_EQ(grad.at(0, j).worst, 0);
    EXPECT_GE(grad.at(1, j).worst, 0x1p-8 * std::abs(grad.at(1, j).value));
    EXPECT_EQ(grad.at(2, j).worst, 0);
  }
}

// The gradient of a linear map is its adjoint: <dy, E t> = <E' dy, t>.
TEST(Embedding, GradientIsTheAdjoint) {
  const int64_t vocabulary = 7, tokens = 30, hidden = 4;
  const Tensor table = Draw(DType::kF64, {vocabulary, hidden}, "table");
  const Tensor dy = Draw(DType::kF64, {tokens, hidden}, "dy");
  Ids ids;
  for (int64_t i = 0; i < tokens; ++i) ids.push_back(i * i % vocabulary);
  const V y = Values(EmbeddingForward(table.view(), ids));
  const V grad = Values(
      EmbeddingGrad(ids, dy.view(), vocabulary, Arithmetic::For(DType::kF64)));
  const V up = Doubles(dy), weights = Doubles(table);
  double forward = 0, backward = 0;
  for (size_t i = 0; i < y.size(); ++i) forward += up[i] * y[i];
  for (size_t i = 0; i < grad.size(); ++i) backward += grad[i] * weights[i];
  EXPECT_NEAR(forward, backward, 1e-12);
  EXPECT_GT(std::abs(forward), 1e-3);
}

// Added in either order in the accumulator, rounded once: inside the bound, and
// the bound is not much larger than the worst that happens.
TEST(Embedding, HonestSumsAreInsideTheBound) {
  const int64_t tokens = 400, hidden = 16;
  for (const DType dtype : {DType::kF32, DType::kBF16, DType::kF16}) {
    const Tensor dy = Draw(dtype, {tokens, hidden}, "dy");
    Ids ids;
    for (int64_t i = 0; i < tokens; ++i) ids.push_back(i % 3 % 2);
    const Matrix want =
        EmbeddingGrad(ids, dy.view(), 2, Arithmetic::For(dtype));
    const V up = Doubles(dy);
    double worst = 0;
    for (const bool backwards : {false, true}) {
      for (int64_t row = 0; row < 2; ++row) {
        for (int64_t j = 0; j < hidden; ++j) {
          float sum = 0;
          for (int64_t k = 0; k < tokens; ++k) {
            const int64_t i = backwards ? tokens - 1 - k : k;
            if (ids[static_cast<size_t>(i)] != row) continue;
            sum += static_cast<float>(up[static_cast<size_t>(i * hidden + j)]);
          }
          const Bounded& b = want.at(row, j);
          const double e = std::abs(Round(dtype, sum) - b.value);
          ASSERT_LE(e, b.Likely(8)) << Name(dtype);
          worst = std::max(worst, e / b.Likely(8));
        }
      }
    }
    EXPECT_GT(worst, 0.01) << Name(dtype);
  }
}

}  // namespace
}  // namespace shardproof
