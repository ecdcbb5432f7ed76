// What the case cannot say: refusals, and a step whose outcome is known.
#include "layers/training_steps/training_steps.h"

#include <gtest/gtest.h>

#include <vector>

#include "collectives/backend/thread/thread_world.h"

namespace shardproof {
namespace {

using Floats = std::vector<float>;

ReplicaTrainerConfig OneLayer() {
  ReplicaTrainerConfig config;
  config.stack = {.widths = {1, 1}, .tokens = 1};
  config.optimizer.rule = OptimizerRule::kSgd;
  config.optimizer.learning_rate = 0.5;
  return config;
}

// y = w x + b with x = 2 + rank and dy = 6: on two ranks dw = 6 (2 + 3) / 2 = 15
// and db = 6 (1 + 1) / 2 = 6.
TEST(ReplicaTrainer, TakesStepsDownTheMeanGradient) {
  const Status ran = RunThreads(2, [](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(ReplicaTrainer trainer,
                        ReplicaTrainer::Create(comm, OneLayer()));
    const float prefix = 9, w = 100, b = 50;
    const float x = 2.0f + static_cast<float>(comm.rank()), dy = 6;
    const void* const initial[] = {&prefix, &w, &b};
    const TrainingBatch batch = {
        .batch = {.x = &x, .tokens = 1}, .dy = &dy, .counted = 1};
    for (int run = 0; run < 2; ++run) {
      SP_RETURN_IF_ERROR(trainer.Load(initial));
      for (int step = 1; step <= 3; ++step) {
        SP_RETURN_IF_ERROR(trainer.Step({&batch, 1}));
        EXPECT_EQ(*trainer.parameter(0).data<float>(), 9);
        EXPECT_EQ(*trainer.parameter(1).data<float>(), 100 - 7.5 * step);
        EXPECT_EQ(*trainer.parameter(2).data<float>(), 50 - 3 * step);
      }
      EXPECT_EQ(trainer.optimizer().steps(), 3);
    }
    return OkStatus();
  });
  EXPECT_TRUE(ran.ok()) << ran.ToString();
}

TEST(ReplicaTrainer, RefusesOnEveryRankAlike) {
  const Status ran = RunThreads(2, [](const Communicator& comm) -> Status {
    ReplicaTrainerConfig config = OneLayer();
    config.optimizer.learning_rate = comm.rank();
    EXPECT_EQ(ReplicaTrainer::Create(comm, config).status().code(),
              StatusCode::kInvalidArgument);
    config = OneLayer();
    config.stack.dtype = DType::kI32;
    EXPECT_EQ(ReplicaTrainer::Create(comm, config).status().code(),
              StatusCode::kUnsupported);
    return OkStatus();
  });
  EXPECT_TRUE(ran.ok()) << ran.ToString();
}

// What a rank finds by itself, before anything is agreed on.
TEST(ReplicaTrainer, RefusesOnEveryRankWhatOneRankRefuses) {
  std::vector<Status> refusals(3);
  const Status ran = RunThreads(3, [&](const Communicator& comm) {
    ReplicaTrainerConfig config = OneLayer();
    if (comm.rank() == 1) config.stack.dtype = DType::kI32;
    refusals[static_cast<size_t>(comm.rank())] =
        ReplicaTrainer::Create(comm, config).status();
    return OkStatus();
  });
  ASSERT_TRUE(ran.ok()) << ran.ToString();
  for (const Status& refusal : refusals) {
    EXPECT_EQ(refusal.code(), StatusCode::kUnsupported);
    EXPECT_EQ(refusal.message().substr(0, 8), "rank 1: ");
    EXPECT_EQ(refusal.ToString(), refusals[0].ToString());
  }
}

TEST(ReplicaTrainer, LoadsAsManyParametersAsThereAre) {
  const Status ran = RunThreads(1, [](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(ReplicaTrainer trainer,
                        ReplicaTrainer::Create(comm, OneLayer()));
    const float one = 1;
    const std::vector<const void*> initial(4, &one);
    EXPECT_TRUE(trainer.Load({initial.data(), 3}).ok());
    for (const size_t count : {2, 4}) {
      const Status status = trainer.Load({initial.data(), count});
      EXPECT_EQ(status.code(), StatusCode::kInvalidArgument);
      EXPECT_EQ(status.message(), fmt::format("{} parameters for 3", count));
    }
    return OkStatus();
  });
  EXPECT_TRUE(ran.ok()) << ran.ToString();
}

}  // namespace
}  // namespace shardproof
