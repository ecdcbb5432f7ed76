// What the case cannot say: refusals, meshes of more ranks than it runs on, the
// formulas of the header, and that the steady state asks for no memory.
#include "layers/tensor_parallel_2d/tensor_parallel_2d.h"

#include <gtest/gtest.h>

#include <vector>

#include "collectives/backend/thread/thread_world.h"
#include "layers/testing/allocations.h"
#include "layers/testing/mesh_linear_testing.h"

namespace shardproof {
namespace {

using mesh_linear_testing::Block;
using mesh_linear_testing::Expected;
using mesh_linear_testing::Local;
using mesh_linear_testing::Part;
using mesh_linear_testing::Whole;

void ExpectRight(int ranks, const MeshLinearConfig& config,
                 const CollectiveFamily& collectives) {
  const Whole expected = Expected(config);
  const Status ran = RunThreads(ranks, [&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(
        const TensorParallel2dLinear layer,
        TensorParallel2dLinear::Create(comm, config, collectives));
    Local own(layer.blocks(), config, expected);
    SP_RETURN_IF_ERROR(own.Run(layer));
    const MeshLinearBlocks& blocks = layer.blocks();
    EXPECT_EQ(own.y, Block(blocks.y, config.out, expected.y));
    EXPECT_EQ(own.dx, Block(blocks.x, config.in, expected.dx));
    EXPECT_EQ(own.dw, Block(blocks.w, config.in, expected.dw));
    EXPECT_EQ(own.db, Part(blocks.b, expected.db));
    return OkStatus();
  });
  EXPECT_TRUE(ran.ok()) << ran.ToString();
}

TEST(TensorParallel2d, OnNineRanks) {
  const MeshLinearConfig config = {
      .tokens = 13, .in = 17, .out = 8, .bias = true};
  for (const CollectiveFamily& family :
       {kAutoCollectives, kDirectCollectives, kRingCollectives}) {
    ExpectRight(9, config, family);
  }
}
TEST(TensorParallel2d, WithFewerFeaturesThanRanksInARow) {
  for (const CollectiveFamily& family :
       {kDirectCollectives, kRingCollectives}) {
    ExpectRight(9, {.tokens = 2, .in = 1, .out = 2, .bias = true}, family);
  }
}
TEST(TensorParallel2d, WithoutInputsIsTheBias) {
  ExpectRight(4, {.tokens = 3, .in = 0, .out = 5, .bias = true},
              kAutoCollectives);
}
TEST(TensorParallel2d, WithoutTokensHasZeroGradients) {
  ExpectRight(4, {.tokens = 0, .in = 3, .out = 5, .bias = true},
              kAutoCollectives);
}
TEST(TensorParallel2d, WithoutOutputsHasZeroGradients) {
  ExpectRight(4, {.tokens = 3, .in = 3, .out = 0}, kAutoCollectives);
}

TEST(TensorParallel2d, OnAStreamOfItsOwn) {
  const MeshLinearConfig config = {
      .tokens = 5, .in = 7, .out = 6, .bias = true};
  const Whole expected = Expected(config);
  const Status ran = RunThreads(4, [&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(const TensorParallel2dLinear layer,
                        TensorParallel2dLinear::Create(comm, config));
    SP_ASSIGN_OR_RETURN(const Stream stream, Stream::Create("layer"));
    Local own(layer.blocks(), config, expected);
    SP_RETURN_IF_ERROR(own.Run(layer, stream));
    SP_RETURN_IF_ERROR(stream.Synchronize());
    EXPECT_EQ(own.dw, Block(layer.blocks().w, config.in, expected.dw));
    EXPECT_EQ(own.y, Block(layer.blocks().y, config.out, expected.y));
    return OkStatus();
  });
  EXPECT_TRUE(ran.ok()) << ran.ToString();
}

// What `make` says, on every rank.
void ExpectRefused(int ranks, const std::vector<MeshLinearConfig>& configs,
                   StatusCode code, const std::string& message) {
  std::vector<Status> refusals(static_cast<size_t>(ranks));
  const Status ran = RunThreads(ranks, [&](const Communicator& comm) {
    const auto rank = static_cast<size_t>(comm.rank());
    refusals[rank] =
        TensorParallel2dLinear::Create(comm, configs[rank % configs.size()])
            .status();
    return OkStatus();
  });
  ASSERT_TRUE(ran.ok()) << ran.ToString();
  for (const Status& refusal : refusals) {
    EXPECT_EQ(refusal.code(), code);
    EXPECT_EQ(refusal.message(), message);
  }
}

TEST(TensorParallel2d, RefusesRanksThatAreNoSquare) {
  for (const int ranks : {2, 3, 5, 8}) {
    ExpectRefused(
        ranks, {{.tokens = 4, .in = 5, .out = 6}}, StatusCode::kInvalidArgument,
        fmt::format("f32 linear layer of 4 tokens, 5 to 6, on a square mesh: "
                    "{} ranks are no q x q mesh; 1, 4, 9, 16 and so on are",
                    ranks));
  }
}
TEST(TensorParallel2d, RefusesLayersThatDiffer) {
  ExpectRefused(4,
                {{.tokens = 4, .in = 5, .out = 6},
                 {.tokens = 4, .in = 5, .out = 6, .bias = true}},
                StatusCode::kInvalidArgument,
                "ranks 0 and 1 make different layers: \"f32 linear layer of 4 "
                "tokens, 5 to 6, on a square mesh\" and \"f32 linear layer of "
                "4 tokens, 5 to 6, bias, on a square mesh\"");
}
TEST(TensorParallel2d, RefusesNegativeSizesAndOtherTypes) {
  ExpectRefused(4, {{.tokens = -1}}, StatusCode::kInvalidArgument,
                "f32 linear layer of -1 tokens, 0 to 0, on a square mesh: a "
                "size is negative");
  ExpectRefused(4, {{.dtype = DType::kI32}}, StatusCode::kUnsupported,
                "i32 linear layer of 0 tokens, 0 to 0, on a square mesh: "
                "layers compute in f64, f32, bf16 or f16, not i32");
}

// The formulas of the header, for sizes that the mesh divides.
TEST(TensorParallel2d, SendsWhatTheHeaderSays) {
  for (const int64_t q : {1, 2, 3, 4}) {
    const int64_t t = 2 * q, k = 3 * q, n = 5 * q;
    const MeshLinearConfig config = {
        .tokens = t, .in = k, .out = n, .bias = true};
    const int ranks = static_cast<int>(q * q);
    EXPECT_EQ(TensorParallel2dForwardCost(ranks, config, kRingCollectives)
                  .total.bytes,
              4 * (q - 1) * (t * k + k * n + n));
    EXPECT_EQ(TensorParallel2dBackwardCost(ranks, config, kRingCollectives)
                  .total.bytes,
              4 * (q - 1) * (2 * t * k + 2 * k * n + n));
  }
}

// Against one dimension: less from h < (2 q - 1) T / 3 on.
TEST(TensorParallel2d, SendsLessThanOneDimensionWhereTheHeaderSays) {
  for (const int64_t q : {2, 4}) {
    const int64_t tokens = 48;
    const int ranks = static_cast<int>(q * q);
    const int64_t crossover = (2 * q - 1) * tokens / 3;
    for (const int64_t h : {crossover - q, crossover, crossover + q}) {
      const MeshLinearConfig config = {.tokens = tokens, .in = h, .out = h};
      const int64_t two =
          (TensorParallel2dForwardCost(ranks, config, kRingCollectives) +
           TensorParallel2dBackwardCost(ranks, config, kRingCollectives))
              .total.bytes;
      const int64_t one =
          kRingCollectives
              .all_reduce_cost(ranks, tokens * h, DType::kF32, Memory::kShared)
              .total.bytes;
      EXPECT_EQ(two < one, h < crossover) << q << " " << h;
      EXPECT_EQ(two == one, h == crossover) << q << " " << h;
    }
  }
}

// Over shared memory: messages on their way have buffers of a pool, which grows
// when ranks drift further apart than before.
TEST(TensorParallel2d, SteadyStateAsksForNoMemory) {
  const MeshLinearConfig config = {
      .tokens = 66, .in = 80, .out = 100, .bias = true};
  const Whole whole(config);
  const Status ran = RunThreads(4, [&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(
        const TensorParallel2dLinear layer,
        TensorParallel2dLinear::Create(comm, config, kDirectCollectives));
    Local own(layer.blocks(), config, whole);
    // Products are compiled and scratch is made at first use.
    for (int i = 0; i < 2; ++i) SP_RETURN_IF_ERROR(own.Run(layer));
    SP_RETURN_IF_ERROR(comm.Barrier());
    const int64_t before = LargeAllocations();
    SP_RETURN_IF_ERROR(comm.Barrier());
    for (int i = 0; i < 3; ++i) SP_RETURN_IF_ERROR(own.Run(layer));
    SP_RETURN_IF_ERROR(comm.Barrier());
    EXPECT_EQ(LargeAllocations(), before);
    return comm.Barrier();
  });
  EXPECT_TRUE(ran.ok()) << ran.ToString();
}

TEST(MeshLinear, SidesOfSquaresAndCubes) {
  EXPECT_EQ(SquareSide(1), 1);
  EXPECT_EQ(SquareSide(4), 2);
  EXPECT_EQ(SquareSide(9), 3);
  EXPECT_EQ(SquareSide(8), 0);
  EXPECT_EQ(CubeSide(1), 1);
  EXPECT_EQ(CubeSide(8), 2);
  EXPECT_EQ(CubeSide(27), 3);
  EXPECT_EQ(CubeSide(4), 0);
  EXPECT_EQ(CubeSide(9), 0);
}

}  // namespace
}  // namespace shardproof
