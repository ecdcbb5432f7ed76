#include "reference/mlp.h"

#include "reference/activated.h"
#include "reference/product.h"

namespace shardproof {

using internal::Activated;
using internal::AllRows;
using internal::Operand;
using internal::Source;

namespace {

class Mlp {
 public:
  Mlp(const MlpInputs& in, const MlpArithmetic& a)
      : in_(in), a_(a), gated_(in.activation == Activation::kSwiGlu) {}

  // y and dx at `tokens`.
  void Tokens(const Rows& tokens, MlpResult& result) const {
    const Operand x = Operand::RowsOf(in_.x, tokens);
    Matrix g;
    if (gated_) {
      g = Product(x, Source::TransposeOf(*in_.w_gate), a_.up);
      if (in_.b_gate) internal::AddBias(g, *in_.b_gate, {}, a_.up);
    }
    Matrix z = Product(x, Source::TransposeOf(in_.w_up), a_.up);
    if (in_.b_up) internal::AddBias(z, *in_.b_up, {}, a_.up);
    Matrix da;
    if (in_.dy) {
      da = Product(Operand::RowsOf(*in_.dy, tokens), Source::Of(in_.w_down),
                   a_.da);
    }
    const Activated act = Activate(g, z, da);
    result.y =
        Product(Operand::Of(act.a), Source::TransposeOf(in_.w_down), a_.down);
    if (in_.b_down) internal::AddBias(result.y, *in_.b_down, {}, a_.down);
    result.y.rows = tokens;
    if (!in_.dy) return;
    result.dx = Product(Operand::Of(act.dz), Source::Of(in_.w_up), a_.dx);
    result.dx.rows = tokens;
    if (!gated_) return;
    const Matrix gate =
        Product(Operand::Of(act.dg), Source::Of(*in_.w_gate), a_.dx);
    for (size_t i = 0; i < gate.values.size(); ++i) {
      result.dx.values[i] =
          Rounded(result.dx.values[i] + gate.values[i], a_.dx.store);
    }
  }

  // Weight and bias gradients at `features`. Everything transposed: a row per
  // feature, a column per token.
  void Features(const Rows& features, MlpResult& result) const {
    if (!in_.dy) return;
    const Source x_t = Source::TransposeOf(in_.x);
    Matrix g;
    if (gated_) {
      g = Product(Operand::RowsOf(*in_.w_gate, features), x_t, a_.up);
      if (in_.b_gate) AddRowBias(g, *in_.b_gate, features);
    }
    Matrix z = Product(Operand::RowsOf(in_.w_up, features), x_t, a_.up);
    if (in_.b_up) AddRowBias(z, *in_.b_up, features);
    const Matrix da = Product(Operand::ColumnsOf(in_.w_down, features),
                              Source::TransposeOf(*in_.dy), a_.da);
    const Activated act = Activate(g, z, da);
    const Source x = Source::Of(in_.x);
    const Source ones = Source::Ones(in_.x.rows());
    const Operand dz = Operand::Of(act.dz);
    result.dw_up = Named(Product(dz, x, a_.dw), features);
    result.db_up = Flat(Product(dz, ones, a_.dw));
    if (gated_) {
      const Operand dg = Operand::Of(act.dg);
      result.dw_gate = Named(Product(dg, x, a_.dw), features);
      result.db_gate = Flat(Product(dg, ones, a_.dw));
    }
    result.dw_down_t = Named(
        Product(Operand::Of(act.a), Source::Of(*in_.dy), a_.dw), features);
    result.db_down = LinearBiasGrad(*in_.dy, a_.dw);
  }

 private:
  Activated Activate(const Matrix& g, const Matrix& z, const Matrix& da) const {
    return internal::Activate(gated_, g, z, da, a_.up);
  }

  void AddRowBias(Matrix& m, ConstTensorView bias, const Rows& features) const {
    std::vector<double> b(static_cast<size_t>(bias.num_elements()));
    ToDouble(bias.dtype, bias.data, bias.num_elements(), b.data());
    for (size_t i = 0; i < features.size(); ++i) {
      const Bounded bi{b[static_cast<size_t>(features[i])]};
      for (int64_t j = 0; j < m.cols; ++j) {
        Bounded& v = m.at(static_cast<int64_t>(i), j);
        v = Rounded(v + bi, a_.up.store);
      }
    }
  }

  static Matrix Named(Matrix m, const Rows& rows) {
    m.rows = rows;
    return m;
  }

  // A column as one row.
  static Matrix Flat(Matrix m) {
    m.cols = static_cast<int64_t>(m.rows.size());
    m.rows = {0};
    return m;
  }

  const MlpInputs& in_;
  const MlpArithmetic& a_;
  bool gated_;
};

}  // namespace

MlpArithmetic MlpArithmetic::For(DType dtype, int tensor_parallel) {
  const Arithmetic local = Arithmetic::For(dtype);
  const Arithmetic summed = Arithmetic::For(dtype, tensor_parallel);
  return {local, summed, local, summed, local};
}

MlpResult MlpReference(const MlpInputs& inputs, const MlpArithmetic& a,
                       const MlpSamples& samples) {
  MlpResult result;
  const Mlp mlp(inputs, a);
  mlp.Tokens(samples.tokens.empty() ? AllRows(inputs.x.rows()) : samples.tokens,
             result);
  mlp.Features(samples.features.empty() ? AllRows(inputs.w_up.shape[0])
                                        : samples.features,
               result);
  return result;
}

}  // namespace shardproof
