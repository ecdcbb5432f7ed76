// The kernels of the layers on a GPU, for the ranks that live there: what
// ../*.h compute, launched. Layers do not know.
//
//     auto kernels = std::make_shared<LayerKernelsOnGpu>(
//         GpuLanesOptions{.gpus = gpus, .gpu = 0}, &FindLayerKernel);
//     context.Put<LayerKernels>(kernels);              // of the ranks of GPU 0
//     ...
//     kernels->counts().launches
//
// Each function returns when its launches are done. Operands that the GPU
// cannot address are staged (gpu_call.h): tensors of the host, vectors, the
// cosines of a RopeTable, one SquareSum. What the kernels need beside (partial
// sums, the sorting of an embedding's gradient) is scratch of the call; the
// caller's EmbeddingScratch is not touched.
//
// Products of matrices are those of a library (../blas/gemm_cublaslt.h).
//
// Left to the host: f64 but in products; rows of more than 2^30 elements, whose
// columns the kernels count as int; what is empty, which no GPU is asked for
// (sums over no rows are zeros, which the host writes); what has no kernel; and
// products where there is no library.
//
// Deterministic: bits depend on sizes, on the alignment of operands that lie in
// memory of GPUs, and on the grid, which is a function of sizes and of the
// GPU's multiprocessors. They differ from the host's, within the same bounds.
//
// Errors, each with the GPU's name: those of a launch and of memory, kTimeout,
// and that of the world of the rank (ForWorld).
#ifndef SHARDPROOF_LAYERS_KERNELS_CUDA_DEVICE_LAYER_KERNELS_ON_GPU_H_
#define SHARDPROOF_LAYERS_KERNELS_CUDA_DEVICE_LAYER_KERNELS_ON_GPU_H_

#include <atomic>
#include <cstdint>
#include <memory>
#include <utility>

#include "layers/kernels/cuda/blas/gemm_cublaslt.h"
#include "layers/kernels/cuda/device/gpu_call.h"
#include "layers/kernels/cuda/device/layer_launch.h"
#include "layers/kernels/layer_kernels.h"

namespace shardproof::cuda {

struct LayerKernelCounts {
  int64_t launches = 0;  // Of kernels; a function may need several.
  // Functions that are here and left something to the host. Those that are not
  // here are not counted (the routing of a mixture of experts), nor is what is
  // empty.
  int64_t left_to_host = 0;
  int64_t staged_bytes = 0;  // Each operand once.

  LayerKernelCounts& operator+=(const LayerKernelCounts& other) {
    launches += other.launches;
    left_to_host += other.left_to_host;
    staged_bytes += other.staged_bytes;
    return *this;
  }
};

class LayerKernelsOnGpu final : public LayerKernels {
 public:
  // `finder` may be null for emulated GPUs, and `gemm` (of the same GPU) where
  // the host multiplies.
  explicit LayerKernelsOnGpu(GpuLanesOptions options,
                             LayerKernelFinder finder = nullptr,
                             std::unique_ptr<CublasLtGemm> gemm = nullptr)
      : shared_(std::make_shared<Shared>(std::move(gemm), std::move(options))),
        finder_(finder) {}

  // The same for a rank of a world: what it waits for ends soon after `health`
  // says that the world is aborted, with that error.
  std::shared_ptr<LayerKernelsOnGpu> ForWorld(WorldHealth health) const {
    return std::shared_ptr<LayerKernelsOnGpu>(
        new LayerKernelsOnGpu(shared_, finder_, std::move(health)));
  }

  // Of all threads and worlds, since this was made.
  LayerKernelCounts counts() const {
    return {shared_->lanes.launches(), shared_->left.load(),
            shared_->lanes.staged_bytes()};
  }

  Done Gelu(DType dtype, int64_t n, const void* z, void* a) override;
  Done GeluBackward(DType dtype, int64_t n, const void* z, const void* da,
                    void* dz) override;
  Done SwiGlu(DType dtype, int64_t n, const void* gate, const void* up,
              void* a) override;
  Done SwiGluBackward(DType dtype, int64_t n, const void* gate, const void* up,
                      const void* da, void* dgate, void* dup) override;
  Done ColumnSum(DType dtype, int64_t rows, int64_t columns, const void* x,
                 void* out) override;
  Done AddBias(DType dtype, int64_t rows, int64_t columns, const void* b,
               void* y) override;

