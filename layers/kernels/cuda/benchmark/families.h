// What the files of this folder have in common.
#ifndef SHARDPROOF_LAYERS_KERNELS_CUDA_BENCHMARK_FAMILIES_H_
#define SHARDPROOF_LAYERS_KERNELS_CUDA_BENCHMARK_FAMILIES_H_

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "layers/kernels/cuda/benchmark/point.h"
#include "reference/dtype.h"

namespace shardproof::cuda {

inline constexpr DType kMeasuredTypes[] = {DType::kBF16, DType::kF32};
inline constexpr int64_t kWide = sizeof(float);  // Of what is accumulated.
inline constexpr int64_t kId = sizeof(int64_t);

template <class... Bytes>
double Sum(Bytes... bytes) {
  return static_cast<double>((int64_t{bytes} + ...));
}

inline std::vector<std::pair<std::string, std::string>> RowParams(
    DType dtype, int64_t rows, int64_t columns) {
  return {{"dtype", std::string(Name(dtype))},
          Param("rows", rows),
          Param("columns", columns)};
}
inline std::vector<std::pair<std::string, std::string>> ElementParams(
    DType dtype, int64_t elements) {
  return {{"dtype", std::string(Name(dtype))}, Param("elements", elements)};
}

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_LAYERS_KERNELS_CUDA_BENCHMARK_FAMILIES_H_
