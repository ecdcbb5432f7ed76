// Reduce for f64, f32.
#include "collectives/kernels/request.h"
#include "collectives/kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "collectives/kernels/reduce_wide.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

// After highway.h, once per instruction set.
#include "collectives/kernels/reduce-inl.h"

HWY_BEFORE_NAMESPACE();
namespace shardproof::kernels::HWY_NAMESPACE {

void ReduceWideDispatched(const Request& request) {
  switch (request.dtype) {
    case DType::kF64:
      return ReduceTyped<double>(request);
    case DType::kF32:
      return ReduceTyped<float>(request);
    default:
      return;
  }
}

}  // namespace shardproof::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shardproof::kernels {

HWY_EXPORT(ReduceWideDispatched);

void ReduceWide(const Request& request) {
  HWY_DYNAMIC_DISPATCH(ReduceWideDispatched)(request);
}

}  // namespace shardproof::kernels
#endif  // HWY_ONCE
