#include "layers/kernels/optimizer.h"

#include <cstring>

#include "collectives/kernels/targets.h"
#include "layers/kernels/convert.h"
#include "layers/kernels/layer_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/kernels/optimizer.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

// After highway.h, once per instruction set.
#include "collectives/kernels/codec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace shardproof::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Calls step(d, i) for whole vectors and then for single lanes: an element's
// bits do not depend on where it lies.
template <typename Lane, class Step>
HWY_INLINE void ForEachVector(int64_t n, Step step) {
  const hn::ScalableTag<Lane> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes) step(d, i);
  for (; i < n; ++i) step(hn::CappedTag<Lane, 1>(), i);
}

// Lanes of x as f64.
template <typename T, class D>
HWY_INLINE hn::Vec<D> LoadWide(D d, const T* x) {
  if constexpr (sizeof(typename Codec<T>::Lane) == sizeof(double)) {
    return Codec<T>::Load(d, x);
  } else {
    return hn::PromoteTo(d, Codec<T>::Load(hn::Rebind<float, D>(), x));
  }
}

// Four sums, so that additions need not wait for one another. x - x is 0 where
// x is finite and NaN elsewhere, and so is the sum of all those.
template <typename T>
void AddSquaresTyped(int64_t n, const T* x, SquareSum* total) {
  const hn::ScalableTag<double> d;
  const auto lanes = static_cast<int64_t>(hn::Lanes(d));
  auto s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0, bad = s0;
  const auto add = [&](auto& sum, int64_t i) {
    const auto v = LoadWide(d, x + i);
    sum = hn::MulAdd(v, v, sum);
    bad = hn::Add(bad, hn::Sub(v, v));
  };
  int64_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    add(s0, i);
    add(s1, i + lanes);
    add(s2, i + 2 * lanes);
    add(s3, i + 3 * lanes);
  }
  for (; i + lanes <= n; i += lanes) add(s0, i);
  double rest = 0, rest_bad = 0;
  for (; i < n; ++i) {
    const auto v = static_cast<double>(x[i]);
    rest += v * v;
    rest_bad += v - v;
  }
  const auto all = hn::Add(hn::Add(s0, s1), hn::Add(s2, s3));
  total->sum += hn::GetLane(hn::SumOfLanes(d, all)) + rest;
  rest_bad += hn::GetLane(hn::SumOfLanes(d, bad));
  total->finite = total->finite && rest_bad == 0;
}

// A weight with what belongs to it.
template <typename T>
struct Weights {
  using Lane = typename Codec<T>::Lane;
  static constexpr bool kHasMaster = Codec<T>::kNarrow;

  explicit Weights(const UpdateTensors& t)
      : parameter(static_cast<T*>(t.parameter)),
        master(static_cast<Lane*>(kHasMaster ? t.master : t.parameter)) {}

  template <class D>
  HWY_INLINE hn::Vec<D> Load(D d, int64_t i) const {
    return hn::LoadU(d, master + i);
  }
  template <class D>
  HWY_INLINE void Store(hn::Vec<D> w, D d, int64_t i) const {
    hn::StoreU(w, d, master + i);
    if constexpr (kHasMaster) Codec<T>::Store(w, d, parameter + i);
  }

  T* parameter;
  Lane* master;
};

template <typename T, typename G>
void SgdTyped(const SgdArgs& a) {
  using Lane = typename Codec<T>::Lane;
  const Weights<T> weights(a.tensors);
  const auto* const gradient = static_cast<const G*>(a.tensors.gradient);
  auto* const moment = static_cast<Lane*>(a.tensors.first);
  ForEachVector<Lane>(a.tensors.n, [&](auto d, int64_t i) {
    const auto value = [d](double x) {
      return hn::Set(d, static_cast<Lane>(x));
    };
    auto w = weights.Load(d, i);
    auto g = hn::Mul(Codec<G>::Load(d, gradient + i), value(a.gradient_scale));
    if (a.coupled_decay != 0) g = hn::MulAdd(value(a.coupled_decay), w, g);
    if (moment != nullptr) {
      g = hn::MulAdd(value(a.momentum), hn::LoadU(d, moment + i), g);
      hn::StoreU(g, d, moment + i);
    }
    weights.Store(hn::NegMulAdd(value(a.learning_rate), g, w), d, i);
  });
}

template <typename T, typename G>
void AdamTyped(const AdamArgs& a) {
  using Lane = typename Codec<T>::Lane;
  const Weights<T> weights(a.tensors);
  const auto* const gradient = static_cast<const G*>(a.tensors.gradient);
  auto* const first = static_cast<Lane*>(a.tensors.first);
  auto* const second = static_cast<Lane*>(a.tensors.second);
  ForEachVector<Lane>(a.tensors.n, [&](auto d, int64_t i) {
    const auto value = [d](double x) {
      return hn::Set(d, static_cast<Lane>(x));
    };
    auto w = weights.Load(d, i);
    auto g = hn::Mul(Codec<G>::Load(d, gradient + i), value(a.gradient_scale));
    if (a.coupled_decay != 0) g = hn::MulAdd(value(a.coupled_decay), w, g);
    const auto m = hn::MulAdd(value(a.beta1), hn::LoadU(d, first + i),
                              hn::Mul(value(1 - a.beta1), g));
    const auto v = hn::MulAdd(value(a.beta2), hn::LoadU(d, second + i),
                              hn::Mul(hn::Mul(value(1 - a.beta2), g), g));
    hn::StoreU(m, d, first + i);
    hn::StoreU(v, d, second + i);
    const auto root =
        hn::MulAdd(hn::Sqrt(v), value(a.second_scale), value(a.epsilon));
    if (a.shrink != 1) w = hn::Mul(w, value(a.shrink));
    w = hn::NegMulAdd(value(a.step_size), hn::Div(m, root), w);
    weights.Store(w, d, i);
  });
}

