// Attention on emulated GPUs against the bounded reference: all that a scheme passes, in memory that the GPU addresses and
// in memory that it does not.
#include "attention/kernels/cuda/device/flash_on_gpu.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "attention/kernels/cuda/testing/gpu_problem.h"

namespace shardproof::cuda {
namespace {

using testing::EmulatedFlash;
using testing::GpuProblem;
using testing::kTileHeadDims;
using testing::kTileTypes;
using testing::Where;

class FlashOnGpuTest : public ::testing::Test {
 protected:
  static void TearDownTestSuite() {
    for (const auto& [what, ratio] : FlashProblem::worst_ratio()) {
      std::printf("%s: worst e / bound %.3f\n", what.c_str(), ratio);
    }
  }

  // Both passes of a problem, by three launches.
  void Expect(const FlashShape& shape, const Visibility& v,
              const TokenRun& queries, const TokenRun& keys, Where where) {
    SCOPED_TRACE(testing::Describe(shape, v, queries, keys));
    SCOPED_TRACE(where == Where::kGpu ? "on the GPU" : "on the host");
    const auto flash = emulated_.Create(shape);
    ASSERT_NE(flash, nullptr);
    const FlashGpuCounts before = emulated_.kernels->counts();
    GpuProblem problem(shape, v, queries, keys);
    const auto run = [&] { return problem.RunOnGpu(*flash); };
    const Status status =
        where == Where::kGpu ? problem.With(emulated_.gpu(), 0, run) : run();
    ASSERT_TRUE(status.ok()) << status.ToString();
    problem.ExpectAllRight();
    const FlashGpuCounts after = emulated_.kernels->counts();
    EXPECT_EQ(after.launches - before.launches, 3);
    EXPECT_EQ(after.gpu_calls - before.gpu_calls, 2);
    EXPECT_EQ(after.host_calls, before.host_calls);
    EXPECT_EQ(after.staged_bytes - before.staged_bytes,
              where == Where::kGpu ? 0 : StagedBytes(problem));
  }
  // Every operand of Forward and of Backward once, there or back.
  static int64_t StagedBytes(const GpuProblem& p) {
    const int64_t q = p.shape.sequences * p.queries.count * p.q_width;
    const int64_t k = p.shape.sequences * p.keys.count * p.k_width;
    const int64_t numbers = p.shape.sequences * p.shape.heads * p.queries.count;
    const int64_t forward = 2 * (2 * q + 2 * k) + 4 * numbers;
    const int64_t backward =
        2 * (2 * q + 2 * k) + 4 * (2 * numbers) + 4 * (q + 2 * k);
    return forward + backward;
  }
  void ExpectEverywhere(const FlashShape& shape, const Visibility& v,
                        const TokenRun& queries, const TokenRun& keys) {
    Expect(shape, v, queries, keys, Where::kHost);
    Expect(shape, v, queries, keys, Where::kGpu);
  }

