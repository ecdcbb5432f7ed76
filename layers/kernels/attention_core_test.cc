// The plain core against the bounded reference.
#include "layers/kernels/attention_core.h"

#include <gtest/gtest.h>

#include <cmath>
#include <map>
#include <string>
#include <vector>

#include "layers/kernels/kernel_testing.h"
#include "reference/attention_core.h"

namespace shardproof {
namespace {

// The tensors of a core. Rows are wider than their heads.
struct Tensors {
  static constexpr int64_t kMore = 3;

  explicit Tensors(const AttentionShape& s)
      : shape(s),
        queries(s.sequences * s.queries),
        keys(s.sequences * s.keys),
        wide(s.heads * s.head_dim),
        narrow(s.kv_heads * s.head_dim) {
    const auto input = [&](const char* name, int64_t tokens, int64_t columns) {
      t[name] = Filled(Uniform(s.dtype, 1.5), {tokens, columns + kMore}, name);
    };
    input("q", queries, wide);
    input("k", keys, narrow);
    input("v", keys, narrow);
    input("do", queries, wide);
    for (const char* name : {"o", "dq"}) {
      t[name] = Filled(Uniform(s.dtype, 9), {queries, wide + kMore}, name);
    }
    for (const char* name : {"dk", "dv"}) {
      t[name] = Filled(Uniform(s.dtype, 9), {keys, narrow + kMore}, name);
    }
  }
  ConstHeads In(const char* name) const {
    const Tensor& x = t.at(name);
    return {x.raw(), x.shape()[1]};
  }
  Heads Out(const char* name) {
    Tensor& x = t.at(name);
    return {x.raw(), x.shape()[1]};
  }
  Status Run(AttentionCore& core) {
    SP_RETURN_IF_ERROR(core.Forward(
        Stream::Inline(),
        {.q = In("q"), .k = In("k"), .v = In("v"), .o = Out("o")}));
    return core.Backward(Stream::Inline(), {.q = In("q"),
                                            .k = In("k"),
                                            .v = In("v"),
                                            .o = In("o"),
                                            .d_o = In("do"),
                                            .dq = Out("dq"),
                                            .dk = Out("dk"),
                                            .dv = Out("dv")});
  }
  Matrix Exact(const char* name, int64_t columns) const {
    return ColumnsOf(ExactMatrix(t.at(name).view()), 0, columns);
  }

