#include "layers/kernels/attention_core.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "layers/kernels/convert.h"
#include "layers/kernels/gemm.h"
#include "layers/kernels/softmax.h"
#include "reference/tensor.h"

namespace shardproof {
namespace {

// Element `index` of an array of `dtype`.
template <class Void>
Void* At(Void* array, DType dtype, int64_t index) {
  using Byte = std::conditional_t<std::is_const_v<Void>, const char, char>;
  return static_cast<Byte*>(array) + index * SizeOf(dtype);
}

// n elements of `dtype` to its accumulator's type, and back.
void Widened(DType dtype, const void* from, int64_t n, void* to) {
  if (dtype != Accumulator(dtype)) {
    kernels::Widen(dtype, from, n, static_cast<float*>(to));
  } else if (n > 0) {
    std::memcpy(to, from, static_cast<size_t>(n * SizeOf(dtype)));
  }
}
void Narrowed(DType dtype, const void* from, int64_t n, void* to) {
  if (dtype != Accumulator(dtype)) {
    kernels::Narrow(dtype, static_cast<const float*>(from), nullptr, n, to);
  } else if (n > 0) {
    std::memcpy(to, from, static_cast<size_t>(n * SizeOf(dtype)));
  }
}

class PlainAttention : public AttentionCore {
 public:
  static StatusOr<std::unique_ptr<AttentionCore>> Create(
      const AttentionShape& shape) {
    auto core = std::unique_ptr<PlainAttention>(new PlainAttention(shape));
    SP_RETURN_IF_ERROR(core->Allocate());
    return std::unique_ptr<AttentionCore>(std::move(core));
  }

  Status Forward(const Stream& stream, const ForwardArgs& args) override {
    return stream.Run([this, args] { return ForwardNow(args); });
  }
  Status Backward(const Stream& stream, const BackwardArgs& args) override {
    return stream.Run([this, args] { return BackwardNow(args); });
  }
  int64_t kept_bytes() const override {
    return shape_.recompute ? 0 : probabilities_.num_bytes();
  }
  int64_t working_bytes() const override {
    int64_t bytes = shape_.recompute ? probabilities_.num_bytes() : 0;
    for (const Tensor* t :
         {&q_, &k_, &v_, &o_, &scores_, &d_scores_, &d_o_, &dq_, &dk_, &dv_}) {
      bytes += t->num_bytes();
    }
    return bytes;
  }

 private:
  explicit PlainAttention(const AttentionShape& shape)
      : shape_(shape), wide_(Accumulator(shape.dtype)) {}

  Status Allocate() {
    const Shape queries = {shape_.queries, shape_.head_dim};
    const Shape keys = {shape_.keys, shape_.head_dim};
    const Shape scores = {shape_.queries, shape_.keys};
    for (Tensor* t : {&q_, &o_, &d_o_, &dq_}) {
      SP_ASSIGN_OR_RETURN(*t, Tensor::Create(wide_, queries));
    }
    for (Tensor* t : {&k_, &v_, &dk_, &dv_}) {
      SP_ASSIGN_OR_RETURN(*t, Tensor::Create(wide_, keys));
    }
    SP_ASSIGN_OR_RETURN(d_scores_, Tensor::Create(wide_, scores));
    // Where probabilities are of the scores' type, they take their place.
    if (narrow()) {
      SP_ASSIGN_OR_RETURN(scores_, Tensor::Create(wide_, scores));
    }
    const int64_t matrices =
        shape_.recompute ? 1 : shape_.sequences * shape_.heads;
    SP_ASSIGN_OR_RETURN(
        probabilities_,
        Tensor::Create(shape_.dtype, {matrices, shape_.queries, shape_.keys}));
    return OkStatus();
  }

  bool narrow() const { return wide_ != shape_.dtype; }

