// For the unit tests of linear layers on a mesh: whole tensors of integers,
// what a layer makes of them, and what a rank has of both.
//
//     const Whole whole = Expected(config);
//     Local own(layer.blocks(), config, whole);
//     own.Run(layer);
//     EXPECT_EQ(own.y, Block(layer.blocks().y, config.out, whole.y));
#ifndef SHARDPROOF_LAYERS_TESTING_MESH_LINEAR_TESTING_H_
#define SHARDPROOF_LAYERS_TESTING_MESH_LINEAR_TESTING_H_

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "collectives/device.h"
#include "layers/tensor_parallel/mesh_linear.h"
#include "reference/linear.h"
#include "reference/tensor.h"

namespace shardproof::mesh_linear_testing {

using Floats = std::vector<float>;

// Small integers without a period, so that sums are exact and no block is taken
// for another.
inline Floats Integers(int64_t count, unsigned seed) {
  Floats values(static_cast<size_t>(count));
  unsigned state = seed;
  for (float& v : values) {
    state = state * 1664525U + 1013904223U;
    v = static_cast<float>(static_cast<int>(state >> 24) % 7 - 3);
  }
  return values;
}

// A whole layer's tensors.
struct Whole {
  explicit Whole(const MeshLinearConfig& c)
      : x(Integers(c.tokens * c.in, 1)),
        w(Integers(c.out * c.in, 2)),
        dy(Integers(c.tokens * c.out, 3)),
        b(Integers(c.bias ? c.out : 0, 4)),
        y(dy.size()),
        dx(x.size()),
        dw(w.size()),
        db(b.size()) {}
  Floats x, w, dy, b, y, dx, dw, db;
};

inline Floats Values(const Matrix& m) {
  Floats values;
  for (const Bounded& v : m.values) {
    values.push_back(static_cast<float>(v.value));
  }
  return values;
}

// y of these x, w and b.
inline Floats Outputs(const MeshLinearConfig& c, const Whole& all) {
  const ConstTensorView x(c.dtype, {c.tokens, c.in}, all.x.data());
  const ConstTensorView w(c.dtype, {c.out, c.in}, all.w.data());
  const ConstTensorView b(c.dtype, {c.out}, all.b.data());
  return Values(LinearForward({x, w, c.bias ? std::optional(b) : std::nullopt},
                              Arithmetic::For(c.dtype)));
}

// With what the layer makes of the integers.
inline Whole Expected(const MeshLinearConfig& c) {
  Whole all(c);
  const Arithmetic a = Arithmetic::For(c.dtype);
  const ConstTensorView x(c.dtype, {c.tokens, c.in}, all.x.data());
  const ConstTensorView w(c.dtype, {c.out, c.in}, all.w.data());
  const ConstTensorView dy(c.dtype, {c.tokens, c.out}, all.dy.data());
  all.y = Outputs(c, all);
  all.dx = Values(LinearInputGrad(dy, w, a));
  all.dw = Values(LinearWeightGrad(dy, x, a));
  if (c.bias) all.db = Values(LinearBiasGrad(dy, a));
  return all;
}

inline Floats Block(const MeshBlock& block, int64_t columns,
                    const Floats& whole) {
  Floats part(static_cast<size_t>(block.count()));
  CutBlock(block, columns, DType::kF32, whole.data(), part.data());
  return part;
}
inline Floats Part(const Chunk& chunk, const Floats& whole) {
  return {whole.begin() + chunk.begin,
          whole.begin() + chunk.begin + chunk.count};
}

// A rank's tensors.
struct Local {
  Local(const MeshLinearBlocks& own, const MeshLinearConfig& c,
        const Whole& all)
      : x(Block(own.x, c.in, all.x)),
        w(Block(own.w, c.in, all.w)),
        dy(Block(own.y, c.out, all.dy)),
        b(Part(own.b, all.b)),
        y(dy.size(), -1),
        dx(x.size(), -1),
        dw(w.size(), -1),
        db(b.size(), -1) {}
  template <class Layer>
  Status Run(const Layer& layer, const Stream& stream = Stream::Inline()) {
    SP_RETURN_IF_ERROR(
        layer.Forward({x.data(), w.data(), b.data(), y.data()}, stream));
    return layer.Backward(
        {x.data(), w.data(), dy.data(), dx.data(), dw.data(), db.data()},
        stream);
  }
  Floats x, w, dy, b, y, dx, dw, db;
};

}  // namespace shardproof::mesh_linear_testing

#endif  // SHARDPROOF_LAYERS_TESTING_MESH_LINEAR_TESTING_H_
