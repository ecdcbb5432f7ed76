#include "layers/kernels/rope.h"

#include <array>
#include <cmath>
#include <cstring>
#include <utility>

#include "collectives/kernels/targets.h"
#include "layers/kernels/layer_kernels.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "layers/kernels/rope.cc"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

// After highway.h, once per instruction set.
#include "collectives/kernels/codec-inl.h"

HWY_BEFORE_NAMESPACE();
namespace shardproof::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// One head, `half` pairs. sign -1 turns back.
template <typename T, typename Lane>
void RotateHead(int64_t half, Lane sign, const Lane* cosines, const Lane* sines,
                T* x) {
  const hn::ScalableTag<Lane> d;
  const int64_t lanes = static_cast<int64_t>(hn::Lanes(d));
  const auto direction = hn::Set(d, sign);
  const auto turn = [&](const Lane* c, const Lane* s, T* low, T* high) {
    const auto cosine = hn::LoadU(d, c);
    const auto sine = hn::Mul(hn::LoadU(d, s), direction);
    const auto a = Codec<T>::Load(d, low);
    const auto b = Codec<T>::Load(d, high);
    Codec<T>::Store(hn::NegMulAdd(b, sine, hn::Mul(a, cosine)), d, low);
    Codec<T>::Store(hn::MulAdd(a, sine, hn::Mul(b, cosine)), d, high);
  };
  int64_t i = 0;
  for (; i + lanes <= half; i += lanes) {
    turn(cosines + i, sines + i, x + i, x + half + i);
  }
  if (i == half) return;
  // What does not fill a vector: the same code on padded copies.
  const auto rest = static_cast<size_t>(half - i);
  HWY_ALIGN std::array<Lane, hn::MaxLanes(d)> c{}, s{};
  HWY_ALIGN std::array<T, hn::MaxLanes(d)> low{}, high{};
  const auto copy = [rest](auto* to, const auto* from) {
    std::memcpy(static_cast<void*>(to), from, rest * sizeof(*from));
  };
  copy(c.data(), cosines + i);
  copy(s.data(), sines + i);
  copy(low.data(), x + i);
  copy(high.data(), x + half + i);
  turn(c.data(), s.data(), low.data(), high.data());
  copy(x + i, low.data());
  copy(x + half + i, high.data());
}

template <typename T>
void RotateTyped(const RopeTable& table, RopeDirection direction,
                 const RopeArgs& args) {
  using Lane = typename Codec<T>::Lane;
  const int64_t d = table.config().head_dim;
  const Lane sign = direction == RopeDirection::kForward ? 1 : -1;
  for (int64_t t = 0; t < args.tokens; ++t) {
    const int64_t row = t % table.rows() * (d / 2);
    const Lane* c = static_cast<const Lane*>(table.cosines()) + row;
    const Lane* s = static_cast<const Lane*>(table.sines()) + row;
    T* x = static_cast<T*>(args.x) + t * args.stride;
    for (int64_t h = 0; h < args.heads; ++h) {
      RotateHead<T>(d / 2, sign, c, s, x + h * d);
    }
  }
}

void RotateDispatched(const RopeTable& table, RopeDirection direction,
                      const RopeArgs& args) {
  switch (table.config().dtype) {
    case DType::kF64:
      return RotateTyped<double>(table, direction, args);
    case DType::kF32:
      return RotateTyped<float>(table, direction, args);
    case DType::kBF16:
      return RotateTyped<BFloat16>(table, direction, args);
    default:
      return RotateTyped<Float16>(table, direction, args);
  }
}

}  // namespace shardproof::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shardproof {
namespace kernels {

HWY_EXPORT(RotateDispatched);

namespace {

void Rotate(const RopeTable& table, RopeDirection direction,
            const RopeArgs& args) {
  HWY_DYNAMIC_DISPATCH(RotateDispatched)(table, direction, args);
}

template <typename Lane>
void Tabulate(const RopeConfig& config, std::span<const int64_t> positions,
              Lane* cosines, Lane* sines) {
  const int64_t half = config.head_dim / 2;
  for (int64_t i = 0; i < half; ++i) {
    const long double frequency =
        std::pow(static_cast<long double>(config.theta),
                 -2.0L * static_cast<long double>(i) /
                     static_cast<long double>(config.head_dim));
    for (size_t p = 0; p < positions.size(); ++p) {
      const long double angle =
          static_cast<long double>(positions[p]) * frequency;
      cosines[static_cast<int64_t>(p) * half + i] =
          static_cast<Lane>(std::cos(angle));
      sines[static_cast<int64_t>(p) * half + i] =
          static_cast<Lane>(std::sin(angle));
    }
  }
}

}  // namespace
}  // namespace kernels

StatusOr<RopeTable> RopeTable::Create(const RopeConfig& config,
                                      std::span<const int64_t> positions) {
  const DType dtype = config.dtype;
  if (dtype != DType::kF64 && dtype != DType::kF32 && dtype != DType::kBF16 &&
      dtype != DType::kF16) {
    return Unsupported("rotary embeddings are of f64, f32, bf16 or f16, not {}",
                       Name(dtype));
  }
  if (config.head_dim < 0 || config.head_dim % 2 != 0) {
    return InvalidArgument(
        "a rotary embedding turns pairs: the head dimension must be even, not "
        "{}",
        config.head_dim);
  }
  if (!(config.theta > 0) || !std::isfinite(config.theta)) {
    return InvalidArgument("the theta of a rotary embedding is {}, not above 0",
                           config.theta);
  }
  RopeTable table;
  table.config_ = config;
  const Shape shape = {static_cast<int64_t>(positions.size()),
                       config.head_dim / 2};
  const DType stored = Accumulator(dtype);
  SP_ASSIGN_OR_RETURN(table.cosines_, Tensor::Create(stored, shape));
  SP_ASSIGN_OR_RETURN(table.sines_, Tensor::Create(stored, shape));
  if (stored == DType::kF64) {
    kernels::Tabulate(config, positions, table.cosines_.data<double>(),
                      table.sines_.data<double>());
  } else {
    kernels::Tabulate(config, positions, table.cosines_.data<float>(),
                      table.sines_.data<float>());
  }
  return table;
}

Status Rope(const Stream& stream, const RopeTable& table,
            RopeDirection direction, const RopeArgs& args) {
  if (args.tokens == 0 || args.heads == 0) return OkStatus();
  if (table.rows() == 0 || args.tokens % table.rows() != 0) {
    return InvalidArgument(
        "{} tokens are no whole number of sequences of {} positions",
        args.tokens, table.rows());
  }
  return RunKernel(
      stream,
      [&table, direction, args](LayerKernels& device) {
        return device.Rope(table, direction, args);
      },
      [&table, direction, args] {
        kernels::Rotate(table, direction, args);
        return Status();
      });
}

}  // namespace shardproof
#endif  // HWY_ONCE
