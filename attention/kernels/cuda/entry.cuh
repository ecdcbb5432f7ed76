// What the files of the kernels of attention have in common: the context, the table, and how they choose by type and
// head dimension.
#ifndef SHARDPROOF_ATTENTION_KERNELS_CUDA_ENTRY_CUH_
#define SHARDPROOF_ATTENTION_KERNELS_CUDA_ENTRY_CUH_

#include <type_traits>

#include "attention/kernels/cuda/cuda_tile_context.cuh"
#include "attention/kernels/cuda/kernel_table.h"
#include "reference/dtype.h"

namespace shardproof::cuda {

template <class... Parameters>
const void* AddressOf(void (*kernel)(Parameters...)) {
  return reinterpret_cast<const void*>(kernel);
}

template <int kHeadDim>
using HeadDimTag = std::integral_constant<int, kHeadDim>;

// f(TypeTag<T>, HeadDimTag<d>) for bf16 and f16, 64 and 128; null for others.
template <class F>
const void* VisitFlash(DType dtype, int head_dim, const F& f) {
  if (dtype == DType::kBF16 && head_dim == 64) {
    return f(TypeTag<BFloat16>(), HeadDimTag<64>());
  }
  if (dtype == DType::kBF16 && head_dim == 128) {
    return f(TypeTag<BFloat16>(), HeadDimTag<128>());
  }
  if (dtype == DType::kF16 && head_dim == 64) {
    return f(TypeTag<Float16>(), HeadDimTag<64>());
  }
  if (dtype == DType::kF16 && head_dim == 128) {
    return f(TypeTag<Float16>(), HeadDimTag<128>());
  }
  return nullptr;
}

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_ATTENTION_KERNELS_CUDA_ENTRY_CUH_
