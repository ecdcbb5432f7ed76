// For the tests of the kernels: the tensors of a block of attention, poisoned
// and with room between their rows, and its reference.
#ifndef SHARDPROOF_ATTENTION_KERNELS_FLASH_TESTING_H_
#define SHARDPROOF_ATTENTION_KERNELS_FLASH_TESTING_H_

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <string>
#include <vector>

#include "attention/kernels/flash.h"
#include "attention/kernels/merge.h"
#include "attention/kernels/tile_product.h"
#include "attention/visibility.h"
#include "reference/compare.h"
#include "reference/flash_attention.h"
#include "reference/random.h"
#include "reference/tensor.h"

namespace shardproof {

// Numbers in [-scale, scale) of `dtype`.
inline Tensor Random(DType dtype, const Shape& shape, const char* name,
                     double scale = 1) {
  Tensor t(dtype, shape);
  Fill(Uniform(dtype, scale), {.seed = 7, .tensor = TensorId(name)}, 0,
       t.num_elements(), t.raw());
  return t;
}
inline Tensor Poisoned(DType dtype, const Shape& shape) {
  Tensor t(dtype, shape);
  Poison(dtype, t.raw(), t.num_elements());
  return t;
}
inline std::vector<double> Doubles(const Tensor& t) {
  std::vector<double> out(static_cast<size_t>(t.num_elements()));
  ToDouble(t.dtype(), t.raw(), t.num_elements(), out.data());
  return out;
}
inline bool SameBits(const Tensor& a, const Tensor& b) {
  return a.num_bytes() == b.num_bytes() &&
         std::memcmp(a.raw(), b.raw(), static_cast<size_t>(a.num_bytes())) == 0;
}

// One block of queries with all of its keys. Each row of a tensor has kMore
// further elements, which stay poisoned.
struct FlashProblem {
  static constexpr int64_t kMore = 5;

  FlashProblem(const FlashShape& s, const Visibility& v, const TokenRun& qs,
               const TokenRun& ks)
      : shape(s),
        visibility(v),
        queries(qs),
        keys(ks),
        wide(Accumulator(s.dtype)),
        q_width(s.heads * s.head_dim),
        k_width(s.kv_heads * s.head_dim) {
    const auto input = [&](const char* name, int64_t tokens, int64_t width) {
      // Scores that differ: of a deviation of about 1.
      t[name] = Random(s.dtype, {s.sequences * tokens, width}, name, 1.8);
    };
    input("q", qs.count, q_width);
    input("k", ks.count, k_width);
    input("v", ks.count, k_width);
    input("do", qs.count, q_width);
    const auto output = [&](const char* name, DType dtype, int64_t tokens,
                            int64_t width) {
      t[name] = Poisoned(dtype, {s.sequences * tokens, width + kMore});
    };
    output("o", s.dtype, qs.count, q_width);
    output("dq", wide, qs.count, q_width);
    output("dk", wide, ks.count, k_width);
    output("dv", wide, ks.count, k_width);
    t["lse"] = Poisoned(wide, {s.sequences * s.heads, qs.count});
    t["delta"] = Poisoned(wide, {s.sequences * s.heads, qs.count});
  }

  ConstTokens In(const char* name) const {
    return {t.at(name).raw(), t.at(name).shape()[1]};
  }
  Tokens Out(const char* name) {
    return {t.at(name).raw(), t.at(name).shape()[1]};
  }
  FlashBlock block() const { return {queries, keys, &visibility}; }

  Status Forward(FlashAttention& flash) {
    return flash.Forward(Stream::Inline(), {.block = block(),
                                            .q = In("q"),
                                            .k = In("k"),
                                            .v = In("v"),
                                            .o = Out("o"),
                                            .o_type = t.at("o").dtype(),
                                            .lse = {t.at("lse").raw()}});
  }
  Status Delta() {
    return AttentionDelta(Stream::Inline(), {.dtype = shape.dtype,
                                             .o_type = t.at("o").dtype(),
                                             .sequences = shape.sequences,
                                             .queries = queries.count,
                                             .heads = shape.heads,
                                             .head_dim = shape.head_dim,
                                             .d_o = In("do"),
                                             .o = In("o"),
                                             .delta = {t.at("delta").raw()}});
  }
  FlashAttention::BackwardArgs BackwardArgs(bool overwrite) {
    return {.block = block(),
            .q = In("q"),
            .k = In("k"),
            .v = In("v"),
            .d_o = In("do"),
            .lse = {t.at("lse").raw()},
            .delta = {t.at("delta").raw()},
            .dq = Out("dq"),
            .dk = Out("dk"),
            .dv = Out("dv"),
            .overwrite = overwrite};
  }
  Status Run(FlashAttention& flash) {
    SP_RETURN_IF_ERROR(Forward(flash));
    SP_RETURN_IF_ERROR(Delta());
    return flash.Backward(Stream::Inline(), BackwardArgs(true));
  }

