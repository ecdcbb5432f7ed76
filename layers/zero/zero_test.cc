// What the case cannot say: refusals, what is held, what the steady state asks
// for, and what a slow or broken model does.
#include "layers/zero/zero.h"

#include <gtest/gtest.h>

#include <chrono>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#include "collectives/backend/thread/thread_world.h"
#include "collectives/mesh.h"
#include "layers/testing/allocations.h"
#include "layers/zero/block_stack.h"

namespace shardproof {
namespace {

using Floats = std::vector<float>;

void OnRanks(int ranks, const std::function<Status(const Communicator&)>& f) {
  const Status ran = RunThreads(ranks, f);
  EXPECT_TRUE(ran.ok()) << ran.ToString();
}

StatusOr<ZeroGroups> Groups(const Communicator& comm, int replicas) {
  SP_ASSIGN_OR_RETURN(const Mesh mesh,
                      Mesh::Create(comm, {{"shard", comm.size() / replicas},
                                          {"replica", replicas}}));
  return ZeroGroups{mesh.Along("shard"), mesh.Along("replica")};
}

ZeroConfig Descent(int stage, std::vector<int64_t> blocks) {
  return {.stage = stage,
          .blocks = std::move(blocks),
          .optimizer = {
              .settings = {.rule = OptimizerRule::kSgd, .learning_rate = 1}}};
}

// The error of every rank of two copies that share between two ranks each,
// where those from `first_odd` on differ.
std::vector<Status> Refusals(const ZeroConfig& usual, const ZeroConfig& odd,
                             int first_odd = 3) {
  std::vector<Status> refusals(4);
  OnRanks(4, [&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(const ZeroGroups groups, Groups(comm, 2));
    refusals[static_cast<size_t>(comm.rank())] =
        Zero::Create(groups, comm.rank() >= first_odd ? odd : usual).status();
    return OkStatus();
  });
  return refusals;
}

void ExpectRefused(const ZeroConfig& usual, const ZeroConfig& odd,
                   StatusCode code, std::string_view part, int first_odd = 3) {
  const std::vector<Status> refusals = Refusals(usual, odd, first_odd);
  for (const Status& refusal : refusals) {
    EXPECT_EQ(refusal.code(), code) << refusal.ToString();
    EXPECT_EQ(refusal.message(), refusals[0].message());
    EXPECT_NE(refusal.message().find(part), std::string_view::npos)
        << refusal.ToString();
  }
}

TEST(Zero, RefusesOnEveryRankOfEveryGroupAlike) {
  const ZeroConfig usual = Descent(2, {5, 7});
  ExpectRefused(usual, Descent(3, {5, 7}), StatusCode::kInvalidArgument,
                "ranks 0 and 1 make different layers");
  ZeroConfig faster = usual;
  faster.optimizer.settings.learning_rate = 2;
  ExpectRefused(usual, faster, StatusCode::kInvalidArgument, "rate 2");
}

// Each copy agrees within itself.
TEST(Zero, RefusesCopiesThatWouldDriftApart) {
  const ZeroConfig usual = Descent(2, {5, 7});
  ZeroConfig other = usual;
  other.optimizer.settings.learning_rate = 2;
  ExpectRefused(usual, other, StatusCode::kInvalidArgument, "rate 2", 2);
  other = usual;
  other.optimizer.dtype = other.optimizer.gradient_dtype = DType::kF64;
  ExpectRefused(usual, other, StatusCode::kInvalidArgument, "f64", 2);
}

// A replica must be of the same part.
TEST(Zero, RefusesReplicasOfOtherParts) {
  OnRanks(4, [&](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(const Communicator shard,
                        comm.Split(comm.rank() / 2, comm.rank()));
    // 0 with 3, and 1 with 2.
    const int pair = comm.rank() == 0 || comm.rank() == 3 ? 0 : 1;
    SP_ASSIGN_OR_RETURN(const Communicator replica,
                        comm.Split(pair, comm.rank()));
    const Status refusal =
        Zero::Create({.shard = shard, .replica = replica}, Descent(2, {5, 7}))
            .status();
    EXPECT_EQ(refusal.code(), StatusCode::kInvalidArgument)
        << refusal.ToString();
    EXPECT_NE(refusal.message().find("part"), std::string_view::npos)
        << refusal.ToString();
    return OkStatus();
  });
}

TEST(Zero, RefusesWhatHasNoMeaning) {
  for (const int stage : {0, 4}) {
    const ZeroConfig config = Descent(stage, {5});
    ExpectRefused(config, config, StatusCode::kInvalidArgument,
                  "stages 1, 2 and 3");
  }
  const ZeroConfig negative = Descent(1, {5, -1});
  ExpectRefused(negative, negative, StatusCode::kInvalidArgument,
                "a block of -1 elements");
  ZeroConfig none = Descent(1, {5});
  none.micro_batches = 0;
  ExpectRefused(none, none, StatusCode::kInvalidArgument, "micro-batch");
  ZeroConfig integers = Descent(1, {5});
  integers.optimizer.dtype = DType::kI32;
  ExpectRefused(integers, integers, StatusCode::kUnsupported, "i32");
}

// Bytes per parameter, as the paper's figure 1 has them, with uneven parts: a
// rank holds up to one element of each block more than its share.
TEST(Zero, HoldsWhatTheFormulaSays) {
  constexpr int64_t kPsi = 640 + 96 + 33;
  for (const int shards : {1, 2, 4}) {
    for (const int replicas : {1, 2}) {
      for (const int stage : {1, 2, 3}) {
        OnRanks(shards * replicas, [&](const Communicator& comm) -> Status {
          SP_ASSIGN_OR_RETURN(const ZeroGroups groups, Groups(comm, replicas));
          ZeroConfig config = Descent(stage, {640, 96, 33});
          config.optimizer = {.dtype = DType::kBF16,
                              .gradient_dtype = DType::kBF16};
          config.micro_batches = 2;
          SP_ASSIGN_OR_RETURN(const Zero zero, Zero::Create(groups, config));
          const ZeroMemory held = zero.memory();
          const double d = shards;
          const double per_parameter = stage == 1   ? 4 + 12 / d
                                       : stage == 2 ? 2 + 14 / d
                                                    : 16 / d;
          const double formula = per_parameter * kPsi;
          EXPECT_LE(std::abs(static_cast<double>(held.Model()) - formula),
                    3 * 16)
              << "stage " << stage << ", " << shards << " ranks to a copy";
          EXPECT_EQ(held.Model(),
                    ZeroModelBytes(shards, groups.shard.rank(), config));
          // Two blocks of gathered parameters and of gradients, and a part.
          const int64_t block = 640 * 2, part = zero.own(0).count * 2;
          EXPECT_EQ(held.buffers, stage == 1   ? 0
                                  : stage == 2 ? 2 * block + part
                                               : 4 * block + part);
          if (comm.rank() == 0 && replicas == 1) {
            fmt::print(
                "stage {} over {}: {} bytes of model held, {:.0f} by the "
                "formula; {} of buffers\n",
                stage, shards, held.Model(), formula, held.buffers);
          }
          return OkStatus();
        });
      }
    }
  }
}

// d ones of gradient for each parameter: a step of -d.
class Ones : public ZeroModel {
 public:
  explicit Ones(std::vector<int64_t> blocks) : blocks_(std::move(blocks)) {}
  Status Forward(int, size_t block, const void* parameters) override {
    last.assign(static_cast<const float*>(parameters),
                static_cast<const float*>(parameters) + blocks_[block]);
    return OkStatus();
  }
  Status Backward(int, size_t block, const void*, void* gradients,
                  bool accumulate) override {
    auto* const g = static_cast<float*>(gradients);
    for (int64_t i = 0; i < blocks_[block]; ++i) {
      g[i] = accumulate ? g[i] + 1 : 1;
    }
    return OkStatus();
  }
  Floats last;  // The parameters of the last forward call.

