// Which algorithm is taken, how often is asked, and what is said when something fails: by a library for tests, whose
// algorithms are as fast as a test says.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <mutex>
#include <numeric>
#include <optional>
#include <string>
#include <thread>
#include <vector>

#include "layers/kernels/cuda/blas/gemm_cublaslt.h"
#include "layers/kernels/cuda/blas/testing/gemm_fixture.h"

namespace shardproof {
namespace {

using cublaslt::Result;
using ::testing::AllOf;
using testing::BlasGpu;
using ::testing::HasSubstr;
using ::testing::SizeIs;

constexpr int64_t kM = 4, kN = 6, kK = 5;
// Elements that a misaligned operand is moved by.
struct Moved {
  int a = 0, b = 0, c = 0, bias = 0;
};

// A product of f32 at addresses that are known.
class PinningTest : public ::testing::Test {
 protected:
  PinningTest() {
    std::iota(a_.begin(), a_.end(), 1.0F);
    std::iota(b_.begin(), b_.end(), -7.0F);
    std::iota(bias_.begin(), bias_.end(), 3.0F);
  }

  BlasGpu& gpu() { return *gpu_; }
  void Open(const CublasLtGemmOptions& options) {
    gpu_.reset();
    gpu_ = std::make_unique<BlasGpu>(/*virtual_clock=*/true, options);
  }
  // Of algorithm 0, 1, ...
  void SetMicroseconds(const std::vector<double>& all) {
    for (size_t i = 0; i < all.size(); ++i) {
      gpu().behaviour().algorithms[i].microseconds = all[i];
    }
  }
  void SetAll(Result result) {
    for (auto& one : gpu().behaviour().algorithms) one.result = result;
  }

  std::optional<Status> Run(bool bias = false, const Moved& moved = {},
                            int64_t n = kN) {
    return gpu().Gemm({.a = {DType::kF32, {kM, kK}, a_.data() + moved.a},
                       .b = {DType::kF32, {kK, n}, b_.data() + moved.b},
                       .c = {DType::kF32, {kM, n}, c_.data() + moved.c},
                       .bias = bias ? bias_.data() + moved.bias : nullptr});
  }
  void ExpectRuns(bool bias = false, const Moved& moved = {}, int64_t n = kN) {
    const std::optional<Status> done = Run(bias, moved, n);
    ASSERT_TRUE(done.has_value());
    ASSERT_TRUE(done->ok()) << done->ToString();
    for (int64_t i = 0; i < kM; ++i) {
      for (int64_t j = 0; j < n; ++j) {
        float want = bias ? At(bias_, moved.bias + j) : 0;
        for (int64_t l = 0; l < kK; ++l) {
          want += At(a_, moved.a + i * kK + l) * At(b_, moved.b + l * n + j);
        }
        ASSERT_EQ(At(c_, moved.c + i * n + j), want) << i << ", " << j;
      }
    }
  }
  int Products(size_t algorithm) { return gpu().seen().products[algorithm]; }

 private:
  template <class Array>
  static float At(const Array& array, int64_t i) {
    return array[static_cast<size_t>(i)];
  }

