// A GPU that is emulated, the library for tests on it, and matrices.
#ifndef SHARDPROOF_LAYERS_KERNELS_CUDA_BLAS_TESTING_GEMM_FIXTURE_H_
#define SHARDPROOF_LAYERS_KERNELS_CUDA_BLAS_TESTING_GEMM_FIXTURE_H_

#include <gtest/gtest.h>

#include <chrono>
#include <memory>
#include <optional>
#include <string_view>
#include <utility>

#include "collectives/backend/cuda/device/emulated_gpu.h"
#include "collectives/backend/cuda/device/gpu.h"
#include "layers/kernels/cuda/blas/cublaslt_library.h"
#include "layers/kernels/cuda/blas/gemm_cublaslt.h"
#include "layers/kernels/cuda/blas/testing/host_blas.h"
#include "layers/kernels/cuda/blas/testing/virtual_clock.h"
#include "layers/kernels/kernel_testing.h"
#include "reference/random.h"
#include "reference/tensor.h"

namespace shardproof::testing {

// Integers whose sums of products are exact in f32, so that every order and every way to round once gives the same.
inline Tensor Integers(DType dtype, const Shape& shape, std::string_view name) {
  return Filled(
      {.kind = Distribution::Kind::kInteger, .dtype = dtype, .magnitude = 4},
      shape, name);
}

class BlasGpu {
 public:
  // With the clock of the library for tests, or with that of the machine.
  explicit BlasGpu(bool virtual_clock = true,
                   const CublasLtGemmOptions& options = {}) {
    library_ = CublasLtLibrary::Load(kHostCublasLt).value();
    Reset(controls());
    gpus_ = cuda::OpenEmulatedGpus({.count = 1}).value();
    if (virtual_clock) {
      gpus_ = std::make_shared<VirtualClockGpus>(gpus_, controls().seen.clock);
    }
    stream_ = NewStream();
    gemm_ = CublasLtGemm::Create(gpus_, 0, library_, options).value();
  }

  cublaslt::HostControls& controls() const { return HostBlasControls(); }
  cublaslt::HostBehaviour& behaviour() const { return controls().behaviour; }
  cublaslt::HostSeen& seen() const { return controls().seen; }
  const std::shared_ptr<cuda::GpuSystem>& gpus() const { return gpus_; }
  const std::shared_ptr<const CublasLtLibrary>& library() const {
    return library_;
  }
  CublasLtGemm& gemm() { return *gemm_; }
  cuda::GpuStream& stream() { return *stream_; }
  std::unique_ptr<cuda::GpuStream> NewStream() {
    return gpus_->gpu(0).NewStream().value();
  }

  // Waits for what was queued.
  std::optional<Status> Finish(std::optional<Status> queued) {
    if (!queued.has_value() || !queued->ok()) return queued;
    return cuda::Synchronize(*stream_, std::chrono::minutes(5));
  }
  std::optional<Status> Gemm(const GemmArgs& args) {
    return Finish(gemm_->Gemm(*stream_, args));
  }

 private:
  std::shared_ptr<const CublasLtLibrary> library_;
  std::shared_ptr<cuda::GpuSystem> gpus_;
  std::unique_ptr<CublasLtGemm> gemm_;
  // Goes first, with all that is queued on it.
  std::unique_ptr<cuda::GpuStream> stream_;
};

}  // namespace shardproof::testing

#endif  // SHARDPROOF_LAYERS_KERNELS_CUDA_BLAS_TESTING_GEMM_FIXTURE_H_