 private:
  std::vector<int64_t> blocks_;
};

TEST(Zero, EmptyBlocksAndPartsAndManyMicroBatches) {
  for (const int stage : {1, 2, 3}) {
    for (const int replicas : {1, 3}) {
      OnRanks(6, [&](const Communicator& comm) -> Status {
        SP_ASSIGN_OR_RETURN(const ZeroGroups groups, Groups(comm, replicas));
        ZeroConfig config = Descent(stage, {0, 4, 0, 1});
        config.micro_batches = 5;
        SP_ASSIGN_OR_RETURN(Zero zero, Zero::Create(groups, config));
        const Floats ten(4, 10);
        const void* const blocks[] = {nullptr, ten.data(), nullptr, ten.data()};
        SP_RETURN_IF_ERROR(zero.Load(blocks));
        Ones model(config.blocks);
        SP_RETURN_IF_ERROR(zero.Step(model, 0.1));
        // 5 micro-batches of 6 ranks, a tenth each.
        for (const size_t block : {1, 3}) {
          for (int64_t i = 0; i < zero.own(block).count; ++i) {
            EXPECT_EQ(static_cast<const float*>(zero.own_gradients(block))[i],
                      30);
            EXPECT_EQ(static_cast<const float*>(zero.own_parameters(block))[i],
                      7);
          }
        }
        SP_RETURN_IF_ERROR(zero.Step(model));
        EXPECT_EQ(model.last, Floats(1, 7));
        EXPECT_EQ(zero.parameters(1) == nullptr, stage == 3);
        if (stage < 3) {
          const auto* const w = static_cast<const float*>(zero.parameters(1));
          EXPECT_EQ(Floats(w, w + 4), Floats(4, 7 - 30));
        }
        return OkStatus();
      });
    }
  }
}

TEST(Zero, WithoutBlocksThereIsNothingToDo) {
  OnRanks(2, [](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(Zero zero,
                        Zero::Create({.shard = comm}, Descent(3, {})));
    Ones model({});
    SP_RETURN_IF_ERROR(zero.Load({}));
    return zero.Step(model);
  });
}

TEST(Zero, RefusesTheWrongNumberOfBlocks) {
  OnRanks(1, [](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(Zero zero,
                        Zero::Create({.shard = comm}, Descent(1, {2, 3})));
    EXPECT_EQ(zero.Load({}).code(), StatusCode::kInvalidArgument);
    return OkStatus();
  });
}

// Buffers are used again only when their reduction is done: a rank that is late
// to every reduction gets, and gives, the same.
Status LateReduceScatter(const Communicator& comm,
                         const ReduceScatterVArgs& args) {
  if (comm.rank() == 0) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return ReduceScatterV(comm, args);
}
Status LateAllGather(const Communicator& comm, const AllGatherVArgs& args) {
  if (comm.rank() == 1) {
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
  return AllGatherV(comm, args);
}

TEST(Zero, WaitsForWhatIsLate) {
  CollectiveFamily late = kAutoCollectives;
  late.reduce_scatter = LateReduceScatter;
  late.all_gather = LateAllGather;
  for (const int stage : {1, 2, 3}) {
    OnRanks(2, [&](const Communicator& comm) -> Status {
      const std::vector<int64_t> widths = {4, 6, 5, 3, 2};
      BlockStack model(widths, DType::kF32);
      ZeroConfig config = Descent(stage, model.blocks());
      config.micro_batches = 3;
      std::vector<Floats> results;
      for (const bool overlap : {false, true}) {
        config.overlap = overlap;
        SP_ASSIGN_OR_RETURN(Zero zero,
                            Zero::Create({.shard = comm}, config,
                                         overlap ? late : kAutoCollectives));
        std::vector<Floats> blocks;
        std::vector<const void*> begins;
        for (const int64_t n : config.blocks) {
          Floats& block = blocks.emplace_back();
          for (int64_t i = 0; i < n; ++i) {
            block.push_back(static_cast<float>((i * 7 + n) % 5 - 2));
          }
        }
        for (const Floats& block : blocks) begins.push_back(block.data());
        SP_RETURN_IF_ERROR(zero.Load(begins));
        Floats x, dy, y(7 * 2), dx(7 * 4);
        for (int i = 0; i < 7 * 4; ++i) {
          x.push_back(static_cast<float>((i + 3 * comm.rank()) % 3 - 1));
          dy.push_back(static_cast<float>((i * 5 + comm.rank()) % 3 - 1));
        }
        model.SetBatch({.tokens = 7,
                        .x = x.data(),
                        .dy = dy.data(),
                        .y = y.data(),
                        .dx = dx.data()},
                       config.micro_batches);
        SP_RETURN_IF_ERROR(zero.Step(model));
        Floats& result = results.emplace_back();
        for (size_t l = 0; l < config.blocks.size(); ++l) {
          const auto* const g =
              static_cast<const float*>(zero.own_gradients(l));
          result.insert(result.end(), g, g + zero.own(l).count);
        }
        result.insert(result.end(), y.begin(), y.end());
        result.insert(result.end(), dx.begin(), dx.end());
      }
      EXPECT_EQ(results[0], results[1]) << "stage " << stage;
      return OkStatus();
    });
  }
}

// A model that fails on every rank: its error, and nothing is left behind.
class Failing : public Ones {
 public:
  using Ones::Ones;
  Status Backward(int, size_t, const void*, void*, bool) override {
    return Unavailable("no gradients today");
  }
};

TEST(Zero, ErrorsOfTheModelComeBack) {
  OnRanks(2, [](const Communicator& comm) -> Status {
    SP_ASSIGN_OR_RETURN(Zero zero,
                        Zero::Create({.shard = comm}, Descent(3, {8, 8})));
    Failing failing({8, 8});
    EXPECT_EQ(zero.Step(failing).message(), "no gradients today");
    Ones model({8, 8});
    return zero.Step(model);
  });
}

TEST(Zero, SteadyStateAsksForNoMemory) {
  for (const int stage : {1, 2, 3}) {
    OnRanks(2, [&](const Communicator& comm) -> Status {
      ZeroConfig config = Descent(stage, {5000, 3000, 7000});
      config.micro_batches = 2;
      SP_ASSIGN_OR_RETURN(Zero zero, Zero::Create({.shard = comm}, config));
      Ones model(config.blocks);
      for (int i = 0; i < 2; ++i) SP_RETURN_IF_ERROR(zero.Step(model));
      // The model keeps a copy of the last block's parameters.
      model.last.reserve(7000);
      SP_RETURN_IF_ERROR(comm.Barrier());
      const int64_t before = LargeAllocations();
      SP_RETURN_IF_ERROR(comm.Barrier());
      for (int i = 0; i < 3; ++i) SP_RETURN_IF_ERROR(zero.Step(model));
      SP_RETURN_IF_ERROR(comm.Barrier());
      EXPECT_EQ(LargeAllocations(), before) << "stage " << stage;
      return comm.Barrier();
    });
  }
}

}  // namespace
}  // namespace shardproof
