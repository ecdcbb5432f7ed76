// The attention block on one device, forward and backward, with bounds.
//
// Contract, with x [tokens, hidden], H heads and G KV heads of d numbers each:
//
//   w_qkv [(H + 2 G) d, hidden]: first the rows of all queries, then those of
//   all keys, then those of all values; heads one after the other in each
//
//   [q k v] = x w_qkv^T + b_qkv      then q and k turned by their positions
//   o       = core(q, k, v)          of each sequence (attention_core.h)
//   y       = o w_out^T + b_out      w_out [hidden, H d]
//
//   do = dy w_out   dw_out = dy^T o   db_out = sum over tokens of dy
//   [dq dk dv] = core's gradients, turned back
//   dx = [dq dk dv] w_qkv   dw_qkv = [dq dk dv]^T x   db_qkv = sum of [dq dk dv]
//
// How it may be added up: the heads are cut into `ranks` balanced parts, whole
// heads each, and a part has the KV heads that its heads use. Every part makes
// its own term of y and dx, and of the gradients of the KV heads that it shares
// with others (dk, dv, and the rows of dw_qkv and db_qkv).
//
// Sampling saves the last product only, since every output of attention takes
// the core of its whole sequence: `tokens` for y and dx, `qkv` for the rows of
// dw_qkv and db_qkv, `out` for the rows of dw_out.

#ifndef SHARDPROOF_REFERENCE_ATTENTION_H_
#define SHARDPROOF_REFERENCE_ATTENTION_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "reference/attention_core.h"
#include "reference/bounded.h"
#include "reference/linear.h"
#include "reference/tensor.h"

namespace shardproof {

struct AttentionInputs {
  int64_t sequences = 1;  // Of tokens / sequences tokens each.
  int64_t heads = 0;
  int64_t kv_heads = 0;  // Divides heads.
  int64_t head_dim = 0;
  bool causal = true;
  double scale = 0;       // 0: 1 / sqrt(head_dim).
  double rope_theta = 0;  // 0: no rotary embedding.
  // For the rotary embedding, of the tokens of a sequence (the same in each) or
  // of all tokens; empty: 0, 1, ... in each sequence.
  std::vector<int64_t> positions = {};
  BoundedView x;
  ConstTensorView w_qkv;
  ConstTensorView w_out;
  std::optional<ConstTensorView> b_qkv = {}, b_out = {};
  std::optional<BoundedView> dy = {};  // None: forward only.
};

struct AttentionArithmetic {
  Arithmetic local = {};  // Projections, do, and gradients of a rank's own.
  CoreArithmetic core = {};
  Arithmetic out = {};  // y
  Arithmetic dx = {};   // Its partials are the ranks.
  // Gradients of KV heads that several ranks share, were it all of them: of
  // fewer, fewer roundings count.
  Arithmetic shared = {};

  static AttentionArithmetic For(DType dtype, int tensor_parallel = 1);
};

struct AttentionSamples {
  Rows tokens = {};
  Rows qkv = {};
  Rows out = {};
};

struct AttentionResult {
  Matrix y, dx;   // tokens x hidden
  Matrix dw_qkv;  // qkv x hidden
  Matrix db_qkv;  // 1 x qkv
  Matrix dw_out;  // out x (H d)
  Matrix db_out;  // 1 x hidden
};

AttentionResult AttentionReference(const AttentionInputs& inputs,
                                   const AttentionArithmetic& a,
                                   const AttentionSamples& samples = {});

}  // namespace shardproof

#endif  // SHARDPROOF_REFERENCE_ATTENTION_H_