  AttentionShape shape;
  int64_t queries, keys, wide, narrow;
  std::map<std::string, Tensor> t;
};

std::map<std::string, Matrix> Expected(const Tensors& t) {
  const AttentionShape& s = t.shape;
  const CoreResult r = CoreReference({.sequences = s.sequences,
                                      .heads = s.heads,
                                      .kv_heads = s.kv_heads,
                                      .heads_per_kv = s.heads_per_kv,
                                      .first_in_group = s.first_in_group,
                                      .head_dim = s.head_dim,
                                      .causal = s.causal,
                                      .diagonal = s.query_offset - s.key_offset,
                                      .scale = s.scale,
                                      .q = t.Exact("q", t.wide),
                                      .k = t.Exact("k", t.narrow),
                                      .v = t.Exact("v", t.narrow),
                                      .d_o = t.Exact("do", t.wide)},
                                     CoreArithmetic::For(s.dtype));
  return {{"o", r.o}, {"dq", r.dq}, {"dk", r.dk}, {"dv", r.dv}};
}

void ExpectRight(const AttentionShape& shape,
                 std::map<std::string, double>* ratios = nullptr) {
  SCOPED_TRACE(fmt::format(
      "{} x {} by {}, {} heads, {} KV, {} per KV from {}, {} wide, causal {} "
      "{} {}, {}",
      shape.sequences, shape.queries, shape.keys, shape.heads, shape.kv_heads,
      shape.heads_per_kv, shape.first_in_group, shape.head_dim, shape.causal,
      shape.query_offset, shape.key_offset, Name(shape.dtype)));
  const auto core = CreatePlainAttention(shape);
  ASSERT_TRUE(core.ok()) << core.status().ToString();
  Tensors t(shape);
  const Tensors before(shape);
  ASSERT_TRUE(t.Run(**core).ok());
  for (const auto& [name, want] : Expected(t)) {
    const Matrix got = ExactMatrix(t.t.at(name).view());
    const Matrix was = ExactMatrix(before.t.at(name).view());
    const double lambda = Lambda(static_cast<double>(want.values.size()));
    for (int64_t i = 0; i < static_cast<int64_t>(got.rows.size()); ++i) {
      for (int64_t j = 0; j < want.cols; ++j) {
        const Bounded& w = want.at(i, j);
        const double e = std::abs(got.at(i, j).value - w.value);
        ASSERT_TRUE(e <= w.Likely(lambda))
            << name << " of token " << i << ", element " << j << " is "
            << got.at(i, j).value << ", not " << w.value << " +- " << w.worst;
        if (ratios == nullptr || w.worst == 0) continue;
        double& worst = (*ratios)[name];
        worst = std::max(worst, e / w.Likely(lambda));
      }
      for (int64_t j = want.cols; j < got.cols; ++j) {
        ASSERT_EQ(got.at(i, j).value, was.at(i, j).value) << name;
      }
    }
  }
}

TEST(PlainAttention, EveryKindOfHeads) {
  for (const DType dtype :
       {DType::kF32, DType::kF64, DType::kBF16, DType::kF16}) {
    std::map<std::string, double> ratios;
    AttentionShape base = {.sequences = 2,
                           .queries = 21,
                           .keys = 21,
                           .heads = 4,
                           .kv_heads = 4,
                           .head_dim = 20,
                           .causal = true,
                           .scale = 1 / std::sqrt(20.),
                           .dtype = dtype};
    ExpectRight(base, &ratios);
    base.causal = false;
    ExpectRight(base, &ratios);
    base.kv_heads = 1;
    base.heads_per_kv = 4;
    ExpectRight(base, &ratios);
    base.heads_per_kv = 9;  // A part of a group.
    base.first_in_group = 3;
    base.causal = true;
    ExpectRight(base, &ratios);
    base.kv_heads = 3;  // The end of one group, another, the start of a third.
    base.heads_per_kv = 2;
    base.first_in_group = 1;
    ExpectRight(base, &ratios);
    for (const auto& [name, ratio] : ratios) {
      std::printf("%s %s: worst e/likely %.3f\n",
                  std::string(Name(dtype)).c_str(), name.c_str(), ratio);
    }
  }
}

// Parts of a sequence: some queries see no key at all.
TEST(PlainAttention, Offsets) {
  for (const int64_t query_offset : {0, 3, 6, 40}) {
    for (const int64_t key_offset : {0, 5, 9}) {
      ExpectRight({.sequences = 1,
                   .queries = 6,
                   .keys = 9,
                   .heads = 2,
                   .kv_heads = 1,
                   .heads_per_kv = 2,
                   .head_dim = 8,
                   .causal = true,
                   .query_offset = query_offset,
                   .key_offset = key_offset,
                   .dtype = DType::kBF16});
    }
  }
}

TEST(PlainAttention, SmallAndEmpty) {
  AttentionShape shape = {.queries = 1,
                          .keys = 1,
                          .heads = 1,
                          .kv_heads = 1,
                          .head_dim = 1,
                          .causal = true};
  ExpectRight(shape);
  shape.keys = 0;  // All outputs are 0.
  ExpectRight(shape);
  shape.queries = 0;
  shape.keys = 3;  // All gradients of keys are 0.
  ExpectRight(shape);
  shape.sequences = 0;
  ExpectRight(shape);
}

TEST(PlainAttention, RecomputationIsBitwiseTheSame) {
  for (const DType dtype : {DType::kF32, DType::kBF16}) {
    AttentionShape shape = {.sequences = 2,
                            .queries = 33,
                            .keys = 33,
                            .heads = 6,
                            .kv_heads = 2,
                            .heads_per_kv = 3,
                            .head_dim = 16,
                            .causal = true,
                            .scale = 0.25,
                            .dtype = dtype};
    Tensors kept(shape);
    const auto keeps = CreatePlainAttention(shape);
    ASSERT_TRUE(kept.Run(**keeps).ok());
    shape.recompute = true;
    Tensors again(shape);
    const auto recomputes = CreatePlainAttention(shape);
    ASSERT_TRUE(again.Run(**recomputes).ok());
    for (const char* name : {"o", "dq", "dk", "dv"}) {
      EXPECT_EQ(Doubles(again.t.at(name)), Doubles(kept.t.at(name))) << name;
    }
    EXPECT_EQ((*keeps)->kept_bytes(), 2 * 6 * 33 * 33 * SizeOf(dtype));
    EXPECT_EQ((*recomputes)->kept_bytes(), 0);
  }
}

TEST(PlainAttention, RefusesHeadsThatDoNotFit) {
  const auto code = [](const AttentionShape& shape) {
    return CreatePlainAttention(shape).status().code();
  };
  EXPECT_EQ(code({.heads = 4, .kv_heads = 2}), StatusCode::kInvalidArgument);
  EXPECT_EQ(
      code({.heads = 4, .kv_heads = 2, .heads_per_kv = 2, .first_in_group = 1}),
      StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.heads = 1, .kv_heads = 1, .first_in_group = 1}),
            StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.queries = -1}), StatusCode::kInvalidArgument);
  EXPECT_EQ(code({.heads = 1, .kv_heads = 1, .dtype = DType::kI32}),
            StatusCode::kUnsupported);
}

}  // namespace
}  // namespace shardproof
