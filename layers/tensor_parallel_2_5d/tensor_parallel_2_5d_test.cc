// What the case cannot say: refusals, meshes of more ranks than it runs on,
// copies of the weight, the formulas of the header, and that the steady state
// asks for no memory.
#include "layers/tensor_parallel_2_5d/tensor_parallel_2_5d.h"

#include <gtest/gtest.h>

#include <string>
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
using Layer = TensorParallel2p5dLinear;
using Config = TensorParallel2p5dConfig;

void ExpectRight(int ranks, const Config& config,
                 const CollectiveFamily& collectives) {
  const MeshLinearConfig& linear = config.linear;
  const Whole expected = Expected(linear);
  const Status ran = RunThreads(ranks, [&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(const Layer layer,
                        Layer::Create(comm, config, collectives));
    const MeshLinearBlocks& blocks = layer.blocks();
    Local own(blocks, linear, expected);
    SP_RETURN_IF_ERROR(own.Run(layer));
    EXPECT_EQ(own.y, Block(blocks.y, linear.out, expected.y));
    EXPECT_EQ(own.dx, Block(blocks.x, linear.in, expected.dx));
    EXPECT_EQ(own.dw, Block(blocks.w, linear.in, expected.dw));
    EXPECT_EQ(own.db, Part(blocks.b, expected.db));
    return OkStatus();
  });
  EXPECT_TRUE(ran.ok()) << ran.ToString();
}

// What Create says, on every rank; rank r gets config r, around.
void ExpectRefused(int ranks, const std::vector<Config>& configs,
                   StatusCode code, const std::string& message) {
  std::vector<Status> refusals(static_cast<size_t>(ranks));
  const Status ran = RunThreads(ranks, [&](const Communicator& comm) {
    const auto rank = static_cast<size_t>(comm.rank());
    refusals[rank] =
        Layer::Create(comm, configs[rank % configs.size()]).status();
    return OkStatus();
  });
  ASSERT_TRUE(ran.ok()) << ran.ToString();
  for (const Status& refusal : refusals) {
    EXPECT_EQ(refusal.code(), code);
    EXPECT_EQ(refusal.message(), message);
  }
}

TEST(TensorParallel2p5d, DeepAndUneven) {
  const MeshLinearConfig linear = {
      .tokens = 17, .in = 7, .out = 9, .bias = true};
  for (const CollectiveFamily& family :
       {kAutoCollectives, kDirectCollectives, kRingCollectives}) {
    ExpectRight(12, {.linear = linear, .depth = 3}, family);
    ExpectRight(3, {.linear = linear, .depth = 3}, family);
  }
}
TEST(TensorParallel2p5d, WithFewerTokensThanRows) {
  ExpectRight(
      12,
      {.linear = {.tokens = 2, .in = 1, .out = 3, .bias = true}, .depth = 3},
      kRingCollectives);
  ExpectRight(8, {.linear = {.tokens = 0, .in = 3, .out = 3}, .depth = 2},
              kDirectCollectives);
}

// Token chunks of all rows of all depths, in order of depths and rows.
TEST(TensorParallel2p5d, CutsTokensOverDepthsAndRows) {
  const TensorParallel2p5dConfig config = {
      .linear = {.tokens = 17, .in = 4, .out = 4}, .depth = 3};
  for (int k = 0; k < 3; ++k) {
    for (int i = 0; i < 2; ++i) {
      const MeshLinearBlocks blocks = BlocksIn2p5d(config, 2, 4 * k + 2 * i);
      EXPECT_EQ(blocks.x.rows, BalancedChunk(17, 6, 2 * k + i));
      EXPECT_EQ(blocks.y.rows, blocks.x.rows);
    }
  }
}

// Gradients of random numbers, whose sums depend on their order: copies of the
// weight must not drift apart.
TEST(TensorParallel2p5d, GradientsOfCopiesHaveTheSameBits) {
  const Config config = {
      .linear = {.tokens = 24, .in = 10, .out = 6, .bias = true}, .depth = 2};
  Whole whole(config.linear);
  for (size_t i = 0; i < whole.x.size(); ++i) {
    whole.x[i] += 1.0F / static_cast<float>(i + 3);
  }
  for (const CollectiveFamily& family :
       {kDirectCollectives, kRingCollectives}) {
    std::vector<std::vector<float>> dw(8);
    const Status ran = RunThreads(8, [&](const Communicator& comm) -> Status {
      SP_ASSIGN_OR_RETURN(const Layer layer,
                          Layer::Create(comm, config, family));
      Local own(layer.blocks(), config.linear, whole);
      SP_RETURN_IF_ERROR(own.Run(layer));
      dw[static_cast<size_t>(comm.rank())] = own.dw;
      return OkStatus();
    });
    ASSERT_TRUE(ran.ok()) << ran.ToString();
    for (size_t r = 0; r < 4; ++r) {
      EXPECT_FALSE(dw[r].empty());
      EXPECT_EQ(dw[r], dw[r + 4]);
    }
  }
}

