#include "reference/transformer_block.h"

namespace shardproof {
namespace {

Matrix ToMatrix(const BoundedView& view) {
  return view.bounded() != nullptr ? *view.bounded()
                                   : ExactMatrix(view.exact());
}

// a + b, added in the accumulator's type and stored. b is made of a, or of what
// a is made of: a layer and its residual.
Matrix Sum(const Matrix& a, const Matrix& b, const Arithmetic& arithmetic) {
  Matrix sum = a;
  for (size_t i = 0; i < sum.values.size(); ++i) {
    sum.values[i] = Rounded(Rounded(DependentSum(a.values[i], b.values[i]),
                                    arithmetic.UAccumulate()),
                            arithmetic.store);
  }
  return sum;
}

}  // namespace

TransformerBlockResult TransformerBlockReference(
    const TransformerBlockInputs& in, const TransformerBlockArithmetic& a,
    const TransformerBlockSamples& samples) {
  TransformerBlockResult result;
  const Arithmetic& stored = a.norm.local;
  const Matrix x = ToMatrix(in.x);
  const Matrix normed1 = NormForward(x, in.norm1, stored);
  AttentionInputs attention = in.attention;
  attention.x = normed1;
  attention.dy.reset();
  const Matrix z = Sum(x, AttentionReference(attention, a.attention).y, stored);
  const Matrix normed2 = NormForward(z, in.norm2, stored);
  MlpInputs mlp = in.mlp;
  mlp.x = normed2;
  mlp.dy = in.dy;
  result.mlp = MlpReference(mlp, a.mlp, {.features = samples.features});
  result.y = Sum(z, result.mlp.y, stored);
  if (!in.dy) return result;
  const Matrix dy = ToMatrix(*in.dy);
  result.norm2 = NormBackward(z, result.mlp.dx, &dy, in.norm2, a.norm);
  attention.dy = result.norm2.dx;
  result.attention = AttentionReference(
      attention, a.attention, {.qkv = samples.qkv, .out = samples.out});
  result.norm1 =
      NormBackward(x, result.attention.dx, &result.norm2.dx, in.norm1, a.norm);
  result.dx = result.norm1.dx;
  return result;
}

}  // namespace shardproof
