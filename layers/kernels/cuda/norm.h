// LayerNorm and RMSNorm on a GPU: the contract of ../norm.h, for f32, bf16 and f16.
//
//     Normalize          a block for each row; grid and block of any size
//     NormalizeBackward  stage 1: dx, and what the rows of each block add to the gradients of weight and bias
//     SumPartials        stage 2: adds those up
//
//     void(NormRows, NormalizeArgs)
//     void(NormRows, NormalizeBackwardArgs, float* partials)    partials: [blocks, columns, or 2 columns with dbias]
//     void(PartialSums)
//
// Bytes, for n = rows x columns elements of e bytes: forward n e read and written, with a residual 2 n e each; backward
// 2 n e (3 with dz) read and n e written, and 4 (8 with dbias) x columns x blocks written and read again. No element is
// read twice as long as a row fits into registers (RowPass): 4 packets of 16 bytes for each
// thread, in the backward pass 2 of z and of dy. A longer one is read again from the second-level cache, once for each
// pass, and its partial sums are added to in memory.
//
// Sums of columns are in an order that depends on the grid alone: rows b, b + blocks, ... of block b, ascending; then
// blocks, as SumPartials says.
#ifndef SHARDPROOF_LAYERS_KERNELS_CUDA_NORM_H_
#define SHARDPROOF_LAYERS_KERNELS_CUDA_NORM_H_

#include <cmath>
#include <cstdint>

#include "layers/kernels/cuda/packet.h"
#include "layers/kernels/cuda/team.h"
#include "layers/kernels/norm.h"

namespace shardproof::cuda {

template <class T>
SHARDPROOF_DEVICE T* At(T* base, int64_t offset) {
  return base == nullptr ? nullptr : base + offset;
}

template <class T, class Team>
SHARDPROOF_DEVICE void NormalizeRow(Team& team, const NormRows& r,
                                    const NormalizeArgs& a, int64_t row) {
  constexpr int kN = kPerVector<T>, kPackets = 4;
  auto& context = team.context();
  const int64_t at = row * r.columns;
  const T* const x = static_cast<const T*>(a.x) + at;
  const T* const residual = At(static_cast<const T*>(a.residual), at);
  T* const z = At(static_cast<T*>(a.z), at);
  T* const y = static_cast<T*>(a.y) + at;
  const T* const weight = static_cast<const T*>(a.weight);
  const T* const bias = static_cast<const T*>(a.bias);
  const RowPass<kN, kPackets> pass(team, r.columns,
                                   AllAligned(x, residual, z, y, weight, bias));
  const auto& map = pass.map();
  Packet<T, kN> held[kPackets];
  // After the first pass z is there, where there is one: written by the thread that reads it.
  const T* source = x;
  const auto load = [&](int slot, int k) {
    held[slot] = LoadPacket(context, map, k, source);
  };
  float sum = 0;
  pass.Run(false, load, [&](int slot, int k) {
    Packet<T, kN>& packet = held[slot];
    if (residual != nullptr) {
      const auto other = LoadPacket(context, map, k, residual);
      Unrolled<kN>([&](int j) {
        packet.values[j] = context.template Narrow<T>(
            context.Widen(packet.values[j]) + context.Widen(other.values[j]));
      });
      StorePacket(context, map, k, z, packet);
    }
    Unrolled<kN>([&](int j) { sum += context.Widen(packet.values[j]); });
  });
  if (residual != nullptr) source = z;
  const auto count = static_cast<float>(r.columns);
  const float mean = r.centred ? team.Sum(sum) / count : 0.0F;
  float squares = 0;
  pass.Run(true, load, [&](int slot, int k) {
    Unrolled<kN>([&](int j) {
      const float d = context.Widen(held[slot].values[j]) - mean;
      if (map.Has(k, j)) squares = fmaf(d, d, squares);
    });
  });
  const float variance = team.Sum(squares) / count;
  const float inverse = 1 / sqrtf(variance + static_cast<float>(r.epsilon));
  if (team.thread() == 0) {
    if (r.centred) context.Store(static_cast<float*>(a.mean) + row, mean);
    context.Store(static_cast<float*>(a.inverse) + row, inverse);
  }
  pass.Run(true, load, [&](int slot, int k) {
    const auto w = LoadPacket(context, map, k, weight);
    Packet<T, kN> b{};
    if (bias != nullptr) b = LoadPacket(context, map, k, bias);
    Packet<T, kN> out;
    Unrolled<kN>([&](int j) {
      const float n = (context.Widen(held[slot].values[j]) - mean) * inverse;
      const float v = context.Widen(w.values[j]);
      out.values[j] = context.template Narrow<T>(
          bias == nullptr ? n * v : fmaf(n, v, context.Widen(b.values[j])));
    });
    StorePacket(context, map, k, y, out);
  });
}

template <class T, class Team>
SHARDPROOF_DEVICE void Normalize(Team& team, const NormRows& r,
                                 const NormalizeArgs& a) {
  for (int64_t row = team.first_row(); row < r.rows; row += team.row_step()) {
    NormalizeRow<T>(team, r, a, row);
  }
}

// What the rows of one block add to the gradients of weight and bias: in registers where a row fits into them, else in
// memory. Element j of packet k is the same thread's in every row.
template <class Team, int kN, int kPackets>
class WeightSums {
 public:
  using Sums = Packet<float, kN>;

