// Matrix products on one GPU by cuBLASLt, with the contract of layers/kernels/gemm.h:
//
//     C[m, n] = op(A)[m, k] op(B)[k, n]  (+ C)  (+ bias[n] in every row)
//
//     SP_ASSIGN_OR_RETURN(const auto library, CublasLtLibrary::Load());
//     SP_ASSIGN_OR_RETURN(const auto gemm, CublasLtGemm::Create(gpus, 0, library));
//     std::optional<Status> done = gemm->Gemm(*stream, {.a = x, .b = w, .transpose_b = true, .c = y});   // x w^T
//     if (!done.has_value()) ...                       // left to somebody else
//
// f32, bf16 and f16 are added up in f32 and f64 in f64, rounded once; f32 is never rounded to TF32. An algorithm whose order
// of summation may differ from run to run is not used.
//
// The first product of a kind (type, dimensions, transposes, epilogue, alignment of the pointers) waits for its stream,
// runs each of the algorithms that the library proposes on the operands at hand, and pins the fastest. Every later one is
// queued and waits for nothing; a CUDA graph may be captured from then on. What was pinned is kept: Report().
//
// Rejected: to trust the library's first proposal (it is an estimate); to time on operands of our own (zeros are multiplied
// faster than numbers, and other alignments by other kernels).
#ifndef SHARDPROOF_LAYERS_KERNELS_CUDA_BLAS_GEMM_CUBLASLT_H_
#define SHARDPROOF_LAYERS_KERNELS_CUDA_BLAS_GEMM_CUBLASLT_H_

#include <cstddef>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "collectives/backend/cuda/device/gpu.h"
#include "collectives/device.h"
#include "layers/kernels/cuda/blas/cublaslt_library.h"
#include "layers/kernels/cuda/blas/cublaslt_plan.h"
#include "layers/kernels/gemm.h"
#include "reference/status.h"

namespace shardproof {

struct CublasLtGemmOptions {
  // Algorithms that the library is asked for, of each kind of product.
  int asked = 8;
  // Of each stream, from its first product on until this goes; what NVIDIA recommends for Hopper.
  size_t workspace_bytes = size_t{32} << 20;
  // Without it the library's first proposal is pinned: for results that are the same from one process to the next and on
  // every GPU of a kind, which those of a race are not.
  bool time = true;
};

// The outcome for one kind of product.
struct PinnedAlgorithm {
  std::string product;  // "bf16 512 x 4096 x 4096 (m, n, k), b transposed"
  int id = -1;          // CUBLASLT_ALGO_CONFIG_ID; -1: the library has none.
  unsigned tile = 0, stages = 0;
  double microseconds = 0;  // Of one product, the least of a few; 0: not timed.
  int offered = 0;          // What the library proposed that is deterministic,
  int timed = 0;            // and what of it ran.

  // "...: algorithm 66, tile 20, stages 36, 12.3 us, the fastest of 8"
  std::string ToString() const;
};

class CublasLtGemm {
 public:
  // On GPU `gpu` of `gpus`. kInvalidArgument if only one of library and GPUs is emulated; what cublasLtCreate says.
  static StatusOr<std::unique_ptr<CublasLtGemm>> Create(
      std::shared_ptr<cuda::GpuSystem> gpus, int gpu,
      std::shared_ptr<const CublasLtLibrary> library,
      const CublasLtGemmOptions& options = {});
  // The streams that were given must be done.
  ~CublasLtGemm();
  CublasLtGemm(const CublasLtGemm&) = delete;
  CublasLtGemm& operator=(const CublasLtGemm&) = delete;

  // All of these: the arguments fit, as gemm.h's Gemm checks; all memory is addressed by the GPU; C overlaps no other
  // operand. Nothing: the library has no such product, and nothing was queued. A status: that of queueing it; what goes
  // wrong afterwards is the stream's. Several threads may call at once, each with a stream of its own.

  std::optional<Status> Gemm(cuda::GpuStream& stream, const GemmArgs& args);

  // The forward pass of a layer with an activation, in one kernel:
  //
  //     z[m, n] = op(A) op(B) + bias      C = gelu(z), the tanh form of activation.h
  //
  // z, [m, n] of C's type, is kept for GemmGeluBackward. Whether gelu is taken of z before or after its rounding is the
  // library's affair. args.bias is needed, args.accumulate must not be set. Left to others: f64, k = 0, and n that is no
  // multiple of 8, which cuBLASLt asks of z.
  std::optional<Status> GemmGelu(cuda::GpuStream& stream, const GemmArgs& args,
                                 void* z);

