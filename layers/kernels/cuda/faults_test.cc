// Planted faults: the reductions of a block with one line of their protocol broken. Each must be found, by wrong data or
// by ThreadSanitizer.
//
// A fault runs in a child process (this program with its name), since ThreadSanitizer reports by ending the process.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "collectives/backend/cuda/testing/child.h"
#include "layers/kernels/cuda/cross_entropy.h"
#include "layers/kernels/cuda/embedding.h"
#include "layers/kernels/cuda/moe.h"
#include "layers/kernels/cuda/norm.h"
#include "layers/kernels/cuda/optimizer.h"
#include "layers/kernels/cuda/partial_sums.h"
#include "layers/kernels/cuda/softmax.h"
#include "layers/kernels/cuda/testing/fiber_launch.h"

namespace shardproof::cuda {
namespace {

using testing::Launcher;
using testing::Operand;

constexpr int kSeeds = 20;
constexpr int64_t kRows = 6, kColumns = 200;
constexpr testing::LaunchShape kShape = {2, 96};

using Standard = StandardProtocolOfTeams;
// No barrier between what warps put down and what is taken up.
struct NoSync : Standard {
  static constexpr bool kSyncs = false;
};
// One slot of shared memory for all reductions.
struct OneSlot : Standard {
  static constexpr int kSlots = 1;
};

// What a kernel leaves in one schedule.
using Results = std::vector<std::byte>;

template <class Protocol, class Context>
auto MakeTeam(Context& context) {
  return Team<Context, Protocol>(context);
}

struct NormOperands {
  NormRows rows = {.rows = kRows, .columns = kColumns};
  Operand x = Operand::Random(DType::kF32, kRows* kColumns, "x", 2);
  Operand weight = Operand::Random(DType::kF32, kColumns, "w", 2);
  Operand dy = Operand::Random(DType::kF32, kRows* kColumns, "dy", 2);
  Operand out{DType::kF32, kRows* kColumns};
  Operand mean = Operand::Random(DType::kF32, kRows, "m", 1);
  Operand inverse = Operand::Random(DType::kF32, kRows, "r", 1);
};

template <class Protocol>
Results RunNormalize(uint64_t seed) {
  NormOperands o;
  Launcher()(kShape, seed, [&](auto& context) {
    auto team = MakeTeam<Protocol>(context);
    Normalize<float>(team, o.rows,
                     {.x = o.x.raw(),
                      .weight = o.weight.raw(),
                      .y = o.out.raw(),
                      .mean = o.mean.raw(),
                      .inverse = o.inverse.raw()});
  });
  return o.out.Contents();
}

template <class Protocol>
Results RunNormalizeBackward(uint64_t seed) {
  NormOperands o;
  Operand partials(DType::kF32, kShape.blocks * kColumns);
  Launcher()(kShape, seed, [&](auto& context) {
    auto team = MakeTeam<Protocol>(context);
    NormalizeBackward<float>(team, o.rows,
                             {.z = o.x.raw(),
                              .weight = o.weight.raw(),
                              .dy = o.dy.raw(),
                              .mean = o.mean.raw(),
                              .inverse = o.inverse.raw(),
                              .dx = o.out.raw()},
                             partials.as<float>());
  });
  return o.out.Contents();
}

template <class Protocol>
Results RunSumPartials(uint64_t seed) {
  Operand partials = Operand::Random(DType::kF32, 7 * kColumns, "p", 2);
  Operand out(DType::kF32, kColumns);
  Launcher()(kShape, seed, [&](auto& context) {
    SumPartials<Protocol>(context, {.parts = 7,
                                    .columns = kColumns,
                                    .partials = partials.as<float>(),
                                    .out = out.as<float>()});
  });
  return out.Contents();
}

// One row for each block and more, of the columns of norms.
constexpr SoftmaxShape kSoftmax = {.rows = kRows, .columns = kColumns};

template <class Protocol>
Results RunSoftmax(uint64_t seed) {
  NormOperands o;
  Launcher()(kShape, seed, [&](auto& context) {
    auto team = MakeTeam<Protocol>(context);
    Softmax<float>(team, kSoftmax, o.x.raw(), o.out.raw());
  });
  return o.out.Contents();
}

template <class Protocol>
Results RunSoftmaxBackward(uint64_t seed) {
  NormOperands o;
  Launcher()(kShape, seed, [&](auto& context) {
    auto team = MakeTeam<Protocol>(context);
    SoftmaxBackward<float>(team, kSoftmax, o.x.raw(), o.dy.raw(), o.out.raw());
  });
  return o.out.Contents();
}

constexpr CrossEntropyShape kLogits = {.tokens = kRows,
                                       .columns = kColumns,
                                       .valid = kColumns,
                                       .vocabulary = kColumns,
                                       .smoothing = 0.1};

template <class Protocol>
Results RunCrossEntropyLocal(uint64_t seed) {
  NormOperands o;
  const std::vector<int64_t> targets(kRows, 3);
  Operand max(DType::kF32, kRows), sums(DType::kF32, 2 * kRows);
  CrossEntropyRows args;
  args.logits = o.x.raw();
  args.targets = targets.data();
  args.local_max = max.as<float>();
  args.sums = sums.as<float>();
  Launcher()(kShape, seed, [&](auto& context) {
    auto team = MakeTeam<Protocol>(context);
    CrossEntropyLocal<float>(team, kLogits, args);
  });
  return sums.Contents();
}

template <class Protocol>
Results RunCrossEntropyLoss(uint64_t seed) {
  constexpr int64_t kTokens = 200;
  CrossEntropyShape shape = kLogits;
  shape.tokens = kTokens;
  const std::vector<int64_t> targets(kTokens, 3);
  Operand sums = Operand::Of(Tensor::Zeros(DType::kF32, {2 * kTokens}));
  for (int64_t i = 0; i < kTokens; ++i) {
    sums.as<float>()[i] = 1.5F + static_cast<float>(i);
  }
  Operand loss(DType::kF32, kTokens), total(DType::kF64, 1);
  CrossEntropyRows args;
  args.targets = targets.data();
  args.sums = sums.as<float>();
  args.loss = loss.as<float>();
  args.total = total.as<double>();
  Launcher()(kShape, seed, [&](auto& context) {
    auto team = MakeTeam<Protocol>(context);
    CrossEntropyLoss(team, shape, args);
  });
  return total.Contents();
}

template <class Protocol>
Results RunEmbeddingStarts(uint64_t seed) {
  const EmbeddingShape shape = {.rows = kColumns};
  std::vector<int64_t> counts(kColumns);
  for (int64_t i = 0; i < kColumns; ++i) counts[i] = i % 7;
  Operand starts(DType::kI64, kColumns + 1);
  EmbeddingRows args;
  args.counts = counts.data();
  args.starts = starts.as<int64_t>();
  Launcher()(kShape, seed, [&](auto& context) {
    EmbeddingStarts<Protocol>(context, shape, args);
  });
  return starts.Contents();
}

template <class Protocol>
Results RunAddSquares(uint64_t seed) {
  NormOperands o;
  Operand partials(DType::kF64, 2 * kShape.blocks);
  Launcher()(kShape, seed, [&](auto& context) {
    auto team = MakeTeam<Protocol>(context);
    AddSquares<float>(
        team,
        {.n = o.x.size(), .x = o.x.raw(), .partials = partials.as<Squares>()});
  });
  return partials.Contents();
}

template <class Protocol>
Results RunFinishSquares(uint64_t seed) {
  Operand partials = Operand::Random(DType::kF64, 2 * kColumns, "p", 2);
  SquareSum total;
  Launcher()(kShape, seed, [&](auto& context) {
    auto team = MakeTeam<Protocol>(context);
    FinishSquares(
        team,
        {.n = kColumns, .partials = partials.as<Squares>(), .total = &total});
  });
  const auto* const bytes = reinterpret_cast<const std::byte*>(&total.sum);
  return {bytes, bytes + sizeof(total.sum)};
}

template <class Protocol>
Results RunRowDots(uint64_t seed) {
  NormOperands o;
  const std::vector<int64_t> place = {0, 5, 2, 1, 4, 3, 3, 2, 5, 1, 0, 4};
  Operand dots(DType::kF32, kRows * 2);
  Launcher()(kShape, seed, [&](auto& context) {
    auto team = MakeTeam<Protocol>(context);
    RowDots<float>(team, {.tokens = kRows,
                          .k = 2,
                          .width = kColumns,
                          .y = o.x.raw(),
                          .source = o.dy.raw(),
                          .place = place.data(),
                          .dots = dots.raw()});
  });
  return dots.Contents();
}

struct Fault {
  std::string_view name;
  std::function<Results(uint64_t)> broken, whole;
  bool shows = true;
};

const std::vector<Fault>& AllFaults() {
  static const std::vector<Fault> faults = {
      {"none", RunNormalize<Standard>, RunNormalize<Standard>, false},
#define SHARDPROOF_NO_SYNC_IN(kernel) \
  {#kernel "_no_sync", Run##kernel<NoSync>, Run##kernel<Standard>}
#define SHARDPROOF_ONE_SLOT_IN(kernel) \
  { #kernel "_one_slot", Run##kernel < OneSlot>, Run##kernel < Standard> }
      SHARDPROOF_NO_SYNC_IN(Normalize),
      SHARDPROOF_ONE_SLOT_IN(Normalize),
      SHARDPROOF_NO_SYNC_IN(NormalizeBackward),
      SHARDPROOF_ONE_SLOT_IN(NormalizeBackward),
      SHARDPROOF_NO_SYNC_IN(SumPartials),
      SHARDPROOF_ONE_SLOT_IN(SumPartials),
      SHARDPROOF_NO_SYNC_IN(Softmax),
      SHARDPROOF_ONE_SLOT_IN(Softmax),
      SHARDPROOF_NO_SYNC_IN(SoftmaxBackward),
      SHARDPROOF_ONE_SLOT_IN(SoftmaxBackward),
      SHARDPROOF_NO_SYNC_IN(CrossEntropyLocal),
      SHARDPROOF_ONE_SLOT_IN(CrossEntropyLocal),
      SHARDPROOF_NO_SYNC_IN(RowDots),
      SHARDPROOF_ONE_SLOT_IN(RowDots),
      // Of one reduction, which needs no second slot.
      SHARDPROOF_NO_SYNC_IN(CrossEntropyLoss),
      SHARDPROOF_NO_SYNC_IN(EmbeddingStarts),
      SHARDPROOF_NO_SYNC_IN(AddSquares),
      SHARDPROOF_NO_SYNC_IN(FinishSquares),
#undef SHARDPROOF_ONE_SLOT_IN
#undef SHARDPROOF_NO_SYNC_IN
  };
  return faults;
}

class FaultsTest : public ::testing::TestWithParam<Fault> {};

TEST_P(FaultsTest, IsFound) {
  const Fault& fault = GetParam();
  const testing::ChildResult child =
      testing::RunSelf({std::string(fault.name)});
  const bool race =
      child.output.find("ThreadSanitizer: data race") != std::string::npos;
  // 0: nothing found, 3: found, which no sanitizer ends a process with.
  fmt::print("{:32} {}\n", fault.name, race ? "race" : child.output);
  EXPECT_TRUE(child.exit_code == 0 || child.exit_code == 3 || race)
      << child.output;
  EXPECT_EQ(child.exit_code == 3 || race, fault.shows) << child.output;
}

INSTANTIATE_TEST_SUITE_P(All, FaultsTest, ::testing::ValuesIn(AllFaults()),
                         [](const auto& info) {
                           return std::string(info.param.name);
                         });

}  // namespace

// -1 where no fault has this name.
int RunAsChild(std::string_view name) {
  for (const Fault& fault : AllFaults()) {
    if (fault.name != name) continue;
    const Results want = fault.whole(0);
    int wrong = 0;
    for (uint64_t seed = 0; seed < kSeeds; ++seed) {
      wrong += fault.broken(seed) == want ? 0 : 1;
    }
    fmt::print("wrong data in {} of {} schedules", wrong, kSeeds);
    return wrong == 0 ? 0 : 3;
  }
  return -1;
}

}  // namespace shardproof::cuda

int main(int argc, char** argv) {
  if (argc == 2) {
    const int status = shardproof::cuda::RunAsChild(argv[1]);
    if (status >= 0) return status;
  }
  testing::InitGoogleTest(&argc, argv);
  return RUN_ALL_TESTS();
}
