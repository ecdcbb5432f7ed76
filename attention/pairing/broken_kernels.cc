#include "attention/pairing/broken_kernels.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <memory>
#include <numbers>
#include <type_traits>
#include <utility>
#include <vector>

#include "collectives/chunks.h"
#include "reference/dtype.h"
#include "reference/tensor.h"

namespace shardproof {
namespace {

using Made = StatusOr<std::unique_ptr<FlashAttention>>;

// A kernel around the right one.
class Around : public FlashAttention {
 public:
  Around(const FlashShape& shape, std::unique_ptr<FlashAttention> inner)
      : shape_(shape), inner_(std::move(inner)) {}
  Status Forward(const Stream& stream, const ForwardArgs& args) override {
    return inner_->Forward(stream, args);
  }
  Status Backward(const Stream& stream, const BackwardArgs& args) override {
    return inner_->Backward(stream, args);
  }
  int64_t working_bytes() const override { return inner_->working_bytes(); }

 protected:
  DType wide() const { return Accumulator(shape_.dtype); }
  FlashShape shape_;
  std::unique_ptr<FlashAttention> inner_;
};

template <class Broken>
Made Make(const FlashShape& shape) {
  SP_ASSIGN_OR_RETURN(std::unique_ptr<FlashAttention> inner,
                      FlashAttention::Create(shape));
  return std::unique_ptr<FlashAttention>(
      std::make_unique<Broken>(shape, std::move(inner)));
}

// --- What becomes of lse and O -----------------------------------------------

// f(sequence, head, query, lse) for each number that a forward call has made.
template <class F>
void EachLse(const FlashShape& shape, const FlashAttention::ForwardArgs& args,
             const F& f) {
  const int64_t queries = args.block.queries.count;
  const int64_t stride = args.lse.stride != 0 ? args.lse.stride : queries;
  Visit(Accumulator(shape.dtype), [&]<typename T>(TypeTag<T>) {
    if constexpr (std::is_floating_point_v<T>) {
      for (int64_t s = 0; s < shape.sequences; ++s) {
        for (int64_t h = 0; h < shape.heads; ++h) {
          T* const row =
              static_cast<T*>(args.lse.data) + (s * shape.heads + h) * stride;
          for (int64_t i = 0; i < queries; ++i) f(s, h, i, row[i]);
        }
      }
    }
  });
}

class LogOfBaseTwo final : public Around {
 public:
  using Around::Around;
  Status Forward(const Stream& stream, const ForwardArgs& args) override {
    SP_RETURN_IF_ERROR(inner_->Forward(stream, args));
    EachLse(shape_, args, [](auto, auto, auto, auto& lse) {
      lse *= std::numbers::log2e_v<std::remove_reference_t<decltype(lse)>>;
    });
    return OkStatus();
  }
};

template <bool infinite>
class SomeLseOfNothing final : public Around {
 public:
  using Around::Around;
  Status Forward(const Stream& stream, const ForwardArgs& args) override {
    SP_RETURN_IF_ERROR(inner_->Forward(stream, args));
    EachLse(shape_, args, [](auto, auto, auto, auto& lse) {
      using T = std::remove_reference_t<decltype(lse)>;
      if (lse == -std::numeric_limits<T>::infinity()) {
        lse = infinite ? std::numeric_limits<T>::infinity() : T{0};
      }
    });
    return OkStatus();
  }
};

class LseTransposed final : public Around {
 public:
  using Around::Around;
  Status Forward(const Stream& stream, const ForwardArgs& args) override {
    SP_RETURN_IF_ERROR(inner_->Forward(stream, args));
    const int64_t queries = args.block.queries.count;
    std::vector<double> right;
    EachLse(shape_, args,
            [&](auto, auto, auto, auto& lse) { right.push_back(lse); });
    EachLse(shape_, args, [&](int64_t s, int64_t h, int64_t i, auto& lse) {
      using T = std::remove_reference_t<decltype(lse)>;
      const int64_t at = s * shape_.heads * queries + i * shape_.heads + h;
      lse = static_cast<T>(right[static_cast<size_t>(at)]);
    });
    return OkStatus();
  }
};

class NarrowPartials final : public Around {
 public:
  using Around::Around;
  Status Forward(const Stream& stream, const ForwardArgs& args) override {
    SP_RETURN_IF_ERROR(inner_->Forward(stream, args));
    const int64_t queries = args.block.queries.count;
    const int64_t width = shape_.heads * shape_.head_dim;
    const int64_t between = args.o.sequence_stride != 0
                                ? args.o.sequence_stride
                                : queries * args.o.stride;
    for (int64_t s = 0; s < shape_.sequences; ++s) {
      for (int64_t i = 0; i < queries; ++i) {
        void* const row =
            At(args.o.data, args.o_type, s * between + i * args.o.stride);
        std::vector<double> x(static_cast<size_t>(width));
        std::vector<BFloat16> narrow(x.size());
        ToDouble(args.o_type, row, width, x.data());
        FromDouble(DType::kBF16, x.data(), width, narrow.data());
        ToDouble(DType::kBF16, narrow.data(), width, x.data());
        FromDouble(args.o_type, x.data(), width, row);
      }
    }
    return OkStatus();
  }
};

class LseOfTheLastBlock final : public Around {
 public:
  using Around::Around;
  Status Forward(const Stream& stream, const ForwardArgs& args) override {
    SP_RETURN_IF_ERROR(inner_->Forward(stream, args));
    last_.clear();
    queries_ = args.block.queries.count;
    EachLse(shape_, args,
            [&](auto, auto, auto, auto& lse) { last_.push_back(lse); });
    return OkStatus();
  }
  Status Backward(const Stream& stream, const BackwardArgs& args) override {
    const int64_t queries = args.block.queries.count;
    if (queries != queries_) return inner_->Backward(stream, args);
    BackwardArgs broken = args;
    Tensor lse(wide(), {static_cast<int64_t>(last_.size())});
    FromDouble(wide(), last_.data(), lse.num_elements(), lse.raw());
    broken.lse = {lse.raw(), queries};
    return inner_->Backward(stream, broken);
  }

