// The reference against attention written down a second time, and its bounds
// against a naive implementation that rounds as declared, and against faults.
#include "reference/flash_attention.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "reference/attention_core.h"
#include "reference/compare.h"
#include "reference/random.h"

namespace shardproof {
namespace {

constexpr int64_t kDim = 24, kHeads = 4, kKvHeads = 2, kQueries = 30,
                  kKeys = 40;
constexpr int64_t kSequences = 2;

struct Operands {
  explicit Operands(DType dtype) {
    const auto make = [&](const char* name, int64_t rows, int64_t heads) {
      t[name] = Tensor(dtype, {kSequences * rows, heads * kDim});
      Fill(Uniform(dtype, 1.5), {.seed = 3, .tensor = TensorId(name)}, 0,
           t[name].num_elements(), t[name].raw());
    };
    make("q", kQueries, kHeads);
    make("k", kKeys, kKvHeads);
    make("v", kKeys, kKvHeads);
    make("do", kQueries, kHeads);
  }
  // Causal from the tenth key on.
  FlashInputs Inputs() const {
    FlashInputs in = {.sequences = kSequences,
                      .heads = kHeads,
                      .kv_heads = kKvHeads,
                      .heads_per_kv = kHeads / kKvHeads,
                      .head_dim = kDim,
                      .scale = 0.2,
                      .q = t.at("q").view(),
                      .k = t.at("k").view(),
                      .v = t.at("v").view(),
                      .d_o = t.at("do").view()};
    for (int64_t i = 0; i < kQueries; ++i) {
      in.seen.emplace_back();
      for (int64_t j = 0; j <= i + 10; ++j) {
        if (j < kKeys) in.seen.back().push_back(j);
      }
    }
    return in;
  }
  std::map<std::string, Tensor> t;
};

// Naive attention in T, with exponentials and dS rounded by `rounded`; O is left
// in T.
template <typename T>
struct Naive {
  Naive(const FlashInputs& in, T (*rounding)(T)) : rounded(rounding) {
    const auto elements = [](ConstTensorView v) {
      std::vector<double> d(static_cast<size_t>(v.num_elements()));
      ToDouble(v.dtype, v.data, v.num_elements(), d.data());
      return std::vector<T>(d.begin(), d.end());
    };
    q = elements(in.q), k = elements(in.k), v = elements(in.v);
    d_o = elements(*in.d_o);
    o.resize(q.size()), dq.resize(q.size());
    dk.resize(k.size()), dv.resize(k.size());
    for (int64_t s = 0; s < in.sequences; ++s) {
      for (int64_t h = 0; h < in.heads; ++h) {
        for (int64_t i = 0; i < kQueries; ++i) Row(in, s, h, i);
      }
    }
  }
  static T Dot(const T* a, const T* b) {
    T sum = 0;
    for (int64_t e = 0; e < kDim; ++e) sum += a[e] * b[e];
    return sum;
  }
  void Row(const FlashInputs& in, int64_t s, int64_t h, int64_t i) {
    const T scale = static_cast<T>(in.scale);
    const int64_t at = ((s * kQueries + i) * in.heads + h) * kDim;
    std::vector<int64_t> key;
    std::vector<T> x;
    for (const int64_t j : in.seen[static_cast<size_t>(i)]) {
      key.push_back(((s * kKeys + j) * in.kv_heads + h / in.heads_per_kv) *
                    kDim);
      x.push_back(scale * Dot(&q[at], &k[key.back()]));
    }
    T top = x[0], sum = 0;
    for (const T value : x) top = std::max(top, value);
    for (size_t n = 0; n < x.size(); ++n) {
      const T p = std::exp(x[n] - top);
      sum += p;
      for (int64_t e = 0; e < kDim; ++e) {
        o[at + e] += rounded(p) * v[key[n] + e];
      }
    }
    for (int64_t e = 0; e < kDim; ++e) o[at + e] /= sum;
    lse.push_back(top + std::log(sum));
    const T delta = Dot(&d_o[at], &o[at]);
    for (size_t n = 0; n < x.size(); ++n) {
      const T p = std::exp(x[n] - lse.back());
      const T ds = rounded(p * (Dot(&d_o[at], &v[key[n]]) - delta));
      for (int64_t e = 0; e < kDim; ++e) {
        dq[at + e] += scale * (ds * k[key[n] + e]);
        dk[key[n] + e] += scale * (ds * q[at + e]);
        dv[key[n] + e] += rounded(p) * d_o[at + e];
      }
    }
  }
  T (*rounded)(T);
  std::vector<T> q, k, v, d_o, o, dq, dk, dv, lse;
};

template <typename T>
T Same(T x) {
  return x;
}
float ToBf16(float x) { return static_cast<float>(BFloat16(x)); }

// Elements beyond their bounds.
template <typename T>
int64_t Wrong(const Matrix& want, const std::vector<T>& got) {
  EXPECT_EQ(want.values.size(), got.size());
  const double lambda = Lambda(static_cast<double>(got.size()));
  int64_t wrong = 0;
  for (size_t i = 0; i < got.size(); ++i) {
    const Bounded& x = want.values[i];
    EXPECT_LE(x.Likely(lambda), x.worst);
    const double e = std::abs(static_cast<double>(got[i]) - x.value);
    if (!(e <= x.Likely(lambda))) ++wrong;
  }
  return wrong;
}

template <typename T>
void ExpectWithin(const FlashInputs& in, const FlashArithmetic& a,
                  T (*rounded)(T)) {
  const FlashResult want = FlashReference(in, a);
  const Naive<T> naive(in, rounded);
  EXPECT_EQ(Wrong(want.o, naive.o), 0);
  EXPECT_EQ(Wrong(want.lse, naive.lse), 0);
  EXPECT_EQ(Wrong(want.dq, naive.dq), 0);
  EXPECT_EQ(Wrong(want.dk, naive.dk), 0);
  EXPECT_EQ(Wrong(want.dv, naive.dv), 0);
}

FlashArithmetic Bf16Products() {
  return {.products = DType::kBF16, .exp_error = 4 * 0x1p-24};
}

TEST(FlashReference, NaiveAttentionIsWithinItsBounds) {
  const Operands doubles(DType::kF64), floats(DType::kF32), bf16(DType::kBF16);
  ExpectWithin<double>(doubles.Inputs(), FlashArithmetic::For(DType::kF64),
                       &Same<double>);
  ExpectWithin<float>(floats.Inputs(), FlashArithmetic::For(DType::kF32),
                      &Same<float>);
  ExpectWithin<float>(bf16.Inputs(), Bf16Products(), &ToBf16);
}

// Roundings that were not declared are seen, in every result but lse, whose sum
// has none.
TEST(FlashReference, BoundsSeeARoundingThatIsNotDeclared) {
  const Operands bf16(DType::kBF16);
  const FlashInputs in = bf16.Inputs();
  const FlashResult want =
      FlashReference(in, FlashArithmetic::For(DType::kF32));
  const Naive<float> naive(in, &ToBf16);
  const auto most = static_cast<int64_t>(naive.dq.size()) / 2;
  EXPECT_GT(Wrong(want.o, naive.o), most);
  EXPECT_GT(Wrong(want.dq, naive.dq), most);
  EXPECT_GT(Wrong(want.dk, naive.dk), most / 2);
  EXPECT_GT(Wrong(want.dv, naive.dv), most / 2);
  EXPECT_EQ(Wrong(want.lse, naive.lse), 0);
}

// A key too few or too many, in bf16 and for a few merges.
TEST(FlashReference, BoundsSeeAnotherMask) {
  const Operands bf16(DType::kBF16);
  FlashInputs in = bf16.Inputs();
  FlashArithmetic a = Bf16Products();
  a.merges = 7;
  a.o = DType::kBF16;
  const FlashResult want = FlashReference(in, a);
  for (std::vector<int64_t>& keys : in.seen) keys.pop_back();
  const Naive<float> naive(in, &ToBf16);
  const auto most = static_cast<int64_t>(naive.dq.size()) / 2;
  EXPECT_GT(Wrong(want.o, naive.o), most);
  EXPECT_EQ(Wrong(want.lse, naive.lse), static_cast<int64_t>(naive.lse.size()));
  EXPECT_GT(Wrong(want.dq, naive.dq), most);
}

TEST(FlashReference, IsTheCoreWhereThatHasAResult) {
  const Operands doubles(DType::kF64);
  const FlashInputs in = doubles.Inputs();
  const FlashResult flash =
      FlashReference(in, FlashArithmetic::For(DType::kF64));
  const CoreResult core = CoreReference({.sequences = kSequences,
                                         .heads = kHeads,
                                         .kv_heads = kKvHeads,
                                         .heads_per_kv = kHeads / kKvHeads,
                                         .head_dim = kDim,
                                         .causal = true,
                                         .diagonal = 10,
                                         .scale = in.scale,
                                         .q = ExactMatrix(in.q),
                                         .k = ExactMatrix(in.k),
                                         .v = ExactMatrix(in.v),
                                         .d_o = ExactMatrix(*in.d_o)},
                                        CoreArithmetic::For(DType::kF64));
  const std::pair<const Matrix*, const Matrix*> pairs[] = {
      {&flash.o, &core.o},
      {&flash.dq, &core.dq},
      {&flash.dk, &core.dk},
      {&flash.dv, &core.dv}};
  for (const auto& [a, b] : pairs) {
    ASSERT_EQ(a->values.size(), b->values.size());
    for (size_t i = 0; i < a->values.size(); ++i) {
      ASSERT_LE(std::abs(a->values[i].value - b->values[i].value),
                b->values[i].worst);
    }
  }
}

TEST(FlashReference, NothingSeenIsNothing) {
  const Operands floats(DType::kF32);
  FlashInputs in = floats.Inputs();
  in.seen[3].clear();
  const FlashResult r = FlashReference(in, FlashArithmetic::For(DType::kF32));
  for (int64_t h = 0; h < kSequences * kHeads; ++h) {
    EXPECT_EQ(r.lse.at(h, 3).value, -std::numeric_limits<double>::infinity());
    EXPECT_EQ(r.lse.at(h, 3).worst, 0);
    EXPECT_TRUE(std::isfinite(r.lse.at(h, 4).value));
  }
  for (int64_t e = 0; e < kHeads * kDim; ++e) {
    EXPECT_EQ(r.o.at(3, e).value, 0);
    EXPECT_EQ(r.dq.at(3, e).value, 0);
  }
  for (std::vector<int64_t>& keys : in.seen) keys.clear();
  const FlashResult none =
      FlashReference(in, FlashArithmetic::For(DType::kF32));
  for (const Bounded& x : none.dk.values) EXPECT_EQ(x.value, 0);
  for (const Bounded& x : none.dv.values) EXPECT_EQ(x.value, 0);
}

}  // namespace
}  // namespace shardproof
