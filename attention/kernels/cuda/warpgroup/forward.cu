// Attention forward by warpgroups: compiled for sm_90a and for nothing else.
#include <cuda.h>
#include <cuda_runtime.h>

#include <type_traits>

#include "attention/kernels/cuda/entry.cuh"
#include "attention/kernels/cuda/warpgroup/cuda_warpgroup_context.cuh"
#include "attention/kernels/cuda/warpgroup/forward.h"

namespace shardproof::cuda {
namespace {

// One block of a multiprocessor: without the 1 setmaxnreg does nothing.
template <class T, class Tiling>
__global__ void __launch_bounds__(Tiling::kThreads, 1)
    WarpgroupForwardKernel(__grid_constant__ const WarpgroupForwardArgs args) {
  CudaWarpgroupContext context;
  WarpgroupForward<T, Tiling>(context, args);
}

// Of the driver, without which this program starts as well.
using EncodeTiled = decltype(&cuTensorMapEncodeTiled);
EncodeTiled FindEncoder() {
  constexpr unsigned kSince = 12000;
  void* found = nullptr;
  cudaDriverEntryPointQueryResult result = cudaDriverEntryPointSymbolNotFound;
  const cudaError_t error = cudaGetDriverEntryPointByVersion(
      "cuTensorMapEncodeTiled", &found, kSince, cudaEnableDefault, &result);
  if (error != cudaSuccess || result != cudaDriverEntryPointSuccess) {
    static_cast<void>(cudaGetLastError());
    return nullptr;
  }
  return reinterpret_cast<EncodeTiled>(found);
}

}  // namespace

const char* EncodeTileMap(const TileMapSpec& spec, TileMap& map) {
  static_assert(sizeof(TileMap) == sizeof(CUtensorMap) &&
                alignof(TileMap) >= alignof(CUtensorMap));
  if (const char* reason = WhyNotTileMap(spec)) return reason;
  static const EncodeTiled encode = FindEncoder();
  if (encode == nullptr) return "a driver without cuTensorMapEncodeTiled";
  cuuint64_t sizes[kMapDimensions], strides[kMapDimensions - 1];
  cuuint32_t boxes[kMapDimensions], steps[kMapDimensions];
  for (int i = 0; i < kMapDimensions; ++i) {
    sizes[i] = static_cast<cuuint64_t>(spec.sizes[i]);
    boxes[i] = static_cast<cuuint32_t>(spec.box[i]);
    steps[i] = 1;
    if (i > 0) strides[i - 1] = static_cast<cuuint64_t>(spec.strides[i - 1]);
  }
  // Outside of the tensor there are zeros.
  const CUresult result = encode(
      reinterpret_cast<CUtensorMap*>(&map),
      spec.dtype == DType::kBF16 ? CU_TENSOR_MAP_DATA_TYPE_BFLOAT16
                                 : CU_TENSOR_MAP_DATA_TYPE_FLOAT16,
      kMapDimensions, const_cast<void*>(spec.data), sizes, strides, boxes,
      steps, CU_TENSOR_MAP_INTERLEAVE_NONE, CU_TENSOR_MAP_SWIZZLE_128B,
      CU_TENSOR_MAP_L2_PROMOTION_L2_128B, CU_TENSOR_MAP_FLOAT_OOB_FILL_NONE);
  return result == CUDA_SUCCESS ? nullptr : "a tensor that TMA does not take";
}

const void* FindWarpgroupForwardKernel(DType dtype, int head_dim) {
  return VisitFlash(
      dtype, head_dim,
      []<class T, int kHeadDim>(
          TypeTag<T> /*type*/,
          std::integral_constant<int, kHeadDim> /*head_dim*/) {
        return AddressOf(&WarpgroupForwardKernel<T, WarpgroupTiling<kHeadDim>>);
      });
}

}  // namespace shardproof::cuda
