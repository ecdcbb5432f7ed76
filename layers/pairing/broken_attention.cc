#include "layers/pairing/broken_attention.h"

#include <numeric>
#include <utility>
#include <vector>

#include "collectives/chunks.h"
#include "layers/kernels/rope.h"
#include "reference/tensor.h"

namespace shardproof {
namespace {

// A core around another.
class Wrapped : public AttentionCore {
 public:
  explicit Wrapped(std::unique_ptr<AttentionCore> inner)
      : inner_(std::move(inner)) {}
  Status Forward(const Stream& stream, const ForwardArgs& args) override {
    return inner_->Forward(stream, args);
  }
  int64_t kept_bytes() const override { return inner_->kept_bytes(); }
  int64_t working_bytes() const override { return inner_->working_bytes(); }

 protected:
  std::unique_ptr<AttentionCore> inner_;
};

// Multi-head attention on keys and values that are copied to the query heads in
// the wrong order.
class Interleaved : public Wrapped {
 public:
  Interleaved(std::unique_ptr<AttentionCore> inner, const AttentionShape& shape)
      : Wrapped(std::move(inner)),
        shape_(shape),
        tokens_(shape.sequences * shape.keys),
        width_(shape.heads * shape.head_dim) {
    for (Tensor* t : {&k_, &v_, &dk_, &dv_}) {
      *t = Tensor(shape.dtype, {tokens_, width_});
    }
  }

  Status Forward(const Stream& stream, const ForwardArgs& args) override {
    return stream.Run([this, args] {
      ForwardArgs repeated = args;
      repeated.k = Repeat(args.k, k_);
      repeated.v = Repeat(args.v, v_);
      return inner_->Forward(Stream::Inline(), repeated);
    });
  }
  Status Backward(const Stream& stream, const BackwardArgs& args) override {
    return stream.Run([this, args]() -> Status {
      BackwardArgs repeated = args;
      repeated.k = {k_.raw(), width_};
      repeated.v = {v_.raw(), width_};
      repeated.dk = {dk_.raw(), width_};
      repeated.dv = {dv_.raw(), width_};
      SP_RETURN_IF_ERROR(inner_->Backward(Stream::Inline(), repeated));
      SumUp(dk_, args.dk);
      SumUp(dv_, args.dv);
      return OkStatus();
    });
  }

 private:
  ConstHeads Repeat(const ConstHeads& from, Tensor& to) const {
    const int64_t d = shape_.head_dim;
    std::vector<double> row(static_cast<size_t>(d));
    for (int64_t t = 0; t < tokens_; ++t) {
      for (int64_t h = 0; h < shape_.heads; ++h) {
        ToDouble(shape_.dtype,
                 At(from.data, shape_.dtype,
                    t * from.stride + h % shape_.kv_heads * d),
                 d, row.data());
        FromDouble(shape_.dtype, row.data(), d,
                   At(to.raw(), shape_.dtype, t * width_ + h * d));
      }
    }
    return {to.raw(), width_};
  }
  void SumUp(const Tensor& from, const Heads& to) const {
    const int64_t d = shape_.head_dim;
    std::vector<double> row(static_cast<size_t>(d));
    for (int64_t t = 0; t < tokens_; ++t) {
      for (int64_t g = 0; g < shape_.kv_heads; ++g) {
        std::vector<double> sum(static_cast<size_t>(d));
        for (int64_t h = g; h < shape_.heads; h += shape_.kv_heads) {
          ToDouble(shape_.dtype,
                   At(from.raw(), shape_.dtype, t * width_ + h * d), d,
                   row.data());
          for (size_t i = 0; i < row.size(); ++i) sum[i] += row[i];
        }
        FromDouble(shape_.dtype, sum.data(), d,
                   At(to.data, shape_.dtype, t * to.stride + g * d));
      }
    }
  }

  AttentionShape shape_;
  int64_t tokens_, width_;
  Tensor k_, v_, dk_, dv_;
};

class LeftTurned : public Wrapped {
 public:
  LeftTurned(std::unique_ptr<AttentionCore> inner, const AttentionShape& shape,
             RopeTable table)
      : Wrapped(std::move(inner)), shape_(shape), table_(std::move(table)) {}

  Status Backward(const Stream& stream, const BackwardArgs& args) override {
    SP_RETURN_IF_ERROR(inner_->Backward(stream, args));
    SP_RETURN_IF_ERROR(Turn(stream, args.dq, shape_.heads));
    return Turn(stream, args.dk, shape_.kv_heads);
  }

 private:
  Status Turn(const Stream& stream, const Heads& x, int64_t heads) const {
    return Rope(stream, table_, RopeDirection::kForward,
                {.tokens = shape_.sequences * shape_.queries,
                 .heads = heads,
                 .stride = x.stride,
                 .x = x.data});
  }

  AttentionShape shape_;
  RopeTable table_;
};

StatusOr<std::unique_ptr<AttentionCore>> Shifted(AttentionShape shape,
                                                 int64_t by) {
  shape.query_offset += by;
  return CreatePlainAttention(shape);
}

}  // namespace

StatusOr<std::unique_ptr<AttentionCore>> SeesTheNextToken(
    const AttentionShape& shape) {
  return Shifted(shape, 1);
}

StatusOr<std::unique_ptr<AttentionCore>> DoesNotSeeItself(
    const AttentionShape& shape) {
  return Shifted(shape, -1);
}

StatusOr<std::unique_ptr<AttentionCore>> RunsSequencesTogether(
    const AttentionShape& shape) {
  AttentionShape one = shape;
  one.sequences = 1;
  one.queries *= shape.sequences;
  one.keys *= shape.sequences;
  return CreatePlainAttention(one);
}

StatusOr<std::unique_ptr<AttentionCore>> InterleavesKvHeads(
    const AttentionShape& shape) {
  AttentionShape each = shape;
  each.kv_heads = shape.heads;
  each.heads_per_kv = 1;
  each.first_in_group = 0;
  SP_ASSIGN_OR_RETURN(std::unique_ptr<AttentionCore> inner,
                      CreatePlainAttention(each));
  return std::unique_ptr<AttentionCore>(
      std::make_unique<Interleaved>(std::move(inner), shape));
}

StatusOr<std::unique_ptr<AttentionCore>> LeavesGradientsTurned(
    const AttentionShape& shape) {
  SP_ASSIGN_OR_RETURN(std::unique_ptr<AttentionCore> inner,
                      CreatePlainAttention(shape));
  std::vector<int64_t> positions(static_cast<size_t>(shape.queries));
  std::iota(positions.begin(), positions.end(), int64_t{0});
  SP_ASSIGN_OR_RETURN(
      RopeTable table,
      RopeTable::Create(
          {.dtype = shape.dtype, .head_dim = shape.head_dim, .theta = 10000},
          positions));
  return std::unique_ptr<AttentionCore>(
      std::make_unique<LeftTurned>(std::move(inner), shape, std::move(table)));
}

}  // namespace shardproof
