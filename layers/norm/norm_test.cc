// What the case cannot say: refusals, layers with nothing in them, and that the
// steady state asks for no memory.
#include "layers/norm/norm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <functional>
#include <limits>
#include <vector>

#include "collectives/backend/thread/thread_world.h"
#include "layers/testing/allocations.h"

namespace shardproof {
namespace {

using Floats = std::vector<float>;

// Every rank's memory for a layer in f32. The columns of x alternate between 1
// and 7: mean 4, deviation 3, and with epsilon 16 (LayerNorm) r is 1/5. w = 5,
// b = 4, dy = 1, 2, 1, 2, ...
struct Memory {
  Memory(const ParallelNorm& norm, const ParallelNormConfig& config)
      : x(static_cast<size_t>(norm.local_tokens() * config.hidden)),
        dy(x.size()),
        dz(x.size(), 100),
        w(static_cast<size_t>(config.hidden), 5),
        b(w.size(), 4),
        zero(x.size(), 0),
        z(x.size(), -1),
        y(x.size(), -1),
        dx(x.size(), -1),
        dw(w.size(), -1),
        db(w.size(), -1) {
    for (size_t i = 0; i < x.size(); ++i) {
      x[i] = i % 2 == 0 ? 1 : 7;
      dy[i] = i % 2 == 0 ? 1 : 2;
    }
  }

  Status Run(ParallelNorm& norm) {
    SP_RETURN_IF_ERROR(norm.Forward({.x = x.data(),
                                     .residual = zero.data(),
                                     .weight = w.data(),
                                     .bias = b.data(),
                                     .z = z.data(),
                                     .y = y.data()}));
    return norm.Backward({.z = x.data(),
                          .weight = w.data(),
                          .dy = dy.data(),
                          .dz = dz.data(),
                          .dx = dx.data(),
                          .dweight = dw.data(),
                          .dbias = db.data()});
  }

