// For the tests: a problem of ../../flash_testing.h, computed by the kernels in fibers, and its bounds.
//
//     TileProblem problem(ShapeOf(DType::kBF16, 129, 65, 128), {.causal = true}, {.count = 129}, {.count = 65});
//     TileLauncher launch;
//     ASSERT_TRUE(problem.Run(launch, seed).ok());
//     problem.ExpectRight();
//
// Room between rows is a multiple of 8 elements here. The bounds are those of reference/flash_attention.h for P and dS
// that are rounded to the type of the tensors, and tiles of 32 keys, of which no kernel has smaller ones. exp2 errs by a
// unit in the last place on the host and by 2^-22 on a GPU; the bounds allow the latter.
#ifndef SHARDPROOF_ATTENTION_KERNELS_CUDA_TESTING_TILE_PROBLEM_H_
#define SHARDPROOF_ATTENTION_KERNELS_CUDA_TESTING_TILE_PROBLEM_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <utility>

#include "attention/kernels/cuda/arguments.h"
#include "attention/kernels/cuda/forward.h"
#include "attention/kernels/cuda/gradients.h"
#include "attention/kernels/cuda/key_gradients.h"
#include "attention/kernels/cuda/protocol.h"
#include "attention/kernels/cuda/query_gradients.h"
#include "attention/kernels/cuda/testing/tile_launcher.h"
#include "attention/kernels/flash_testing.h"

namespace shardproof::cuda::testing {

inline TokenSpan SpanOf(const TokenRun& run) {
  return {static_cast<int>(run.offset), static_cast<int>(run.stride),
          static_cast<int>(run.count)};
}

// f.operator()<T, kHeadDim>() of bf16 or f16, 64 or 128.
template <class F>
Status VisitTile(DType dtype, int64_t head_dim, const F& f) {
  if (dtype == DType::kBF16) {
    return head_dim == 64 ? f.template operator()<BFloat16, 64>()
                          : f.template operator()<BFloat16, 128>();
  }
  return head_dim == 64 ? f.template operator()<Float16, 64>()
                        : f.template operator()<Float16, 128>();
}

struct TileProblem : FlashProblem {
  static constexpr int64_t kRoom = 8;

  TileProblem(const FlashShape& s, const Visibility& v, const TokenRun& qs,
              const TokenRun& ks, DType o_type)
      : FlashProblem(s, v, qs, ks) {
    const auto output = [&](const char* name, DType dtype, int64_t tokens,
                            int64_t width) {
      t[name] = Poisoned(dtype, {s.sequences * tokens, width + kRoom});
    };
    output("o", o_type, qs.count, q_width);
    output("dq", wide, qs.count, q_width);
    output("dk", wide, ks.count, k_width);
    output("dv", wide, ks.count, k_width);
  }
  TileProblem(const FlashShape& s, const Visibility& v, const TokenRun& qs,
              const TokenRun& ks)
      : TileProblem(s, v, qs, ks, s.dtype) {}

  FlashWork Work() const {
    FlashWork work = {.sequences = static_cast<int>(shape.sequences),
                      .heads = static_cast<int>(shape.heads),
                      .kv_heads = static_cast<int>(shape.kv_heads),
                      .heads_per_kv = static_cast<int>(shape.heads_per_kv),
                      .first_in_group = static_cast<int>(shape.first_in_group),
                      .sight = {.queries = SpanOf(queries),
                                .keys = SpanOf(keys),
                                .causal = visibility.causal,
                                .window = static_cast<int>(visibility.window)}};
    SetScale(work, shape.scale);
    return work;
  }
  FlashIn TileIn(const char* name) const {
    const Tensor& x = t.at(name);
    return {x.raw(), x.shape()[1], x.num_elements() / shape.sequences};
  }
  FlashOut TileOut(const char* name) {
    Tensor& x = t.at(name);
    return {x.raw(), x.shape()[1], x.num_elements() / shape.sequences};
  }
  int Queries() const { return static_cast<int>(queries.count); }
  int Keys() const { return static_cast<int>(keys.count); }
  int Heads() const { return static_cast<int>(shape.heads); }
  int KvHeads() const { return static_cast<int>(shape.kv_heads); }
  int Sequences() const { return static_cast<int>(shape.sequences); }