TEST(TensorParallel2p5d, RefusesRanksThatAreNoMesh) {
  for (const int ranks : {1, 3, 4, 6}) {
    ExpectRefused(ranks,
                  {{.linear = {.tokens = 4, .in = 5, .out = 6}, .depth = 2}},
                  StatusCode::kInvalidArgument,
                  fmt::format("f32 linear layer of 4 tokens, 5 to 6, on a mesh "
                              "of depth 2: {} ranks are no q x q x 2 mesh; 2, "
                              "8, 18 and so on are",
                              ranks));
  }
}
TEST(TensorParallel2p5d, RefusesADepthOfWhichNineTimesIsNoInt) {
  ExpectRefused(2, {{.linear = {.tokens = 4}, .depth = 500000000}},
                StatusCode::kInvalidArgument,
                "f32 linear layer of 4 tokens, 0 to 0, on a mesh of depth "
                "500000000: 2 ranks are no q x q x 500000000 mesh; 500000000, "
                "2000000000, 4500000000 and so on are");
}
TEST(TensorParallel2p5d, RefusesADepthBelowOne) {
  ExpectRefused(2, {{.linear = {.tokens = 4}, .depth = 0}},
                StatusCode::kInvalidArgument,
                "f32 linear layer of 4 tokens, 0 to 0, on a mesh of depth 0: "
                "the depth must be at least 1");
}
TEST(TensorParallel2p5d, RefusesDepthsThatDiffer) {
  ExpectRefused(
      4, {{.linear = {.tokens = 4}}, {.linear = {.tokens = 4}, .depth = 4}},
      StatusCode::kInvalidArgument,
      "ranks 0 and 1 make different layers: \"f32 linear layer of 4 "
      "tokens, 0 to 0, on a mesh of depth 1\" and \"f32 linear "
      "layer of 4 tokens, 0 to 0, on a mesh of depth 4\"");
}

// The formulas of the header, for sizes that the mesh divides.
TEST(TensorParallel2p5d, SendsWhatTheHeaderSays) {
  for (const int64_t q : {1, 2, 3}) {
    for (const int64_t d : {1, 2, 3}) {
      const int64_t t = 2 * q * d, k = 3 * q, n = 6 * q;
      const Config config = {
          .linear = {.tokens = t, .in = k, .out = n, .bias = true},
          .depth = static_cast<int>(d)};
      const int ranks = static_cast<int>(q * q * d);
      EXPECT_EQ(TensorParallel2p5dForwardCost(ranks, config, kRingCollectives)
                    .total.bytes,
                4 * (q - 1) * (t * k + d * k * n + d * n));
      EXPECT_EQ(TensorParallel2p5dBackwardCost(ranks, config, kRingCollectives)
                    .total.bytes,
                4 * ((q - 1) * (2 * t * k + 2 * d * k * n + d * n) +
                     2 * (d - 1) * (k * n + n)));
    }
  }
}

// Against one dimension on 2 x 2 x 2 ranks: less for 8 h < 11 T.
TEST(TensorParallel2p5d, SendsLessThanOneDimensionWhereTheHeaderSays) {
  const int64_t tokens = 64, crossover = 88;
  for (const int64_t h : {crossover - 2, crossover, crossover + 2}) {
    const Config config = {.linear = {.tokens = tokens, .in = h, .out = h},
                           .depth = 2};
    const int64_t deep =
        (TensorParallel2p5dForwardCost(8, config, kRingCollectives) +
         TensorParallel2p5dBackwardCost(8, config, kRingCollectives))
            .total.bytes;
    const int64_t one =
        kRingCollectives
            .all_reduce_cost(8, tokens * h, DType::kF32, Memory::kShared)
            .total.bytes;
    EXPECT_EQ(deep < one, h < crossover) << h;
    EXPECT_EQ(deep == one, h == crossover) << h;
  }
}

// Over shared memory: messages on their way have buffers of a pool, which grows
// when ranks drift further apart than before.
TEST(TensorParallel2p5d, SteadyStateAsksForNoMemory) {
  const Config config = {
      .linear = {.tokens = 132, .in = 80, .out = 100, .bias = true},
      .depth = 2};
  const Whole whole(config.linear);
  const Status ran = RunThreads(8, [&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(const Layer layer,
                        Layer::Create(comm, config, kDirectCollectives));
    Local own(layer.blocks(), config.linear, whole);
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

}  // namespace
}  // namespace shardproof
