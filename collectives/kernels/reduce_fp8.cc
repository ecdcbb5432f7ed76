// Reduce for e4m3, e5m2.
#include "collectives/kernels/request.h"
#include "collectives/kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "collectives/kernels/reduce_fp8.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

// After highway.h, once per instruction set.
#include "collectives/kernels/reduce-inl.h"

HWY_BEFORE_NAMESPACE();
namespace shardproof::kernels::HWY_NAMESPACE {

void ReduceFp8Dispatched(const Request& request) {
  switch (request.dtype) {
    case DType::kE4M3:
      return ReduceTyped<Float8E4M3>(request);
    case DType::kE5M2:
      return ReduceTyped<Float8E5M2>(request);
    default:
      return;
  }
}

}  // namespace shardproof::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shardproof::kernels {

HWY_EXPORT(ReduceFp8Dispatched);

void ReduceFp8(const Request& request) {
  HWY_DYNAMIC_DISPATCH(ReduceFp8Dispatched)(request);
}

}  // namespace shardproof::kernels
#endif  // HWY_ONCE
