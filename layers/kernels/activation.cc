#include "layers/kernels/activation.h"

#include <algorithm>
#include <array>

#include "collectives/kernels/targets.h"
#include "layers/kernels/activation_request.h"
#include "layers/kernels/layer_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/kernels/activation.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

// After highway.h, once per instruction set.
#include "hwy/contrib/math/math-inl.h"
#include "layers/kernels/elementwise-inl.h"

HWY_BEFORE_NAMESPACE();
namespace shardproof::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// 1 / (1 + exp(-x)) through exp(-|x|), which cannot overflow; below the range
// of Exp it is 0. Of a NaN it is some number: every caller multiplies by x.
template <class D, class V>
HWY_INLINE V Sigmoid(D d, V x) {
  const V one = hn::Set(d, 1.0);
  const V e = hn::Exp(d, hn::Neg(hn::Abs(x)));
  const V top = hn::IfThenElse(hn::Lt(x, hn::Zero(d)), e, one);
  return hn::Div(top, hn::Add(one, e));
}

// gelu(x) = x sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3)): the tanh form without
// the cancellation of 1 + tanh for negative x.
constexpr double kTwoRootTwoOverPi = 1.5957691216057308;
constexpr double kCubic = 0.044715;

template <class D, class V>
HWY_INLINE V GeluSigmoid(D d, V x) {
  const V cubic =
      hn::MulAdd(hn::Set(d, kCubic), hn::Mul(x, x), hn::Set(d, 1.0));
  return Sigmoid(d, hn::Mul(hn::Mul(hn::Set(d, kTwoRootTwoOverPi), x), cubic));
}

struct GeluForward {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V z) const {
    return hn::Mul(z, GeluSigmoid(d, z));
  }
};

// gelu' = s + x s (1 - s) u', u the argument of the sigmoid s.
struct GeluGradient {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V z, V da) const {
    const V one = hn::Set(d, 1.0);
    const V s = GeluSigmoid(d, z);
    const V du =
        hn::Mul(hn::Set(d, kTwoRootTwoOverPi),
                hn::MulAdd(hn::Set(d, 3 * kCubic), hn::Mul(z, z), one));
    const V slope = hn::Mul(hn::Mul(z, du), hn::Mul(s, hn::Sub(one, s)));
    return hn::Mul(da, hn::Add(s, slope));
  }
};

struct SwiGluForward {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V gate, V up) const {
    return hn::Mul(hn::Mul(gate, Sigmoid(d, gate)), up);
  }
};

struct SwiGluGateGradient {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V gate, V up, V da) const {
    const V one = hn::Set(d, 1.0);
    const V s = Sigmoid(d, gate);
    const V slope = hn::Mul(s, hn::MulAdd(gate, hn::Sub(one, s), one));
    return hn::Mul(hn::Mul(da, up), slope);
  }
};

struct SwiGluUpGradient {
  template <class D, class V>
  HWY_INLINE V operator()(D d, V gate, V da) const {
    return hn::Mul(da, hn::Mul(gate, Sigmoid(d, gate)));
  }
};

struct Sum {
  template <class D, class V>
  HWY_INLINE V operator()(D, V a, V b) const {
    return hn::Add(a, b);
  }
};

template <typename T>
void SwiGluBackwardTyped(int64_t n, const T* gate, const T* up, const T* da,
                         T* dgate, T* dup) {
  // Blocks through scratch, because dgate may be gate and dup may be up.
  constexpr int64_t kBlock = 256;
  HWY_ALIGN std::array<T, kBlock> scratch;
  for (int64_t i = 0; i < n; i += kBlock) {
    const int64_t size = std::min(kBlock, n - i);
    Elementwise<T>(size, SwiGluGateGradient(), scratch.data(), gate + i, up + i,
                   da + i);
    Elementwise<T>(size, SwiGluUpGradient(), dup + i, gate + i, da + i);
    std::copy_n(scratch.data(), size, dgate + i);
  }
}

template <typename T>
void ColumnSumTyped(int64_t rows, int64_t columns, const T* x, T* out) {
  using Lane = typename Codec<T>::Lane;
  constexpr int64_t kBlock = 512;
  const hn::ScalableTag<Lane> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  HWY_ALIGN std::array<Lane, kBlock> sums;
  for (int64_t j = 0; j < columns; j += kBlock) {
    const int64_t size = std::min(kBlock, columns - j);
    sums.fill(0);
    for (int64_t i = 0; i < rows; ++i) {
      const T* row = x + i * columns + j;
      int64_t c = 0;
      for (; c + lanes <= size; c += lanes) {
        hn::Store(
            hn::Add(hn::Load(d, sums.data() + c), Codec<T>::Load(d, row + c)),
            d, sums.data() + c);
      }
      for (; c < size; ++c) sums[c] += static_cast<Lane>(row[c]);
    }
    for (int64_t c = 0; c < size; ++c) out[j + c] = static_cast<T>(sums[c]);
  }
}

