// What the case cannot say: refusals, blocks with nothing in them, and that the
// steady state asks for no memory.
#include "layers/mlp/mlp.h"

#include <gtest/gtest.h>

#include <functional>
#include <vector>

#include "collectives/backend/thread/thread_world.h"
#include "layers/testing/allocations.h"

namespace shardproof {
namespace {

using Floats = std::vector<float>;

// Every rank's memory for a block in f32: x = 2, dy = 7, weights = 1, biases 3.
struct Memory {
  Memory(const ParallelMlp& mlp, const ParallelMlpConfig& config)
      : x(Size(mlp.local_tokens(), config.hidden), 2),
        dy(x.size(), 7),
        w(Size(mlp.local_features(), config.hidden), 1),
        b_features(Size(mlp.local_features(), 1), 3),
        b_hidden(Size(config.hidden, 1), 3),
        y(x.size(), -1),
        dx(x.size(), -1),
        dw_gate(w.size(), -1),
        dw_up(w.size(), -1),
        dw_down(w.size(), -1),
        db_gate(b_features.size(), -1),
        db_up(b_features.size(), -1),
        db_down(b_hidden.size(), -1) {}
  static size_t Size(int64_t rows, int64_t columns) {
    return static_cast<size_t>(rows * columns);
  }

  Status Run(ParallelMlp& mlp) {
    const MlpWeights weights = {w.data(),          w.data(),
                                w.data(),          b_features.data(),
                                b_features.data(), b_hidden.data()};
    SP_RETURN_IF_ERROR(mlp.Forward(x.data(), weights, y.data()));
    return mlp.Backward(x.data(), weights, dy.data(), dx.data(),
                        {dw_gate.data(), dw_up.data(), dw_down.data(),
                         db_gate.data(), db_up.data(), db_down.data()});
  }

