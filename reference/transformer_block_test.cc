#include "reference/transformer_block.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <string>

#include "reference/compare.h"
#include "reference/random.h"

namespace shardproof {
namespace {

constexpr int64_t kTokens = 6, kH = 8, kHeads = 4, kKv = 2, kD = 2, kF = 10;

// The block's tensors, in doubles, and the inputs that view them.
struct Block {
  explicit Block(bool llama, DType dtype = DType::kF64) : llama(llama) {
    Add("x", dtype, {kTokens, kH}, 2);
    Add("dy", dtype, {kTokens, kH}, 1);
    for (const char* name : {"norm1_w", "norm1_b", "norm2_w", "norm2_b"}) {
      Add(name, dtype, {kH}, 2);
    }
    Add("w_qkv", dtype, {(kHeads + 2 * kKv) * kD, kH}, 1);
    Add("b_qkv", dtype, {(kHeads + 2 * kKv) * kD}, 1);
    Add("w_out", dtype, {kH, kHeads * kD}, 1);
    Add("b_out", dtype, {kH}, 1);
    for (const char* name : {"w_gate", "w_up"}) Add(name, dtype, {kF, kH}, 1);
    for (const char* name : {"b_gate", "b_up"}) Add(name, dtype, {kF}, 1);
    Add("w_down", dtype, {kH, kF}, 1);
    Add("b_down", dtype, {kH}, 1);
  }
  void Add(const char* name, DType dtype, const Shape& shape, double scale) {
    Tensor& tensor = t[name] = Tensor(dtype, shape);
    Fill(Uniform(dtype, scale), {1, TensorId(name)}, 0, tensor.num_elements(),
         tensor.raw());
  }
  TransformerBlockInputs Inputs() {
    const auto view = [&](const char* name) -> ConstTensorView {
      return t.at(name).view();
    };
    const NormKind kind = llama ? NormKind::kRmsNorm : NormKind::kLayerNorm;
    TransformerBlockInputs in{.x = view("x"), .dy = view("dy")};
    in.norm1 = {kind, 1e-5, view("norm1_w")};
    in.norm2 = {kind, 1e-5, view("norm2_w")};
    in.attention.sequences = 2;
    in.attention.heads = kHeads;
    in.attention.kv_heads = kKv;
    in.attention.head_dim = kD;
    in.attention.rope_theta = llama ? 10000 : 0;
    in.attention.w_qkv = view("w_qkv");
    in.attention.b_qkv = view("b_qkv");
    in.attention.w_out = view("w_out");
    in.attention.b_out = view("b_out");
    in.mlp.activation = llama ? Activation::kSwiGlu : Activation::kGeluTanh;
    in.mlp.w_up = view("w_up");
    in.mlp.b_up = view("b_up");
    in.mlp.w_down = view("w_down");
    in.mlp.b_down = view("b_down");
    if (llama) {
      in.mlp.w_gate = view("w_gate");
      in.mlp.b_gate = view("b_gate");
    } else {
      in.norm1.bias = view("norm1_b");
      in.norm2.bias = view("norm2_b");
    }
    return in;
  }
  double Loss() {
    TransformerBlockInputs in = Inputs();
    in.dy.reset();
    const Matrix y = TransformerBlockReference(
                         in, TransformerBlockArithmetic::For(DType::kF64))
                         .y;
    double loss = 0;
    for (size_t i = 0; i < y.values.size(); ++i) {
      loss += y.values[i].value * t.at("dy").data<double>()[i];
    }
    return loss;
  }