  // One head of one sequence, to and from rows of head_dim.
  void Load(const ConstHeads& heads, int64_t length, int64_t sequence,
            int64_t head, Tensor& out) const {
    for (int64_t i = 0; i < length; ++i) {
      Widened(
          shape_.dtype,
          At(heads.data, shape_.dtype,
             (sequence * length + i) * heads.stride + head * shape_.head_dim),
          shape_.head_dim, At(out.raw(), wide_, i * shape_.head_dim));
    }
  }
  void Store(const Tensor& in, int64_t length, int64_t sequence, int64_t head,
             const Heads& heads) const {
    for (int64_t i = 0; i < length; ++i) {
      Narrowed(
          shape_.dtype, At(in.raw(), wide_, i * shape_.head_dim),
          shape_.head_dim,
          At(heads.data, shape_.dtype,
             (sequence * length + i) * heads.stride + head * shape_.head_dim));
    }
  }

  // The probabilities of the head that is in q_ and k_, as they are kept and, in
  // the accumulator's type, as they are multiplied.
  struct Probabilities {
    void* kept = nullptr;
    ConstTensorView wide;
  };
  Probabilities Place(int64_t sequence, int64_t head) {
    const int64_t matrix =
        shape_.recompute ? 0 : sequence * shape_.heads + head;
    void* const kept = At(probabilities_.raw(), shape_.dtype,
                          matrix * shape_.queries * shape_.keys);
    void* const wide = narrow() ? scores_.raw() : kept;
    return {kept, {wide_, {shape_.queries, shape_.keys}, wide}};
  }
  void Widen(const Probabilities& p) {
    if (!narrow()) return;
    Widened(shape_.dtype, p.kept, shape_.queries * shape_.keys, scores_.raw());
  }
  Status Score(const Probabilities& p) {
    void* const scores = narrow() ? scores_.raw() : p.kept;
    SP_RETURN_IF_ERROR(Multiply({.a = q_.view(),
                                 .b = k_.view(),
                                 .transpose_b = true,
                                 .c = {wide_, p.wide.shape, scores}}));
    return Softmax(Stream::Inline(), softmax(), scores, p.kept);
  }

  static Status Multiply(const GemmArgs& args) {
    return Gemm(Stream::Inline(), args);
  }
  SoftmaxShape softmax() const {
    return {.dtype = shape_.dtype,
            .rows = shape_.queries,
            .columns = shape_.keys,
            .scale = shape_.scale,
            .causal = shape_.causal,
            .diagonal = shape_.query_offset - shape_.key_offset};
  }

  Status ForwardNow(const ForwardArgs& args) {
    for (int64_t s = 0; s < shape_.sequences; ++s) {
      for (int64_t h = 0; h < shape_.heads; ++h) {
        SP_RETURN_IF_ERROR(ForwardHead(args, s, h));
      }
    }
    return OkStatus();
  }

  Status ForwardHead(const ForwardArgs& args, int64_t s, int64_t h) {
    Load(args.q, shape_.queries, s, h, q_);
    if (FirstOfGroup(h)) {
      Load(args.k, shape_.keys, s, shape_.KvHeadOf(h), k_);
      Load(args.v, shape_.keys, s, shape_.KvHeadOf(h), v_);
    }
    const Probabilities p = Place(s, h);
    SP_RETURN_IF_ERROR(Score(p));
    Widen(p);
    SP_RETURN_IF_ERROR(Multiply({.a = p.wide, .b = v_.view(), .c = o_.view()}));
    Store(o_, shape_.queries, s, h, args.o);
    return OkStatus();
  }

  Status BackwardNow(const BackwardArgs& args) {
    for (int64_t s = 0; s < shape_.sequences; ++s) {
      for (int64_t h = 0; h < shape_.heads; ++h) {
        SP_RETURN_IF_ERROR(BackwardHead(args, s, h));
        if (!LastOfGroup(h)) continue;
        Store(dk_, shape_.keys, s, shape_.KvHeadOf(h), args.dk);
        Store(dv_, shape_.keys, s, shape_.KvHeadOf(h), args.dv);
      }
    }
    return OkStatus();
  }