 private:
  int64_t queries_ = -1;
  std::vector<double> last_;
};

class KeysOfTheFirstBlock final : public Around {
 public:
  using Around::Around;
  Status Forward(const Stream& stream, const ForwardArgs& args) override {
    k_.clear();
    return inner_->Forward(stream, args);
  }
  Status Backward(const Stream& stream, const BackwardArgs& args) override {
    BackwardArgs broken = args;
    if (k_.empty()) {
      count_ = args.block.keys.count;
      k_ = Rows(args.k);
      v_ = Rows(args.v);
    }
    if (args.block.keys.count == count_) {
      broken.k = {k_.data(), width()};
      broken.v = {v_.data(), width()};
    }
    return inner_->Backward(stream, broken);
  }

 private:
  int64_t width() const { return shape_.kv_heads * shape_.head_dim; }
  std::vector<std::byte> Rows(const ConstTokens& t) const {
    const int64_t row = width() * SizeOf(shape_.dtype);
    const int64_t between =
        t.sequence_stride != 0 ? t.sequence_stride : count_ * t.stride;
    std::vector<std::byte> rows(
        static_cast<size_t>(shape_.sequences * count_ * row));
    for (int64_t s = 0; s < shape_.sequences; ++s) {
      for (int64_t j = 0; j < count_; ++j) {
        std::memcpy(rows.data() + (s * count_ + j) * row,
                    At(t.data, shape_.dtype, s * between + j * t.stride),
                    static_cast<size_t>(row));
      }
    }
    return rows;
  }