  Floats x, dy, dz, w, b, zero;
  Floats z, y, dx, dw, db;
};

using Look = std::function<void(const ParallelNorm&, const Memory&)>;

void RunNorm(int ranks, const ParallelNormConfig& config, const Look& look) {
  const Status ran = RunThreads(ranks, [&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(ParallelNorm norm, ParallelNorm::Create(comm, config));
    Memory memory(norm, config);
    SP_RETURN_IF_ERROR(memory.Run(norm));
    look(norm, memory);
    return OkStatus();
  });
  EXPECT_TRUE(ran.ok()) << ran.ToString();
}

void ExpectRefusal(int ranks, const ParallelNormConfig& config,
                   StatusCode code) {
  const Status ran = RunThreads(ranks, [&](const Communicator& comm) {
    EXPECT_EQ(ParallelNorm::Create(comm, config).status().code(), code);
    return OkStatus();
  });
  EXPECT_TRUE(ran.ok()) << ran.ToString();
}

// Each word of the configuration, on one rank another.
TEST(ParallelNorm, RefusesOnEveryRankAlike) {
  const ParallelNormConfig one = {.tokens = 4, .hidden = 5};
  std::vector<ParallelNormConfig> others(7, one);
  others[0].kind = NormKind::kRmsNorm;
  others[1].tokens = 5;
  others[2].hidden = 4;
  others[3].epsilon = 1e-6;
  others[4].bias = true;
  others[5].residual = true;
  others[6].sequence_parallel = true;
  for (const ParallelNormConfig& other : others) {
    std::vector<Status> refusals(3);
    const Status ran = RunThreads(3, [&](const Communicator& comm) {
      refusals[static_cast<size_t>(comm.rank())] =
          ParallelNorm::Create(comm, comm.rank() == 1 ? other : one).status();
      return OkStatus();
    });
    ASSERT_TRUE(ran.ok()) << ran.ToString();
    for (const Status& refusal : refusals) {
      EXPECT_EQ(refusal.code(), StatusCode::kInvalidArgument);
      EXPECT_EQ(refusal.message(), refusals[0].message());
    }
    EXPECT_NE(refusals[0].message().find("ranks 0 and 1"), std::string::npos)
        << refusals[0].message();
  }
}

TEST(ParallelNorm, RefusesOnEveryRankAlikeWhatIsTooLarge) {
  std::vector<Status> refusals(2);
  const Status ran = RunThreads(2, [&](const Communicator& comm) {
    refusals[static_cast<size_t>(comm.rank())] =
        ParallelNorm::Create(comm, {.tokens = int64_t{1} << 50, .hidden = 0})
            .status();
    return OkStatus();
  });
  ASSERT_TRUE(ran.ok()) << ran.ToString();
  for (const Status& refusal : refusals) {
    EXPECT_EQ(refusal.code(), StatusCode::kOutOfMemory);
    EXPECT_EQ(refusal.message().substr(0, 8), "rank 0: ");
  }
}

TEST(ParallelNorm, RefusesSizesTypesAndEpsilons) {
  ExpectRefusal(2, {.tokens = -1}, StatusCode::kInvalidArgument);
  ExpectRefusal(2, {.hidden = -1}, StatusCode::kInvalidArgument);
  ExpectRefusal(2, {.dtype = DType::kI32}, StatusCode::kUnsupported);
  for (const double epsilon :
       {0.0, -1e-5, 1e-60, 1e60, std::numeric_limits<double>::infinity(),
        std::numeric_limits<double>::quiet_NaN()}) {
    ExpectRefusal(2, {.epsilon = epsilon}, StatusCode::kInvalidArgument);
  }
  ExpectRefusal(1, {.epsilon = 1e-60, .dtype = DType::kF64}, StatusCode::kOk);
}

void ExpectClose(const Floats& got, float even, float odd) {
  for (size_t i = 0; i < got.size(); ++i) {
    EXPECT_FLOAT_EQ(got[i], i % 2 == 0 ? even : odd) << i;
  }
}

// By hand: n = -0.6, 0.6; g = 5, 10; p = 7.5, q = 1.5. Five ranks and two
// tokens: three ranks have none.
TEST(ParallelNorm, MoreRanksThanTokens) {
  for (const bool sequence_parallel : {false, true}) {
    RunNorm(5,
            {.kind = NormKind::kLayerNorm,
             .tokens = 2,
             .hidden = 6,
             .epsilon = 16,
             .bias = true,
             .sequence_parallel = sequence_parallel},
            [&](const ParallelNorm& norm, const Memory& m) {
              if (sequence_parallel) {
                EXPECT_LE(norm.local_tokens(), 1);
              }
              EXPECT_EQ(m.z, Floats(m.x.size(), -1)) << "not of this layer";
              ExpectClose(m.y, 1, 7);
              ExpectClose(m.dx, 100 - 0.32F, 100 + 0.32F);
              ExpectClose(m.dw, -2 * 0.6F, 2 * 1.2F);
              ExpectClose(m.db, 2, 4);
            });
  }
}

// r = 1 / sqrt(25 + 11) = 1/6; n = 1/6, 7/6; g = 5, 10; q = 6.25.
TEST(ParallelNorm, RmsNormWithoutBiasLeavesItsGradientAlone) {
  RunNorm(3,
          {.kind = NormKind::kRmsNorm,
           .tokens = 7,
           .hidden = 4,
           .epsilon = 11,
           .residual = true,
           .sequence_parallel = true},
          [](const ParallelNorm&, const Memory& m) {
            EXPECT_EQ(m.z, m.x);
            ExpectClose(m.y, 5 / 6.F, 35 / 6.F);
            ExpectClose(m.dx, 100 + (5 - 6.25F / 6) / 6,
                        100 + (10 - 7 * 6.25F / 6) / 6);
            ExpectClose(m.dw, 7 / 6.F, 7 * 14 / 6.F);
            EXPECT_EQ(m.db, Floats(4, -1));
          });
}

TEST(ParallelNorm, WithoutTokensHasZeroGradients) {
  for (const bool sequence_parallel : {false, true}) {
    RunNorm(2,
            {.tokens = 0,
             .hidden = 5,
             .bias = true,
             .sequence_parallel = sequence_parallel},
            [](const ParallelNorm&, const Memory& m) {
              EXPECT_EQ(m.dw, Floats(5, 0));
              EXPECT_EQ(m.db, Floats(5, 0));
            });
  }
}

TEST(ParallelNorm, WithoutColumns) {
  RunNorm(2, {.tokens = 3, .hidden = 0, .sequence_parallel = true},
          [](const ParallelNorm& norm, const Memory&) {
            EXPECT_GE(norm.local_tokens(), 1);
          });
}

// A row without deviation is its bias, and has no gradient but dz.
TEST(ParallelNorm, OneColumn) {
  RunNorm(2,
          {.tokens = 3, .hidden = 1, .bias = true, .sequence_parallel = true},
          [](const ParallelNorm&, const Memory& m) {
            EXPECT_EQ(m.y, Floats(m.y.size(), 4));
            EXPECT_EQ(m.dx, Floats(m.dx.size(), 100));
            EXPECT_EQ(m.dw, Floats(1, 0));
          });
}

TEST(ParallelNorm, SteadyStateAsksForNoMemory) {
  for (const bool sequence_parallel : {false, true}) {
    const ParallelNormConfig config = {.tokens = 66,
                                       .hidden = 80,
                                       .bias = true,
                                       .residual = true,
                                       .sequence_parallel = sequence_parallel};
    const Status ran = RunThreads(2, [&](const Communicator& comm) -> Status {
      SP_ASSIGN_OR_RETURN(ParallelNorm norm,
                          ParallelNorm::Create(comm, config));
      Memory memory(norm, config);
      for (int i = 0; i < 2; ++i) SP_RETURN_IF_ERROR(memory.Run(norm));
      SP_RETURN_IF_ERROR(comm.Barrier());
      const int64_t before = Allocations();
      SP_RETURN_IF_ERROR(comm.Barrier());
      for (int i = 0; i < 3; ++i) SP_RETURN_IF_ERROR(memory.Run(norm));
      SP_RETURN_IF_ERROR(comm.Barrier());
      EXPECT_EQ(Allocations(), before);
      return comm.Barrier();
    });
    EXPECT_TRUE(ran.ok()) << ran.ToString();
  }
}

}  // namespace
}  // namespace shardproof
