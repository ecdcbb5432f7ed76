#include "layers/kernels/divide.h"

#include "collectives/kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/kernels/divide.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

// After highway.h, once per instruction set.
#include "layers/kernels/elementwise-inl.h"

HWY_BEFORE_NAMESPACE();
namespace shardproof::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

struct Quotient {
  double divisor;
  template <class D, class V>
  HWY_INLINE V operator()(D d, V x) const {
    return hn::Div(x, hn::Set(d, static_cast<hn::TFromD<D>>(divisor)));
  }
};

template <typename T>
void DivideTyped(int64_t n, void* x, double divisor) {
  T* const out = static_cast<T*>(x);
  Elementwise<T>(n, Quotient{divisor}, out, static_cast<const T*>(out));
}

void DivideDispatched(DType dtype, int64_t n, void* x, double divisor) {
  switch (dtype) {
    case DType::kF64:
      return DivideTyped<double>(n, x, divisor);
    case DType::kF32:
      return DivideTyped<float>(n, x, divisor);
    case DType::kBF16:
      return DivideTyped<BFloat16>(n, x, divisor);
    default:
      return DivideTyped<Float16>(n, x, divisor);
  }
}

}  // namespace shardproof::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shardproof {
namespace kernels {
HWY_EXPORT(DivideDispatched);
}  // namespace kernels

Status Divide(const Stream& stream, DType dtype, int64_t n, void* x,
              double divisor) {
  if (dtype != DType::kF64 && dtype != DType::kF32 && dtype != DType::kBF16 &&
      dtype != DType::kF16) {
    return Unsupported("gradients are of f64, f32, bf16 or f16, not {}",
                       Name(dtype));
  }
  return stream.Run([dtype, n, x, divisor] {
    using namespace kernels;  // NOLINT: where the dispatch table is.
    HWY_DYNAMIC_DISPATCH(DivideDispatched)(dtype, n, x, divisor);
    return Status();
  });
}

}  // namespace shardproof
#endif  // HWY_ONCE