  int64_t count_ = 0;
  std::vector<std::byte> k_, v_;
};

// `spoil` of what dk and dv have become, token by token.
template <void (*spoil)(const FlashShape&, void* row)>
class SpoiledGradients final : public Around {
 public:
  using Around::Around;
  Status Backward(const Stream& stream, const BackwardArgs& args) override {
    SP_RETURN_IF_ERROR(inner_->Backward(stream, args));
    const int64_t count = args.block.keys.count;
    for (const Tokens& t : {args.dk, args.dv}) {
      const int64_t between =
          t.sequence_stride != 0 ? t.sequence_stride : count * t.stride;
      for (int64_t s = 0; s < shape_.sequences; ++s) {
        for (int64_t i = 0; i < count; ++i) {
          spoil(shape_, At(t.data, wide(), s * between + i * t.stride));
        }
      }
    }
    return OkStatus();
  }
};

void LoseSharedHead(const FlashShape& shape, void* row) {
  if (shape.first_in_group == 0) return;
  std::memset(
      row, 0,
      static_cast<size_t>(shape.head_dim * SizeOf(Accumulator(shape.dtype))));
}

void RoundRow(const FlashShape& shape, void* row) {
  const DType wide = Accumulator(shape.dtype);
  const int64_t width = shape.kv_heads * shape.head_dim;
  std::vector<double> x(static_cast<size_t>(width));
  std::vector<BFloat16> narrow(x.size());
  ToDouble(wide, row, width, x.data());
  FromDouble(DType::kBF16, x.data(), width, narrow.data());
  ToDouble(DType::kBF16, narrow.data(), width, x.data());
  FromDouble(wide, x.data(), width, row);
}

// --- Who sees whom -----------------------------------------------------------

template <void (*break_block)(FlashBlock&, Visibility&)>
class BrokenMask final : public Around {
 public:
  using Around::Around;
  Status Forward(const Stream& stream, const ForwardArgs& args) override {
    ForwardArgs broken = args;
    Visibility visibility = *args.block.visibility;
    broken.block.visibility = &visibility;
    break_block(broken.block, visibility);
    return inner_->Forward(stream, broken);
  }
  Status Backward(const Stream& stream, const BackwardArgs& args) override {
    BackwardArgs broken = args;
    Visibility visibility = *args.block.visibility;
    broken.block.visibility = &visibility;
    break_block(broken.block, visibility);
    return inner_->Backward(stream, broken);
  }
};

// --- Which KV head -----------------------------------------------------------

// One sequence and one query head at a time, with the KV head that `which`
// says; tokens of a head one after the other if `head_major`.
template <int64_t (*which)(const FlashShape&, int64_t head), bool head_major>
class HeadByHead final : public Around {
 public:
  using Around::Around;
  static FlashShape OneHead(FlashShape shape) {
    shape.sequences = shape.heads = shape.kv_heads = shape.heads_per_kv = 1;
    shape.first_in_group = 0;
    return shape;
  }
  Status Forward(const Stream& stream, const ForwardArgs& args) override {
    return Each(
        [&](FlashAttention& one, int64_t s, int64_t h, int64_t g) -> Status {
          const int64_t nq = args.block.queries.count;
          const int64_t nk = args.block.keys.count;
          ForwardArgs a = args;
          a.q = Head(args.q, shape_.dtype, nq, s, h);
          a.k = KeyHead(args.k, nk, s, g);
          a.v = KeyHead(args.v, nk, s, g);
          a.o = Head(args.o, args.o_type, nq, s, h);
          a.lse = Number(args.lse, nq, s, h);
          return one.Forward(stream, a);
        });
  }
  Status Backward(const Stream& stream, const BackwardArgs& args) override {
    return Each(
        [&](FlashAttention& one, int64_t s, int64_t h, int64_t g) -> Status {
          const int64_t nq = args.block.queries.count;
          const int64_t nk = args.block.keys.count;
          BackwardArgs a = args;
          a.q = Head(args.q, shape_.dtype, nq, s, h);
          a.k = KeyHead(args.k, nk, s, g);
          a.v = KeyHead(args.v, nk, s, g);
          a.d_o = Head(args.d_o, shape_.dtype, nq, s, h);
          a.lse = Number(args.lse, nq, s, h);
          a.delta = Number(args.delta, nq, s, h);
          a.dq = Head(args.dq, wide(), nq, s, h);
          a.dk = Head(args.dk, wide(), nk, s, g);
          a.dv = Head(args.dv, wide(), nk, s, g);
          return one.Backward(stream, a);
        });
  }

