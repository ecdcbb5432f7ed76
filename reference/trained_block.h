// One block of a transformer on one device, forward and then backward, as values
// without bounds: for references that are probed (probe.h) and claim nothing
// else.
//
// Contract: the values of transformer_block.h, and in a probe the roundings that
// it declares, of tokens in whole sequences:
//
//     z = x + attention(norm1(x))      y = z + mlp(norm2(z))
//
// where a mixture of experts (moe.h: dropless, renormalised, no losses of its
// own, the router in the accumulator's type) may take the place of the mlp.
// Parameters lie in the order of use, each row-major:
//
//     norm1_w [norm1_b] w_qkv [b_qkv] w_out [b_out] norm2_w [norm2_b]
//     [w_gate] w_up [b_up] w_down [b_down]
//   or, of a mixture,
//     router [experts, hidden]  w_gate, w_up [experts, f, hidden]
//     w_down [experts, hidden, f]
//
// LayerNorm has a bias, SwiGLU a gate. What the way back needs of the way there
// is kept; what a mixture's experts do is not. Each gradient has one more
// rounding, since it may be divided.
//
// f32 and f64 only: there a gradient that is summed in parts, micro-batch by
// micro-batch and rank by rank, is stored as it is accumulated, so that parts
// are but another order of one sum over all tokens, and n roundings of its n
// terms hold for any order.
//
//     TrainedBlock block({.length = 16, .hidden = 64, ...}, parameters);
//     SP_ASSIGN_OR_RETURN(Tensor y, block.Forward(x));
//     SP_ASSIGN_OR_RETURN(Tensor dx, block.Backward(dy, gradient));
#ifndef SHARDPROOF_REFERENCE_TRAINED_BLOCK_H_
#define SHARDPROOF_REFERENCE_TRAINED_BLOCK_H_

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "reference/causal_core.h"
#include "reference/moe.h"
#include "reference/norm.h"
#include "reference/status.h"
#include "reference/tensor.h"
#include "reference/transformer_block.h"

namespace shardproof {

struct TrainedBlockConfig {
  int64_t length = 0;  // Tokens of a sequence.
  int64_t hidden = 0;
  int64_t heads = 0;
  int64_t kv_heads = 0;
  int64_t head_dim = 0;
  int64_t intermediate = 0;
  NormKind norm = NormKind::kLayerNorm;
  double epsilon = 1e-5;
  Activation activation = Activation::kGeluTanh;
  double rope_theta = 0;  // 0: no rotary embedding.
  bool bias = false;      // Of all projections; not of a mixture's.
  int64_t experts = 0;    // 0: an mlp. A mixture is one of SwiGLUs.
  int64_t top_k = 0;
  DType dtype = DType::kF32;
};

struct TrainedBlockParameter {
  std::string name;
  Shape shape;
};
// In order.
std::vector<TrainedBlockParameter> TrainedBlockParameters(
    const TrainedBlockConfig& config);

// Numbers of any shape in double, as a tensor.
Tensor DoubleTensor(const Shape& shape, std::span<const double> values);
// The values of a matrix.
Tensor DoubleTensor(const Matrix& matrix);

class TrainedBlock {
 public:
  // `parameters`: all of them, in order.
  TrainedBlock(const TrainedBlockConfig& config,
               std::span<const double> parameters);

  // y of x, both [tokens, hidden] of f64. kInvalidArgument where the choice of a
  // token's experts is not determined.
  StatusOr<Tensor> Forward(Tensor x);
  // dx of the last Forward; appends the gradients of the parameters, in order.
  StatusOr<Tensor> Backward(const Tensor& dy, std::vector<Bounded>& gradient);

  // Of a mixture, by the last Forward: the chosen experts of each token, in
  // ascending order, [tokens, top_k]; and by how much the least of their logits
  // exceeds the largest of the others, infinite where all are chosen.
  const std::vector<int32_t>& choices() const { return choices_; }
  const std::vector<double>& gaps() const { return gaps_; }

 private:
  ConstTensorView View(std::string_view name) const;
  std::optional<ConstTensorView> Bias(std::string_view name) const;
  NormWeights Norm(std::string_view weight, std::string_view bias) const;
  // Columns of queries or keys turned by their positions, and back.
  Matrix Turned(const Matrix& columns, bool back) const;
  Matrix Attention();
  Matrix AttentionGradient(const Tensor& dy);
  Matrix Mlp();
  Matrix MlpGradient(const Tensor& dy);
  MoeInputs MixtureInputs() const;
  StatusOr<Matrix> Mixture();
  StatusOr<Matrix> MixtureGradient(const Tensor& dy);
  void NoteChoices(const MoeRouting& routing);
  void Put(std::string_view name, const Matrix& gradient);

  TrainedBlockConfig config_;
  TransformerBlockArithmetic a_;
  std::vector<TrainedBlockParameter> order_;
  std::map<std::string, Tensor, std::less<>> weights_;
  std::map<std::string, std::vector<double>, std::less<>> gradients_;
  // Of the last Forward.
  Tensor x_, normed1_, o_, z_, normed2_;
  Matrix gate_, up_;
  std::optional<CausalCore> core_;
  std::vector<int32_t> choices_;
  std::vector<double> gaps_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_REFERENCE_TRAINED_BLOCK_H_
