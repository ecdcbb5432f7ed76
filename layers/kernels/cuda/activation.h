// Activation functions and their derivatives on a GPU: the contract of ../activation.h, for f32, bf16 and f16.
//
//     void(ActivationArgs)        any grid
//
// Bytes, for n elements of e bytes: Gelu n e read and written; GeluBackward and SwiGlu 2 n e and n e; SwiGluBackward 3 n e
// and 2 n e; AddBias n e each way, and the bias from a cache.
//
// ColumnSums is stage 1 of ColumnSum; stage 2 is SumPartials (partial_sums.h) and then RoundSums, which rounds to the type
// of the gradient. It reads n e bytes, and writes 4 for each column and block.
#ifndef SHARDPROOF_LAYERS_KERNELS_CUDA_ACTIVATION_H_
#define SHARDPROOF_LAYERS_KERNELS_CUDA_ACTIVATION_H_

#include <cmath>
#include <cstdint>

#include "layers/kernels/cuda/packet.h"

namespace shardproof::cuda {

// As the parameters of ../activation.h: those that a kernel has.
struct ActivationArgs {
  int64_t n = 0;  // Elements; columns where there are rows.
  int64_t rows = 0;
  const void* x = nullptr;   // z, the gate, or what is summed or rounded
  const void* up = nullptr;  // or the bias
  const void* da = nullptr;
  void* out = nullptr;  // a, dz, dgate or y; may be x
  void* dup = nullptr;  // May be up.
};

// 1 / (1 + exp(-x)) through exp(-|x|), which cannot overflow.
SHARDPROOF_DEVICE float Sigmoid(float x) {
  const float e = expf(-fabsf(x));
  return (x < 0 ? e : 1.0F) / (1 + e);
}

inline constexpr float kTwoRootTwoOverPi = 1.5957691216057308F;
inline constexpr float kGeluCubic = 0.044715F;

// gelu(x) = x sigmoid(2 sqrt(2/pi) (x + 0.044715 x^3)): the tanh form without the cancellation of 1 + tanh for
// negative x.
SHARDPROOF_DEVICE float GeluSigmoid(float x) {
  return Sigmoid(kTwoRootTwoOverPi * x * fmaf(kGeluCubic, x * x, 1.0F));
}
SHARDPROOF_DEVICE float GeluOf(float x) { return x * GeluSigmoid(x); }
// gelu' = s + x s (1 - s) u', u the argument of the sigmoid s.
SHARDPROOF_DEVICE float GeluSlope(float x) {
  const float s = GeluSigmoid(x);
  const float du = kTwoRootTwoOverPi * fmaf(3 * kGeluCubic, x * x, 1.0F);
  return s + (x * du) * (s * (1 - s));
}

template <class T, class Context>
SHARDPROOF_DEVICE void Gelu(Context& context, const ActivationArgs& a) {
  constexpr int kN = kPerVector<T>;
  const auto* const z = static_cast<const T*>(a.x);
  auto* const out = static_cast<T*>(a.out);
  ForTensor<kN>(context, a.n, AllAligned(z, out),
                [&](const auto& map, int64_t k) {
                  auto packet = LoadPacket(context, map, k, z);
                  Unrolled<kN>([&](int j) {
                    packet.values[j] = context.template Narrow<T>(
                        GeluOf(context.Widen(packet.values[j])));
                  });
                  StorePacket(context, map, k, out, packet);
                });
}

template <class T, class Context>
SHARDPROOF_DEVICE void GeluBackward(Context& context, const ActivationArgs& a) {
  constexpr int kN = kPerVector<T>;
  const auto* const z = static_cast<const T*>(a.x);
  const auto* const da = static_cast<const T*>(a.da);
  auto* const out = static_cast<T*>(a.out);
  ForTensor<kN>(context, a.n, AllAligned(z, da, out),
                [&](const auto& map, int64_t k) {
                  const auto packet = LoadPacket(context, map, k, z);
                  auto gradient = LoadPacket(context, map, k, da);
                  Unrolled<kN>([&](int j) {
                    gradient.values[j] = context.template Narrow<T>(
                        context.Widen(gradient.values[j]) *
                        GeluSlope(context.Widen(packet.values[j])));
                  });
                  StorePacket(context, map, k, out, gradient);
                });
}

template <class T, class Context>
SHARDPROOF_DEVICE void SwiGlu(Context& context, const ActivationArgs& a) {
  constexpr int kN = kPerVector<T>;
  const auto* const gate = static_cast<const T*>(a.x);
  const auto* const up = static_cast<const T*>(a.up);
  auto* const out = static_cast<T*>(a.out);
  ForTensor<kN>(
      context, a.n, AllAligned(gate, up, out), [&](const auto& map, int64_t k) {
        auto g = LoadPacket(context, map, k, gate);
        const auto u = LoadPacket(context, map, k, up);
        Unrolled<kN>([&](int j) {
          const float x = context.Widen(g.values[j]);
          g.values[j] = context.template Narrow<T>((x * Sigmoid(x)) *
                                                   context.Widen(u.values[j]));
        });
        StorePacket(context, map, k, out, g);
      });
}

template <class T, class Context>
SHARDPROOF_DEVICE void SwiGluBackward(Context& context,
                                      const ActivationArgs& a) {
  constexpr int kN = kPerVector<T>;
  const auto* const gate = static_cast<const T*>(a.x);
  const auto* const up = static_cast<const T*>(a.up);
  const auto* const da = static_cast<const T*>(a.da);
  auto* const dgate = static_cast<T*>(a.out);
  auto* const dup = static_cast<T*>(a.dup);
  ForTensor<kN>(context, a.n, AllAligned(gate, up, da, dgate, dup),
                [&](const auto& map, int64_t k) {
                  auto g = LoadPacket(context, map, k, gate);
                  auto u = LoadPacket(context, map, k, up);
                  const auto d = LoadPacket(context, map, k, da);
                  Unrolled<kN>([&](int j) {
                    const float x = context.Widen(g.values[j]);
                    const float v = context.Widen(d.values[j]);
                    const float s = Sigmoid(x);
                    const float slope = s * fmaf(x, 1 - s, 1.0F);
                    g.values[j] = context.template Narrow<T>(
                        (v * context.Widen(u.values[j])) * slope);
                    u.values[j] = context.template Narrow<T>(v * (x * s));
                  });
                  StorePacket(context, map, k, dgate, g);
                  StorePacket(context, map, k, dup, u);
                });
}

// out[i] = x[i], rounded from f32 to T.
template <class T, class Context>
SHARDPROOF_DEVICE void RoundSums(Context& context, const ActivationArgs& a) {
  constexpr int kN = kPerVector<T>;
  const auto* const sums = static_cast<const float*>(a.x);
  auto* const out = static_cast<T*>(a.out);
  ForTensor<kN>(
      context, a.n, AllAligned(sums, out), [&](const auto& map, int64_t k) {
        const auto wide = LoadPacket(context, map, k, sums);
        Packet<T, kN> packet;
        Unrolled<kN>([&](int j) {
          packet.values[j] = context.template Narrow<T>(wide.values[j]);
        });
        StorePacket(context, map, k, out, packet);
      });
}

// Block b of B takes rows b, b + B, ...
template <class T, class Context>
SHARDPROOF_DEVICE void AddBias(Context& context, const ActivationArgs& a) {
  constexpr int kN = kPerVector<T>;
  const auto* const bias = static_cast<const T*>(a.up);
  for (int64_t row = context.block(); row < a.rows; row += context.blocks()) {
    T* const y = static_cast<T*>(a.out) + row * a.n;
    const PacketMap<kN> map(static_cast<int>(a.n), context.thread(),
                            context.threads(), AllAligned(bias, y));
    for (int k = 0; map.Has(k); ++k) {
      const auto b = LoadPacket(context, map, k, bias);
      auto packet = LoadPacket(context, map, k, y);
      Unrolled<kN>([&](int j) {
        packet.values[j] = context.template Narrow<T>(
            context.Widen(packet.values[j]) + context.Widen(b.values[j]));
      });
      StorePacket(context, map, k, y, packet);
    }
  }
}

// sums[b, j] = sum over the rows b, b + B, ... of x[i, j], ascending: [blocks, columns], in registers.
template <class T, class Context>
SHARDPROOF_DEVICE void ColumnSums(Context& context, const ActivationArgs& a) {
  constexpr int kN = kPerVector<T>;
  const auto* const x = static_cast<const T*>(a.x);
  float* const sums = static_cast<float*>(a.out) + context.block() * a.n;
  const PacketMap<kN> map(static_cast<int>(a.n), context.thread(),
                          context.threads(),
                          a.n % kN == 0 && AllAligned(x, a.out));
  for (int k = 0; map.Has(k); ++k) {
    Packet<float, kN> sum{};
    for (int64_t row = context.block(); row < a.rows; row += context.blocks()) {
      const auto packet = LoadPacket(context, map, k, x + row * a.n);
      Unrolled<kN>(
          [&](int j) { sum.values[j] += context.Widen(packet.values[j]); });
    }
    StorePacket(context, map, k, sums, sum);
  }
}

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_LAYERS_KERNELS_CUDA_ACTIVATION_H_
