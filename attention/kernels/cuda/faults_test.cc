// Planted faults: the kernels with one line broken.
#include <cstdint>
#include <cstdlib>
#include <string_view>
#include <vector>

#include "attention/kernels/cuda/testing/planted_faults.h"
#include "attention/kernels/cuda/testing/tile_problem.h"

namespace shardproof::cuda {
namespace {

using testing::IsRight;
using testing::PlantedFault;
using testing::TileLauncher;
using testing::TileProblem;

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

TileProblem Problem() {
  FlashShape shape = ShapeOf(DType::kBF16, kQueries, kKeys, 64);
  return TileProblem(shape, {.causal = true}, {.offset = 9, .count = kQueries},
                     {.count = kKeys});
}

template <class Protocol>
Status RunForward(uint64_t seed) {
  TileLauncher launch;
  TileProblem problem = Problem();
  static const FlashResult want = problem.TileExpected(0, false);
  SP_RETURN_IF_ERROR(problem.Forward<Protocol>(launch, seed));
  SP_RETURN_IF_ERROR(IsRight(problem.t["o"], want.o));
  return IsRight(problem.t["lse"], want.lse);
}

TileProblem BackwardProblem(TileLauncher& launch) {
  TileProblem problem = Problem();
  if (!problem.Forward(launch, 0).ok() || !problem.Delta(launch, 0).ok()) {
    std::abort();
  }
  return problem;
}

template <class Protocol>
Status RunQueryGradients(uint64_t seed) {
  TileLauncher launch;
  TileProblem problem = BackwardProblem(launch);
  static const FlashResult want = problem.TileExpected(0, true);
  SP_RETURN_IF_ERROR(problem.QueryGradients<Protocol>(launch, seed));
  return IsRight(problem.t["dq"], want.dq);
}

template <class Protocol>
Status RunKeyGradients(uint64_t seed) {
  TileLauncher launch;
  TileProblem problem = BackwardProblem(launch);
  static const FlashResult want = problem.TileExpected(0, true);
  SP_RETURN_IF_ERROR(problem.KeyGradients<Protocol>(launch, seed));
  SP_RETURN_IF_ERROR(IsRight(problem.t["dk"], want.dk));
  return IsRight(problem.t["dv"], want.dv);
}

}  // namespace

const std::vector<PlantedFault>& testing::PlantedFaults() {
  static const std::vector<PlantedFault> faults = {
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

namespace testing {
INSTANTIATE_TEST_SUITE_P(All, PlantedFaultTest,
                         ::testing::ValuesIn(PlantedFaults()), NameOfFault);
}  // namespace testing

}  // namespace shardproof::cuda

int main(int argc, char** argv) {
  return shardproof::cuda::testing::RunPlantedFaults(argc, argv);
}
