// Schemes in a world of emulated GPUs: what a rank's context has computes, and the results are right.
#include <gtest/gtest.h>

#include <cstring>
#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "attention/head_parallel/head_parallel.h"
#include "attention/kernels/cuda/testing/gpu_problem.h"
#include "attention/kernels/flash_kernels.h"
#include "attention/ring/ring.h"
#include "collectives/backend/cuda/device/cuda_world.h"
#include "collectives/rank_context.h"

namespace shardproof {
namespace {

constexpr int kRanks = 2;

ShardedAttentionConfig Config() {
  return {.tokens = 72,
          .heads = 4,
          .kv_heads = 2,
          .head_dim = 64,
          .visibility = {.causal = true},
          .dtype = DType::kBF16};
}

using Tensors = std::map<std::string, Tensor>;

constexpr const char* kNames[] = {"q", "k", "v", "do", "o", "dq", "dk", "dv"};
bool IsInput(const std::string& name) {
  return name == "q" || name == "k" || name == "v" || name == "do";
}
bool IsOfKeys(const std::string& name) {
  return name.back() == 'k' || name.back() == 'v';
}

// The whole: inputs, and results that are poisoned.
Tensors Whole(const ShardedAttentionConfig& c) {
  Tensors whole;
  for (const char* name : kNames) {
    const int64_t heads = IsOfKeys(name) ? c.kv_heads : c.heads;
    const Shape shape = {c.tokens, heads * c.head_dim};
    whole[name] = IsInput(name) ? Random(c.dtype, shape, name, 1.5)
                                : Poisoned(c.dtype, shape);
  }
  whole["lse"] = Poisoned(DType::kF32, {c.heads, c.tokens});
  return whole;
}

// What a rank has, in memory of its communicator.
struct RankTensors {
  struct One {
    Buffer memory;
    TensorView view;
  };
  std::map<std::string, One> all;

