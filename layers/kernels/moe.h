// What a mixture of experts does beside its matrix products: choosing experts,
// the way back through the choice, and moving rows of tokens.
//
//     z_te = logits_te + noise_te             p_t = softmax(z_t)
//     chosen_t = the k experts of largest z_t, largest first; of equal ones the
//                lower index first
//     w_ts = p_t[chosen_ts]    (renormalised: over the sum of the k of them)
//
// Rows of tokens are of f64, f32, bf16 or f16; what decides and weighs them is
// of their accumulator ("lane") type, f32 or f64. Rows are read and written
// once, and every element is rounded once.
//
// Sources: Shazeer et al., arXiv:1701.06538, section 2.1; Fedus et al., Switch
// Transformer, arXiv:2101.03961, section 2.2; Zoph et al., ST-MoE,
// arXiv:2202.08906, section 2.1 (z-loss).
#ifndef SHARDPROOF_LAYERS_KERNELS_MOE_H_
#define SHARDPROOF_LAYERS_KERNELS_MOE_H_

#include <cstdint>

#include "collectives/device.h"
#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof {

// kUnsupported for other types than those named above, everywhere.

struct TopKSoftmaxArgs {
  int64_t tokens = 0;
  int64_t experts = 0;
  int64_t k = 0;  // At most `experts`.
  bool renormalise = false;
  const void* logits = nullptr;   // [tokens, experts]
  const void* noise = nullptr;    // [tokens, experts], or none.
  void* probabilities = nullptr;  // [tokens, experts]; not the logits.
  int32_t* chosen = nullptr;      // [tokens, k]
  void* weights = nullptr;        // [tokens, k]
  void* lse = nullptr;            // [tokens], log sum_e exp(z_te)
};
// Of `lane`, f32 or f64. A NaN among the logits makes all of the token's
// results NaN; k different experts are chosen even so.
Status TopKSoftmax(const Stream& stream, DType lane,
                   const TopKSoftmaxArgs& args);

// The gradient of a loss with respect to z, from those with respect to the
// weights, dw, to every probability (the same for all tokens), a_e, and to the
// log-sum, b lse_t:
//
//     dp_ts = dw_ts,  renormalised (dw_ts - sum_j dw_tj w_tj) / sum_j p_tj
//     c_t   = sum_e a_e p_te + sum_s dp_ts p_ts
//     dz_te = p_te (a_e - c_t + b lse_t)  + p_ts dp_ts where e = chosen_ts
struct TopKSoftmaxGradientArgs {
  int64_t tokens = 0;
  int64_t experts = 0;
  int64_t k = 0;
  bool renormalise = false;
  const void* probabilities = nullptr;  // [tokens, experts]
  const int32_t* chosen = nullptr;      // [tokens, k]
  const void* weights = nullptr;        // [tokens, k]
  const void* d_weights = nullptr;      // [tokens, k]
  const void* lse = nullptr;            // [tokens]
  const void* d_probability = nullptr;  // [experts], a
  double d_lse_factor = 0;              // b
  void* d_logits = nullptr;             // [tokens, experts]
};
Status TopKSoftmaxGradient(const Stream& stream, DType lane,
                           const TopKSoftmaxGradientArgs& args);

// What the losses need of the tokens of one rank, in double whatever the type:
//
//     sums[e]           how often expert e is chosen
//     sums[experts + e] sum_t p_te
//     sums[2 experts]   sum_t lse_t^2
struct RoutingSumsArgs {
  int64_t tokens = 0;
  int64_t experts = 0;
  int64_t k = 0;
  const void* probabilities = nullptr;
  const int32_t* chosen = nullptr;
  const void* lse = nullptr;
  double* sums = nullptr;  // [2 experts + 1]
};
Status RoutingSums(const Stream& stream, DType lane,
                   const RoutingSumsArgs& args);

// out[i] = source[index[i]] (times scale[i], of the lane type, if given): the
// permutation of tokens to experts, and any other. `out` is not the source.
struct GatherRowsArgs {
  int64_t rows = 0;
  int64_t width = 0;
  const void* source = nullptr;
  const int64_t* index = nullptr;  // [rows]
  const void* scale = nullptr;     // [rows], or none.
  void* out = nullptr;             // [rows, width]
};
Status GatherRows(const Stream& stream, DType dtype,
                  const GatherRowsArgs& args);

// out[t] = sum_s weights[t, s] source[place[t, s]]  (+ wide[t]) (+ narrow[t])
//
// the way back: s ascending, the addends last. A place below 0 is that of a row
// which was dropped and adds nothing.
struct CombineRowsArgs {
  int64_t tokens = 0;
  int64_t k = 0;
  int64_t width = 0;
  const void* source = nullptr;
  const int64_t* place = nullptr;  // [tokens, k]
  const void* weights = nullptr;   // [tokens, k] of the lane type; none: 1.
  const void* wide = nullptr;      // [tokens, width] of the lane type, or none.
  const void* narrow = nullptr;    // [tokens, width], or none.
  void* out = nullptr;             // [tokens, width]; may be `narrow`.
};
Status CombineRows(const Stream& stream, DType dtype,
                   const CombineRowsArgs& args);

// dots[t, s] = <y[t], source[place[t, s]]>, 0 for a place below 0: the gradient
// of CombineRows with respect to its weights.
struct RowDotsArgs {
  int64_t tokens = 0;
  int64_t k = 0;
  int64_t width = 0;
  const void* y = nullptr;
  const void* source = nullptr;
  const int64_t* place = nullptr;
  void* dots = nullptr;  // [tokens, k] of the lane type
};
Status RowDots(const Stream& stream, DType dtype, const RowDotsArgs& args);

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_KERNELS_MOE_H_
