// Reduce for bf16, f16.
#include "collectives/kernels/request.h"
#include "collectives/kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "collectives/kernels/reduce_half.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

// After highway.h, once per instruction set.
#include "collectives/kernels/reduce-inl.h"

HWY_BEFORE_NAMESPACE();
namespace shardproof::kernels::HWY_NAMESPACE {

void ReduceHalfDispatched(const Request& request) {
  switch (request.dtype) {
    case DType::kBF16:
      return ReduceTyped<BFloat16>(request);
    case DType::kF16:
      return ReduceTyped<Float16>(request);
    default:
      return;
  }
}

}  // namespace shardproof::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shardproof::kernels {

HWY_EXPORT(ReduceHalfDispatched);

void ReduceHalf(const Request& request) {
  HWY_DYNAMIC_DISPATCH(ReduceHalfDispatched)(request);
}

}  // namespace shardproof::kernels
#endif  // HWY_ONCE
