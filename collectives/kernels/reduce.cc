#include "collectives/kernels/reduce.h"

#include <cstddef>

#include "collectives/kernels/copy.h"
#include "collectives/kernels/request.h"

namespace shardproof::kernels {

void Reduce(DType dtype, ReduceOp op, std::span<const void* const> sources,
            int64_t count, std::span<void* const> destinations,
            const ReduceOptions& options) {
  if (sources.size() == 1 && options.scales.empty() && options.divisor == 1) {
    CopyToAll(destinations, sources[0],
              static_cast<size_t>(count) * SizeOf(dtype), options.walk);
    return;
  }
  const Request request = {
      dtype, op, sources, static_cast<size_t>(count), destinations, options};
  switch (dtype) {
    case DType::kF64:
    case DType::kF32:
      return ReduceWide(request);
    case DType::kBF16:
    case DType::kF16:
      return ReduceHalf(request);
    case DType::kE4M3:
    case DType::kE5M2:
      return ReduceFp8(request);
    case DType::kI8:
    case DType::kU8:
    case DType::kI32:
    case DType::kI64:
      return ReduceIntegers(request);
  }
}

void ReduceInto(DType dtype, ReduceOp op, void* accumulator, const void* source,
                int64_t count) {
  const void* const sources[] = {accumulator, source};
  void* const destinations[] = {accumulator};
  Reduce(dtype, op, sources, count, destinations);
}

}  // namespace shardproof::kernels
