// A block of a transformer on one device, forward and backward, with bounds: the
// references of its parts, each on the inexact results of those before.
//
//   z = x + attention(norm1(x))      y = z + mlp(norm2(z))
//
// Sums with the residual stream are rounded to `store` once; in the backward
// pass that is the rounding of the norms' dx.

#ifndef SHARDPROOF_REFERENCE_TRANSFORMER_BLOCK_H_
#define SHARDPROOF_REFERENCE_TRANSFORMER_BLOCK_H_

#include <optional>

#include "reference/attention.h"
#include "reference/linear.h"
#include "reference/mlp.h"
#include "reference/norm.h"

namespace shardproof {

struct TransformerBlockInputs {
  BoundedView x;  // [tokens, hidden]
  NormWeights norm1 = {};
  AttentionInputs attention = {};  // Its x and dy are ignored.
  NormWeights norm2 = {};
  MlpInputs mlp = {};                  // The same.
  std::optional<BoundedView> dy = {};  // None: forward only.
};

struct TransformerBlockArithmetic {
  NormArithmetic norm = {};
  AttentionArithmetic attention = {};
  MlpArithmetic mlp = {};

  static TransformerBlockArithmetic For(DType dtype, int tensor_parallel = 1) {
    return {NormArithmetic::For(dtype),
            AttentionArithmetic::For(dtype, tensor_parallel),
            MlpArithmetic::For(dtype, tensor_parallel)};
  }
};

// Gradients of weights may be sampled; everything else takes all tokens.
struct TransformerBlockSamples {
  Rows qkv = {};
  Rows out = {};
  Rows features = {};
};

// y and dx of the block; of its parts, the gradients of their weights.
struct TransformerBlockResult {
  Matrix y, dx;
  NormGradients norm1, norm2;
  AttentionResult attention;
  MlpResult mlp;
};

TransformerBlockResult TransformerBlockReference(
    const TransformerBlockInputs& inputs, const TransformerBlockArithmetic& a,
    const TransformerBlockSamples& samples = {});

}  // namespace shardproof

#endif  // SHARDPROOF_REFERENCE_TRANSFORMER_BLOCK_H_
