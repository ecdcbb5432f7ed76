#include "attention/sharded/partial_attention.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <type_traits>
#include <utility>

#include "attention/sharded/rounding.h"
#include "collectives/chunks.h"

namespace shardproof {
namespace {

int64_t Longest(std::span<const TokenRun> runs) {
  int64_t longest = 0;
  for (const TokenRun& run : runs) longest = std::max(longest, run.count);
  return longest;
}

void Clear(Tensor& tensor) {
  if (tensor.num_bytes() == 0) return;
  std::memset(tensor.raw(), 0, static_cast<size_t>(tensor.num_bytes()));
}

}  // namespace

PartialAttention::PartialAttention(const FlashShape& shape,
                                   const Visibility& visibility,
                                   std::vector<TokenRun> queries,
                                   const AttentionKernels& kernels)
    : shape_(shape),
      visibility_(visibility),
      queries_(std::move(queries)),
      kernels_(kernels),
      wide_(Accumulator(shape.dtype)) {
  std::erase_if(queries_, [](const TokenRun& run) { return run.count == 0; });
  tokens_ = CountTokens(queries_);
  started_.resize(queries_.size());
}

StatusOr<PartialAttention> PartialAttention::Create(
    const FlashShape& shape, const Visibility& visibility,
    std::vector<TokenRun> queries, const AttentionKernels& kernels) {
  PartialAttention attention(shape, visibility, std::move(queries), kernels);
  SP_RETURN_IF_ERROR(attention.Allocate());
  return attention;
}

Status PartialAttention::Allocate() {
  SP_ASSIGN_OR_RETURN(flash_, kernels_.flash(shape_));
  const int64_t s = shape_.sequences, h = shape_.heads;
  const int64_t run = Longest(queries_);
  const Shape all = {s * tokens_, q_width()};
  if (wide_ != shape_.dtype) {
    SP_ASSIGN_OR_RETURN(o_, Tensor::Create(wide_, all));
  }
  SP_ASSIGN_OR_RETURN(o_b_, Tensor::Create(wide_, {s * run, q_width()}));
  SP_ASSIGN_OR_RETURN(lse_b_, Tensor::Create(wide_, {s * h, run}));
  if (!shape_.backward) return OkStatus();
  SP_ASSIGN_OR_RETURN(delta_, Tensor::Create(wide_, {s * h, tokens_}));
  SP_ASSIGN_OR_RETURN(dq_, Tensor::Create(wide_, all));
  return OkStatus();
}

template <class Void>
TokensIn<Void> PartialAttention::Rows(Void* data, DType dtype, int64_t width,
                                      int64_t tokens, int64_t row) const {
  return {data == nullptr ? nullptr : At(data, dtype, row * width), width,
          tokens * width};
}

template <class Void>
PerQueryIn<Void> PartialAttention::Numbers(Void* data, int64_t row) const {
  return {At(data, wide_, row), tokens_};
}

template <class F>
Status PartialAttention::EachPair(std::span<const TokenRun> keys,
                                  const F& f) const {
  int64_t query_row = 0;
  for (size_t q = 0; q < queries_.size(); ++q) {
    int64_t key_row = 0;
    for (const TokenRun& run : keys) {
      if (CountPairs(visibility_, queries_[q], run) > 0) {
        SP_RETURN_IF_ERROR(f(q, query_row, run, key_row));
      }
      key_row += run.count;
    }
    query_row += queries_[q].count;
  }
  return OkStatus();
}

void* PartialAttention::partial_o() const {
  if (wide_ == shape_.dtype || !rounds_) return out_;
  return const_cast<Tensor&>(o_).raw();
}

Status PartialAttention::Begin(const void* q, void* o, void* lse) {
  q_ = q;
  out_ = o;
  lse_ = lse;
  rounds_ = true;
  started_.assign(queries_.size(), false);
  return OkStatus();
}

Status PartialAttention::BeginPartial(const void* q, void* o, void* lse) {
  SP_RETURN_IF_ERROR(Begin(q, o, lse));
  rounds_ = false;
  return OkStatus();
}

void PartialAttention::MoveQueries(int64_t first) {
  if (queries_.empty()) return;
  const int64_t by = first - queries_.front().offset;
  for (TokenRun& run : queries_) run.offset += by;
}

Status PartialAttention::Add(const KeyPart& part) {
  const int64_t keys = part.tokens();
  return EachPair(part.runs, [&](size_t q, int64_t query_row,
                                 const TokenRun& run, int64_t key_row) {
    const int64_t count = queries_[q].count;
    const Tokens o = Rows(partial_o(), wide_, q_width(), tokens_, query_row);
    const PerQuery lse = Numbers(lse_, query_row);
    // The first result of a query is merged with nothing.
    const bool first = !started_[q];
    started_[q] = true;
    const Tokens o_b = first ? o : Rows(o_b_.raw(), wide_, q_width(), count, 0);
    const PerQuery lse_b = first ? lse : PerQuery{lse_b_.raw(), count};
    SP_RETURN_IF_ERROR(flash_->Forward(
        Stream::Inline(),
        {.block = {queries_[q], run, &visibility_},
         .q = Rows(q_, shape_.dtype, q_width(), tokens_, query_row),
         .k = Rows(part.k, shape_.dtype, k_width(), keys, key_row),
         .v = Rows(part.v, shape_.dtype, k_width(), keys, key_row),
         .o = o_b,
         .o_type = wide_,
         .lse = lse_b}));
    if (first) return OkStatus();
    return kernels_.merge(Stream::Inline(),
                          {.dtype = wide_,
                           .sequences = shape_.sequences,
                           .queries = count,
                           .heads = shape_.heads,
                           .head_dim = shape_.head_dim,
                           .o = o,
                           .lse = lse,
                           .o_b = {o_b.data, o_b.stride, o_b.sequence_stride},
                           .lse_b = {lse_b.data, lse_b.stride}});
  });
}

void PartialAttention::SetUnseen(int64_t row, int64_t count) const {
  Visit(wide_, [&]<typename T>(TypeTag<T>) {
    if constexpr (std::is_floating_point_v<T>) {
      T* const o = static_cast<T*>(partial_o());
      T* const lse = static_cast<T*>(lse_);
      for (int64_t s = 0; s < shape_.sequences; ++s) {
        std::fill_n(o + (s * tokens_ + row) * q_width(), count * q_width(),
                    T{0});
        for (int64_t h = 0; h < shape_.heads; ++h) {
          std::fill_n(lse + (s * shape_.heads + h) * tokens_ + row, count,
                      -std::numeric_limits<T>::infinity());
        }
      }
    }
  });
}

Status PartialAttention::Finish() {
  int64_t row = 0;
  for (size_t q = 0; q < queries_.size(); ++q) {
    if (!started_[q]) SetUnseen(row, queries_[q].count);
    row += queries_[q].count;
  }
  if (wide_ != shape_.dtype && rounds_) {
    RoundTo(shape_.dtype, o_.raw(), o_.num_elements(), out_);
  }
  return OkStatus();
}

Status PartialAttention::BeginBackward(const AttentionBackwardArgs& args) {
  backward_ = args;
  Clear(dq_);
  return kernels_.delta(
      Stream::Inline(),
      {.dtype = shape_.dtype,
       .o_type = shape_.dtype,
       .sequences = shape_.sequences,
       .queries = tokens_,
       .heads = shape_.heads,
       .head_dim = shape_.head_dim,
       .d_o = Rows(args.d_o, shape_.dtype, q_width(), tokens_, 0),
       .o = Rows(args.o, shape_.dtype, q_width(), tokens_, 0),
       .delta = {delta_.raw(), tokens_}});
}

Status PartialAttention::AddGradients(const KeyPart& part, void* dk, void* dv) {
  const int64_t keys = part.tokens();
  return EachPair(part.runs, [&](size_t q, int64_t query_row,
                                 const TokenRun& run, int64_t key_row) {
    const auto queries = [&](const void* data) {
      return Rows(data, shape_.dtype, q_width(), tokens_, query_row);
    };
    const auto of_keys = [&](const void* data) {
      return Rows(data, shape_.dtype, k_width(), keys, key_row);
    };
    return flash_->Backward(
        Stream::Inline(),
        {.block = {queries_[q], run, &visibility_},
         .q = queries(backward_.q),
         .k = of_keys(part.k),
         .v = of_keys(part.v),
         .d_o = queries(backward_.d_o),
         .lse = Numbers(backward_.lse, query_row),
         .delta = Numbers<const void>(delta_.raw(), query_row),
         .dq = Rows(dq_.raw(), wide_, q_width(), tokens_, query_row),
         .dk = Rows(dk, wide_, k_width(), keys, key_row),
         .dv = Rows(dv, wide_, k_width(), keys, key_row)});
  });
}

Status PartialAttention::FinishBackward(void* dq) {
  RoundTo(shape_.dtype, dq_.raw(), dq_.num_elements(), dq);
  return OkStatus();
}

int64_t PartialAttention::working_bytes() const {
  int64_t bytes = flash_->working_bytes();
  for (const Tensor* t : {&o_, &o_b_, &lse_b_, &delta_, &dq_}) {
    bytes += t->num_bytes();
  }
  return bytes;
}

}  // namespace shardproof
