// The core of attention on one device, forward and backward, with bounds, and
// rotary embeddings.
//
// Contract, for each sequence and head with its keys K and values V:
//
//   x = scale Q K^T     p = softmax(x) along rows, of the keys that a row sees
//   O = P V             dP = dO V^T
//   dS = scale P (dP - rowsum(P dP))
//   dQ = dS K           dK = sum over heads of dS^T Q    dV = the same of P^T dO
//
// Bounds of the softmax: with x_j inexact by w_j, every p_j lies between
//
//   p_j e^-w_j / (p_j e^-w_j + sum over k != j of p_k e^w_k)   and
//   p_j e^w_j  / (p_j e^w_j  + sum over k != j of p_k e^-w_k)
//
// of which |dp_j| <= 2 p_j max w is the first order and a coarse form: a row
// that looks at one key moves little. Then come the roundings: one of
// x_j - max x, which is small where p_j is large; exp; n of the sum; one of the
// division.
//
// Scores, products and sums are of the accumulator's type; p is rounded to
// `probabilities`, and what it is used for sees it rounded; o, dq, dk and dv are
// rounded to `store`.

#ifndef SHARDPROOF_REFERENCE_ATTENTION_CORE_H_
#define SHARDPROOF_REFERENCE_ATTENTION_CORE_H_

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "reference/bounded.h"
#include "reference/linear.h"

namespace shardproof {

// softmax(x), evaluated with unit roundoff u and an exp that errs by `ulps`. No
// x: nothing.
std::vector<Bounded> SoftmaxRow(std::span<const Bounded> x, double u,
                                double ulps);
// scale p (dp - sum of p dp).
std::vector<Bounded> SoftmaxRowGrad(std::span<const Bounded> p,
                                    std::span<const Bounded> dp, double scale,
                                    double u);

struct CoreArithmetic {
  Arithmetic local = {};
  DType probabilities = DType::kF32;

  static CoreArithmetic For(DType dtype) {
    return {Arithmetic::For(dtype), dtype};
  }
};

// Query head h has KV head (h + first_in_group) / heads_per_kv. Causal, query i
// sees the keys j <= i + diagonal.
struct CoreInputs {
  int64_t sequences = 1;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t heads_per_kv = 1;
  int64_t first_in_group = 0;
  int64_t head_dim = 0;
  bool causal = false;
  int64_t diagonal = 0;
  double scale = 1;
  Matrix q;                        // [sequences x queries, heads x head_dim]
  Matrix k, v;                     // [sequences x keys, kv_heads x head_dim]
  std::optional<Matrix> d_o = {};  // As q; none: forward only.
};

struct CoreResult {
  Matrix o, dq;   // As q.
  Matrix dk, dv;  // As k.
};

CoreResult CoreReference(const CoreInputs& inputs, const CoreArithmetic& a);

// Every head of x [tokens, heads x head_dim] turned by the angles of its
// position (token k has positions[k mod size]), pairs (i, i + head_dim / 2);
// back where `back`. Cosines and sines are stored in the accumulator's type.
Matrix RopeReference(const Matrix& x, int64_t head_dim, double theta,
                     std::span<const int64_t> positions, bool back,
                     const Arithmetic& a);

// Columns [begin, begin + count).
Matrix ColumnsOf(const Matrix& m, int64_t begin, int64_t count);
// `from` in the place of the columns from `begin` on.
void SetColumns(const Matrix& from, int64_t begin, Matrix& m);
// A matrix of exact numbers.
Matrix ExactMatrix(ConstTensorView m);

}  // namespace shardproof

#endif  // SHARDPROOF_REFERENCE_ATTENTION_CORE_H_
