// One kind of product as cuBLASLt is asked for it: its description, the algorithms that the library offers, and a call.
//
// cuBLASLt is column-major. A row-major matrix [r, c] is the column-major one [c, r], so what is computed is the transpose
//
//     C^T[n, m] = op(B)^T[n, k] op(A)^T[k, m]
//
// with our B as its A: a B that is not transposed is op(B)^T as it lies there, and one that is needs the transpose. A bias
// of n elements along the rows of C lies along the columns of C^T, where the bias of an epilogue is.
#ifndef SHARDPROOF_LAYERS_KERNELS_CUDA_BLAS_CUBLASLT_PLAN_H_
#define SHARDPROOF_LAYERS_KERNELS_CUDA_BLAS_CUBLASLT_PLAN_H_

#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "layers/kernels/cuda/blas/cublaslt_abi.h"
#include "layers/kernels/cuda/blas/cublaslt_library.h"
#include "layers/kernels/gemm.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof::cublaslt {

// Whether there is a DataType for it: f64, f32, bf16, f16.
bool HasDataType(DType dtype);

// The memory of one product.
struct Operands {
  const void* a = nullptr;
  const void* b = nullptr;
  void* c = nullptr;
  void* bias =
      nullptr;  // kBias and kGeluAuxBias read it, kDGeluBiasGradient writes it.
  void* aux = nullptr;  // kGeluAuxBias writes it, kDGeluBiasGradient reads it.
};

// All that an algorithm is chosen by. Leading dimensions are not in it, since operands are contiguous.
struct ProductKey {
  DType dtype = DType::kF32;
  int64_t m = 0, n = 0, k = 0;
  bool transpose_a = false, transpose_b = false;
  bool accumulate = false;
  Epilogue epilogue = Epilogue::kDefault;
  // In bytes: 256, or a power of two up to 16; that of C is also that of the bias and of the auxiliary matrix.
  uint32_t alignment_a = 256, alignment_b = 256, alignment_c = 256;

  static ProductKey For(const GemmArgs& args, Epilogue epilogue,
                        const Operands& operands);
  auto operator<=>(const ProductKey&) const = default;
  // "bf16 512 x 4096 x 4096 (m, n, k), b transposed, bias, aligned to 256, 256, 16"
  std::string ToString() const;
};

struct Candidate {
  Algorithm algorithm;
  size_t workspace_bytes = 0;
  int32_t id = -1;
  uint32_t tile = 0, stages = 0;
};

// What the library has made, with its function that destroys it.
template <class T>
struct Destroy {
  Result (*destroy)(T*) = nullptr;
  void operator()(T* made) const { static_cast<void>(destroy(made)); }
};
template <class T>
using Owned = std::unique_ptr<T, Destroy<T>>;

class Plan {
 public:
  // HasDataType(key.dtype), and no dimension is 0.
  static StatusOr<Plan> Create(std::shared_ptr<const CublasLtLibrary> library,
                               const ProductKey& key);

  const ProductKey& key() const { return key_; }

  // At most `asked`, the best first as the library estimates. Only algorithms that add up in an order of their own and
  // not in one that differs from run to run (no split sums). None where the library has none.
  StatusOr<std::vector<Candidate>> Candidates(Handle handle,
                                              const Operands& operands,
                                              int asked,
                                              size_t workspace_bytes) const;

  // Queues the product. Several threads may at once.
  Status Enqueue(Handle handle, const Operands& operands,
                 const Algorithm& algorithm, void* workspace,
                 size_t workspace_bytes, Stream stream) const;

 private:
  using Layout = Owned<OpaqueMatrixLayout>;

  Plan() = default;
  StatusOr<Layout> MakeLayout(int64_t rows, int64_t columns) const;
  // A description holds the pointers, so each call has its own.
  StatusOr<Owned<OpaqueMatmulDesc>> Describe(const Operands& operands) const;
  StatusOr<Owned<OpaqueMatmulPreference>> Prefer(size_t workspace_bytes) const;
  const Api& api() const { return library_->api(); }

  std::shared_ptr<const CublasLtLibrary> library_;
  ProductKey key_;
  // In the library's terms: its A is our B.
  Layout layout_a_, layout_b_, layout_c_;
};

}  // namespace shardproof::cublaslt

#endif  // SHARDPROOF_LAYERS_KERNELS_CUDA_BLAS_CUBLASLT_PLAN_H_