template <typename T>
void RunTyped(const ActivationRequest& w) {
  const auto in = [&](int i) { return static_cast<const T*>(w.in[i]); };
  const auto out = [&](int i) { return static_cast<T*>(w.out[i]); };
  switch (w.kernel) {
    case ActivationKernel::kGelu:
      return Elementwise<T>(w.n, GeluForward(), out(0), in(0));
    case ActivationKernel::kGeluBackward:
      return Elementwise<T>(w.n, GeluGradient(), out(0), in(0), in(1));
    case ActivationKernel::kSwiGlu:
      return Elementwise<T>(w.n, SwiGluForward(), out(0), in(0), in(1));
    case ActivationKernel::kSwiGluBackward:
      return SwiGluBackwardTyped(w.n, in(0), in(1), in(2), out(0), out(1));
    case ActivationKernel::kColumnSum:
      return ColumnSumTyped(w.rows, w.n, in(0), out(0));
    case ActivationKernel::kAddBias:
      for (int64_t i = 0; i < w.rows; ++i) {
        T* row = out(0) + i * w.n;
        Elementwise<T>(w.n, Sum(), row, static_cast<const T*>(row), in(0));
      }
      return;
  }
}

void RunDispatched(DType dtype, const ActivationRequest& w) {
  switch (dtype) {
    case DType::kF64:
      return RunTyped<double>(w);
    case DType::kF32:
      return RunTyped<float>(w);
    case DType::kBF16:
      return RunTyped<BFloat16>(w);
    default:
      return RunTyped<Float16>(w);
  }
}

}  // namespace shardproof::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shardproof {
namespace kernels {

HWY_EXPORT(RunDispatched);

namespace {

// `device` is what runs where a device serves.
template <class Device>
Status Launch(const Stream& stream, DType dtype,
              const ActivationRequest& request, const Device& device) {
  if (dtype != DType::kF64 && dtype != DType::kF32 && dtype != DType::kBF16 &&
      dtype != DType::kF16) {
    return Unsupported("activations are of f64, f32, bf16 or f16, not {}",
                       Name(dtype));
  }
  return RunKernel(stream, device, [dtype, request] {
    HWY_DYNAMIC_DISPATCH(RunDispatched)(dtype, request);
    return Status();
  });
}

}  // namespace
}  // namespace kernels

using kernels::ActivationKernel;
using kernels::Launch;

Status Gelu(const Stream& stream, DType dtype, int64_t n, const void* z,
            void* a) {
  return Launch(
      stream, dtype,
      {.kernel = ActivationKernel::kGelu, .n = n, .in = {z}, .out = {a}},
      [=](LayerKernels& device) { return device.Gelu(dtype, n, z, a); });
}

Status GeluBackward(const Stream& stream, DType dtype, int64_t n, const void* z,
                    const void* da, void* dz) {
  return Launch(stream, dtype,
                {.kernel = ActivationKernel::kGeluBackward,
                 .n = n,
                 .in = {z, da},
                 .out = {dz}},
                [=](LayerKernels& device) {
                  return device.GeluBackward(dtype, n, z, da, dz);
                });
}

Status SwiGlu(const Stream& stream, DType dtype, int64_t n, const void* gate,
              const void* up, void* a) {
  return Launch(stream, dtype,
                {.kernel = ActivationKernel::kSwiGlu,
                 .n = n,
                 .in = {gate, up},
                 .out = {a}},
                [=](LayerKernels& device) {
                  return device.SwiGlu(dtype, n, gate, up, a);
                });
}

Status SwiGluBackward(const Stream& stream, DType dtype, int64_t n,
                      const void* gate, const void* up, const void* da,
                      void* dgate, void* dup) {
  return Launch(stream, dtype,
                {.kernel = ActivationKernel::kSwiGluBackward,
                 .n = n,
                 .in = {gate, up, da},
                 .out = {dgate, dup}},
                [=](LayerKernels& device) {
                  return device.SwiGluBackward(dtype, n, gate, up, da, dgate,
                                               dup);
                });
}

Status ColumnSum(const Stream& stream, DType dtype, int64_t rows,
                 int64_t columns, const void* x, void* out) {
  return Launch(stream, dtype,
                {.kernel = ActivationKernel::kColumnSum,
                 .n = columns,
                 .in = {x},
                 .out = {out},
                 .rows = rows},
                [=](LayerKernels& device) {
                  return device.ColumnSum(dtype, rows, columns, x, out);
                });
}

Status AddBias(const Stream& stream, DType dtype, int64_t rows, int64_t columns,
               const void* b, void* y) {
  return Launch(stream, dtype,
                {.kernel = ActivationKernel::kAddBias,
                 .n = columns,
                 .in = {b},
                 .out = {y},
                 .rows = rows},
                [=](LayerKernels& device) {
                  return device.AddBias(dtype, rows, columns, b, y);
                });
}

}  // namespace shardproof
#endif  // HWY_ONCE
