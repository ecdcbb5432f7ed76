// The activation of a feed-forward network and its way back, on matrices of
// Bounded: what the references of mlp and moe have in common. Internal to
// reference/.
#ifndef SHARDPROOF_REFERENCE_ACTIVATED_H_
#define SHARDPROOF_REFERENCE_ACTIVATED_H_

#include "reference/bounded.h"
#include "reference/linear.h"

namespace shardproof::internal {

// All of one layout.
struct Activated {
  Matrix a;
  Matrix dz;
  Matrix dg;
};

// gelu(z), or silu(g) z where `gated`, and the gradients of z and g where there
// is a da; reference/mlp.h has the formulas. Everything is rounded to
// arithmetic.store.
Activated Activate(bool gated, const Matrix& g, const Matrix& z,
                   const Matrix& da, const Arithmetic& arithmetic);

}  // namespace shardproof::internal

#endif  // SHARDPROOF_REFERENCE_ACTIVATED_H_