  EmulatedFlash emulated_;
};

TEST_F(FlashOnGpuTest, EveryTypeAndHeadDim) {
  for (const DType dtype : kTileTypes) {
    for (const int64_t d : kTileHeadDims) {
      for (const bool causal : {false, true}) {
        ExpectEverywhere(ShapeOf(dtype, 70, 70, d), {.causal = causal},
                         {.count = 70}, {.count = 70});
      }
    }
  }
}

// More blocks than an emulated GPU works on at a time, and tiles that end with the tokens and do not.
TEST_F(FlashOnGpuTest, ManyBlocks) {
  FlashShape shape = ShapeOf(DType::kBF16, 130, 129, 64, 2);
  shape.sequences = 2;
  Expect(shape, {.causal = true}, {.count = 130}, {.count = 129}, Where::kGpu);
  Expect(ShapeOf(DType::kF16, 65, 130, 128, 3), {}, {.count = 65},
         {.count = 130}, Where::kHost);
}

// Fibers that work on a block after another, in many orders.
TEST_F(FlashOnGpuTest, BlocksAfterBlocks) {
  const FlashShape shape = ShapeOf(DType::kBF16, 40, 40, 64, 7);
  for (uint64_t seed = 1; seed <= 8; ++seed) {
    const EmulatedFlash emulated({.seed = seed});
    const auto flash = emulated.Create(shape);
    GpuProblem problem(shape, {}, {.count = 40}, {.count = 40});
    ASSERT_TRUE(problem.RunOnGpu(*flash).ok());
    problem.ExpectAllRight();
  }
}

TEST_F(FlashOnGpuTest, EveryKindOfHeads) {
  FlashShape shape = ShapeOf(DType::kBF16, 37, 37, 64, 4);
  shape.sequences = 2;
  const auto expect = [&] {
    ExpectEverywhere(shape, {.causal = true}, {.count = 37}, {.count = 37});
  };
  shape.kv_heads = 1;
  shape.heads_per_kv = 4;
  expect();
  shape.heads_per_kv = 9;  // A part of a group.
  shape.first_in_group = 3;
  expect();
  shape.kv_heads = 3;  // The end of one group, another, the start of a third.
  shape.heads_per_kv = 2;
  shape.first_in_group = 1;
  expect();
}

TEST_F(FlashOnGpuTest, OffsetsStridesAndWindows) {
  const TokenRun runs[] = {{0, 1, 40}, {40, 1, 70}, {2, 3, 30}, {1, 2, 45}};
  for (const TokenRun& queries : runs) {
    for (const TokenRun& keys : runs) {
      for (const int64_t window : {0, 11}) {
        Expect(ShapeOf(DType::kBF16, queries.count, keys.count, 64),
               {.causal = true, .window = window}, queries, keys, Where::kHost);
      }
    }
  }
}

TEST_F(FlashOnGpuTest, RowsThatSeeNothing) {
  for (const DType dtype : kTileTypes) {
    const FlashShape shape = ShapeOf(dtype, 40, 40, 64);
    ExpectEverywhere(shape, {.causal = true}, {.count = 40},
                     {.offset = 40, .count = 40});
    ExpectEverywhere(shape, {.causal = true}, {.count = 40},
                     {.offset = 33, .count = 40});
    const auto flash = emulated_.Create(shape);
    GpuProblem nothing(shape, {.causal = true}, {.count = 40},
                       {.offset = 40, .count = 40});
    ASSERT_TRUE(nothing.RunOnGpu(*flash).ok());
    for (const double lse : Doubles(nothing.t["lse"])) {
      EXPECT_EQ(lse, -std::numeric_limits<double>::infinity());
    }
  }
}

// Fewer tokens than the shape says, and none at all.
TEST_F(FlashOnGpuTest, FewerTokensThanThereMayBe) {
  FlashShape shape = ShapeOf(DType::kBF16, 50, 60, 64, 2);
  const auto flash = emulated_.Create(shape);
  GpuProblem some(shape, {.causal = true}, {.offset = 20, .count = 13},
                  {.count = 31});
  ASSERT_TRUE(some.RunOnGpu(*flash).ok());
  some.ExpectAllRight();
  GpuProblem no_keys(shape, {}, {.count = 9}, {.count = 0});
  ASSERT_TRUE(no_keys.RunOnGpu(*flash).ok());
  no_keys.ExpectAllRight();
  const int64_t launches = emulated_.kernels->counts().launches;
  GpuProblem no_queries(shape, {}, {.count = 0}, {.count = 9});
  ASSERT_TRUE(no_queries.RunOnGpu(*flash).ok());
  no_queries.ExpectAllRight();
  // That of dK and dV, which are 0.
  EXPECT_EQ(emulated_.kernels->counts().launches, launches + 1);
}

// Rows that are no multiples of 8 elements apart, and tokens beside a multiple of 16 bytes: copied, and what lies between
// the rows stays as it is.
TEST_F(FlashOnGpuTest, LayoutsThatTheKernelsRefuse) {
  for (const int64_t room : {5, 8}) {
    for (const int64_t off : {0, 4}) {
      const FlashShape shape = ShapeOf(DType::kF16, 33, 45, 64, 2);
      GpuProblem problem(shape, {.causal = true}, {.offset = 12, .count = 33},
                         {.count = 45});
      problem.SetRoom(room);
      const auto flash = emulated_.Create(shape);
      const int64_t staged = emulated_.kernels->counts().staged_bytes;
      const Status status = problem.With(
          emulated_.gpu(), off, [&] { return problem.RunOnGpu(*flash); });
      ASSERT_TRUE(status.ok()) << status.ToString();
      problem.ExpectAllRight();
      EXPECT_EQ(emulated_.kernels->counts().staged_bytes > staged,
                room == 5 || off == 4);
    }
  }
}

TEST_F(FlashOnGpuTest, WideO) {
  for (const Where where : {Where::kHost, Where::kGpu}) {
    const FlashShape shape = ShapeOf(DType::kBF16, 70, 70, 128);
    const auto flash = emulated_.Create(shape);
    GpuProblem problem(shape, {.causal = true}, {.count = 70}, {.count = 70},
                       DType::kF32);
    const auto run = [&] { return problem.RunOnGpu(*flash); };
    ASSERT_TRUE(
        (where == Where::kGpu ? problem.With(emulated_.gpu(), 0, run) : run())
            .ok());
    problem.ExpectAllRight();
  }
}

// As in a ring: partial results of blocks of keys, merged; the final lse and delta, and gradients that are added. The
// blocks are parts of longer sequences, of which the other tokens stay as they are.
TEST_F(FlashOnGpuTest, BlocksOfLongerSequences) {
  for (const Where where : {Where::kHost, Where::kGpu}) {
    FlashShape shape = ShapeOf(DType::kBF16, 40, 65, 64, 2);
    shape.sequences = 2;
    const Visibility causal = {.causal = true};
    const TokenRun queries = {.offset = 25, .count = 40};
    GpuProblem whole(shape, causal, queries, {.count = 65}, DType::kF32);
    Tensor o_b(DType::kF32, whole.t["o"].shape());
    Tensor lse_b(DType::kF32, whole.t["lse"].shape());
    const auto flash = emulated_.Create(shape);
    const auto part = [&](auto tokens, DType dtype, int64_t first) {
      tokens.sequence_stride = 65 * tokens.stride;
      const auto skip = first * tokens.stride * SizeOf(dtype);
      using Data = decltype(tokens.data);
      using Byte =
          std::conditional_t<std::is_same_v<Data, void*>, char, const char>;
      tokens.data = static_cast<Byte*>(tokens.data) + skip;
      return tokens;
    };
    const auto run = [&]() -> Status {
      const TokenRun halves[] = {{.count = 35}, {.offset = 35, .count = 30}};
      bool first = true;
      for (const TokenRun& half : halves) {
        FlashAttention::ForwardArgs args = whole.ForwardOnGpu();
        args.block.keys = half;
        args.k = part(args.k, DType::kBF16, half.offset);
        args.v = part(args.v, DType::kBF16, half.offset);
        if (!first) {
          args.o.data = o_b.raw();
          args.lse.data = lse_b.raw();
        }
        SP_RETURN_IF_ERROR(flash->Forward({}, args));
        first = false;
      }
      SP_RETURN_IF_ERROR(MergeAttention({}, {.sequences = 2,
                                             .queries = 40,
                                             .heads = 2,
                                             .head_dim = 64,
                                             .o = whole.To("o"),
                                             .lse = {whole.At("lse")},
                                             .o_b = {o_b.raw(), o_b.shape()[1]},
                                             .lse_b = {lse_b.raw()}}));
      SP_RETURN_IF_ERROR(whole.DeltaOfHost());
      for (const char* name : {"dq", "dk", "dv"}) {
        const Tensor& tensor = whole.t[name];
        const int64_t width = name[1] == 'q' ? whole.q_width : whole.k_width;
        for (int64_t row = 0; row < tensor.shape()[0]; ++row) {
          std::fill_n(
              static_cast<float*>(whole.At(name)) + row * tensor.shape()[1],
              width, 0.0F);
        }
      }
      for (const TokenRun& half : halves) {
        FlashAttention::BackwardArgs args = whole.BackwardOnGpu(false);
        args.block.keys = half;
        args.k = part(args.k, DType::kBF16, half.offset);
        args.v = part(args.v, DType::kBF16, half.offset);
        args.dk = part(args.dk, DType::kF32, half.offset);
        args.dv = part(args.dv, DType::kF32, half.offset);
        SP_RETURN_IF_ERROR(flash->Backward({}, args));
      }
      return OkStatus();
    };
    const Status status =
        where == Where::kGpu ? whole.With(emulated_.gpu(), 0, run) : run();
    ASSERT_TRUE(status.ok()) << status.ToString();
    whole.ExpectAllRight(1);
  }
}

TEST_F(FlashOnGpuTest, AddsOrOverwrites) {
  for (const Where where : {Where::kHost, Where::kGpu}) {
    FlashShape shape = ShapeOf(DType::kF16, 33, 33, 64, 4);
    shape.kv_heads = 2;
    shape.heads_per_kv = 2;
    const auto flash = emulated_.Create(shape);
    GpuProblem problem(shape, {.causal = true}, {.count = 33}, {.count = 33});
    const auto in_place = [&](const auto& f) {
      return where == Where::kGpu ? problem.With(emulated_.gpu(), 0, f) : f();
    };
    ASSERT_TRUE(in_place([&] { return problem.RunOnGpu(*flash); }).ok());
    std::vector<std::vector<double>> once;
    for (const char* name : {"dq", "dk", "dv"}) {
      once.push_back(Doubles(problem.t[name]));
    }
    // Not what a copy may still hold from the last call.
    for (const char* name : {"dq", "dk", "dv"}) {
      Tensor& tensor = problem.t[name];
      for (int64_t i = 0; i < tensor.num_elements(); ++i) {
        float& value = tensor.data<float>()[i];
        if (!std::isnan(value)) value = 1;
      }
    }
    ASSERT_TRUE(in_place([&] {
                  return flash->Backward({}, problem.BackwardOnGpu(false));
                }).ok());
    size_t n = 0;
    for (const char* name : {"dq", "dk", "dv"}) {
      const Tensor& tensor = problem.t[name];
      for (size_t i = 0; i < once[n].size(); ++i) {
        if (std::isnan(once[n][i])) continue;  // Room between rows.
        ASSERT_EQ(tensor.data<float>()[i],
                  1.0F + static_cast<float>(once[n][i]))
            << name;
      }
      ++n;
    }
  }
}

// Queued, on the thread of a stream.
TEST_F(FlashOnGpuTest, OnAStream) {
  const auto stream = Stream::Create("attention");
  ASSERT_TRUE(stream.ok());
  const FlashShape shape = ShapeOf(DType::kBF16, 40, 40, 64);
  const auto flash = emulated_.Create(shape);
  GpuProblem problem(shape, {.causal = true}, {.count = 40}, {.count = 40});
  ASSERT_TRUE(problem.RunOnGpu(*flash, *stream).ok());
  problem.ExpectAllRight();
  EXPECT_EQ(emulated_.kernels->counts().gpu_calls, 2);
}

// Two attentions of one rank, at the same time: their calls take turns.
TEST_F(FlashOnGpuTest, TwoAtATime) {
  const FlashShape shape = ShapeOf(DType::kBF16, 40, 40, 64);
  const auto stream = Stream::Create("attention");
  ASSERT_TRUE(stream.ok());
  const auto one = emulated_.Create(shape), other = emulated_.Create(shape);
  GpuProblem first(shape, {.causal = true}, {.count = 40}, {.count = 40});
  GpuProblem second(shape, {}, {.count = 40}, {.count = 40});
  ASSERT_TRUE(one->Forward(*stream, first.ForwardOnGpu()).ok());
  ASSERT_TRUE(other->Forward({}, second.ForwardOnGpu()).ok());
  ASSERT_TRUE(stream->Synchronize().ok());
  first.ExpectForwardRight();
  second.ExpectForwardRight();
}

}  // namespace
}  // namespace shardproof::cuda