  alignas(256) std::array<float, 64> a_ = {};
  alignas(256) std::array<float, 64> b_ = {};
  alignas(256) std::array<float, 64> c_ = {};
  alignas(256) std::array<float, 64> bias_ = {};
  std::unique_ptr<BlasGpu> gpu_ = std::make_unique<BlasGpu>();
};

// Code that the library loads between the launches of one collective would wait for the first of them.
TEST_F(PinningTest, CallsWhatMayLoadCodeUnderTheLockOfLaunches) {
  struct Lock {
    std::mutex& launching;
    int calls = 0, unlocked = 0;
  };
  Lock lock{*gpu().gpus()->launching()};
  gpu().behaviour().on_call_argument = &lock;
  gpu().behaviour().on_call = [](void* argument) {
    Lock& mine = *static_cast<Lock*>(argument);
    ++mine.calls;
    // As another rank would, which has its own thread.
    std::thread([&mine] {
      if (!mine.launching.try_lock()) return;
      mine.launching.unlock();
      ++mine.unlocked;
    }).join();
  };
  ExpectRuns();
  // 6 algorithms, 4 times each, and the product.
  EXPECT_EQ(lock.calls, 25);
  ExpectRuns();
  EXPECT_EQ(lock.calls, 26);
  ASSERT_TRUE(CublasLtGemm::Create(gpu().gpus(), 0, gpu().library()).ok());
  EXPECT_EQ(lock.calls, 28);
  EXPECT_EQ(lock.unlocked, 0);
  gpu().behaviour().on_call = nullptr;
}

TEST_F(PinningTest, TakesTheFastest) {
  SetMicroseconds({50, 30, 5, 40, 60, 70});
  ExpectRuns();
  EXPECT_EQ(gpu().seen().last_algorithm, 2);
  const std::vector<PinnedAlgorithm> pinned = gpu().gemm().Pinned();
  ASSERT_THAT(pinned, SizeIs(1));
  EXPECT_EQ(pinned[0].id, 2);
  EXPECT_EQ(pinned[0].microseconds, 5);
  EXPECT_EQ(pinned[0].offered, 6);
  EXPECT_EQ(pinned[0].timed, 6);
  EXPECT_EQ(gpu().gemm().Report(),
            "f32 4 x 6 x 5 (m, n, k), aligned to 256, 256, 256: algorithm 2, "
            "tile 2, stages 2, 5.0 us, the fastest of 6\n");
}

TEST_F(PinningTest, AsksOnceForEachKind) {
  SetMicroseconds({50, 5});
  ExpectRuns();
  const int first = Products(1);
  const int others = Products(0);
  for (int i = 0; i < 3; ++i) ExpectRuns();
  EXPECT_EQ(gpu().seen().heuristics, 1);
  EXPECT_EQ(Products(1), first + 3);
  EXPECT_EQ(Products(0), others);
  ExpectRuns(/*bias=*/false, {}, kN + 1);
  EXPECT_EQ(gpu().seen().heuristics, 2);
  ExpectRuns(/*bias=*/true);
  EXPECT_EQ(gpu().seen().heuristics, 3);
  ExpectRuns(/*bias=*/true);
  ExpectRuns(/*bias=*/false, {}, kN + 1);
  EXPECT_EQ(gpu().seen().heuristics, 3);
  EXPECT_THAT(gpu().gemm().Pinned(), SizeIs(3));
}

TEST_F(PinningTest, AsksForAHandful) {
  Open({.asked = 3});
  SetMicroseconds({50, 30, 20, 1, 1, 1});
  ExpectRuns();
  EXPECT_EQ(gpu().seen().asked, 3);
  EXPECT_EQ(gpu().seen().last_algorithm, 2);
}

TEST_F(PinningTest, TakesTheFirstWhereItIsNotToTime) {
  Open({.time = false});
  SetMicroseconds({50, 30, 5});
  ExpectRuns();
  EXPECT_EQ(gpu().seen().last_algorithm, 0);
  EXPECT_EQ(Products(0), 1);
  EXPECT_EQ(Products(2), 0);
  EXPECT_THAT(gpu().gemm().Report(),
              HasSubstr("algorithm 0, tile 0, stages 0, the first of 6"));
}

TEST_F(PinningTest, LeavesOutWhatDiffersFromRunToRun) {
  for (const bool ignores : {false, true}) {
    Open({});
    gpu().behaviour().ignores_preferences = ignores;
    SetMicroseconds({1, 2, 30, 20, 50, 60});
    gpu().behaviour().algorithms[0].scheme = cublaslt::kReductionInPlace;
    gpu().behaviour().algorithms[1].scheme = cublaslt::kReductionOutputType;
    ExpectRuns();
    EXPECT_EQ(gpu().seen().last_algorithm, 3);
    EXPECT_EQ(Products(0) + Products(1), 0);
    EXPECT_EQ(gpu().gemm().Pinned()[0].offered, 4);
  }
}

TEST_F(PinningTest, LeavesOutWhatTheHeuristicsDoNotStandFor) {
  SetMicroseconds({1});
  gpu().behaviour().algorithms[0].state = Result::kInvalidValue;
  ExpectRuns();
  EXPECT_EQ(Products(0), 0);
}

TEST_F(PinningTest, TellsHowOperandsAreAligned) {
  SetMicroseconds({1, 2});
  gpu().behaviour().algorithms[0].alignment = 16;
  gpu().behaviour().algorithms[1].alignment = 8;
  ExpectRuns(/*bias=*/true);
  EXPECT_EQ(gpu().seen().last_algorithm, 0);
  for (const Moved& moved : {Moved{.a = 1}, Moved{.b = 1}, Moved{.c = 1},
                             Moved{.bias = 1}, Moved{.a = 3}}) {
    ExpectRuns(/*bias=*/true, moved);
    EXPECT_GT(gpu().seen().last_algorithm, 1);
  }
  ExpectRuns(/*bias=*/true, {.a = 2, .c = 4});
  EXPECT_EQ(gpu().seen().last_algorithm, 1);
  // Those of a (twice), of b, of c and the bias, of both of the last, and the first.
  EXPECT_EQ(gpu().seen().heuristics, 5);
}

TEST_F(PinningTest, HasAWorkspace) {
  for (const size_t bytes : {size_t{1} << 20, (size_t{1} << 20) - 1}) {
    Open({.workspace_bytes = bytes});
    SetMicroseconds({1});
    gpu().behaviour().algorithms[0].workspace_bytes = size_t{1} << 20;
    ExpectRuns();
    EXPECT_EQ(gpu().seen().last_algorithm == 0, bytes == size_t{1} << 20);
  }
}

TEST_F(PinningTest, PassesOverWhatRefuses) {
  SetMicroseconds({50, 30, 5, 40, 60, 70});
  gpu().behaviour().algorithms[2].result = Result::kExecutionFailed;
  ExpectRuns();
  EXPECT_EQ(gpu().seen().last_algorithm, 1);
  EXPECT_THAT(gpu().gemm().Report(),
              HasSubstr("the fastest of 5 (1 of 6 refused)"));
}

TEST_F(PinningTest, SaysWhyAllRefuse) {
  SetAll(Result::kExecutionFailed);
  const std::optional<Status> done = Run();
  ASSERT_TRUE(done.has_value());
  EXPECT_EQ(
      done->ToString(),
      "internal error: cublasLtMatmul of f32 4 x 6 x 5 (m, n, k), aligned to "
      "256, 256, 256: CUBLAS_STATUS_EXECUTION_FAILED");
  EXPECT_THAT(gpu().gemm().Pinned(), SizeIs(0));
  // It is tried again.
  SetAll(Result::kSuccess);
  ExpectRuns();
}

TEST_F(PinningTest, SaysWhyTheOneThatWasPinnedRefuses) {
  ExpectRuns();
  SetAll(Result::kInvalidValue);
  const std::optional<Status> done = Run();
  ASSERT_TRUE(done.has_value());
  EXPECT_EQ(done->code(), StatusCode::kInternal);
  EXPECT_THAT(done->ToString(),
              AllOf(HasSubstr("cublasLtMatmul of f32 4 x 6 x 5"),
                    HasSubstr("CUBLAS_STATUS_INVALID_VALUE")));
}

TEST_F(PinningTest, LeavesToOthersWhatTheLibraryHasNot) {
  for (auto& one : gpu().behaviour().algorithms) {
    one.scheme = cublaslt::kReductionComputeType;
  }
  EXPECT_EQ(Run(), std::nullopt);
  EXPECT_EQ(Run(), std::nullopt);
  EXPECT_EQ(gpu().seen().heuristics, 1);
  EXPECT_THAT(gpu().gemm().Report(),
              HasSubstr("the library has no deterministic algorithm"));
  // Neither with an epilogue nor with a bias beforehand, of which nothing is queued.
  EXPECT_EQ(Run(/*bias=*/true), std::nullopt);
  EXPECT_EQ(gpu().seen().heuristics, 3);
  EXPECT_EQ(gpu().seen().last_algorithm, -1);
}

TEST_F(PinningTest, SaysWhyTheHeuristicsFail) {
  gpu().behaviour().heuristics = Result::kInternalError;
  const std::optional<Status> done = Run();
  ASSERT_TRUE(done.has_value());
  EXPECT_EQ(done->code(), StatusCode::kInternal);
  EXPECT_THAT(done->ToString(),
              AllOf(HasSubstr("cublasLtMatmulAlgoGetHeuristic"),
                    HasSubstr("CUBLAS_STATUS_INTERNAL_ERROR")));
}

TEST_F(PinningTest, GivesEverythingBack) {
  const int before = gpu().seen().alive;
  ExpectRuns();
  ExpectRuns(/*bias=*/true);
  // The layouts of two kinds.
  EXPECT_EQ(gpu().seen().alive, before + 6);
  cublaslt::HostSeen& seen = gpu().seen();
  Open({});
  // The handle of the new one, in place of the old.
  EXPECT_EQ(seen.alive, before);
}

TEST_F(PinningTest, SaysWhyThereIsNone) {
  gpu().behaviour().create = Result::kArchMismatch;
  const auto made = CublasLtGemm::Create(gpu().gpus(), 0, gpu().library());
  EXPECT_EQ(made.status().ToString(),
            "unsupported: GPU 0 (emulated): cublasLtCreate: "
            "CUBLAS_STATUS_ARCH_MISMATCH");
  EXPECT_EQ(
      CublasLtGemm::Create(gpu().gpus(), 1, gpu().library()).status().code(),
      StatusCode::kInvalidArgument);
}

TEST_F(PinningTest, RefusesALibraryForOtherGpus) {
  const auto library = CublasLtLibrary::Load(testing::kHostCublasLtForGpus);
  ASSERT_TRUE(library.ok()) << library.status().ToString();
  const auto made = CublasLtGemm::Create(gpu().gpus(), 0, *library);
  EXPECT_EQ(made.status().code(), StatusCode::kInvalidArgument);
  EXPECT_THAT(
      made.status().ToString(),
      AllOf(HasSubstr("libcublaslt_host_for_gpus.so works on real GPUs"),
            HasSubstr("1 emulated")));
}

}  // namespace
}  // namespace shardproof
