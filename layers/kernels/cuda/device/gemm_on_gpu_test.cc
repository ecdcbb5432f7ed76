// Products of layers by a library with cuBLASLt's interface, on an emulated GPU.
#include <gtest/gtest.h>

#include <cstring>

#include "collectives/rank_context.h"
#include "layers/kernels/cuda/blas/testing/gemm_fixture.h"
#include "layers/kernels/cuda/device/layer_kernels_on_gpu.h"
#include "layers/kernels/gemm.h"
#include "layers/kernels/layer_kernels.h"

namespace shardproof::cuda {
namespace {

using shardproof::testing::HostBlasControls;
using shardproof::testing::Integers;
using shardproof::testing::kHostCublasLt;

class GemmOnGpuTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const auto library = CublasLtLibrary::Load(kHostCublasLt).value();
    shardproof::testing::Reset(HostBlasControls());
    gpus_ = OpenEmulatedGpus({.count = 1}).value();
    kernels_ = std::make_shared<LayerKernelsOnGpu>(
        GpuLanesOptions{.gpus = gpus_, .gpu = 0}, nullptr,
        CublasLtGemm::Create(gpus_, 0, library).value());
  }
  void TearDown() override { SetCurrentContext(nullptr); }

  static void ComputeWith(const std::shared_ptr<LayerKernels>& kernels) {
    auto context = std::make_shared<RankServices>();
    context->Put<LayerKernels>(kernels);
    SetCurrentContext(std::move(context));
  }
  // In memory that the GPU addresses, with the contents of `tensor`.
  Buffer OnGpu(const Tensor& tensor) {
    Buffer buffer =
        gpus_->gpu(0).Allocate(static_cast<size_t>(tensor.num_bytes())).value();
    std::memcpy(buffer.data(), tensor.raw(),
                static_cast<size_t>(tensor.num_bytes()));
    return buffer;
  }

  std::shared_ptr<GpuSystem> gpus_;
  std::shared_ptr<LayerKernelsOnGpu> kernels_;
};

TEST_F(GemmOnGpuTest, IsThatOfTheHost) {
  for (const DType dtype :
       {DType::kF32, DType::kF64, DType::kBF16, DType::kF16}) {
    for (const int addend : {0, 1, 2}) {
      for (const bool addressable : {false, true}) {
        SCOPED_TRACE(
            fmt::format("{}, addend {}, {}", Name(dtype), addend, addressable));
        const Tensor a = Integers(dtype, {5, 7}, "a");
        const Tensor b = Integers(dtype, {3, 7}, "b");
        const Tensor bias = Integers(dtype, {3}, "bias");
        Tensor got = Integers(dtype, {5, 3}, "c");
        Tensor want = Integers(dtype, {5, 3}, "c");
        GemmArgs args{.a = a.view(),
                      .b = b.view(),
                      .transpose_b = true,
                      .c = want.view(),
                      .accumulate = addend == 1,
                      .bias = addend == 2 ? bias.raw() : nullptr};
        SetCurrentContext(nullptr);
        ASSERT_TRUE(Gemm(Stream::Inline(), args).ok());

        const Buffer a_there = OnGpu(a), b_there = OnGpu(b),
                     c_there = OnGpu(got);
        args.c = got.view();
        if (addressable) {
          args.a.data = a_there.data();
          args.b.data = b_there.data();
          args.c.data = c_there.data();
        }
        ComputeWith(kernels_);
        const LayerKernelCounts before = kernels_->counts();
        const Status done = Gemm(Stream::Inline(), args);
        ASSERT_TRUE(done.ok()) << done.ToString();
        EXPECT_EQ(kernels_->counts().launches, before.launches + 1);
        EXPECT_EQ(kernels_->counts().left_to_host, before.left_to_host);
        const int64_t bytes = got.num_bytes();
        EXPECT_EQ(
            std::memcmp(args.c.data, want.raw(), static_cast<size_t>(bytes)),
            0);
        const int64_t staged = kernels_->counts().staged_bytes;
        if (addressable && addend != 2) {
          EXPECT_EQ(staged, before.staged_bytes);
        } else if (!addressable) {
          EXPECT_EQ(staged - before.staged_bytes,
                    a.num_bytes() + b.num_bytes() + bytes +
                        (addend == 2 ? bias.num_bytes() : 0));
        }
      }
    }
  }
}

TEST_F(GemmOnGpuTest, WithoutALibraryTheHostMultiplies) {
  const auto without = std::make_shared<LayerKernelsOnGpu>(
      GpuLanesOptions{.gpus = gpus_, .gpu = 0});
  ComputeWith(without);
  const Tensor a = Integers(DType::kF32, {2, 2}, "a");
  Tensor c(DType::kF32, {2, 2});
  ASSERT_TRUE(
      Gemm(Stream::Inline(), {.a = a.view(), .b = a.view(), .c = c.view()})
          .ok());
  EXPECT_EQ(without->counts().launches, 0);
  EXPECT_EQ(without->counts().left_to_host, 1);
  EXPECT_NE(*static_cast<const float*>(c.raw()), 0);
}

TEST_F(GemmOnGpuTest, AnErrorOfTheLibraryIsTheProducts) {
  ComputeWith(kernels_);
  for (auto& algorithm : HostBlasControls().behaviour.algorithms) {
    algorithm.result = cublaslt::Result::kExecutionFailed;
  }
  const Tensor a = Integers(DType::kF32, {2, 2}, "a");
  Tensor c(DType::kF32, {2, 2});
  const Status failed =
      Gemm(Stream::Inline(), {.a = a.view(), .b = a.view(), .c = c.view()});
  EXPECT_FALSE(failed.ok());
  EXPECT_NE(failed.message().find("a product of matrices"), std::string::npos)
      << failed.ToString();
}

}  // namespace
}  // namespace shardproof::cuda
