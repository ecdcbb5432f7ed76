// Rotations in fibers against the bounded reference, as those of the host are.
#include "layers/kernels/cuda/rope.h"

#include <gtest/gtest.h>

#include <vector>

#include "layers/kernels/cuda/testing/fiber_launch.h"
#include "reference/attention_core.h"

namespace shardproof::cuda {
namespace {

using testing::Launcher;
using testing::LaunchShape;
using testing::Operand;
using testing::VisitStored;

constexpr int64_t kTokens = 10;

class RopeTest : public ::testing::TestWithParam<int64_t> {
 protected:
  // Two sequences of five tokens in rows of `more` elements more than the heads that are turned.
  void Check(DType dtype, int64_t heads, int64_t more, int64_t offset,
             const LaunchShape& shape, uint64_t seed) {
    const std::vector<int64_t> positions = {0, 1, 2, 777, 131071};
    const int64_t d = GetParam(), width = heads * d, stride = width + more;
    const auto made =
        RopeTable::Create({.dtype = dtype, .head_dim = d}, positions);
    ASSERT_TRUE(made.ok());
    Operand x = Operand::Random(dtype, kTokens * stride, "x", 3, offset);
    for (const RopeDirection direction :
         {RopeDirection::kForward, RopeDirection::kBackward}) {
      const Matrix all = ExactMatrix(x.ToTensor({kTokens, stride}).view());
      const Matrix want = RopeReference(
          ColumnsOf(all, 0, width), d, made->config().theta, positions,
          direction == RopeDirection::kBackward, Arithmetic::For(dtype));
      const RopeRows table = {
          .rows = made->rows(),
          .head_dim = d,
          .cosines = static_cast<const float*>(made->cosines()),
          .sines = static_cast<const float*>(made->sines()),
          .direction = direction};
      const RopeArgs args = {
          .tokens = kTokens, .heads = heads, .stride = stride, .x = x.raw()};
      VisitStored(dtype, [&]<class T>(TypeTag<T> /*type*/) {
        launch_(shape, seed,
                [&](auto& context) { Rope<T>(context, table, args); });
      });
      ASSERT_TRUE(x.GuardsAreIntact());
      const std::vector<double> got = x.Doubles();
      for (int64_t t = 0; t < kTokens; ++t) {
        for (int64_t j = 0; j < stride; ++j) {
          const double v = got[t * stride + j];
          if (j >= width) {
            ASSERT_EQ(v, all.at(t, j).value) << "beside the heads";
            continue;
          }
          const Bounded& w = want.at(t, j);
          ASSERT_LE(std::abs(v - w.value), w.worst)
              << "token " << t << ", element " << j;
        }
      }
    }
  }

  Launcher launch_;
};

TEST_P(RopeTest, TurnsAndTurnsBack) {
  uint64_t seed = 0;
  for (const DType dtype : testing::kTypes) {
    for (const int64_t offset : {0, 1}) {
      for (const int64_t more : {0, 5, 8}) {
        for (const LaunchShape& shape :
             {LaunchShape{3, 32}, LaunchShape{12, 96}}) {
          SCOPED_TRACE(fmt::format("{}, offset {}, {} more, {} threads",
                                   Name(dtype), offset, more, shape.threads));
          Check(dtype, 3, more, offset, shape, ++seed);
          if (HasFatalFailure()) return;
        }
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(HeadDims, RopeTest,
                         ::testing::Values(2, 6, 34, 64, 128, 1000));

}  // namespace
}  // namespace shardproof::cuda
