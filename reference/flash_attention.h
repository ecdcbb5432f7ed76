// Attention as flash kernels compute it, on one device and with bounds: any set
// of keys for each query, and the logarithm of the sum of exponentials, which
// partial results are merged by.
//
// Contract, for each sequence and head with its keys K and values V, over the
// keys j that query i sees:
//
//   x_ij = scale q_i k_j      lse_i = ln sum_j e^x_ij      p_ij = e^(x_ij - lse_i)
//   O_i = sum_j p_ij v_j      D_ij = dO_i v_j              delta_i = dO_i O_i
//   dS_ij = p_ij (D_ij - delta_i)
//   dQ_i = scale sum_j dS_ij k_j
//   dK_j = scale sum_i dS_ij q_i       dV_j = sum_i p_ij dO_i
//
// the last two over the heads of a group too; O = 0 and lse = -inf where a query
// sees nothing.
//
// Bounds. The exponentials e_j = e^(x_j - max) are rounded to `products`, summed
// as they are, and both sums rescaled when the maximum moves. With relative
// errors g_j of the exponentials and h_j of their rounding,
//
//   O' - O = [sum p_j (g_j (v_j - O) + h_j v_j)] / sum p_j (1 + g_j)
//
// exactly, since sum p_j (v_j - O) = 0: what is common to all exponentials
// leaves O as it is. g_j has the dot product's gamma(d) scale |q||k|; the
// roundings of the factor lg(e) scale and of x_j - max, each u (max - x_j), also
// when max moves on the way, since the differences add up to that; and that of
// exp. What rounds by itself for each j adds in squares; what may err alike
// (the factor, exp) adds linearly. lse' - lse = ln sum p_j (1 + g_j). Backward,
// an error of lse is common to a row: it moves dQ_i by its share of dQ_i, and
// one of delta by that times scale sum_j p_ij k_j.
//
// A merge of two parts moves the weights of both by the errors of their lse and
// 10 u more (difference, exp, sum, division, product, sum).
//
// Not for probes: inputs are exact.
//
// Source: Dao, arXiv:2307.08691, sections 2.3 and 3.1.

#ifndef SHARDPROOF_REFERENCE_FLASH_ATTENTION_H_
#define SHARDPROOF_REFERENCE_FLASH_ATTENTION_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "reference/bounded.h"
#include "reference/dtype.h"
#include "reference/linear.h"
#include "reference/tensor.h"

namespace shardproof {

struct FlashArithmetic {
  DType accumulate = DType::kF32;
  DType products = DType::kF32;  // What exponentials and dS are rounded to.
  DType o = DType::kF32;         // What O is rounded to, before delta too.
  double exp_error = 0;          // Relative.
  int64_t tiles = 1;   // Of keys, that a query's sums are rescaled between.
  int64_t merges = 0;  // Of partial results, on the way to O; and sums of
                       // partial gradients.

  // Exponentials rounded to `dtype` with a 512th of that rounding's error
  // before, or with 4 roundoffs where they are not rounded.
  static FlashArithmetic For(DType dtype);
};

// Query head h has KV head (h + first_in_group) / heads_per_kv.
struct FlashInputs {
  int64_t sequences = 1;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t heads_per_kv = 1;
  int64_t first_in_group = 0;
  int64_t head_dim = 0;
  double scale = 1;
  // Of each query of a sequence, the keys that it sees.
  std::vector<std::vector<int64_t>> seen = {};
  ConstTensorView q;     // [sequences x queries, heads x head_dim]
  ConstTensorView k, v;  // [sequences x keys, kv_heads x head_dim]
  std::optional<ConstTensorView> d_o = {};  // As q; none: forward only.
};

struct FlashResult {
  Matrix o;           // As q.
  Matrix lse;         // [sequences x heads, queries]
  Matrix dq, dk, dv;  // As q and k, of `accumulate`.
};

FlashResult FlashReference(const FlashInputs& inputs, const FlashArithmetic& a);

}  // namespace shardproof

#endif  // SHARDPROOF_REFERENCE_FLASH_ATTENTION_H_
