// Softmax along rows and its derivative on a GPU: the contract of ../softmax.h, for probabilities of f32, bf16 and f16.
// Scores and gradients are of f32.
//
//     void(SoftmaxShape, const void* s, void* p)                           Softmax, a block for each row
//     void(SoftmaxShape, const void* p, const void* dp, void* ds)          SoftmaxBackward, likewise
//
// Bytes, for n = rows x columns that are seen, and probabilities of e bytes: forward 4 n read and e n written; backward
// (4 + e) n read and 4 n written; what a causal row does not see is written and not read. A row is read once as long as it
// fits into registers (4 packets for each thread); a longer one once for each of three passes, in the backward pass two,
// and its exponentials are computed twice.
#ifndef SHARDPROOF_LAYERS_KERNELS_CUDA_SOFTMAX_H_
#define SHARDPROOF_LAYERS_KERNELS_CUDA_SOFTMAX_H_

#include <cmath>
#include <cstdint>

#include "layers/kernels/cuda/packet.h"
#include "layers/kernels/cuda/team.h"
#include "layers/kernels/softmax.h"

namespace shardproof::cuda {

// How many columns a row sees.
SHARDPROOF_DEVICE int64_t SeenColumns(const SoftmaxShape& shape, int64_t row) {
  const int64_t seen = shape.causal ? row + shape.diagonal + 1 : shape.columns;
  return seen < 0 ? 0 : seen > shape.columns ? shape.columns : seen;
}

template <class T, class Team>
SHARDPROOF_DEVICE void SoftmaxOfRow(Team& team, const SoftmaxShape& shape,
                                    int64_t row, const float* s, T* p) {
  constexpr int kN = kPerVector<T>, kPackets = 4;
  auto& context = team.context();
  const auto seen = static_cast<int>(SeenColumns(shape, row));
  const auto scale = static_cast<float>(shape.scale);
  const RowPass<kN, kPackets> pass(team, shape.columns, AllAligned(s, p));
  const auto& map = pass.map();
  // Scores, and then their exponentials.
  Packet<float, kN> held[kPackets];
  const auto load = [&](int slot, int k) {
    if (map.Element(k, 0) >= seen) return;
    held[slot] = LoadPacket(context, map, k, s);
  };
  float largest = -INFINITY;
  pass.Run(false, load, [&](int slot, int k) {
    Unrolled<kN>([&](int j) {
      if (map.Element(k, j) < seen) {
        largest = fmaxf(largest, held[slot].values[j] * scale);
      }
    });
  });
  largest = team.Max(largest);
  float sum = 0;
  pass.Run(true, load, [&](int slot, int k) {
    Unrolled<kN>([&](int j) {
      if (map.Element(k, j) < seen) {
        const float e = expf(held[slot].values[j] * scale - largest);
        if (pass.Fits()) held[slot].values[j] = e;
        sum += e;
      }
    });
  });
  const float share = 1 / team.Sum(sum);
  pass.Run(true, load, [&](int slot, int k) {
    Packet<T, kN> out;
    Unrolled<kN>([&](int j) {
      float v = 0;
      if (map.Element(k, j) < seen) {
        const float e = held[slot].values[j];
        v = (pass.Fits() ? e : expf(e * scale - largest)) * share;
      }
      out.values[j] = context.template Narrow<T>(v);
    });
    StorePacket(context, map, k, p, out);
  });
}

template <class T, class Team>
SHARDPROOF_DEVICE void Softmax(Team& team, const SoftmaxShape& shape,
                               const void* s, void* p) {
  for (int64_t row = team.first_row(); row < shape.rows;
       row += team.row_step()) {
    const int64_t at = row * shape.columns;
    SoftmaxOfRow(team, shape, row, static_cast<const float*>(s) + at,
                 static_cast<T*>(p) + at);
  }
}

template <class T, class Team>
SHARDPROOF_DEVICE void SoftmaxBackwardOfRow(Team& team,
                                            const SoftmaxShape& shape,
                                            int64_t row, const T* p,
                                            const float* dp, float* ds) {
  constexpr int kN = kPerVector<T>, kPackets = 4;
  auto& context = team.context();
  const auto seen = static_cast<int>(SeenColumns(shape, row));
  const auto scale = static_cast<float>(shape.scale);
  const RowPass<kN, kPackets> pass(team, shape.columns, AllAligned(p, dp, ds));
  const auto& map = pass.map();
  Packet<T, kN> p_held[kPackets];
  Packet<float, kN> dp_held[kPackets];
  const auto load = [&](int slot, int k) {
    if (map.Element(k, 0) >= seen) return;
    p_held[slot] = LoadPacket(context, map, k, p);
    dp_held[slot] = LoadPacket(context, map, k, dp);
  };
  float sum = 0;
  pass.Run(false, load, [&](int slot, int k) {
    Unrolled<kN>([&](int j) {
      if (map.Element(k, j) < seen) {
        sum = fmaf(context.Widen(p_held[slot].values[j]),
                   dp_held[slot].values[j], sum);
      }
    });
  });
  const float mean = team.Sum(sum);
  pass.Run(true, load, [&](int slot, int k) {
    Packet<float, kN> out;
    Unrolled<kN>([&](int j) {
      out.values[j] = 0;
      if (map.Element(k, j) < seen) {
        out.values[j] = (context.Widen(p_held[slot].values[j]) *
                         (dp_held[slot].values[j] - mean)) *
                        scale;
      }
    });
    StorePacket(context, map, k, ds, out);
  });
}

template <class T, class Team>
SHARDPROOF_DEVICE void SoftmaxBackward(Team& team, const SoftmaxShape& shape,
                                       const void* p, const void* dp,
                                       void* ds) {
  for (int64_t row = team.first_row(); row < shape.rows;
       row += team.row_step()) {
    const int64_t at = row * shape.columns;
    SoftmaxBackwardOfRow(team, shape, row, static_cast<const T*>(p) + at,
                         static_cast<const float*>(dp) + at,
                         static_cast<float*>(ds) + at);
  }
}

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_LAYERS_KERNELS_CUDA_SOFTMAX_H_
