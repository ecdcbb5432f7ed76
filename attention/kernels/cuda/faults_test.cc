// Planted faults: the kernels with one line broken. Each must be found, by numbers beyond their bounds, by the launcher
// or by ThreadSanitizer.
//
// A fault runs in a child process (this program with its name), since ThreadSanitizer reports by ending the process.
#include <fmt/format.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <vector>

#include "attention/kernels/cuda/testing/tile_problem.h"
#include "collectives/backend/cuda/testing/child.h"

namespace shardproof::cuda {
namespace {

using testing::TileLauncher;
using testing::TileProblem;

// Under sanitizers, which make a schedule take twenty times as long, fewer: each
// fault is found in each schedule.
#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
constexpr uint64_t kSeeds = 2;
#else
constexpr uint64_t kSeeds = 6;
#endif
// Several tiles of rows and of columns, and a diagonal that is not theirs.
constexpr int64_t kQueries = 140, kKeys = 150;

using Standard = StandardFlashProtocol;
struct NoWait : Standard {
  static constexpr bool kWaits = false;
};
struct NoSync : Standard {
  static constexpr bool kSyncs = false;
};
struct NoSyncOfValues : Standard {
  static constexpr bool kSyncsAgain = false;
};
struct OneSidedSwizzle : Standard {
  static constexpr bool kSwizzles = false;
};
struct ShiftedMask : Standard {
  static constexpr int kMaskShift = 1;
};
struct NoRescaling : Standard {
  static constexpr bool kRescales = false;
};
struct LseWithoutMax : Standard {
  static constexpr bool kMaxInLse = false;
};
struct NoDelta : Standard {
  static constexpr bool kAddsDelta = false;
};
struct OneStage : Standard {
  static constexpr bool kTurnsStages = false;
};

// Whether every element is within its bounds.
bool IsRight(const Tensor& got, const Matrix& want) {
  const std::vector<double> values = Doubles(got);
  const auto stride = static_cast<size_t>(got.shape()[1]);
  const auto columns = static_cast<size_t>(want.cols);
  for (size_t i = 0; i < want.values.size(); ++i) {
    const Bounded& y = want.values[i];
    const double x = values[i / columns * stride + i % columns];
    const bool same = std::isinf(y.value) && x == y.value;
    if (!same && !(std::abs(x - y.value) <= y.worst)) return false;
  }
  return true;
}

TileProblem Problem() {
  FlashShape shape = ShapeOf(DType::kBF16, kQueries, kKeys, 64);
  return TileProblem(shape, {.causal = true}, {.offset = 9, .count = kQueries},
                     {.count = kKeys});
}

template <class Protocol>
bool RunForward(TileLauncher& launch, uint64_t seed) {
  TileProblem problem = Problem();
  static const FlashResult want = problem.TileExpected(0, false);
  return problem.Forward<Protocol>(launch, seed).ok() &&
         IsRight(problem.t["o"], want.o) && IsRight(problem.t["lse"], want.lse);
}

TileProblem BackwardProblem(TileLauncher& launch) {
  TileProblem problem = Problem();
  if (!problem.Forward(launch, 0).ok() || !problem.Delta(launch, 0).ok()) {
    std::abort();
  }
  return problem;
}

template <class Protocol>
bool RunQueryGradients(TileLauncher& launch, uint64_t seed) {
  TileProblem problem = BackwardProblem(launch);
  static const FlashResult want = problem.TileExpected(0, true);
  return problem.QueryGradients<Protocol>(launch, seed).ok() &&
         IsRight(problem.t["dq"], want.dq);
}

template <class Protocol>
bool RunKeyGradients(TileLauncher& launch, uint64_t seed) {
  TileProblem problem = BackwardProblem(launch);
  static const FlashResult want = problem.TileExpected(0, true);
  return problem.KeyGradients<Protocol>(launch, seed).ok() &&
         IsRight(problem.t["dk"], want.dk) && IsRight(problem.t["dv"], want.dv);
}

struct Fault {
  std::string_view name;
  std::function<bool(TileLauncher&, uint64_t)> is_right;
  bool shows = true;
};

const std::vector<Fault>& AllFaults() {
  static const std::vector<Fault> faults = {
      {"none_forward", RunForward<Standard>, false},
      {"none_query_gradients", RunQueryGradients<Standard>, false},
      {"none_key_gradients", RunKeyGradients<Standard>, false},
      {"forward_no_wait", RunForward<NoWait>},
      {"forward_no_sync", RunForward<NoSync>},
      {"forward_no_sync_of_values", RunForward<NoSyncOfValues>},
      {"forward_one_sided_swizzle", RunForward<OneSidedSwizzle>},
      {"forward_shifted_mask", RunForward<ShiftedMask>},
      {"forward_no_rescaling", RunForward<NoRescaling>},
      {"forward_lse_without_max", RunForward<LseWithoutMax>},
      {"query_gradients_no_wait", RunQueryGradients<NoWait>},
      {"query_gradients_no_sync", RunQueryGradients<NoSync>},
      {"query_gradients_one_stage", RunQueryGradients<OneStage>},
      {"query_gradients_one_sided_swizzle", RunQueryGradients<OneSidedSwizzle>},
      {"query_gradients_shifted_mask", RunQueryGradients<ShiftedMask>},
      {"query_gradients_no_delta", RunQueryGradients<NoDelta>},
      {"key_gradients_no_wait", RunKeyGradients<NoWait>},
      {"key_gradients_no_sync", RunKeyGradients<NoSync>},
      {"key_gradients_one_stage", RunKeyGradients<OneStage>},
      {"key_gradients_one_sided_swizzle", RunKeyGradients<OneSidedSwizzle>},
      {"key_gradients_shifted_mask", RunKeyGradients<ShiftedMask>},
      {"key_gradients_no_delta", RunKeyGradients<NoDelta>},
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
  fmt::print("{:36} {}\n", fault.name, race ? "race" : child.output);
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
    TileLauncher launch;
    int wrong = 0;
    for (uint64_t seed = 0; seed < kSeeds; ++seed) {
      wrong += fault.is_right(launch, seed) ? 0 : 1;
    }
    fmt::print("beyond bounds in {} of {} schedules", wrong, kSeeds);
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