  Status BackwardHead(const BackwardArgs& args, int64_t s, int64_t h) {
    Load(args.q, shape_.queries, s, h, q_);
    Load(args.d_o, shape_.queries, s, h, d_o_);
    if (FirstOfGroup(h)) {
      Load(args.k, shape_.keys, s, shape_.KvHeadOf(h), k_);
      Load(args.v, shape_.keys, s, shape_.KvHeadOf(h), v_);
    }
    const Probabilities p = Place(s, h);
    if (shape_.recompute) SP_RETURN_IF_ERROR(Score(p));
    Widen(p);
    const bool more = !FirstOfGroup(h);
    SP_RETURN_IF_ERROR(Multiply({.a = p.wide,
                                 .transpose_a = true,
                                 .b = d_o_.view(),
                                 .c = dv_.view(),
                                 .accumulate = more}));
    SP_RETURN_IF_ERROR(Multiply({.a = d_o_.view(),
                                 .b = v_.view(),
                                 .transpose_b = true,
                                 .c = d_scores_.view()}));
    SP_RETURN_IF_ERROR(SoftmaxBackward(Stream::Inline(), softmax(), p.kept,
                                       d_scores_.raw(), d_scores_.raw()));
    SP_RETURN_IF_ERROR(
        Multiply({.a = d_scores_.view(), .b = k_.view(), .c = dq_.view()}));
    SP_RETURN_IF_ERROR(Multiply({.a = d_scores_.view(),
                                 .transpose_a = true,
                                 .b = q_.view(),
                                 .c = dk_.view(),
                                 .accumulate = more}));
    Store(dq_, shape_.queries, s, h, args.dq);
    return OkStatus();
  }

  bool FirstOfGroup(int64_t h) const {
    return h == 0 || shape_.KvHeadOf(h) != shape_.KvHeadOf(h - 1);
  }
  bool LastOfGroup(int64_t h) const {
    return h + 1 == shape_.heads ||
           shape_.KvHeadOf(h) != shape_.KvHeadOf(h + 1);
  }

  AttentionShape shape_;
  DType wide_;
  // Of one head, in the accumulator's type.
  Tensor q_, k_, v_, o_, scores_, d_scores_, d_o_, dq_, dk_, dv_;
  Tensor probabilities_;
};

Status Check(const AttentionShape& shape) {
  if (std::min({shape.sequences, shape.queries, shape.keys, shape.heads,
                shape.kv_heads, shape.head_dim, shape.first_in_group}) < 0 ||
      shape.heads_per_kv < 1) {
    return InvalidArgument("a size of an attention is negative");
  }
  const bool fits = shape.first_in_group < shape.heads_per_kv &&
                    (shape.heads == 0 ? shape.kv_heads == 0
                                      : shape.KvHeadOf(shape.heads - 1) + 1 ==
                                            shape.kv_heads);
  if (!fits) {
    return InvalidArgument(
        "{} heads, {} to a KV head and the first of them number {} of its "
        "group, do not have {} KV heads",
        shape.heads, shape.heads_per_kv, shape.first_in_group, shape.kv_heads);
  }
  const DType dtype = shape.dtype;
  if (dtype != DType::kF64 && dtype != DType::kF32 && dtype != DType::kBF16 &&
      dtype != DType::kF16) {
    return Unsupported("attention is computed in f64, f32, bf16 or f16, not {}",
                       Name(dtype));
  }
  return OkStatus();
}

}  // namespace

StatusOr<std::unique_ptr<AttentionCore>> CreatePlainAttention(
    const AttentionShape& shape) {
  SP_RETURN_IF_ERROR(Check(shape));
  return PlainAttention::Create(shape);
}

}  // namespace shardproof
