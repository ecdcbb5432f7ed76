// What the case cannot say: refusals, where parameters lie, what empty
// micro-batches do, what is held, and what the steady state asks for.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <vector>

#include "collectives/backend/thread/thread_world.h"
#include "layers/testing/allocations.h"
#include "layers/transformer_training/sharded_trainer.h"
#include "layers/transformer_training/transformer_stack.h"
#include "reference/random.h"

namespace shardproof {
namespace {

void OnRanks(int ranks, const std::function<Status(const Communicator&)>& f) {
  const Status ran = RunThreads(ranks, f);
  EXPECT_TRUE(ran.ok()) << ran.ToString();
}

TransformerStackConfig Stack(int64_t sequences, int micro_batches) {
  return {.block = {.length = 3,
                    .hidden = 4,
                    .heads = 2,
                    .kv_heads = 2,
                    .head_dim = 2,
                    .intermediate = 5,
                    .bias = true},
          .layers = 2,
          .sequences = sequences,
          .micro_batches = micro_batches};
}

ShardedTrainerConfig Trainer(int zero_stage) {
  const int64_t block = BlockSize(Stack(1, 1).block);
  return {.zero_stage = zero_stage,
          .blocks = {block, block},
          .micro_batches = 2,
          .optimizer = {.settings = {.learning_rate = 0.25, .max_norm = 0.5}}};
}

Tensor Random(const char* name, int64_t n) {
  Tensor t(DType::kF32, {n});
  Fill(Uniform(DType::kF32, 1), {5, TensorId(name)}, 0, n, t.raw());
  return t;
}

TEST(TransformerStack, LaysParametersOneBehindTheOther) {
  for (const bool llama : {false, true}) {
    TransformerBlockConfig block = Stack(1, 1).block;
    if (llama) {
      block.norm = NormKind::kRmsNorm;
      block.activation = Activation::kSwiGlu;
      block.bias = false;
    }
    int64_t begin = 0;
    for (const BlockParameter& p : BlockParametersOf(block)) {
      EXPECT_EQ(p.begin, begin) << p.name;
      begin += p.shape.NumElements();
    }
    EXPECT_EQ(BlockSize(block), begin);
    // Norms; QKV and output; two or three matrices of the MLP; biases.
    EXPECT_EQ(begin, llama ? 2 * 4 + (12 + 4) * 4 + 3 * 20
                           : 4 * 4 + (12 + 4) * 4 + 2 * 20 + 12 + 4 + 5 + 4);
  }
}

TEST(TransformerStack, RefusesWhatHasNoMeaning) {
  OnRanks(2, [](const Communicator& comm) -> Status {
    EXPECT_EQ(TransformerStack::Create(comm, Stack(1, 1)).status().code(),
              StatusCode::kInvalidArgument);
    SP_ASSIGN_OR_RETURN(const Communicator alone, comm.Split(comm.rank(), 0));
    EXPECT_EQ(TransformerStack::Create(alone, Stack(1, 0)).status().code(),
              StatusCode::kInvalidArgument);
    EXPECT_EQ(TransformerStack::Create(alone, Stack(-1, 1)).status().code(),
              StatusCode::kInvalidArgument);
    return OkStatus();
  });
}

// One sequence in two micro-batches: the second adds nothing, and by itself has
// a gradient of zeros.
TEST(TransformerStack, TakesEmptyMicroBatches) {
  OnRanks(1, [](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(TransformerStack model,
                        TransformerStack::Create(comm, Stack(1, 2)));
    const int64_t n = BlockSize(Stack(1, 2).block);
    const Tensor w = Random("w", n), x = Random("x", 12), dy = Random("dy", 12);
    Tensor g = Random("g", n), once = Random("once", n);
    model.SetBatch(x.raw(), dy.raw());
    for (const int micro : {0, 1}) {
      for (const size_t l : {0, 1}) {
        SP_RETURN_IF_ERROR(model.Forward(micro, l, w.raw()));
      }
      for (const size_t l : {1, 0}) {
        SP_RETURN_IF_ERROR(
            model.Backward(micro, l, w.raw(), g.raw(), micro > 0));
        if (micro == 0) {
          std::copy_n(g.data<float>(), n, once.data<float>());
        }
      }
    }
    int64_t others = 0;
    for (int64_t i = 0; i < n; ++i) {
      EXPECT_EQ(g.data<float>()[i], once.data<float>()[i]) << i;
      others += once.data<float>()[i] != 0;
    }
    EXPECT_GT(others, n / 2);
    SP_RETURN_IF_ERROR(model.Backward(1, 0, w.raw(), g.raw(), false));
    for (int64_t i = 0; i < n; ++i) EXPECT_EQ(g.data<float>()[i], 0) << i;
    return OkStatus();
  });
}

TEST(ShardedTrainer, RefusesOnEveryRankAlike) {
  OnRanks(3, [](const Communicator& comm) -> Status {
    ShardedTrainerConfig config = Trainer(2);
    config.replicas = 2;
    EXPECT_EQ(ShardedTrainer::Create(comm, config).status().code(),
              StatusCode::kInvalidArgument);
    config = Trainer(0);
    config.optimizer.settings.learning_rate = comm.rank();
    EXPECT_EQ(ShardedTrainer::Create(comm, config).status().code(),
              StatusCode::kInvalidArgument);
    return OkStatus();
  });
}

TEST(ShardedTrainer, TakesAsManyBlocksAndMicroBatchesAsThereAre) {
  OnRanks(1, [](const Communicator& comm) -> Status {
    for (const int stage : {0, 3}) {
      SP_ASSIGN_OR_RETURN(ShardedTrainer trainer,
                          ShardedTrainer::Create(comm, Trainer(stage)));
      Tensor block = Random("w", BlockSize(Stack(1, 1).block));
      const std::vector<const void*> from = {block.raw()};
      const std::vector<void*> to = {block.raw()};
      EXPECT_EQ(trainer.Load(from).code(), StatusCode::kInvalidArgument);
      EXPECT_EQ(trainer.Collect(to).code(), StatusCode::kInvalidArgument);
      SP_ASSIGN_OR_RETURN(TransformerStack model,
                          TransformerStack::Create(comm, Stack(1, 2)));
      const std::vector<int64_t> tokens = {3};
      EXPECT_EQ(trainer.Step(model, tokens, 3).code(),
                StatusCode::kInvalidArgument);
    }
    return OkStatus();
  });
}

// Replicas hold three times the parameters and a bit with Adam in f32 (4 + 4 + 8
// bytes); stage 3 holds a d-th of it, up to an element of each block.
TEST(ShardedTrainer, HoldsWhatTheFormulaSays) {
  OnRanks(3, [](const Communicator& comm) -> Status {
    const int64_t psi = 2 * BlockSize(Stack(1, 1).block);
    SP_ASSIGN_OR_RETURN(const ShardedTrainer replicas,
                        ShardedTrainer::Create(comm, Trainer(0)));
    EXPECT_EQ(replicas.memory().Model(), 16 * psi);
    SP_ASSIGN_OR_RETURN(const ShardedTrainer sharded,
                        ShardedTrainer::Create(comm, Trainer(3)));
    EXPECT_LE(std::abs(sharded.memory().Model() - 16 * psi / 3), 2 * 16);
    for (const int stage : {0, 1, 2, 3}) {
      SP_ASSIGN_OR_RETURN(const ShardedTrainer trainer,
                          ShardedTrainer::Create(comm, Trainer(stage)));
      EXPECT_EQ(trainer.memory().Model(),
                ShardedTrainerModelBytes(3, comm.rank(), Trainer(stage)));
    }
    return OkStatus();
  });
}

// After a first step nothing of any size is asked for, in any form.
TEST(ShardedTrainer, AsksForNoMemoryInTheSteadyState) {
  TransformerStackConfig stack = Stack(3, 2);
  stack.block.hidden = stack.block.intermediate = 40;
  stack.block.head_dim = 20;
  const int64_t block = BlockSize(stack.block);
  for (const int stage : {0, 1, 2, 3}) {
    OnRanks(2, [&](const Communicator& comm) -> Status {
      ShardedTrainerConfig config = Trainer(stage);
      config.blocks = {block, block};
      SP_ASSIGN_OR_RETURN(ShardedTrainer trainer,
                          ShardedTrainer::Create(comm, config));
      SP_ASSIGN_OR_RETURN(const Communicator alone, comm.Split(comm.rank(), 0));
      SP_ASSIGN_OR_RETURN(TransformerStack model,
                          TransformerStack::Create(alone, stack));
      const Tensor w = Random("w", block), x = Random("x", 3 * 3 * 40),
                   dy = Random("dy", 3 * 3 * 40);
      const std::vector<const void*> blocks = {w.raw(), w.raw()};
      const std::vector<int64_t> tokens = {stack.TokensOf(0),
                                           stack.TokensOf(1)};
      SP_RETURN_IF_ERROR(trainer.Load(blocks));
      model.SetBatch(x.raw(), dy.raw());
      SP_RETURN_IF_ERROR(trainer.Step(model, tokens, 18));
      SP_RETURN_IF_ERROR(comm.Barrier());
      const int64_t before = LargeAllocations();
      SP_RETURN_IF_ERROR(comm.Barrier());
      for (int step = 0; step < 3; ++step) {
        SP_RETURN_IF_ERROR(trainer.Step(model, tokens, 18));
      }
      EXPECT_EQ(LargeAllocations(), before) << "stage " << stage;
      return comm.Barrier();
    });
  }
}

}  // namespace
}  // namespace shardproof