  // The gradient of what comes before the activation, and that of the bias, in one kernel:
  //
  //     C[m, n] = (op(A) op(B)) gelu'(z)      bias_gradient[n] = sum over the rows of C
  //
  // For y = gelu(x W1^T + b1) W2^T: A = dy, B = W2, C = dz, bias_gradient = db1. All of one type. args.bias must be null,
  // args.accumulate not set. Whether the sum is of C before or after its rounding, and in which order, is the library's
  // affair. Left to others as by GemmGelu.
  std::optional<Status> GemmGeluBackward(cuda::GpuStream& stream,
                                         const GemmArgs& args, const void* z,
                                         void* bias_gradient);

  // Of every kind of product so far, in the order in which they came.
  std::vector<PinnedAlgorithm> Pinned() const;
  // The same, a line each.
  std::string Report() const;

 private:
  // A kind of product, and how it is made; without an algorithm the library has none.
  struct Entry {
    cublaslt::Plan plan;
    std::optional<cublaslt::Algorithm> algorithm;
  };
  // An entry that can be run on a stream.
  struct Ready {
    std::shared_ptr<const Entry> entry;
    std::byte* workspace = nullptr;
    bool possible() const { return entry->algorithm.has_value(); }
  };

  CublasLtGemm(std::shared_ptr<cuda::GpuSystem> gpus, int gpu,
               std::shared_ptr<const CublasLtLibrary> library,
               const CublasLtGemmOptions& options);
  cuda::Gpu& gpu() const { return gpus_->gpu(gpu_); }

  StatusOr<Ready> Find(cuda::GpuStream& stream, const GemmArgs& args,
                       cublaslt::Epilogue epilogue,
                       const cublaslt::Operands& operands);
  StatusOr<std::byte*> WorkspaceOf(cuda::GpuStream& stream);
  std::shared_ptr<const Entry> Known(const cublaslt::ProductKey& key) const;
  StatusOr<std::shared_ptr<const Entry>> Pin(cuda::GpuStream& stream,
                                             const cublaslt::ProductKey& key,
                                             cublaslt::Operands operands,
                                             std::byte* workspace);
  // The microseconds of each candidate, negative where it refused; an error if all did.
  StatusOr<std::vector<double>> Time(
      cuda::GpuStream& stream, const cublaslt::Plan& plan,
      const std::vector<cublaslt::Candidate>& candidates,
      cublaslt::Operands operands, std::byte* workspace) const;
  Status Enqueue(cuda::GpuStream& stream, const Ready& ready,
                 const cublaslt::Operands& operands) const;
  // Under the lock of launches.
  Status Multiply(cuda::GpuStream& stream, const cublaslt::Plan& plan,
                  const cublaslt::Operands& operands,
                  const cublaslt::Algorithm& algorithm,
                  std::byte* workspace) const;
  std::optional<Status> RunFused(cuda::GpuStream& stream, const GemmArgs& args,
                                 cublaslt::Epilogue epilogue,
                                 const cublaslt::Operands& operands);
  // The `unit` bytes at `from`, again and again.
  static Status Repeat(cuda::GpuStream& stream, void* to, size_t bytes,
                       const void* from, size_t unit);
  Status Zero(cuda::GpuStream& stream, void* to, size_t bytes) const;

  const std::shared_ptr<cuda::GpuSystem> gpus_;
  const int gpu_;
  const std::shared_ptr<const CublasLtLibrary> library_;
  const CublasLtGemmOptions options_;
  Buffer zeros_;
  cublaslt::Handle handle_ = nullptr;

  // Held while algorithms are timed, so that they are timed alone.
  std::mutex timing_;
  mutable std::mutex mutex_;
  // Guarded by mutex_.
  std::map<cublaslt::ProductKey, std::shared_ptr<const Entry>> entries_;
  std::vector<PinnedAlgorithm> pinned_;
  std::map<void*, Buffer> workspaces_;  // By the handle of the stream.
};

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_KERNELS_CUDA_BLAS_GEMM_CUBLASLT_H_
