// Reduce for i8, u8, i32, i64.
#include "collectives/kernels/request.h"
#include "collectives/kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "collectives/kernels/reduce_integers.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

// After highway.h, once per instruction set.
#include "collectives/kernels/reduce-inl.h"

HWY_BEFORE_NAMESPACE();
namespace shardproof::kernels::HWY_NAMESPACE {

void ReduceIntegersDispatched(const Request& request) {
  switch (request.dtype) {
    case DType::kI8:
      return ReduceTyped<int8_t>(request);
    case DType::kU8:
      return ReduceTyped<uint8_t>(request);
    case DType::kI32:
      return ReduceTyped<int32_t>(request);
    case DType::kI64:
      return ReduceTyped<int64_t>(request);
    default:
      return;
  }
}

}  // namespace shardproof::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shardproof::kernels {

HWY_EXPORT(ReduceIntegersDispatched);

void ReduceIntegers(const Request& request) {
  HWY_DYNAMIC_DISPATCH(ReduceIntegersDispatched)(request);
}

}  // namespace shardproof::kernels
#endif  // HWY_ONCE