  // `more` may be null.
  SHARDPROOF_DEVICE WeightSums(Team& team, const RowPass<kN, kPackets>& pass,
                               float* sums, float* more)
      : context_(team.context()), pass_(pass), sums_(sums), more_(more) {
    // Zeros, in memory too where that is added to.
    Unrolled<kPackets>([&](int slot) { held_[slot] = held_more_[slot] = {}; });
    if (!pass_.Fits()) Finish();
  }
  // add(sums, more): to the packet k of both.
  template <class Add>
  SHARDPROOF_DEVICE void Update(int slot, int k, const Add& add) {
    if (pass_.Fits()) {
      add(held_[slot], held_more_[slot]);
      return;
    }
    Sums sums = LoadPacket(context_, pass_.map(), k, sums_), more{};
    if (more_ != nullptr) more = LoadPacket(context_, pass_.map(), k, more_);
    add(sums, more);
    Store(k, sums, more);
  }
  SHARDPROOF_DEVICE void Finish() {
    pass_.Run(
        true, [](int, int) {},
        [&](int slot, int k) { Store(k, held_[slot], held_more_[slot]); });
  }

 private:
  SHARDPROOF_DEVICE void Store(int k, const Sums& sums, const Sums& more) {
    StorePacket(context_, pass_.map(), k, sums_, sums);
    if (more_ != nullptr) StorePacket(context_, pass_.map(), k, more_, more);
  }

  typename Team::Context& context_;
  const RowPass<kN, kPackets>& pass_;
  float *sums_, *more_;
  Sums held_[kPackets], held_more_[kPackets];
};

template <class T, class Team>
SHARDPROOF_DEVICE void NormalizeBackward(Team& team, const NormRows& r,
                                         const NormalizeBackwardArgs& a,
                                         float* partials) {
  constexpr int kN = kPerVector<T>, kPackets = 2;
  auto& context = team.context();
  const auto* const weight = static_cast<const T*>(a.weight);
  const int64_t width = (a.dbias == nullptr ? 1 : 2) * r.columns;
  float* const dweight = partials + context.block() * width;
  float* const dbias = a.dbias == nullptr ? nullptr : dweight + r.columns;
  // Of all rows alike, so that columns stay with their threads.
  const RowPass<kN, kPackets> pass(
      team, r.columns,
      r.columns % kN == 0 &&
          AllAligned(static_cast<const T*>(a.z), weight,
                     static_cast<const T*>(a.dy), static_cast<const T*>(a.dz),
                     static_cast<const T*>(a.dx), partials));
  const auto& map = pass.map();
  WeightSums<Team, kN, kPackets> columns(team, pass, dweight, dbias);
  const auto count = static_cast<float>(r.columns);
  for (int64_t row = team.first_row(); row < r.rows; row += team.row_step()) {
    const int64_t at = row * r.columns;
    const T* const z = static_cast<const T*>(a.z) + at;
    const T* const dy = static_cast<const T*>(a.dy) + at;
    const T* const dz = At(static_cast<const T*>(a.dz), at);
    T* const dx = static_cast<T*>(a.dx) + at;
    const float mean =
        r.centred ? context.Load(static_cast<const float*>(a.mean) + row) : 0;
    const float inverse =
        context.Load(static_cast<const float*>(a.inverse) + row);
    Packet<T, kN> z_held[kPackets], dy_held[kPackets];
    const auto load = [&](int slot, int k) {
      z_held[slot] = LoadPacket(context, map, k, z);
      dy_held[slot] = LoadPacket(context, map, k, dy);
    };
    SumPair sums = {0, 0};
    pass.Run(false, load, [&](int slot, int k) {
      const auto w = LoadPacket(context, map, k, weight);
      columns.Update(slot, k, [&](auto& dw, auto& db) {
        Unrolled<kN>([&](int j) {
          // dy is 0 where there is no element.
          const float d = context.Widen(dy_held[slot].values[j]);
          const float n =
              (context.Widen(z_held[slot].values[j]) - mean) * inverse;
          const float g = d * context.Widen(w.values[j]);
          dw.values[j] = fmaf(d, n, dw.values[j]);
          db.values[j] += d;
          sums.a += g;
          if (map.Has(k, j)) sums.b = fmaf(g, n, sums.b);
        });
      });
    });
    sums = SumBoth(team, sums);
    const float p = r.centred ? sums.a / count : 0;
    const float rq = inverse * (sums.b / count);
    pass.Run(true, load, [&](int slot, int k) {
      const auto w = LoadPacket(context, map, k, weight);
      Packet<T, kN> other{};
      if (dz != nullptr) other = LoadPacket(context, map, k, dz);
      Packet<T, kN> out;
      Unrolled<kN>([&](int j) {
        const float d = context.Widen(z_held[slot].values[j]) - mean;
        const float g = fmaf(context.Widen(dy_held[slot].values[j]),
                             context.Widen(w.values[j]), -p);
        float v = inverse * fmaf(-d, rq, g);
        if (dz != nullptr) v += context.Widen(other.values[j]);
        out.values[j] = context.template Narrow<T>(v);
      });
      StorePacket(context, map, k, dx, out);
    });
  }
  if (pass.Fits()) columns.Finish();
}

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_LAYERS_KERNELS_CUDA_NORM_H_
