// The feed-forward block on one device, forward and backward, with bounds.
//
// Contract, with x [tokens, h], w_up and w_gate [f, h], w_down [h, f]:
//
//   GELU     z = x w_up^T + b_up         SwiGLU   g = x w_gate^T + b_gate
//            a = gelu_tanh(z)                     z = x w_up^T + b_up
//                                                 a = silu(g) z
//            y = a w_down^T + b_down              y = a w_down^T + b_down
//
//            da = dy w_down                       da = dy w_down
//            dz = da gelu'(z)                     dg = da z silu'(g)
//                                                 dz = da silu(g)
//            dx = dz w_up                         dx = dz w_up + dg w_gate
//
//   dw_up = dz^T x, dw_gate = dg^T x, dw_down = dy^T a; each bias gradient is
//   the sum over tokens of dz, dg or dy.
//
// z, g, silu(g), a, da, dz and dg are taken to be rounded to `store`; an
// implementation that fuses rounds less and stays inside the bound. Values are
// those of the exact computation on the given inputs.
//
// Sampling: `tokens` for y and dx; `features` (of f) for the rows of dw_up and
// dw_gate, for db_up and db_gate, and for the COLUMNS of dw_down: its rows
// would need every activation, as much work as the whole forward pass.
//
//   MlpResult r = MlpReference(inputs, MlpArithmetic::For(DType::kBF16, ranks),
//                              {.tokens = SampleRows(512, 8, seed),
//                               .features = SampleRows(f, 8, seed)});

#ifndef SHARDPROOF_REFERENCE_MLP_H_
#define SHARDPROOF_REFERENCE_MLP_H_

#include <optional>

#include "reference/bounded.h"
#include "reference/linear.h"
#include "reference/tensor.h"

namespace shardproof {

enum class Activation : uint8_t { kGeluTanh, kSwiGlu };

struct MlpInputs {
  Activation activation = Activation::kGeluTanh;
  BoundedView x;                               // [tokens, h]
  std::optional<ConstTensorView> w_gate = {};  // [f, h], SwiGLU only
  ConstTensorView w_up;                        // [f, h]
  ConstTensorView w_down;                      // [h, f]
  std::optional<ConstTensorView> b_gate = {}, b_up = {}, b_down = {};
  std::optional<BoundedView> dy = {};  // [tokens, h]; none: forward only
};

// Each product with its own declaration: in the tensor-parallel block `down`
// and `dx` are summed over ranks, the others are local.
struct MlpArithmetic {
  Arithmetic up = {};    // z, g
  Arithmetic down = {};  // y
  Arithmetic da = {};    // dy w_down
  // dz w_up + dg w_gate: one sum over both, or two that are added.
  Arithmetic dx = {};
  // All weight and bias gradients; partials: data- or sequence-parallel ranks.
  Arithmetic dw = {};

  // Tensors of `dtype` on `tensor_parallel` ranks, whose partial sums (y, dx)
  // travel as `dtype`.
  static MlpArithmetic For(DType dtype, int tensor_parallel = 1);
};

struct MlpSamples {
  Rows tokens = {};
  Rows features = {};
};

struct MlpResult {
  Matrix y;          // tokens x h
  Matrix dx;         // tokens x h
  Matrix dw_gate;    // features x h
  Matrix dw_up;      // features x h
  Matrix dw_down_t;  // features x h: row j is column `features[j]` of dw_down
  Matrix db_gate;    // 1 x features
  Matrix db_up;      // 1 x features
  Matrix db_down;    // 1 x h
};

MlpResult MlpReference(const MlpInputs& inputs, const MlpArithmetic& a,
                       const MlpSamples& samples = {});

}  // namespace shardproof

#endif  // SHARDPROOF_REFERENCE_MLP_H_
