// The local work of a cross entropy whose logits are cut by columns, on a GPU: the contract of ../cross_entropy.h, for
// logits of f32, bf16 and f16. Statistics are of f32.
//
//     void(CrossEntropyShape, CrossEntropyRows)
//
//     CrossEntropyLocal     a block for each token. Reads its row once: every thread keeps a maximum of its own, and rescales
//                           its sums when a group of packets has a larger one; then the threads' are put together
//     CrossEntropyRescale   a thread for each token
//     CrossEntropyLoss      one block: the total is added in f64, in an order that depends on its threads alone
//     CrossEntropyGradient  a block for each token. Reads its row and writes it
//
// Bytes, for n = tokens x valid logits of e bytes: n e read; n e read and written in the gradient, and padding written.
//
// For bounds: sums are rescaled once for each kCrossEntropyGroup packets of a thread, and once more when the threads' are
// put together.
#ifndef SHARDPROOF_LAYERS_KERNELS_CUDA_CROSS_ENTROPY_H_
#define SHARDPROOF_LAYERS_KERNELS_CUDA_CROSS_ENTROPY_H_

#include <cmath>
#include <cstdint>

#include "layers/kernels/cross_entropy.h"
#include "layers/kernels/cuda/packet.h"
#include "layers/kernels/cuda/team.h"