  Status Add(const Communicator& comm, const std::string& name, DType dtype,
             const Shape& shape) {
    One& one = all[name];
    one.view = {dtype, shape, nullptr};
    SP_ASSIGN_OR_RETURN(
        one.memory, comm.Allocate(static_cast<size_t>(one.view.num_bytes())));
    one.view.data = one.memory.data();
    Poison(dtype, one.view.data, one.view.num_elements());
    return OkStatus();
  }
  void* at(const char* name) const { return all.at(name).view.data; }
  AttentionForwardArgs Forward() const {
    return {at("q"), at("k"), at("v"), at("o"), at("lse")};
  }
  AttentionBackwardArgs Backward() const {
    return {at("q"),  at("k"),  at("v"),  at("o"), at("lse"),
            at("do"), at("dq"), at("dk"), at("dv")};
  }
};

// Both passes of what `run` does on every rank, with the rank's GPU in its context. Returns how many kernels ran on each.
std::vector<cuda::FlashGpuCounts> RunOnGpus(
    const std::function<Status(const Communicator&)>& run) {
  std::vector<cuda::FlashGpuCounts> counts(kRanks);
  auto gpus = cuda::OpenEmulatedGpus({.count = kRanks});
  EXPECT_TRUE(gpus.ok());
  const auto world = cuda::CreateCudaWorld({.ranks = kRanks, .gpus = *gpus});
  EXPECT_TRUE(world.ok()) << world.status().ToString();
  const Status ran = (*world)->Run([&](const Communicator& comm) {
    const auto kernels =
        std::make_shared<cuda::FlashKernelsOnGpu>(cuda::FlashGpuOptions{
            .gpus = *gpus, .gpu = comm.rank(), .find = &cuda::FindFlashKernel});
    auto context = std::make_shared<RankServices>();
    context->Put<FlashKernels>(kernels);
    SetCurrentContext(context);
    const Status status = run(comm);
    SetCurrentContext(nullptr);
    counts[static_cast<size_t>(comm.rank())] = kernels->counts();
    return status;
  });
  EXPECT_TRUE(ran.ok()) << ran.ToString();
  return counts;
}

void ExpectClose(const Tensor& got, const Matrix& want, const char* name) {
  const int64_t rows = got.shape()[0], columns = got.shape()[1];
  ASSERT_EQ(want.cols, columns) << name;
  Comparator comparator({.dtype = got.dtype(), .shape = {rows, columns}});
  for (int64_t i = 0; i < rows; ++i) {
    std::vector<Bounded> row;
    for (int64_t j = 0; j < columns; ++j) {
      // O is rounded by the reference itself.
      row.push_back(*name == 'd' ? Rounded(want.at(i, j), got.dtype())
                                 : want.at(i, j));
    }
    comparator.Add(i * columns, FlashProblem::Element(got, i * columns), row);
  }
  const Comparison result = comparator.Finish();
  EXPECT_TRUE(result.passed()) << name << ": " << result.reason;
}

// Within the bounds of the kernels' arithmetic: products of the type, tiles of 32 keys at least, of each part a ragged one.
void ExpectRight(const ShardedAttentionConfig& c, const Tensors& whole,
                 int64_t merges, int64_t parts) {
  FlashInputs in = {.heads = c.heads,
                    .kv_heads = c.kv_heads,
                    .heads_per_kv = c.heads_per_kv(),
                    .head_dim = c.head_dim,
                    .scale = c.Scale(),
                    .q = whole.at("q").view(),
                    .k = whole.at("k").view(),
                    .v = whole.at("v").view(),
                    .d_o = whole.at("do").view()};
  const TokenRun all = {.count = c.tokens};
  for (int64_t i = 0; i < c.tokens; ++i) {
    const IndexRange seen = KeysSeen(c.visibility, i, all);
    std::vector<int64_t>& list = in.seen.emplace_back();
    for (int64_t j = seen.first; j < seen.last; ++j) list.push_back(j);
  }
  FlashArithmetic a = FlashArithmetic::For(c.dtype);
  a.tiles = c.tokens / 32 + parts;
  a.merges = merges;
  const FlashResult want = FlashReference(in, a);
  ExpectClose(whole.at("o"), want.o, "o");
  ExpectClose(whole.at("lse"), want.lse, "lse");
  ExpectClose(whole.at("dq"), want.dq, "dq");
  ExpectClose(whole.at("dk"), want.dk, "dk");
  ExpectClose(whole.at("dv"), want.dv, "dv");
}

void ExpectOnGpus(const std::vector<cuda::FlashGpuCounts>& counts) {
  for (const cuda::FlashGpuCounts& of_rank : counts) {
    EXPECT_GE(of_rank.gpu_calls, 2);
    EXPECT_GE(of_rank.launches, 3);
    EXPECT_EQ(of_rank.host_calls, 0);
    EXPECT_EQ(of_rank.host_shapes, 0);
  }
}

TEST(SchemesOnGpuTest, Ring) {
  for (const SequenceLayout layout :
       {SequenceLayout::kContiguous, SequenceLayout::kStriped,
        SequenceLayout::kZigzag}) {
    ShardedAttentionConfig config = Config();
    config.layout = layout;
    Tensors whole = Whole(config);
    const auto runs = RunsOfRanks(config.LayoutOver(kRanks));
    std::mutex mutex;
    const auto counts = RunOnGpus([&](const Communicator& comm) -> Status {
      const auto& mine = runs[static_cast<size_t>(comm.rank())];
      const int64_t tokens = CountTokens(mine);
      RankTensors tensors;
      for (const char* name : kNames) {
        const Tensor& all = whole.at(name);
        SP_RETURN_IF_ERROR(
            tensors.Add(comm, name, all.dtype(), {tokens, all.shape()[1]}));
        if (IsInput(name)) {
          SP_RETURN_IF_ERROR(
              ShardRows(mine, all.view(), tensors.all[name].view));
        }
      }
      SP_RETURN_IF_ERROR(
          tensors.Add(comm, "lse", DType::kF32, {config.heads, tokens}));
      SP_ASSIGN_OR_RETURN(const RingAttention ring,
                          RingAttention::Create(comm, config));
      SP_RETURN_IF_ERROR(ring.Forward(tensors.Forward()));
      SP_RETURN_IF_ERROR(ring.Backward(tensors.Backward()));
      const std::lock_guard lock(mutex);
      for (const char* name : {"o", "dq", "dk", "dv"}) {
        SP_RETURN_IF_ERROR(
            UnshardRows(mine, tensors.all[name].view, whole[name].view()));
      }
      const std::vector<int64_t> positions = Positions(mine);
      const auto* const lse = static_cast<const float*>(tensors.at("lse"));
      for (int64_t h = 0; h < config.heads; ++h) {
        for (int64_t i = 0; i < tokens; ++i) {
          whole["lse"].data<float>()[h * config.tokens +
                                     positions[static_cast<size_t>(i)]] =
              lse[h * tokens + i];
        }
      }
      return OkStatus();
    });
    ExpectOnGpus(counts);
    // Zigzag: two runs of each rank.
    ExpectRight(config, whole, RingMerges(kRanks, config), 2 * kRanks);
  }
}

TEST(SchemesOnGpuTest, HeadParallel) {
  const ShardedAttentionConfig config = Config();
  Tensors whole = Whole(config);
  std::mutex mutex;
  // Columns of a rank, of a row of its own and of the whole.
  const auto copy = [&](bool out, const Communicator& comm,
                        const std::string& name, RankTensors& tensors) {
    Tensor& all = whole.at(name);
    const TensorView& mine = tensors.all[name].view;
    const auto bytes = static_cast<size_t>(mine.shape[1] * SizeOf(mine.dtype));
    for (int64_t row = 0; row < mine.shape[0]; ++row) {
      std::byte* const in_all =
          all.bytes().data() +
          (row * kRanks + comm.rank()) * static_cast<int64_t>(bytes);
      std::byte* const in_mine = static_cast<std::byte*>(mine.data) +
                                 row * static_cast<int64_t>(bytes);
      std::memcpy(out ? in_all : in_mine, out ? in_mine : in_all, bytes);
    }
  };
  const auto counts = RunOnGpus([&](const Communicator& comm) -> Status {
    RankTensors tensors;
    for (const char* name : kNames) {
      const Tensor& all = whole.at(name);
      SP_RETURN_IF_ERROR(tensors.Add(comm, name, all.dtype(),
                                     {config.tokens, all.shape()[1] / kRanks}));
      if (IsInput(name)) copy(false, comm, name, tensors);
    }
    const int64_t heads = config.heads / kRanks;
    SP_RETURN_IF_ERROR(
        tensors.Add(comm, "lse", DType::kF32, {heads, config.tokens}));
    SP_ASSIGN_OR_RETURN(const HeadParallelAttention attention,
                        HeadParallelAttention::Create(comm, config));
    SP_RETURN_IF_ERROR(attention.Forward(tensors.Forward()));
    SP_RETURN_IF_ERROR(attention.Backward(tensors.Backward()));
    const std::lock_guard lock(mutex);
    for (const char* name : {"o", "dq", "dk", "dv"}) {
      copy(true, comm, name, tensors);
    }
    std::memcpy(
        whole["lse"].data<float>() + comm.rank() * heads * config.tokens,
        tensors.at("lse"),
        static_cast<size_t>(heads * config.tokens) * sizeof(float));
    return OkStatus();
  });
  ExpectOnGpus(counts);
  ExpectRight(config, whole, 0, 1);
}

// A scheme whose type the GPU has no kernels for is the host's, and that is seen.
TEST(SchemesOnGpuTest, OtherTypesAreTheHosts) {
  ShardedAttentionConfig config = Config();
  config.dtype = DType::kF32;
  const auto counts = RunOnGpus([&](const Communicator& comm) -> Status {
    return RingAttention::Create(comm, config).status();
  });
  for (const cuda::FlashGpuCounts& of_rank : counts) {
    EXPECT_EQ(of_rank.launches, 0);
    EXPECT_GE(of_rank.host_shapes, 1);
  }
}

}  // namespace
}  // namespace shardproof