  template <class Protocol = StandardFlashProtocol>
  Status Forward(TileLauncher& launch, uint64_t seed) {
    FlashForwardArgs args = {.work = Work(),
                             .q = TileIn("q"),
                             .k = TileIn("k"),
                             .v = TileIn("v"),
                             .o = TileOut("o"),
                             .o_is_wide = t.at("o").dtype() == DType::kF32,
                             .lse = t.at("lse").data<float>(),
                             .lse_stride = queries.count};
    return VisitTile(shape.dtype, shape.head_dim, [&]<class T, int kHeadDim> {
      using Tiling = ForwardTiling<kHeadDim>;
      return launch(
          {FlashBlocks(TilesOf(Queries(), Tiling::kRows), Heads(), Sequences()),
           Tiling::kThreads, ForwardSharedBytes<Tiling>()},
          seed, [&](FiberTileContext& context) {
            FlashForward<T, Tiling, Protocol>(context, args);
          });
    });
  }
  Status Delta(TileLauncher& launch, uint64_t seed) {
    const FlashDeltaArgs args = {.work = Work(),
                                 .d_o = TileIn("do"),
                                 .o = TileIn("o"),
                                 .o_is_wide = t.at("o").dtype() == DType::kF32,
                                 .delta = t.at("delta").data<float>(),
                                 .delta_stride = queries.count};
    return VisitTile(shape.dtype, shape.head_dim, [&]<class T, int kHeadDim> {
      return launch(
          {FlashBlocks(TilesOf(Queries(), kDeltaRows), Heads(), Sequences()),
           kDeltaThreads, 0},
          seed, [&](FiberTileContext& context) {
            FlashDelta<T, kHeadDim>(context, args);
          });
    });
  }
  FlashBackwardArgs TileBackwardArgs(bool overwrite) {
    return {.work = Work(),
            .q = TileIn("q"),
            .k = TileIn("k"),
            .v = TileIn("v"),
            .d_o = TileIn("do"),
            .lse = t.at("lse").data<float>(),
            .delta = t.at("delta").data<float>(),
            .lse_stride = queries.count,
            .delta_stride = queries.count,
            .dq = TileOut("dq"),
            .dk = TileOut("dk"),
            .dv = TileOut("dv"),
            .overwrite = overwrite};
  }
  template <class Protocol = StandardFlashProtocol>
  Status QueryGradients(TileLauncher& launch, uint64_t seed,
                        bool overwrite = true) {
    const FlashBackwardArgs args = TileBackwardArgs(overwrite);
    return VisitTile(shape.dtype, shape.head_dim, [&]<class T, int kHeadDim> {
      using Tiling = QueryGradientTiling<kHeadDim>;
      return launch(
          {FlashBlocks(TilesOf(Queries(), Tiling::kRows), Heads(), Sequences()),
           Tiling::kThreads, QueryGradientSharedBytes<Tiling>()},
          seed, [&](FiberTileContext& context) {
            FlashQueryGradients<T, Tiling, Protocol>(context, args);
          });
    });
  }
  template <class Protocol = StandardFlashProtocol>
  Status KeyGradients(TileLauncher& launch, uint64_t seed,
                      bool overwrite = true) {
    const FlashBackwardArgs args = TileBackwardArgs(overwrite);
    return VisitTile(shape.dtype, shape.head_dim, [&]<class T, int kHeadDim> {
      using Tiling = KeyGradientTiling<kHeadDim>;
      return launch(
          {FlashBlocks(TilesOf(Keys(), Tiling::kRows), KvHeads(), Sequences()),
           Tiling::kThreads, KeyGradientSharedBytes<Tiling>()},
          seed, [&](FiberTileContext& context) {
            FlashKeyGradients<T, Tiling, Protocol>(context, args);
          });
    });
  }
  Status Backward(TileLauncher& launch, uint64_t seed, bool overwrite = true) {
    SP_RETURN_IF_ERROR(QueryGradients(launch, seed, overwrite));
    return KeyGradients(launch, seed, overwrite);
  }
  Status Run(TileLauncher& launch, uint64_t seed) {
    SP_RETURN_IF_ERROR(Forward(launch, seed));
    SP_RETURN_IF_ERROR(Delta(launch, seed));
    return Backward(launch, seed);
  }

