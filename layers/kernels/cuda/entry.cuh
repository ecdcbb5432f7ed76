// What the .cu files of the kernels of layers have in common: the context, the table, and how they choose by type.
#ifndef SHARDPROOF_LAYERS_KERNELS_CUDA_ENTRY_CUH_
#define SHARDPROOF_LAYERS_KERNELS_CUDA_ENTRY_CUH_

#include "collectives/backend/cuda/kernels/cuda_context.cuh"
#include "layers/kernels/cuda/kernel_table.h"
#include "layers/kernels/cuda/team.h"
#include "reference/dtype.h"

namespace shardproof::cuda {

template <class... Parameters>
const void* AddressOf(void (*kernel)(Parameters...)) {
  return reinterpret_cast<const void*>(kernel);
}

// f(TypeTag<T>) for f32, bf16 and f16; null for other types.
template <class F>
const void* VisitStored(DType dtype, const F& f) {
  switch (dtype) {
    case DType::kF32:
      return f(TypeTag<float>());
    case DType::kBF16:
      return f(TypeTag<BFloat16>());
    case DType::kF16:
      return f(TypeTag<Float16>());
    default:
      return nullptr;
  }
}

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_LAYERS_KERNELS_CUDA_ENTRY_CUH_