namespace shardproof::cuda {

// The parameters of the functions of ../cross_entropy.h; each kernel has some of them.
struct CrossEntropyRows {
  const void* logits = nullptr;
  const int64_t* targets = nullptr;
  float* local_max = nullptr;  // [tokens]
  const float* max = nullptr;  // [tokens]
  float* sums = nullptr;       // [2 tokens]
  float* loss = nullptr;       // [tokens]
  double* total = nullptr;     // One, of the losses.
  const float* inverse_sums = nullptr;
  CrossEntropyUpstream upstream = {};
  void* dlogits = nullptr;
};

inline constexpr int kCrossEntropyGroup = 4;

// Of some logits: the largest, and against it the sum of exp and of x; and how many they are.
struct LogitSums {
  float max, exp, spread, count;
};

// `sums` against `max` instead, which is not less.
SHARDPROOF_DEVICE LogitSums Against(const LogitSums& sums, float max) {
  if (sums.max == max) return sums;
  const float shift = sums.max - max;
  // Nothing has no spread, although its maximum is infinitely far.
  const float moved = sums.count > 0 ? sums.count * shift : 0.0F;
  return {max, sums.exp * expf(shift), sums.spread + moved, sums.count};
}

SHARDPROOF_DEVICE LogitSums Together(const LogitSums& a, const LogitSums& b) {
  const float max = fmaxf(a.max, b.max);
  const LogitSums x = Against(a, max), y = Against(b, max);
  return {max, x.exp + y.exp, x.spread + y.spread, x.count + y.count};
}

template <class T, class Team>
SHARDPROOF_DEVICE LogitSums SumLogits(Team& team, const T* x, int64_t n) {
  constexpr int kN = kPerVector<T>, kPackets = kCrossEntropyGroup;
  auto& context = team.context();
  const PacketMap<kN> map(static_cast<int>(n), team.thread(), team.threads(),
                          AllAligned(x));
  LogitSums sums = {-INFINITY, 0, 0, 0};
  for (int k = 0; map.Has(k); k += kPackets) {
    Packet<T, kN> held[kPackets];
    Unrolled<kPackets>(
        [&](int slot) { held[slot] = LoadPacket(context, map, k + slot, x); });
    float largest = sums.max;
    Unrolled<kPackets>([&](int slot) {
      Unrolled<kN>([&](int j) {
        const float v = context.Widen(held[slot].values[j]);
        if (map.Has(k + slot, j)) largest = fmaxf(largest, v);
      });
    });
    sums = Against(sums, largest);
    // Without a finite number so far, any reference will do.
    const float reference = largest == -INFINITY ? 0.0F : largest;
    Unrolled<kPackets>([&](int slot) {
      Unrolled<kN>([&](int j) {
        if (!map.Has(k + slot, j)) return;
        const float d = context.Widen(held[slot].values[j]) - reference;
        sums.exp += expf(d);
        sums.spread += d;
        sums.count += 1;
      });
    });
  }
  return team.Reduce(sums, Together);
}

template <class T, class Team>
SHARDPROOF_DEVICE void CrossEntropyLocal(Team& team,
                                         const CrossEntropyShape& shape,
                                         const CrossEntropyRows& a) {
  auto& context = team.context();
  for (int64_t row = team.first_row(); row < shape.tokens;
       row += team.row_step()) {
    LogitSums sums = {0, 0, 0, 0};
    if (context.Load(a.targets + row) != shape.ignore_index) {
      sums =
          SumLogits(team, static_cast<const T*>(a.logits) + row * shape.columns,
                    shape.valid);
    }
    if (team.thread() != 0) continue;
    context.Store(a.local_max + row, sums.max);
    context.Store(a.sums + row, sums.exp);
    context.Store(a.sums + shape.tokens + row,
                  shape.smoothing > 0 ? sums.spread : 0.0F);
  }
}

template <class T, class Context>
SHARDPROOF_DEVICE void CrossEntropyRescale(Context& context,
                                           const CrossEntropyShape& shape,
                                           const CrossEntropyRows& a) {
  const auto share = static_cast<float>(shape.smoothing /
                                        static_cast<double>(shape.vocabulary));
  const auto rest = static_cast<float>(1 - shape.smoothing);
  if (shape.valid == 0) return;  // Zeros; the maximum is -inf.
  ForTensor<1>(context, shape.tokens, false, [&](const auto& map, int64_t k) {
    const int64_t i = map.Element(k, 0);
    const int64_t id = context.Load(a.targets + i);
    if (id == shape.ignore_index) return;
    const float max = context.Load(a.max + i);
    const float shift = context.Load(a.local_max + i) - max;
    context.Store(a.sums + i, context.Load(a.sums + i) * expf(shift));
    float* const to = a.sums + shape.tokens + i;
    float weighted = context.Load(to);
    if (shape.smoothing > 0) {
      weighted = share * (weighted + static_cast<float>(shape.valid) * shift);
    }
    const int64_t target = id - shape.begin;
    if (target >= 0 && target < shape.valid) {
      const float x = context.Widen(context.Load(
          static_cast<const T*>(a.logits) + i * shape.columns + target));
      weighted += rest * (x - max);
    }
    context.Store(to, weighted);
  });
}

template <class Team>
SHARDPROOF_DEVICE void CrossEntropyLoss(Team& team,
                                        const CrossEntropyShape& shape,
                                        const CrossEntropyRows& a) {
  auto& context = team.context();
  if (context.block() != 0) return;
  double total = 0;
  for (int64_t i = team.thread(); i < shape.tokens; i += team.threads()) {
    float loss = 0;
    if (context.Load(a.targets + i) != shape.ignore_index) {
      const float sum = context.Load(a.sums + i);
      loss = logf(sum) - context.Load(a.sums + shape.tokens + i);
      context.Store(a.sums + i, 1 / sum);
      total += static_cast<double>(loss);
    }
    context.Store(a.loss + i, loss);
  }
  total = team.Reduce(total, [](double x, double y) { return x + y; });
  if (team.thread() == 0) context.Store(a.total, total);
}

template <class T, class Context>
SHARDPROOF_DEVICE void CrossEntropyGradientOfRow(Context& context,
                                                 const CrossEntropyShape& shape,
                                                 const CrossEntropyRows& a,
                                                 int64_t row) {
  constexpr int kN = kPerVector<T>;
  const T* const x = static_cast<const T*>(a.logits) + row * shape.columns;
  T* const out = static_cast<T*>(a.dlogits) + row * shape.columns;
  const PacketMap<kN> map(static_cast<int>(shape.columns), context.thread(),
                          context.threads(), AllAligned(x, out));
  const int64_t id = context.Load(a.targets + row);
  const bool counts = id != shape.ignore_index;
  const auto valid = static_cast<int>(counts ? shape.valid : 0);
  const auto* const upstream = static_cast<const float*>(a.upstream.upstream);
  const double w = static_cast<double>(context.Load(
                       upstream + (a.upstream.per_token ? row : 0))) /
                   a.upstream.count;
  const double q = shape.smoothing / static_cast<double>(shape.vocabulary);
  const float max = context.Load(a.max + row);
  // (exp(x - m) / S - q) w as exp(x - m) (w / S) - q w, whose difference is rounded once.
  const auto scale = static_cast<float>(
      static_cast<double>(context.Load(a.inverse_sums + row)) * w);
  const auto shift = static_cast<float>(q * w);
  const auto at_target = static_cast<float>((q + (1 - shape.smoothing)) * w);
  const int64_t target = id - shape.begin;
  for (int k = 0; map.Has(k); ++k) {
    Packet<T, kN> packet{};
    if (map.Element(k, 0) < valid) packet = LoadPacket(context, map, k, x);
    Unrolled<kN>([&](int j) {
      const int column = map.Element(k, j);
      float v = 0;
      if (column < valid) {
        v = fmaf(expf(context.Widen(packet.values[j]) - max), scale,
                 -(column == target ? at_target : shift));
      }
      packet.values[j] = context.template Narrow<T>(v);
    });
    StorePacket(context, map, k, out, packet);
  }
}

template <class T, class Context>
SHARDPROOF_DEVICE void CrossEntropyGradient(Context& context,
                                            const CrossEntropyShape& shape,
                                            const CrossEntropyRows& a) {
  for (int64_t row = context.block(); row < shape.tokens;
       row += context.blocks()) {
    CrossEntropyGradientOfRow<T>(context, shape, a, row);
  }
}

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_LAYERS_KERNELS_CUDA_CROSS_ENTROPY_H_
