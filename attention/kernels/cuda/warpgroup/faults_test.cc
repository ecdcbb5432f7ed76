// Planted faults: the kernel of warpgroups with one line broken.
#include <cstdint>
#include <vector>

#include "attention/kernels/cuda/testing/planted_faults.h"
#include "attention/kernels/cuda/warpgroup/testing/warpgroup_problem.h"

namespace shardproof::cuda {
namespace {

using testing::IsRight;
using testing::PlantedFault;
using testing::WarpgroupLauncher;
using testing::WarpgroupProblem;

using Standard = StandardWarpgroupProtocol;
struct NoWaitForKeys : Standard {
  static constexpr bool kAwaitsKeys = false;
};
struct NoWaitForValues : Standard {
  static constexpr bool kAwaitsValues = false;
};
struct NoWaitForRoom : Standard {
  static constexpr bool kAwaitsRoom = false;
};
struct NoFence : Standard {
  static constexpr bool kFences = false;
};
struct NoWaitForScores : Standard {
  static constexpr bool kAwaitsScores = false;
};
struct NoWaitForResults : Standard {
  static constexpr bool kAwaitsResults = false;
};
struct ReleasedEarly : Standard {
  static constexpr bool kReleasesEarly = true;
};
struct NeverReleased : Standard {
  static constexpr bool kReleases = false;
};
struct WrongPhase : Standard {
  static constexpr uint32_t kParityShift = 1;
};
// Those of a panel of two, so that the phase ends when the other has come.
struct MissingBytes : Standard {
  static constexpr uint32_t kMissingBytes =
      WarpgroupTiling<128>::PanelBytes(128);
};
// More than come.
struct TooManyBytes : Standard {
  static constexpr uint32_t kMissingBytes = -uint32_t{16};
};
struct Unswizzled : Standard {
  static constexpr Swizzle kRead = Swizzle::kNone;
};
struct NarrowSwizzle : Standard {
  static constexpr Swizzle kRead = Swizzle::k64;
};
struct WrongStride : Standard {
  static constexpr uint32_t kValuesStride = kAtomBytes / 2;
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

// A diagonal that is not that of tiles, and more tiles of keys than stages twice.
constexpr int64_t kQueries = 70, kKeys = 620;

template <class Protocol>
Status Run(uint64_t seed) {
  WarpgroupProblem problem(ShapeOf(DType::kBF16, kQueries, kKeys, 128),
                           {.causal = true}, {.offset = 540, .count = kQueries},
                           {.count = kKeys});
  static const FlashResult want = problem.TileExpected(0, false);
  WarpgroupLauncher launch;
  SP_RETURN_IF_ERROR(problem.Forward<Protocol>(launch, seed));
  SP_RETURN_IF_ERROR(IsRight(problem.t["o"], want.o));
  return IsRight(problem.t["lse"], want.lse);
}

}  // namespace

const std::vector<PlantedFault>& testing::PlantedFaults() {
  static const std::vector<PlantedFault> faults = {
      {"none", Run<Standard>, false},
      {"no_wait_for_keys", Run<NoWaitForKeys>},
      {"no_wait_for_values", Run<NoWaitForValues>},
      {"no_wait_for_room", Run<NoWaitForRoom>},
      {"no_fence", Run<NoFence>},
      {"no_wait_for_scores", Run<NoWaitForScores>},
      {"no_wait_for_results", Run<NoWaitForResults>},
      {"released_early", Run<ReleasedEarly>},
      {"never_released", Run<NeverReleased>},
      {"wrong_phase", Run<WrongPhase>},
      {"missing_bytes", Run<MissingBytes>},
      {"too_many_bytes", Run<TooManyBytes>},
      {"unswizzled", Run<Unswizzled>},
      {"narrow_swizzle", Run<NarrowSwizzle>},
      {"wrong_stride", Run<WrongStride>},
      {"shifted_mask", Run<ShiftedMask>},
      {"no_rescaling", Run<NoRescaling>},
      {"lse_without_max", Run<LseWithoutMax>},
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