  Done CrossEntropyLocal(const CrossEntropyShape& shape, const void* logits,
                         const int64_t* targets, void* local_max,
                         void* sums) override;
  Done CrossEntropyRescale(const CrossEntropyShape& shape, const void* logits,
                           const int64_t* targets, const void* local_max,
                           const void* max, void* sums) override;
  Done CrossEntropyLoss(const CrossEntropyShape& shape, const int64_t* targets,
                        void* sums, void* loss, double* total) override;
  Done CrossEntropyGradient(const CrossEntropyShape& shape, const void* logits,
                            const int64_t* targets, const void* max,
                            const void* inverse_sums,
                            const CrossEntropyUpstream& upstream,
                            void* dlogits) override;

  Done Dropout(const DropoutArgs& args) override;

  Done EmbeddingLookup(const EmbeddingShape& shape, const int64_t* ids,
                       const void* table, void* y) override;
  Done EmbeddingGradient(const EmbeddingShape& shape, const int64_t* ids,
                         const void* dy, bool accumulate,
                         const EmbeddingScratch& scratch,
                         void* dtable) override;

  Done Gemm(const GemmArgs& args) override;

  Done GatherRows(DType dtype, const GatherRowsArgs& args) override;
  Done CombineRows(DType dtype, const CombineRowsArgs& args) override;
  Done RowDots(DType dtype, const RowDotsArgs& args) override;

  Done Normalize(const NormRows& rows, const NormalizeArgs& args) override;
  Done NormalizeBackward(const NormRows& rows,
                         const NormalizeBackwardArgs& args) override;
  Done RoundSums(DType dtype, int64_t n, const void* sums, void* out) override;

  Done AddSquares(DType dtype, int64_t n, const void* x,
                  SquareSum* total) override;
  Done SgdStep(const SgdArgs& args) override;
  Done AdamStep(const AdamArgs& args) override;
  Done WidenParameters(DType dtype, int64_t n, const void* parameter,
                       void* master) override;

  Done Rope(const RopeTable& table, RopeDirection direction,
            const RopeArgs& args) override;

  Done Softmax(const SoftmaxShape& shape, void* s, void* p) override;
  Done SoftmaxBackward(const SoftmaxShape& shape, const void* p, const void* dp,
                       void* ds) override;

 private:
  // What all ranks of a GPU have in common.
  struct Shared {
    Shared(std::unique_ptr<CublasLtGemm> products, GpuLanesOptions options)
        : gemm(std::move(products)), lanes(std::move(options)) {}
    // Before the lanes, whose streams have to be done before it goes.
    const std::unique_ptr<CublasLtGemm> gemm;
    GpuLanes lanes;
    std::atomic<int64_t> left{0};
  };

  LayerKernelsOnGpu(std::shared_ptr<Shared> shared, LayerKernelFinder finder,
                    WorldHealth health)
      : shared_(std::move(shared)),
        finder_(finder),
        health_(std::move(health)) {}

  // Whether kernels are for rows of so many elements of this type; where not,
  // counts that the host is left with it.
  bool Takes(DType dtype, int64_t columns = 1);

  int multiprocessors() const {
    return shared_->lanes.gpu().info().multiprocessors;
  }
  LaunchShape ShapeOf(int64_t n, int64_t element_bytes) const {
    return TensorLaunch(n, static_cast<int>(element_bytes), multiprocessors());
  }
  template <class... Parameters>
  void Launch(GpuCall& call, LayerKernel kernel, DType dtype,
              const LaunchShape& shape, Parameters... parameters) {
    GridLaunch launch =
        LayerLaunch(kernel, dtype, finder_, shared_->lanes.Limited(shape));
    SetParameters(launch, parameters...);
    call.Launch(launch);
  }
  // Both stages of a sum over rows whose first has left `parts` rows.
  void SumParts(GpuCall& call, int64_t parts, int64_t columns,
                const float* partials, float* out, float* more);

  const std::shared_ptr<Shared> shared_;
  const LayerKernelFinder finder_;
  const WorldHealth health_;
};

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_LAYERS_KERNELS_CUDA_DEVICE_LAYER_KERNELS_ON_GPU_H_