  FlashResult Expected(int64_t merges = 0) const {
    FlashInputs in = {.sequences = shape.sequences,
                      .heads = shape.heads,
                      .kv_heads = shape.kv_heads,
                      .heads_per_kv = shape.heads_per_kv,
                      .first_in_group = shape.first_in_group,
                      .head_dim = shape.head_dim,
                      .scale = shape.scale,
                      .q = t.at("q").view(),
                      .k = t.at("k").view(),
                      .v = t.at("v").view(),
                      .d_o = t.at("do").view()};
    for (int64_t i = 0; i < queries.count; ++i) {
      const IndexRange seen = KeysSeen(visibility, queries.Position(i), keys);
      std::vector<int64_t>& list = in.seen.emplace_back();
      for (int64_t j = seen.first; j < seen.last; ++j) list.push_back(j);
    }
    FlashArithmetic a = FlashArithmetic::For(shape.dtype);
    a.products = ProductType(shape.dtype);
    if (a.products != DType::kBF16) a.exp_error = 4 * UnitRoundoff(wide);
    a.o = t.at("o").dtype();
    a.tiles = (keys.count + 255) / 256;  // Of that many keys at least.
    a.merges = merges;
    return FlashReference(in, a);
  }

  // Every element of every result within its bounds, gains 1, and what is not
  // of a result as it was.
  void ExpectRight(int64_t merges = 0) const {
    const FlashResult want = Expected(merges);
    const std::pair<const char*, const Matrix*> all[] = {{"o", &want.o},
                                                         {"lse", &want.lse},
                                                         {"dq", &want.dq},
                                                         {"dk", &want.dk},
                                                         {"dv", &want.dv}};
    for (const auto& [name, matrix] : all) ExpectClose(name, *matrix);
  }

  void ExpectClose(const char* name, const Matrix& want) const {
    const Tensor& got = t.at(name);
    const int64_t rows = got.shape()[0], stride = got.shape()[1];
    ASSERT_EQ(static_cast<int64_t>(want.rows.size()), rows) << name;
    if (want.values.empty()) return;
    Comparator comparator({.dtype = got.dtype(), .shape = {rows, stride}});
    for (int64_t i = 0; i < rows; ++i) {
      comparator.Add(i * stride, Element(got, i * stride), want.row(i));
      for (int64_t j = want.cols; j < stride; ++j) {
        ASSERT_TRUE(IsPoison(got.dtype(), got.raw(), i * stride + j))
            << name << " was written beyond row " << i;
      }
    }
    const Comparison result = comparator.Finish();
    EXPECT_TRUE(result.passed()) << name << ": " << result.reason;
    double& worst = worst_ratio()[std::string(Name(shape.dtype)) + " " + name];
    worst = std::max(worst, result.worst_ratio);
  }
  static const void* Element(const Tensor& tensor, int64_t i) {
    return tensor.bytes().data() + i * SizeOf(tensor.dtype());
  }
  // The largest e / bound that a program has met, for each type and result.
  static std::map<std::string, double>& worst_ratio() {
    static std::map<std::string, double> ratios;
    return ratios;
  }

  FlashShape shape;
  Visibility visibility;
  TokenRun queries, keys;
  DType wide;
  int64_t q_width, k_width;
  std::map<std::string, Tensor> t;
};

inline FlashShape ShapeOf(DType dtype, int64_t queries, int64_t keys,
                          int64_t head_dim, int64_t heads = 1) {
  return {.queries = queries,
          .keys = keys,
          .heads = heads,
          .kv_heads = heads,
          .head_dim = head_dim,
          .scale = 1 / std::sqrt(static_cast<double>(head_dim)),
          .dtype = dtype};
}

// All of a block in one call.
inline void ExpectBlockRight(const FlashShape& shape, const Visibility& v,
                             const TokenRun& queries, const TokenRun& keys) {
  SCOPED_TRACE(fmt::format(
      "{} x {} queries from {} by {}, {} keys from {} by {}, {} heads, {} KV, "
      "{} wide, causal {}, window {}, {}",
      shape.sequences, queries.count, queries.offset, queries.stride,
      keys.count, keys.offset, keys.stride, shape.heads, shape.kv_heads,
      shape.head_dim, v.causal, v.window, Name(shape.dtype)));
  const auto flash = FlashAttention::Create(shape);
  ASSERT_TRUE(flash.ok()) << flash.status().ToString();
  FlashProblem problem(shape, v, queries, keys);
  const Status status = problem.Run(**flash);
  ASSERT_TRUE(status.ok()) << status.ToString();
  problem.ExpectRight();
}

inline constexpr DType kFlashTypes[] = {DType::kF32, DType::kBF16, DType::kF16,
                                        DType::kF64};

}  // namespace shardproof

#endif  // SHARDPROOF_ATTENTION_KERNELS_FLASH_TESTING_H_