  Floats x, dy, w, b_features, b_hidden;
  Floats y, dx, dw_gate, dw_up, dw_down, db_gate, db_up, db_down;
};

using Look = std::function<void(const ParallelMlp&, const Memory&)>;

void RunMlp(int ranks, const ParallelMlpConfig& config, const Look& look) {
  const Status ran = RunThreads(ranks, [&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(ParallelMlp mlp, ParallelMlp::Create(comm, config));
    Memory memory(mlp, config);
    SP_RETURN_IF_ERROR(memory.Run(mlp));
    look(mlp, memory);
    return OkStatus();
  });
  EXPECT_TRUE(ran.ok()) << ran.ToString();
}

TEST(ParallelMlp, RefusesOnEveryRankAlike) {
  std::vector<Status> refusals(3);
  const Status ran = RunThreads(3, [&](const Communicator& comm) {
    refusals[static_cast<size_t>(comm.rank())] =
        ParallelMlp::Create(
            comm, {.tokens = 4,
                   .hidden = 5,
                   .intermediate = 6,
                   .activation = comm.rank() == 2 ? Activation::kSwiGlu
                                                  : Activation::kGeluTanh})
            .status();
    return OkStatus();
  });
  ASSERT_TRUE(ran.ok()) << ran.ToString();
  for (const Status& refusal : refusals) {
    EXPECT_EQ(refusal.code(), StatusCode::kInvalidArgument);
    EXPECT_EQ(refusal.message(),
              "ranks 0 and 2 make different layers: \"mlp of 4 tokens, 5 to 6 "
              "and back, gelu, f32\" and \"mlp of 4 tokens, 5 to 6 and back, "
              "swiglu, f32\"");
  }
}

// Only the first rank has features, and no room for them.
TEST(ParallelMlp, RefusesOnEveryRankWhatOneRankRefuses) {
  std::vector<Status> refusals(3);
  const Status ran = RunThreads(3, [&](const Communicator& comm) {
    refusals[static_cast<size_t>(comm.rank())] =
        ParallelMlp::Create(
            comm, {.tokens = int64_t{1} << 50, .hidden = 0, .intermediate = 1})
            .status();
    return OkStatus();
  });
  ASSERT_TRUE(ran.ok()) << ran.ToString();
  for (const Status& refusal : refusals) {
    EXPECT_EQ(refusal.code(), StatusCode::kOutOfMemory);
    EXPECT_EQ(refusal.message().substr(0, 8), "rank 0: ");
    EXPECT_EQ(refusal.ToString(), refusals[0].ToString());
  }
}

TEST(ParallelMlp, RefusesNegativeSizesAndIntegers) {
  const Status ran = RunThreads(1, [&](const Communicator& comm) {
    EXPECT_EQ(ParallelMlp::Create(comm, {.tokens = -1}).status().code(),
              StatusCode::kInvalidArgument);
    EXPECT_EQ(ParallelMlp::Create(comm, {.dtype = DType::kI32}).status().code(),
              StatusCode::kUnsupported);
    return OkStatus();
  });
  EXPECT_TRUE(ran.ok()) << ran.ToString();
}

TEST(ParallelMlp, WithoutFeaturesIsItsBias) {
  for (const bool sequence_parallel : {false, true}) {
    RunMlp(3,
           {.tokens = 7,
            .hidden = 4,
            .intermediate = 0,
            .activation = Activation::kSwiGlu,
            .bias = true,
            .sequence_parallel = sequence_parallel},
           [](const ParallelMlp&, const Memory& m) {
             EXPECT_EQ(m.y, Floats(m.y.size(), 3));
             EXPECT_EQ(m.dx, Floats(m.dx.size(), 0));
             EXPECT_EQ(m.db_down, Floats(4, 7 * 7));
           });
  }
}

TEST(ParallelMlp, WithoutTokensHasZeroGradients) {
  for (const Activation activation :
       {Activation::kGeluTanh, Activation::kSwiGlu}) {
    RunMlp(2,
           {.tokens = 0,
            .hidden = 4,
            .intermediate = 5,
            .activation = activation,
            .bias = true,
            .sequence_parallel = true},
           [&](const ParallelMlp&, const Memory& m) {
             EXPECT_EQ(m.dw_up, Floats(m.w.size(), 0));
             EXPECT_EQ(m.dw_down, Floats(m.w.size(), 0));
             EXPECT_EQ(m.db_up, Floats(m.b_features.size(), 0));
             EXPECT_EQ(m.db_down, Floats(4, 0));
             if (activation == Activation::kGeluTanh) return;
             EXPECT_EQ(m.dw_gate, Floats(m.w.size(), 0));
             EXPECT_EQ(m.db_gate, Floats(m.b_features.size(), 0));
           });
  }
}

// Far from 0 gelu is the identity: z = 2 h + 3 = 23, and everything is exact.
TEST(ParallelMlp, MoreRanksThanFeaturesAndTokens) {
  for (const bool sequence_parallel : {false, true}) {
    RunMlp(5,
           {.tokens = 2,
            .hidden = 10,
            .intermediate = 3,
            .bias = true,
            .sequence_parallel = sequence_parallel},
           [](const ParallelMlp& mlp, const Memory& m) {
             EXPECT_LE(mlp.local_features(), 1);
             EXPECT_EQ(m.y, Floats(m.y.size(), 3 * 23 + 3));
             EXPECT_EQ(m.dx, Floats(m.dx.size(), 3 * 10 * 7));
             EXPECT_EQ(m.dw_up, Floats(m.w.size(), 2 * 10 * 7 * 2));
             EXPECT_EQ(m.dw_down, Floats(m.w.size(), 2 * 7 * 23));
             EXPECT_EQ(m.db_up, Floats(m.b_features.size(), 2 * 70));
             EXPECT_EQ(m.db_down, Floats(10, 2 * 7));
           });
  }
}

TEST(ParallelMlp, SteadyStateAsksForNoMemory) {
  for (const bool sequence_parallel : {false, true}) {
    const ParallelMlpConfig config = {.tokens = 66,
                                      .hidden = 80,
                                      .intermediate = 100,
                                      .activation = Activation::kSwiGlu,
                                      .bias = true,
                                      .sequence_parallel = sequence_parallel};
    const Status ran = RunThreads(2, [&](const Communicator& comm) -> Status {
      SP_ASSIGN_OR_RETURN(ParallelMlp mlp, ParallelMlp::Create(comm, config));
      Memory memory(mlp, config);
      // Products are compiled and scratch is made at first use.
      for (int i = 0; i < 2; ++i) SP_RETURN_IF_ERROR(memory.Run(mlp));
      SP_RETURN_IF_ERROR(comm.Barrier());
      const int64_t before = LargeAllocations();
      SP_RETURN_IF_ERROR(comm.Barrier());
      for (int i = 0; i < 3; ++i) SP_RETURN_IF_ERROR(memory.Run(mlp));
      SP_RETURN_IF_ERROR(comm.Barrier());
      EXPECT_EQ(LargeAllocations(), before);
      return comm.Barrier();
    });
    EXPECT_TRUE(ran.ok()) << ran.ToString();
  }
}

}  // namespace
}  // namespace shardproof