 private:
  template <class F>
  Status Each(const F& f) {
    SP_ASSIGN_OR_RETURN(const std::unique_ptr<FlashAttention> one,
                        FlashAttention::Create(OneHead(shape_)));
    for (int64_t s = 0; s < shape_.sequences; ++s) {
      for (int64_t h = 0; h < shape_.heads; ++h) {
        SP_RETURN_IF_ERROR(f(*one, s, h, which(shape_, h)));
      }
    }
    return OkStatus();
  }
  template <class Void>
  static int64_t Between(const TokensIn<Void>& t, int64_t count) {
    return t.sequence_stride != 0 ? t.sequence_stride : count * t.stride;
  }
  template <class Void>
  TokensIn<Void> Head(const TokensIn<Void>& t, DType dtype, int64_t count,
                      int64_t s, int64_t head) const {
    return {At(t.data, dtype, s * Between(t, count) + head * shape_.head_dim),
            t.stride};
  }
  ConstTokens KeyHead(const ConstTokens& t, int64_t count, int64_t s,
                      int64_t head) const {
    if (!head_major) return Head(t, shape_.dtype, count, s, head);
    return {At(t.data, shape_.dtype,
               s * Between(t, count) + head * count * shape_.head_dim),
            shape_.head_dim};
  }
  template <class Void>
  PerQueryIn<Void> Number(const PerQueryIn<Void>& t, int64_t count, int64_t s,
                          int64_t head) const {
    const int64_t stride = t.stride != 0 ? t.stride : count;
    return {At(t.data, wide(), (s * shape_.heads + head) * stride), stride};
  }
};

int64_t Interleaved(const FlashShape& shape, int64_t head) {
  return head % shape.kv_heads;
}
int64_t LongerGroups(const FlashShape& shape, int64_t head) {
  return (head + shape.first_in_group) / (shape.heads_per_kv + 1);
}
int64_t RightHead(const FlashShape& shape, int64_t head) {
  return shape.KvHeadOf(head);
}

// --- The rest ----------------------------------------------------------------

Made MakeUnscaled(const FlashShape& shape) {
  FlashShape unscaled = shape;
  unscaled.scale = 1;
  return FlashAttention::Create(unscaled);
}

template <typename T>
void MergeExponentials(const MergeArgs& args) {
  const auto row = [&](const auto& t, int64_t s, int64_t i) {
    const int64_t between =
        t.sequence_stride != 0 ? t.sequence_stride : args.queries * t.stride;
    return s * between + i * t.stride;
  };
  const auto number = [&](const auto& t, int64_t s, int64_t h, int64_t i) {
    return (s * args.heads + h) * (t.stride != 0 ? t.stride : args.queries) + i;
  };
  for (int64_t s = 0; s < args.sequences; ++s) {
    for (int64_t h = 0; h < args.heads; ++h) {
      for (int64_t i = 0; i < args.queries; ++i) {
        T& lse = static_cast<T*>(args.lse.data)[number(args.lse, s, h, i)];
        const T lse_b =
            static_cast<const T*>(args.lse_b.data)[number(args.lse_b, s, h, i)];
        const T a = std::exp(lse), b = std::exp(lse_b);
        if (a + b == 0) continue;
        T* const o = static_cast<T*>(args.o.data) + row(args.o, s, i) +
                     h * args.head_dim;
        const T* const o_b = static_cast<const T*>(args.o_b.data) +
                             row(args.o_b, s, i) + h * args.head_dim;
        for (int64_t e = 0; e < args.head_dim; ++e) {
          o[e] = (a * o[e] + b * o_b[e]) / (a + b);
        }
        lse = std::log(a + b);
      }
    }
  }
}

Status MergeByExponentials(const Stream&, const MergeArgs& args) {
  if (args.dtype == DType::kF64) {
    MergeExponentials<double>(args);
  } else {
    MergeExponentials<float>(args);
  }
  return OkStatus();
}

Status NoDelta(const Stream& stream, const DeltaArgs& args) {
  SP_RETURN_IF_ERROR(AttentionDelta(stream, args));
  const int64_t stride =
      args.delta.stride != 0 ? args.delta.stride : args.queries;
  const int64_t n = args.sequences * args.heads * stride;
  if (n > 0) {
    std::memset(args.delta.data, 0,
                static_cast<size_t>(n * SizeOf(Accumulator(args.dtype))));
  }
  return OkStatus();
}

}  // namespace

void SeeTheNextToken(FlashBlock& block, Visibility&) { ++block.queries.offset; }
void NotSeeItself(FlashBlock& block, Visibility&) { ++block.keys.offset; }
void LengthenTheWindow(FlashBlock&, Visibility& visibility) {
  ++visibility.window;
}
void RestartPositions(FlashBlock& block, Visibility&) {
  block.keys.offset = 0;
  block.keys.stride = 1;
}
void RunDocumentsTogether(FlashBlock&, Visibility& visibility) {
  std::vector<int64_t>& cu = visibility.cu_seqlens;
  if (cu.size() > 2) cu = {cu.front(), cu.back()};
}

const AttentionKernels kLogOfBaseTwo = {.flash = Make<LogOfBaseTwo>};
const AttentionKernels kMergeByExponentials = {.merge = MergeByExponentials};
const AttentionKernels kNarrowPartials = {.flash = Make<NarrowPartials>};
const AttentionKernels kLseTransposed = {.flash = Make<LseTransposed>};
const AttentionKernels kFiniteLseOfNothing = {
    .flash = Make<SomeLseOfNothing<false>>};
const AttentionKernels kInfiniteLseOfNothing = {
    .flash = Make<SomeLseOfNothing<true>>};
const AttentionKernels kSeesTheNextToken = {
    .flash = Make<BrokenMask<SeeTheNextToken>>};
const AttentionKernels kDoesNotSeeItself = {.flash =
                                                Make<BrokenMask<NotSeeItself>>};
const AttentionKernels kWindowTooLong = {
    .flash = Make<BrokenMask<LengthenTheWindow>>};
const AttentionKernels kPositionsRestart = {
    .flash = Make<BrokenMask<RestartPositions>>};
const AttentionKernels kDocumentsRunTogether = {
    .flash = Make<BrokenMask<RunDocumentsTogether>>};
const AttentionKernels kKvHeadsInterleaved = {
    .flash = Make<HeadByHead<Interleaved, false>>};
const AttentionKernels kKvRatioOfPaddedHeads = {
    .flash = Make<HeadByHead<LongerGroups, false>>};
const AttentionKernels kKeysTransposedTwice = {
    .flash = Make<HeadByHead<RightHead, true>>};
const AttentionKernels kLseOfTheLastBlock = {.flash = Make<LseOfTheLastBlock>};
const AttentionKernels kKeysOfTheFirstBlock = {.flash =
                                                   Make<KeysOfTheFirstBlock>};
const AttentionKernels kSharedGradientsLost = {
    .flash = Make<SpoiledGradients<LoseSharedHead>>};
const AttentionKernels kNarrowGradients = {
    .flash = Make<SpoiledGradients<RoundRow>>};
const AttentionKernels kWithoutDelta = {.delta = NoDelta};
const AttentionKernels kUnscaled = {.flash = MakeUnscaled};

}  // namespace shardproof
