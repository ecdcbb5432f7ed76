// What the case cannot say: refusals, cubes of more ranks than it runs on,
// layers one after another, the formulas of the header, and that the steady
// state asks for no memory.
#include "layers/tensor_parallel_3d/tensor_parallel_3d.h"

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
using Layer = TensorParallel3dLinear;
using Config = TensorParallel3dConfig;

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

TEST(TensorParallel3d, OnTwentySevenRanks) {
  const MeshLinearConfig linear = {
      .tokens = 23, .in = 8, .out = 19, .bias = true};
  for (const bool swapped : {false, true}) {
    ExpectRight(27, {.linear = linear, .swapped = swapped}, kRingCollectives);
    ExpectRight(27, {.linear = linear, .swapped = swapped}, kDirectCollectives);
  }
}
TEST(TensorParallel3d, WithFewerOfEverythingThanRanks) {
  ExpectRight(27, {.linear = {.tokens = 2, .in = 1, .out = 4, .bias = true}},
              kRingCollectives);
  ExpectRight(8, {.linear = {.tokens = 1, .in = 3, .out = 1, .bias = true}},
              kAutoCollectives);
}
TEST(TensorParallel3d, WithoutInputsIsTheBias) {
  ExpectRight(8, {.linear = {.tokens = 3, .in = 0, .out = 5, .bias = true}},
              kAutoCollectives);
}
TEST(TensorParallel3d, WithoutTokensHasZeroGradients) {
  ExpectRight(8, {.linear = {.tokens = 0, .in = 3, .out = 5, .bias = true}},
              kAutoCollectives);
}

// y of one layer is x of the next, which is swapped.
TEST(TensorParallel3d, LayersFollowOneAnotherSwapped) {
  const MeshLinearConfig first = {
      .tokens = 11, .in = 7, .out = 5, .bias = true};
  const MeshLinearConfig second = {.tokens = 11, .in = 5, .out = 9};
  const Whole a = Expected(first);
  Whole b(second);
  b.x = a.y;
  const mesh_linear_testing::Floats expected =
      mesh_linear_testing::Outputs(second, b);
  const Status ran = RunThreads(8, [&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(const Layer one,
                        Layer::Create(comm, {.linear = first}));
    SP_ASSIGN_OR_RETURN(
        const Layer two,
        Layer::Create(comm, {.linear = second, .swapped = true}));
    Local own(one.blocks(), first, a);
    SP_RETURN_IF_ERROR(own.Run(one));
    EXPECT_EQ(one.blocks().y.rows, two.blocks().x.rows);
    EXPECT_EQ(one.blocks().y.columns, two.blocks().x.columns);
    Local next(two.blocks(), second, b);
    next.x = own.y;
    SP_RETURN_IF_ERROR(next.Run(two));
    EXPECT_EQ(next.y, Block(two.blocks().y, second.out, expected));
    return OkStatus();
  });
  EXPECT_TRUE(ran.ok()) << ran.ToString();
}

TEST(TensorParallel3d, RefusesRanksThatAreNoCube) {
  for (const int ranks : {2, 4, 9}) {
    ExpectRefused(
        ranks, {{.linear = {.tokens = 4, .in = 5, .out = 6}}},
        StatusCode::kInvalidArgument,
        fmt::format("f32 linear layer of 4 tokens, 5 to 6, on a cube: {} ranks "
                    "are no q x q x q cube; 1, 8, 27, 64 and so on are",
                    ranks));
  }
}
TEST(TensorParallel3d, RefusesLayersThatDiffer) {
  ExpectRefused(
      8,
      {{.linear = {.tokens = 4}}, {.linear = {.tokens = 4}, .swapped = true}},
      StatusCode::kInvalidArgument,
      "ranks 0 and 1 make different layers: \"f32 linear layer of 4 tokens, 0 "
      "to "
      "0, on a cube\" and \"f32 linear layer of 4 tokens, 0 to 0, on a cube, "
      "in and out exchanged\"");
}

TEST(TensorParallel3d, GoesBackOnceForEachForward) {
  const MeshLinearConfig linear = {.tokens = 4, .in = 6, .out = 2};
  const Whole expected = Expected(linear);
  for (const int ranks : {1, 8}) {
    const Status ran =
        RunThreads(ranks, [&](const Communicator& comm) -> Status {
          SP_ASSIGN_OR_RETURN(const Layer layer,
                              Layer::Create(comm, {.linear = linear}));
          Local own(layer.blocks(), linear, expected);
          const auto backward = [&] {
            return layer.Backward({own.x.data(), own.w.data(), own.dy.data(),
                                   own.dx.data(), own.dw.data(), nullptr});
          };
          EXPECT_EQ(backward().code(), StatusCode::kInvalidArgument);
          for (int i = 0; i < 2; ++i) {
            SP_RETURN_IF_ERROR(own.Run(layer));
            EXPECT_EQ(own.dx, Block(layer.blocks().x, linear.in, expected.dx));
            EXPECT_EQ(backward().code(), StatusCode::kInvalidArgument);
          }
          return OkStatus();
        });
    EXPECT_TRUE(ran.ok()) << ran.ToString();
  }
}

// The formulas of the header, for sizes that the cube divides.
TEST(TensorParallel3d, SendsWhatTheHeaderSays) {
  for (const int64_t q : {1, 2, 3}) {
    const int64_t t = 2 * q * q, k = 3 * q, n = 5 * q * q;
    const Config config = {
        .linear = {.tokens = t, .in = k, .out = n, .bias = true}};
    const int ranks = static_cast<int>(q * q * q);
    for (const CollectiveFamily& family :
         {kRingCollectives, kDirectCollectives}) {
      const int64_t sent =
          4 * ((q - 1) * (t * k + k * n + t * n) + q * (q - 1) * n);
      EXPECT_EQ(TensorParallel3dForwardCost(ranks, config, family).total.bytes,
                sent);
      EXPECT_EQ(TensorParallel3dBackwardCost(ranks, config, family).total.bytes,
                sent);
    }
  }
}

// Against one dimension on 8 ranks: less for h < 5 T.
TEST(TensorParallel3d, SendsLessThanOneDimensionWhereTheHeaderSays) {
  const int64_t tokens = 16, crossover = 80;
  for (const int64_t h : {crossover - 4, crossover, crossover + 4}) {
    const Config config = {.linear = {.tokens = tokens, .in = h, .out = h}};
    const int64_t cube =
        (TensorParallel3dForwardCost(8, config, kRingCollectives) +
         TensorParallel3dBackwardCost(8, config, kRingCollectives))
            .total.bytes;
    const int64_t one =
        kRingCollectives
            .all_reduce_cost(8, tokens * h, DType::kF32, Memory::kShared)
            .total.bytes;
    EXPECT_EQ(cube < one, h < crossover) << h;
    EXPECT_EQ(cube == one, h == crossover) << h;
  }
}

// Over shared memory: messages on their way have buffers of a pool, which grows
// when ranks drift further apart than before.
TEST(TensorParallel3d, SteadyStateAsksForNoMemory) {
  const Config config = {
      .linear = {.tokens = 132, .in = 80, .out = 100, .bias = true}};
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