  bool llama;
  std::map<std::string, Tensor> t;
};

// dL/dp for L = <dy, y>, by central differences of the forward pass.
TEST(TransformerBlockReference, GradientsAreFiniteDifferences) {
  for (const bool llama : {false, true}) {
    Block b(llama);
    const TransformerBlockResult r = TransformerBlockReference(
        b.Inputs(), TransformerBlockArithmetic::For(DType::kF64, 2));
    std::map<std::string, const Matrix*> gradients = {
        {"x", &r.dx},
        {"norm1_w", &r.norm1.dw},
        {"w_qkv", &r.attention.dw_qkv},
        {"b_qkv", &r.attention.db_qkv},
        {"w_out", &r.attention.dw_out},
        {"b_out", &r.attention.db_out},
        {"norm2_w", &r.norm2.dw},
        {"w_up", &r.mlp.dw_up},
        {"b_up", &r.mlp.db_up},
        {"b_down", &r.mlp.db_down}};
    if (llama) {
      gradients["w_gate"] = &r.mlp.dw_gate;
      gradients["b_gate"] = &r.mlp.db_gate;
    } else {
      gradients["norm1_b"] = &r.norm1.db;
      gradients["norm2_b"] = &r.norm2.db;
    }
    for (const auto& [name, gradient] : gradients) {
      Tensor& p = b.t.at(name);
      ASSERT_EQ(static_cast<int64_t>(gradient->values.size()), p.num_elements())
          << name;
      for (int64_t i = 0; i < p.num_elements(); i += 7) {
        double& value = p.data<double>()[i];
        const double kept = value;
        constexpr double kStep = 1e-5;
        value = kept + kStep;
        const double up = b.Loss();
        value = kept - kStep;
        const double down = b.Loss();
        value = kept;
        const double want = (up - down) / (2 * kStep);
        ASSERT_NEAR(gradient->values[static_cast<size_t>(i)].value, want,
                    1e-6 * std::max(1.0, std::abs(want)))
            << name << " " << i;
      }
    }
  }
}

// Without output projections the block is the identity, both ways, and exact.
TEST(TransformerBlockReference, WithoutProjectionsIsTheIdentity) {
  Block b(true, DType::kBF16);
  for (const char* name : {"w_out", "b_out", "w_down", "b_down"}) {
    Tensor& t = b.t.at(name);
    t = Tensor::Zeros(DType::kBF16, t.shape());
  }
  const TransformerBlockResult r = TransformerBlockReference(
      b.Inputs(), TransformerBlockArithmetic::For(DType::kBF16));
  const Matrix x = ExactMatrix(b.t.at("x").view());
  const Matrix dy = ExactMatrix(b.t.at("dy").view());
  for (size_t i = 0; i < x.values.size(); ++i) {
    EXPECT_EQ(r.y.values[i].value, x.values[i].value);
    EXPECT_EQ(r.dx.values[i].value, dy.values[i].value);
  }
}

// Errors of z are in the MLP's output as well, so both may have one sign. Sums
// of 40 ranks have errors that add in squares.
TEST(TransformerBlockReference, ErrorsOfAResidualAreThoseOfItsBranch) {
  const TransformerBlockArithmetic a =
      TransformerBlockArithmetic::For(DType::kF32, 40);
  Block b(false, DType::kF32);
  const TransformerBlockResult whole = TransformerBlockReference(b.Inputs(), a);
  for (const char* name : {"w_down", "b_down"}) {
    Tensor& t = b.t.at(name);
    t = Tensor::Zeros(DType::kF32, t.shape());
  }
  const Matrix z = TransformerBlockReference(b.Inputs(), a).y;
  for (size_t i = 0; i < z.values.size(); ++i) {
    const double of_z = std::sqrt(z.values[i].likely2);
    const double of_mlp = std::sqrt(whole.mlp.y.values[i].likely2);
    ASSERT_GT(of_z, 0);
    ASSERT_GT(of_mlp, 0);
    EXPECT_DOUBLE_EQ(std::sqrt(whole.y.values[i].likely2), of_z + of_mlp);
  }
}

std::map<std::string, const Matrix*> Some(const TransformerBlockResult& r) {
  return {{"y", &r.y},
          {"dx", &r.dx},
          {"dw_qkv", &r.attention.dw_qkv},
          {"dw_up", &r.mlp.dw_up}};
}

// The certain bounds of a chain in f32 and f64 are enough for what the harness
// asks of a case: wrong scales and lost parts are incorrect.
TEST(TransformerBlockReference, BoundsStayUseful) {
  for (const DType dtype : {DType::kF64, DType::kF32}) {
    for (const bool llama : {false, true}) {
      Block b(llama, dtype);
      const TransformerBlockResult r = TransformerBlockReference(
          b.Inputs(), TransformerBlockArithmetic::For(dtype));
      for (const auto& [name, m] : Some(r)) {
        const size_t n = m->values.size();
        PowerCheck power(dtype);
        constexpr size_t kParts = 8;
        const auto add = [&, m = m](const std::string& fault, double factor,
                                    size_t begin, size_t end) {
          std::vector<double> wrong;
          for (size_t i = 0; i < n; ++i) {
            const double v = m->values[i].value;
            wrong.push_back(i >= begin && i < end ? factor * v : v);
          }
          power.Add(fault, m->values, wrong);
        };
        add("all zero", 0, 0, n);
        add("twice", 2, 0, n);
        add("a part too few", 1 - 1.0 / kParts, 0, n);
        for (size_t c = 0; c < kParts; ++c) {
          add("part " + std::to_string(c), 0, n * c / kParts,
              n * (c + 1) / kParts);
        }
        EXPECT_TRUE(power.Check().ok())
            << Name(dtype) << " " << name << ": " << power.Check().message();
      }
    }
  }
}

// In bf16 they are not (reference/probe.h is for that), nor need they be
// finite; but no bound is a NaN, which would refuse everything.
TEST(TransformerBlockReference, NoBoundIsNaN) {
  for (const bool llama : {false, true}) {
    Block b(llama, DType::kBF16);
    const TransformerBlockResult r = TransformerBlockReference(
        b.Inputs(), TransformerBlockArithmetic::For(DType::kBF16));
    for (const auto& [name, m] : Some(r)) {
      for (const Bounded& v : m->values) {
        ASSERT_FALSE(std::isnan(v.worst)) << name;
        ASSERT_FALSE(std::isnan(v.likely)) << name;
        ASSERT_FALSE(std::isnan(v.likely2)) << name;
      }
    }
  }
}

}  // namespace
}  // namespace shardproof