  FlashResult TileExpected(int64_t merges, bool backward) const {
    FlashInputs in = {.sequences = shape.sequences,
                      .heads = shape.heads,
                      .kv_heads = shape.kv_heads,
                      .heads_per_kv = shape.heads_per_kv,
                      .first_in_group = shape.first_in_group,
                      .head_dim = shape.head_dim,
                      .scale = shape.scale,
                      .q = t.at("q").view(),
                      .k = t.at("k").view(),
                      .v = t.at("v").view()};
    if (backward) in.d_o = t.at("do").view();
    for (int64_t i = 0; i < queries.count; ++i) {
      const IndexRange seen =
          shardproof::KeysSeen(visibility, queries.Position(i), keys);
      std::vector<int64_t>& list = in.seen.emplace_back();
      for (int64_t j = seen.first; j < seen.last; ++j) list.push_back(j);
    }
    FlashArithmetic a = FlashArithmetic::For(shape.dtype);
    a.o = t.at("o").dtype();
    a.tiles = (keys.count + 31) / 32;
    a.merges = merges;
    return FlashReference(in, a);
  }
  void ExpectForwardRight(int64_t merges = 0) const {
    const FlashResult want = TileExpected(merges, false);
    ExpectClose("o", want.o);
    ExpectClose("lse", want.lse);
  }
  void ExpectAllRight(int64_t merges = 0) const {
    const FlashResult want = TileExpected(merges, true);
    ExpectClose("o", want.o);
    ExpectClose("lse", want.lse);
    ExpectClose("dq", want.dq);
    ExpectClose("dk", want.dk);
    ExpectClose("dv", want.dv);
  }
};

inline std::string Describe(const FlashShape& shape, const Visibility& v,
                            const TokenRun& queries, const TokenRun& keys) {
  return fmt::format(
      "{} x {} queries from {} by {}, {} keys from {} by {}, {} heads, {} KV, "
      "{} wide, causal {}, window {}, {}",
      shape.sequences, queries.count, queries.offset, queries.stride,
      keys.count, keys.offset, keys.stride, shape.heads, shape.kv_heads,
      shape.head_dim, v.causal, v.window, Name(shape.dtype));
}

inline constexpr DType kTileTypes[] = {DType::kBF16, DType::kF16};
inline constexpr int64_t kTileHeadDims[] = {64, 128};

// What a program prints in the end: how much of the bounds was used.
class TileTest : public ::testing::Test {
 protected:
  static void TearDownTestSuite() {
    for (const auto& [what, ratio] : FlashProblem::worst_ratio()) {
      std::printf("%s: worst e / bound %.3f\n", what.c_str(), ratio);
    }
  }

  void ExpectForward(const FlashShape& shape, const Visibility& v,
                     const TokenRun& queries, const TokenRun& keys) {
    SCOPED_TRACE(Describe(shape, v, queries, keys));
    TileProblem problem(shape, v, queries, keys);
    const Status status = problem.Forward(launch_, ++seed_);
    ASSERT_TRUE(status.ok()) << status.ToString();
    problem.ExpectForwardRight();
  }
  void ExpectAll(const FlashShape& shape, const Visibility& v,
                 const TokenRun& queries, const TokenRun& keys) {
    SCOPED_TRACE(Describe(shape, v, queries, keys));
    TileProblem problem(shape, v, queries, keys);
    const Status status = problem.Run(launch_, ++seed_);
    ASSERT_TRUE(status.ok()) << status.ToString();
    problem.ExpectAllRight();
  }

  TileLauncher launch_;
  uint64_t seed_ = 0;
};

}  // namespace shardproof::cuda::testing

#endif  // SHARDPROOF_ATTENTION_KERNELS_CUDA_TESTING_TILE_PROBLEM_H_
