// Feed-forward networks of one shape, each on rows of its own: the experts of a
// rank, or its copy of the shared one.
//
//     GELU     z = x w_up^T,  a = gelu(z)
//     SwiGLU   g = x w_gate^T, z as above,  a = silu(g) z
//     y = a w_down^T
//
// Network i works on rows [begins[i], begins[i + 1]) of x, y, dy and dx, which
// may be none: its gradients are then 0.
#ifndef SHARDPROOF_LAYERS_EXPERT_PARALLEL_MOE_EXPERT_FFN_H_
#define SHARDPROOF_LAYERS_EXPERT_PARALLEL_MOE_EXPERT_FFN_H_

#include <cstdint>
#include <span>

#include "reference/dtype.h"
#include "reference/mlp.h"  // Activation
#include "reference/status.h"
#include "reference/tensor.h"

namespace shardproof {

// Stacks, row-major. `Void` is void or const void.
template <class Void>
struct FfnParts {
  Void* gate = nullptr;  // [networks, features, hidden], SwiGLU only
  Void* up = nullptr;    // [networks, features, hidden]
  Void* down = nullptr;  // [networks, hidden, features]
};

class ExpertFfn {
 public:
  struct Sizes {
    Activation activation = Activation::kSwiGlu;
    DType dtype = DType::kF32;
    int64_t hidden = 0;
    int64_t features = 0;
    int64_t most_rows = 0;
  };

  ExpertFfn() = default;
  // Three (GELU) or four activations of most_rows x features.
  static StatusOr<ExpertFfn> Create(const Sizes& sizes);

  // Keeps what Backward needs, but for x.
  Status Forward(std::span<const int64_t> begins, const void* x,
                 const FfnParts<const void>& weights, void* y);
  // Uses up what the last Forward kept. `dx` may be `x`.
  Status Backward(std::span<const int64_t> begins, const void* x,
                  const FfnParts<const void>& weights, const void* dy, void* dx,
                  const FfnParts<void>& gradients);

 private:
  struct Rows {
    int64_t begin, count;
  };
  bool gated() const { return sizes_.activation == Activation::kSwiGlu; }
  // Rows of something `width` wide, and matrix i of a stack.
  ConstTensorView RowsOf(const void* data, Rows rows, int64_t width) const;
  TensorView RowsOf(void* data, Rows rows, int64_t width) const;
  ConstTensorView Layer(const void* stack, int64_t i, int64_t rows) const;
  TensorView Layer(void* stack, int64_t i, int64_t rows) const;
  Status BackwardOf(int64_t i, Rows rows, const void* x, const void* dy,
                    const FfnParts<const void>& weights,
                    const FfnParts<void>& gradients);

  Sizes sizes_;
  // g, z, a and da; dg and dz take the place of g and z.
  Tensor gate_, up_, activated_, d_activated_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_EXPERT_PARALLEL_MOE_EXPERT_FFN_H_