void AddSquaresDispatched(DType dtype, int64_t n, const void* x,
                          SquareSum* total) {
  switch (dtype) {
    case DType::kF64:
      return AddSquaresTyped(n, static_cast<const double*>(x), total);
    case DType::kF32:
      return AddSquaresTyped(n, static_cast<const float*>(x), total);
    case DType::kBF16:
      return AddSquaresTyped(n, static_cast<const BFloat16*>(x), total);
    default:
      return AddSquaresTyped(n, static_cast<const Float16*>(x), total);
  }
}

// Calls run(TypeTag of the parameters, TypeTag of the gradients).
template <class Run>
HWY_INLINE void ForTypes(const UpdateTensors& t, Run run) {
  const bool wide = t.gradient_dtype != t.dtype;
  switch (t.dtype) {
    case DType::kF64:
      return run(TypeTag<double>(), TypeTag<double>());
    case DType::kF32:
      return run(TypeTag<float>(), TypeTag<float>());
    case DType::kBF16:
      if (wide) return run(TypeTag<BFloat16>(), TypeTag<float>());
      return run(TypeTag<BFloat16>(), TypeTag<BFloat16>());
    default:
      if (wide) return run(TypeTag<Float16>(), TypeTag<float>());
      return run(TypeTag<Float16>(), TypeTag<Float16>());
  }
}

void SgdDispatched(const SgdArgs& args) {
  ForTypes(args.tensors, [&]<typename T, typename G>(TypeTag<T>, TypeTag<G>) {
    SgdTyped<T, G>(args);
  });
}

void AdamDispatched(const AdamArgs& args) {
  ForTypes(args.tensors, [&]<typename T, typename G>(TypeTag<T>, TypeTag<G>) {
    AdamTyped<T, G>(args);
  });
}

}  // namespace shardproof::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shardproof {
namespace kernels {

HWY_EXPORT(AddSquaresDispatched);
HWY_EXPORT(SgdDispatched);
HWY_EXPORT(AdamDispatched);

namespace {

Status CheckType(DType dtype) {
  if (dtype == DType::kF64 || dtype == DType::kF32 || dtype == DType::kBF16 ||
      dtype == DType::kF16) {
    return OkStatus();
  }
  return Unsupported("optimizers step f64, f32, bf16 or f16, not {}",
                     Name(dtype));
}

Status CheckTensors(const UpdateTensors& t, bool needs_first,
                    bool needs_second) {
  SP_RETURN_IF_ERROR(CheckType(t.dtype));
  if (t.gradient_dtype != t.dtype && t.gradient_dtype != Accumulator(t.dtype)) {
    return Unsupported("gradients of {} parameters are {} or {}, not {}",
                       Name(t.dtype), Name(t.dtype), Name(Accumulator(t.dtype)),
                       Name(t.gradient_dtype));
  }
  if (t.n == 0) return OkStatus();
  const bool narrow = Accumulator(t.dtype) != t.dtype;
  if (t.parameter == nullptr || t.gradient == nullptr ||
      (narrow && t.master == nullptr) || (needs_first && t.first == nullptr) ||
      (needs_second && t.second == nullptr)) {
    return InvalidArgument("a tensor of an optimizer step is missing");
  }
  return OkStatus();
}

// A build for one instruction set can name these only in this namespace.
template <class... Args>
void CallAddSquares(Args... args) {
  HWY_DYNAMIC_DISPATCH(AddSquaresDispatched)(args...);
}

template <class... Args>
void CallSgd(Args... args) {
  HWY_DYNAMIC_DISPATCH(SgdDispatched)(args...);
}

template <class... Args>
void CallAdam(Args... args) {
  HWY_DYNAMIC_DISPATCH(AdamDispatched)(args...);
}

}  // namespace
}  // namespace kernels

Status AddSquares(const Stream& stream, DType dtype, int64_t n, const void* x,
                  SquareSum* total) {
  SP_RETURN_IF_ERROR(kernels::CheckType(dtype));
  return RunKernel(
      stream,
      [=](LayerKernels& device) {
        return device.AddSquares(dtype, n, x, total);
      },
      [=] {
        kernels::CallAddSquares(dtype, n, x, total);
        return Status();
      });
}

Status SgdStep(const Stream& stream, const SgdArgs& args) {
  SP_RETURN_IF_ERROR(
      kernels::CheckTensors(args.tensors, args.momentum != 0, false));
  return RunKernel(
      stream, [args](LayerKernels& device) { return device.SgdStep(args); },
      [args] {
        kernels::CallSgd(args);
        return Status();
      });
}

Status AdamStep(const Stream& stream, const AdamArgs& args) {
  SP_RETURN_IF_ERROR(kernels::CheckTensors(args.tensors, true, true));
  return RunKernel(
      stream, [args](LayerKernels& device) { return device.AdamStep(args); },
      [args] {
        kernels::CallAdam(args);
        return Status();
      });
}

Status WidenParameters(const Stream& stream, DType dtype, int64_t n,
                       const void* parameter, void* master) {
  SP_RETURN_IF_ERROR(kernels::CheckType(dtype));
  const auto host = [=] {
    if (dtype == DType::kF64) {
      if (n > 0) {
        std::memcpy(master, parameter, static_cast<size_t>(n) * sizeof(double));
      }
    } else {
      kernels::Widen(dtype, parameter, n, static_cast<float*>(master));
    }
    return Status();
  };
  return RunKernel(
      stream,
      [=](LayerKernels& device) {
        return device.WidenParameters(dtype, n, parameter, master);
      },
      host);
}

}  // namespace shardproof
#endif  // HWY_ONCE
