// A mixture of experts on one device, forward and backward, with bounds.
//
// Contract, for T tokens of hidden size h, E experts of width f and k choices
// per token; x, dy [T, h], router [E, h], noise [T, E]:
//
//   z = x router^T + noise            p_t = softmax(z_t)
//   c_ts = the expert of the s-th largest z_t, of equals the lower index first
//   w_ts = p_t[c_ts], renormalised: over the sum of the k of them
//   y_t  = sum over kept (t, s) of w_ts ffn_c(x_t)  + ffn_shared(x_t)
//
//   n_e = how often e is chosen, kept or not      P_e = sum_t p_te / T
//   auxiliary = a E sum_e n_e / (k T) P_e         z = b sum_t lse(z_t)^2 / T
//
// where a token's choice is kept while fewer than `capacity` earlier tokens
// chose the same expert; ffn as in reference/mlp.h, without biases. n_e counts
// as a constant in the gradient. d_losses are those of `auxiliary` and `z`.
//
// Routing is discrete: a token whose choice would turn on rounding errors has
// no right answer. Every gap between one choice and the next must exceed the
// sum of the two logits' bounds, or the reference refuses: inputs are to be
// made such that it does. Nothing is replayed and no token left out.
//
// An implementation stores z, g, silu(g), a, da, dz, dg, the rows that experts
// return, w dy and the rows of dx that come back, in the type of x; logits,
// probabilities and weights in the router's type.
//
//   StatusOr<MoeResult> r = MoeReference(inputs, arithmetic);
//
// Sources: Shazeer et al., arXiv:1701.06538; Fedus et al., arXiv:2101.03961,
// section 2.2, with n_e over k T as in Megatron-LM, so that a balanced load
// gives `a` for every k; Zoph et al., arXiv:2202.08906.
#ifndef SHARDPROOF_REFERENCE_MOE_H_
#define SHARDPROOF_REFERENCE_MOE_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "reference/bounded.h"
#include "reference/linear.h"
#include "reference/mlp.h"
#include "reference/status.h"
#include "reference/tensor.h"

namespace shardproof {

// Feed-forward networks of one width, stacked. A shared one is a stack of one.
struct ExpertWeights {
  std::optional<ConstTensorView> gate = {};  // [E, f, h], SwiGLU only
  ConstTensorView up;                        // [E, f, h]
  ConstTensorView down;                      // [E, h, f]
};

struct MoeInputs {
  Activation activation = Activation::kSwiGlu;
  int64_t top_k = 1;
  bool renormalise = false;
  double auxiliary_coefficient = 0, z_coefficient = 0;
  // The tokens of each rank, adding up to T: sums over all tokens are taken
  // part by part, as MoeArithmetic::summed says.
  std::vector<int64_t> tokens;
  // None: every choice is kept. One: over all tokens. Else one for each rank's
  // tokens by themselves.
  std::vector<int64_t> capacities = {};
  ConstTensorView x;                          // [T, h]
  ConstTensorView router;                     // [E, h], f32 or f64
  std::optional<ConstTensorView> noise = {};  // [T, E], of the router's type
  ExpertWeights experts;
  std::optional<ExpertWeights> shared = {};
  std::optional<ConstTensorView> dy = {};  // None: forward only.
  ConstTensorView d_losses;                // [2], with dy
};

struct MoeArithmetic {
  Arithmetic router;  // logits and what follows, on one rank
  Arithmetic expert;  // products of the experts, on one rank
  // Sums over ranks of what each made of its tokens: the gradients of the
  // router and of the shared expert.
  Arithmetic router_summed;
  Arithmetic shared_summed;
};

// What is evaluated; empty: all.
struct MoeSamples {
  Rows tokens = {};           // y, dx, d_weights
  Rows features = {};         // of every expert
  Rows shared_features = {};  // of the shared expert
  // Needs every token's dw, as much work as the whole forward pass.
  bool router_gradient = true;
};

struct MoeRouting {
  std::vector<int32_t> chosen;  // [T, k]
  std::vector<bool> kept;       // [T, k]
  std::vector<int64_t> load;    // [E], n_e
  Matrix probabilities;         // T x E
  Matrix weights;               // T x k
  std::vector<Bounded> lse;     // [T]
  Bounded auxiliary, z;
  // The smallest gap between a choice and the next, over the bounds of both.
  double margin = 0;
};

struct MoeResult {
  MoeRouting routing;
  Matrix y, dx;      // tokens x h
  Matrix d_weights;  // tokens x k
  Matrix d_router;   // E x h, or nothing
  // For each expert, features x h; row j of down_t is column features[j].
  std::vector<Matrix> d_gate, d_up, d_down_t;
  Matrix d_shared_gate, d_shared_up, d_shared_down_t;
};

// kInvalidArgument names the token whose choice is not determined.
StatusOr<MoeRouting> MoeRoute(const MoeInputs& in, const Arithmetic& a);
// The gradient of the logits of those tokens, from that of their weights.
Matrix MoeRouteGradient(const MoeInputs& in, const MoeRouting& routing,
                        const Matrix& d_weights, const Arithmetic& a);

StatusOr<MoeResult> MoeReference(const MoeInputs& inputs,
                                 const MoeArithmetic& arithmetic,
                                 const MoeSamples& samples = {});

}  // namespace shardproof

#endif  // SHARDPROOF_REFERENCE_MOE_H_
