// The element-wise loops of an optimizer step on a GPU: the contract of ../optimizer.h, for parameters of f32, bf16 and
// f16. Weights and moments are of f32: where parameters are narrower, `master` holds the weights.
//
//     void(SgdArgs), void(AdamArgs)                 any grid; kernels for gradients of the parameters' type, and of f32
//     void(WidenArgs)                               any grid
//     void(SquareArgs)                              AddSquares: stage 1, any grid; FinishSquares: stage 2, one block
//
// Bytes of each element, for parameters of e bytes and gradients of g: Adam g + 12 read and e + 12 written (f32 parameters
// are the weights: g + 12 and 12); SGD with momentum g + 8 and e + 8, without g + 4 and e + 4. AddSquares g read.
//
// Squares are added in f64, in an order that depends on n, the grid and the threads of a block alone.
#ifndef SHARDPROOF_LAYERS_KERNELS_CUDA_OPTIMIZER_H_
#define SHARDPROOF_LAYERS_KERNELS_CUDA_OPTIMIZER_H_

#include <cmath>
#include <cstdint>
#include <type_traits>

#include "layers/kernels/cuda/packet.h"
#include "layers/kernels/cuda/team.h"
#include "layers/kernels/optimizer.h"

namespace shardproof::cuda {

// update(w, g, m, v): one element, in place. Moments that are not there are 0 and not written.
template <class T, class G, class Context, class Update>
SHARDPROOF_DEVICE void UpdateAll(Context& context, const UpdateTensors& t,
                                 const Update& update) {
  constexpr bool kHasMaster = !std::is_same_v<T, float>;
  // As many as the narrower of the two has in 16 bytes.
  constexpr int kN = kPerVector<T>;
  auto* const parameter = static_cast<T*>(t.parameter);
  auto* const weights =
      static_cast<float*>(kHasMaster ? t.master : t.parameter);
  const auto* const gradient = static_cast<const G*>(t.gradient);
  auto* const first = static_cast<float*>(t.first);
  auto* const second = static_cast<float*>(t.second);
  ForTensor<kN>(
      context, t.n, AllAligned(parameter, weights, gradient, first, second),
      [&](const auto& map, int64_t k) {
        auto w = LoadPacket(context, map, k, weights);
        const auto g = LoadPacket(context, map, k, gradient);
        Packet<float, kN> m{}, v{};
        if (first != nullptr) m = LoadPacket(context, map, k, first);
        if (second != nullptr) v = LoadPacket(context, map, k, second);
        Unrolled<kN>([&](int j) {
          update(w.values[j], context.Widen(g.values[j]), m.values[j],
                 v.values[j]);
        });
        if (first != nullptr) StorePacket(context, map, k, first, m);
        if (second != nullptr) StorePacket(context, map, k, second, v);
        StorePacket(context, map, k, weights, w);
        if constexpr (kHasMaster) {
          Packet<T, kN> narrow;
          Unrolled<kN>([&](int j) {
            narrow.values[j] = context.template Narrow<T>(w.values[j]);
          });
          StorePacket(context, map, k, parameter, narrow);
        }
      });
}

template <class T, class G, class Context>
SHARDPROOF_DEVICE void SgdStep(Context& context, const SgdArgs& a) {
  const auto scale = static_cast<float>(a.gradient_scale);
  const auto decay = static_cast<float>(a.coupled_decay);
  const auto momentum = static_cast<float>(a.momentum);
  const auto rate = static_cast<float>(a.learning_rate);
  UpdateTensors tensors = a.tensors;
  tensors.second = nullptr;
  const bool moves = tensors.first != nullptr;
  UpdateAll<T, G>(context, tensors,
                  [&](float& w, float gradient, float& m, float& /*v*/) {
                    float g = gradient * scale;
                    if (decay != 0) g = fmaf(decay, w, g);
                    if (moves) m = g = fmaf(momentum, m, g);
                    w = fmaf(-rate, g, w);
                  });
}

template <class T, class G, class Context>
SHARDPROOF_DEVICE void AdamStep(Context& context, const AdamArgs& a) {
  const auto scale = static_cast<float>(a.gradient_scale);
  const auto decay = static_cast<float>(a.coupled_decay);
  const auto beta1 = static_cast<float>(a.beta1);
  const auto beta2 = static_cast<float>(a.beta2);
  const auto rest1 = static_cast<float>(1 - a.beta1);
  const auto rest2 = static_cast<float>(1 - a.beta2);
  const auto epsilon = static_cast<float>(a.epsilon);
  const auto second_scale = static_cast<float>(a.second_scale);
  const auto shrink = static_cast<float>(a.shrink);
  const auto step = static_cast<float>(a.step_size);
  UpdateAll<T, G>(context, a.tensors,
                  [&](float& w, float gradient, float& m, float& v) {
                    float g = gradient * scale;
                    if (decay != 0) g = fmaf(decay, w, g);
                    m = fmaf(beta1, m, rest1 * g);
                    v = fmaf(beta2, v, (rest2 * g) * g);
                    const float root = fmaf(sqrtf(v), second_scale, epsilon);
                    w = fmaf(-step, m / root, w * shrink);
                  });
}

// master[i] = parameter[i].
struct WidenArgs {
  int64_t n = 0;
  const void* parameter = nullptr;
  float* master = nullptr;
};
template <class T, class Context>
SHARDPROOF_DEVICE void WidenParameters(Context& context, const WidenArgs& a) {
  constexpr int kN = kPerVector<T>;
  const auto* const parameter = static_cast<const T*>(a.parameter);
  ForTensor<kN>(context, a.n, AllAligned(parameter, a.master),
                [&](const auto& map, int64_t k) {
                  const auto packet = LoadPacket(context, map, k, parameter);
                  Packet<float, kN> wide;
                  Unrolled<kN>([&](int j) {
                    wide.values[j] = context.Widen(packet.values[j]);
                  });
                  StorePacket(context, map, k, a.master, wide);
                });
}

// x - x is 0 where x is finite and NaN elsewhere, and so is the sum of all those.
struct Squares {
  double sum, bad;
};
struct SquareArgs {
  int64_t n = 0;  // Stage 2: of partials.
  const void* x = nullptr;
  Squares* partials = nullptr;  // One for each block of stage 1.
  SquareSum* total = nullptr;   // Is added to, in stage 2.
};

template <class Team>
SHARDPROOF_DEVICE Squares AddUp(Team& team, const Squares& mine) {
  return team.Reduce(mine, [](const Squares& a, const Squares& b) {
    return Squares{a.sum + b.sum, a.bad + b.bad};
  });
}

template <class T, class Team>
SHARDPROOF_DEVICE void AddSquares(Team& team, const SquareArgs& a) {
  constexpr int kN = kPerVector<T>;
  auto& context = team.context();
  const auto* const x = static_cast<const T*>(a.x);
  Squares mine = {0, 0};
  ForTensor<kN>(context, a.n, AllAligned(x), [&](const auto& map, int64_t k) {
    const auto packet = LoadPacket(context, map, k, x);
    Unrolled<kN>([&](int j) {
      const auto v = static_cast<double>(context.Widen(packet.values[j]));
      mine.sum += v * v;
      mine.bad += v - v;
    });
  });
  mine = AddUp(team, mine);
  if (team.thread() == 0) context.Store(a.partials + context.block(), mine);
}

template <class Team>
SHARDPROOF_DEVICE void FinishSquares(Team& team, const SquareArgs& a) {
  auto& context = team.context();
  if (context.block() != 0) return;
  Squares mine = {0, 0};
  for (int64_t i = team.thread(); i < a.n; i += team.threads()) {
    const Squares part = context.Load(a.partials + i);
    mine.sum += part.sum;
    mine.bad += part.bad;
  }
  mine = AddUp(team, mine);
  if (team.thread() != 0) return;
  SquareSum total = context.Load(a.total);
  total.sum += mine.sum;
  total.finite = total.finite && mine.bad == 0;
  context.Store(a.total, total);
}

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_LAYERS_KERNELS_CUDA_OPTIMIZER_H_
