// LayerNorm and RMSNorm on one device, forward and backward, with bounds.
//
// Contract, for each token of x [tokens, h], n = h, weight w and bias b [h]:
//
//   LayerNorm  m = mean(x), v = mean((x - m)^2)     RMSNorm  m = 0, v = mean(x^2)
//
//   r = 1 / sqrt(v + epsilon)      n_i = (x_i - m) r      y_i = n_i w_i + b_i
//
//   g_i = dy_i w_i      p = mean(g) (RMSNorm: 0)      q = mean(g n)
//   dx_i = r (g_i - p - n_i q)
//   dw_i = sum over tokens of dy_i n_i      db_i = sum over tokens of dy_i
//
// With a residual, z = x + residual takes the place of x, and is an output; dz
// is what else arrives at it: dx_i = r (...) + dz_i, the gradient of x and of
// the residual alike.
//
// Bounds, for u the accumulator's unit roundoff and d_i = x_i - m:
//
//   |error of m| <= gamma(n + 1, u) mean|x|
//   |error of v| <= gamma(n + 3, u) v + (error of m)^2
//
// since the sum of the d_i is 0: an error of the mean moves a two-pass variance
// in second order only. (A one-pass variance, mean(x^2) - m^2, has 1 + m^2 / v
// times that, and is found out.) The relative error of r is half that of v +
// epsilon; that of the mean arrives in n_i times r, the 1 / sigma by which a
// norm amplifies. What is shared by a token's elements (m, r) is not taken to be
// independent between them, but is between tokens. Where x is inexact by e_i,
//
//   error of m: mean(e)    of v: 2 mean(d e) + mean(e^2)    of n_i: r (e_i - ...)
//
// Storage: z, y and dx are rounded to `store` once, and nothing else is.
//
//   NormResult r = NormReference({.x = x, .weight = w, .bias = b, .dy = dy},
//                                NormArithmetic::For(DType::kBF16));
//
// Sources: Ba, Kiros and Hinton, arXiv:1607.06450; Zhang and Sennrich,
// arXiv:1910.07467; Higham, Accuracy and Stability, 2nd edition, section 1.9 and
// problem 1.10 (the two-pass variance).

#ifndef SHARDPROOF_REFERENCE_NORM_H_
#define SHARDPROOF_REFERENCE_NORM_H_

#include <optional>
#include <string_view>

#include "reference/bounded.h"
#include "reference/linear.h"
#include "reference/tensor.h"

namespace shardproof {

enum class NormKind : uint8_t { kLayerNorm, kRmsNorm };
std::string_view Name(NormKind kind);  // "layer_norm", "rms_norm"

struct NormArithmetic {
  Arithmetic local = {};  // y, dx
  // dw and db; partials: ranks that have tokens of their own.
  Arithmetic dw = {};

  // Tensors of `dtype`; weight gradients summed over `token_parallel` ranks,
  // each of which adds its tokens in the accumulator's type and sends them so.
  static NormArithmetic For(DType dtype, int token_parallel = 1);
};

// Of one token each and by columns: h numbers for the weights.
struct NormWeights {
  NormKind kind = NormKind::kLayerNorm;
  double epsilon = 1e-5;
  ConstTensorView weight;
  std::optional<ConstTensorView> bias = {};
};

// The layer on numbers that carry bounds themselves, for blocks made of several
// layers. y, of the rows that x has.
Matrix NormForward(const Matrix& x, const NormWeights& weights,
                   const Arithmetic& a);
struct NormGradients {
  Matrix dx;  // tokens x h
  Matrix dw;  // 1 x h
  Matrix db;  // 1 x h
};
// x, dy and dz (may be null) have the same rows, all tokens where dw and db are
// asked for.
NormGradients NormBackward(const Matrix& x, const Matrix& dy, const Matrix* dz,
                           const NormWeights& weights, const NormArithmetic& a);

struct NormInputs {
  NormKind kind = NormKind::kLayerNorm;
  double epsilon = 1e-5;
  ConstTensorView x;                             // [tokens, h]
  std::optional<ConstTensorView> residual = {};  // [tokens, h]
  ConstTensorView weight;                        // [h]
  std::optional<ConstTensorView> bias = {};      // [h]
  std::optional<ConstTensorView> dy = {};  // [tokens, h]; none: forward only
  std::optional<ConstTensorView> dz = {};  // [tokens, h]
};

struct NormResult {
  Matrix z;   // x where there is no residual
  Matrix y;   // tokens x h
  Matrix dx;  // tokens x h
  Matrix dw;  // 1 x h
  Matrix db;  // 1 x h
};

// z, y and dx at the given tokens (empty: all), dw and db of all of them.
NormResult NormReference(const NormInputs& inputs, const NormArithmetic& a,
                         const Rows& tokens = {});

}  // namespace shardproof

#endif  // SHARDPROOF_REFERENCE_NORM_H_
