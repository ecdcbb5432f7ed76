#include "reference/attention.h"

#include <algorithm>
#include <cmath>

#include "reference/product.h"

namespace shardproof {

using internal::AllRows;
using internal::Operand;
using internal::Source;
using internal::SumOfProducts;
using internal::Term;
using internal::Whole;

namespace {

// What one rank has of the heads.
struct Part {
  int64_t head = 0, heads = 0;  // [head, head + heads)
  int64_t kv = 0, kv_heads = 0;

  bool Has(int64_t kv_head) const {
    return kv_head >= kv && kv_head < kv + kv_heads;
  }
};

Rows Chosen(const Rows& rows, int64_t total) {
  return rows.empty() ? AllRows(total) : rows;
}

class Attention {
 public:
  Attention(const AttentionInputs& in, const AttentionArithmetic& a)
      : in_(in),
        a_(a),
        d_(in.head_dim),
        per_kv_(in.heads / in.kv_heads),
        tokens_(in.x.rows()),
        positions_(in.positions) {
    const int64_t length = tokens_ / std::max<int64_t>(1, in.sequences);
    if (positions_.empty()) positions_ = AllRows(length);
    const int64_t ranks = std::max(1, a.dx.partials);
    int64_t begin = 0;
    for (int64_t r = 0; r < ranks; ++r) {
      Part p{.head = begin,
             .heads = in.heads / ranks + (r < in.heads % ranks ? 1 : 0)};
      begin += p.heads;
      p.kv = p.head / per_kv_;
      p.kv_heads = (begin - 1) / per_kv_ + 1 - p.kv;
      parts_.push_back(p);
    }
  }

  AttentionResult Run(const AttentionSamples& samples) {
    AttentionResult result;
    Core();
    Forward(samples, result);
    if (in_.dy) Backward(samples, result);
    return result;
  }

 private:
  int64_t keys_begin() const { return in_.heads * d_; }
  int64_t values_begin() const { return keys_begin() + in_.kv_heads * d_; }

  Matrix Turned(const Matrix& m, bool back) const {
    if (in_.rope_theta == 0) return m;
    return RopeReference(m, d_, in_.rope_theta, positions_, back, a_.local);
  }

  // x w_qkv^T + b_qkv, the bias added before the one rounding to storage: a
  // second would be the widest of all bounds that follow.
  Matrix Projected() const {
    Arithmetic wide = a_.local;
    if (in_.b_qkv) wide.store = wide.accumulate;
    Matrix qkv = Product(Operand::RowsOf(in_.x, {}),
                         Source::TransposeOf(in_.w_qkv), wide);
    if (!in_.b_qkv) return qkv;
    internal::AddBias(qkv, *in_.b_qkv, {}, wide);
    for (Bounded& v : qkv.values) v = Rounded(v, a_.local.store);
    return qkv;
  }

  // o_ of all heads, and d_qkv_ of every part.
  void Core() {
    const Matrix qkv = Projected();
    const Matrix q = Turned(ColumnsOf(qkv, 0, keys_begin()), false);
    const Matrix k =
        Turned(ColumnsOf(qkv, keys_begin(), in_.kv_heads * d_), false);
    const Matrix v = ColumnsOf(qkv, values_begin(), in_.kv_heads * d_);
    Matrix d_o;
    if (in_.dy) {
      d_o = Product(Operand::RowsOf(*in_.dy, {}), Source::Of(in_.w_out),
                    a_.local);
    }
    o_ = q;
    for (const Part& p : parts_) {
      const auto own = [&](const Matrix& m) {
        return ColumnsOf(m, p.head * d_, p.heads * d_);
      };
      const auto own_kv = [&](const Matrix& m) {
        return ColumnsOf(m, p.kv * d_, p.kv_heads * d_);
      };
      CoreInputs core{.sequences = in_.sequences,
                      .heads = p.heads,
                      .kv_heads = p.kv_heads,
                      .heads_per_kv = per_kv_,
                      .first_in_group = p.head - p.kv * per_kv_,
                      .head_dim = d_,
                      .causal = in_.causal,
                      .scale = Scale(),
                      .q = own(q),
                      .k = own_kv(k),
                      .v = own_kv(v)};
      if (in_.dy) core.d_o = own(d_o);
      const CoreResult result = CoreReference(core, a_.core);
      SetColumns(result.o, p.head * d_, o_);
      if (!in_.dy) continue;
      Matrix& d_qkv = d_qkv_.emplace_back();
      d_qkv.rows = AllRows(tokens_);
      d_qkv.cols = (p.heads + 2 * p.kv_heads) * d_;
      d_qkv.values.resize(static_cast<size_t>(tokens_ * d_qkv.cols));
      SetColumns(Turned(result.dq, true), 0, d_qkv);
      SetColumns(Turned(result.dk, true), p.heads * d_, d_qkv);
      SetColumns(result.dv, (p.heads + p.kv_heads) * d_, d_qkv);
    }
  }

  double Scale() const {
    return in_.scale != 0 ? in_.scale : 1 / std::sqrt(static_cast<double>(d_));
  }

  void Forward(const AttentionSamples& samples, AttentionResult& result) const {
    const Operand o = Operand::RowsOf(o_, samples.tokens);
    const Source w = Source::TransposeOf(in_.w_out);
    std::vector<Term> terms;
    for (const Part& p : parts_) {
      terms.push_back({&o, &w, p.head * d_, (p.head + p.heads) * d_});
    }
    result.y = SumOfProducts(terms, a_.out);
    if (in_.b_out) internal::AddBias(result.y, *in_.b_out, {}, a_.out);
    result.y.rows = Chosen(samples.tokens, tokens_);
  }

  void Backward(const AttentionSamples& samples,
                AttentionResult& result) const {
    InputGradient(samples.tokens, result);
    const Rows rows = Chosen(samples.qkv, (in_.heads + 2 * in_.kv_heads) * d_);
    result.dw_qkv = RowGradients(rows, Source::Of(in_.x));
    result.db_qkv = RowGradients(rows, Source::Ones(tokens_));
    result.db_qkv.cols = static_cast<int64_t>(rows.size());
    result.db_qkv.rows = {0};
    result.dw_out = Product(Operand::ColumnsOf(*in_.dy, samples.out),
                            Source::Of(o_), a_.local);
    result.dw_out.rows = Chosen(samples.out, in_.dy->cols());
    result.db_out = LinearBiasGrad(*in_.dy, a_.local);
  }

  void InputGradient(const Rows& tokens, AttentionResult& result) const {
    std::vector<Operand> left;
    std::vector<Source> right;
    for (size_t r = 0; r < parts_.size(); ++r) {
      left.push_back(Operand::RowsOf(d_qkv_[r], tokens));
      right.push_back(Source::RowsOf(in_.w_qkv, GlobalRows(parts_[r])));
    }
    std::vector<Term> terms;
    for (size_t r = 0; r < parts_.size(); ++r) {
      terms.push_back(Whole(left[r], right[r]));
    }
    result.dx = SumOfProducts(terms, a_.dx);
    result.dx.rows = Chosen(tokens, tokens_);
  }

  // The rows of w_qkv that a part has, in the order of its d_qkv.
  Rows GlobalRows(const Part& p) const {
    Rows rows;
    const auto add = [&](int64_t begin, int64_t heads) {
      for (int64_t i = 0; i < heads * d_; ++i) rows.push_back(begin + i);
    };
    add(p.head * d_, p.heads);
    add(keys_begin() + p.kv * d_, p.kv_heads);
    add(values_begin() + p.kv * d_, p.kv_heads);
    return rows;
  }

  // d_qkv^T right at the given rows of w_qkv: each the sum over the parts that
  // have it.
  Matrix RowGradients(const Rows& rows, const Source& right) const {
    Matrix out;
    out.rows = rows;
    out.cols = right.columns;
    out.values.resize(rows.size() * static_cast<size_t>(right.columns));
    for (size_t r = 0; r < parts_.size(); ++r) {
      // A shared row is added up by the first part that has it.
      const Rows global = GlobalRows(parts_[r]);
      for (int64_t unit = 0; unit * d_ < d_qkv_[r].cols; ++unit) {
        AddUnit(rows, global[static_cast<size_t>(unit * d_)], r, right, out);
      }
    }
    return out;
  }

  // The d rows from `begin` on: one head's queries, keys or values.
  void AddUnit(const Rows& rows, int64_t begin, size_t first,
               const Source& right, Matrix& out) const {
    Rows places, offsets;
    for (size_t i = 0; i < rows.size(); ++i) {
      if (rows[i] < begin || rows[i] >= begin + d_) continue;
      places.push_back(static_cast<int64_t>(i));
      offsets.push_back(rows[i] - begin);
    }
    if (places.empty()) return;
    std::vector<Operand> left;
    for (size_t r = 0; r < parts_.size(); ++r) {
      const int64_t at = LocalColumn(parts_[r], begin);
      if (at < 0) continue;
      if (r < first) return;
      Rows columns = offsets;
      for (int64_t& c : columns) c += at;
      left.push_back(Operand::ColumnsOf(d_qkv_[r], columns));
    }
    std::vector<Term> terms;
    for (const Operand& a : left) terms.push_back(Whole(a, right));
    const Matrix sum = SumOfProducts(terms, SharedBy(terms.size()));
    for (size_t i = 0; i < places.size(); ++i) {
      for (int64_t j = 0; j < out.cols; ++j) {
        out.at(places[i], j) = sum.at(static_cast<int64_t>(i), j);
      }
    }
  }

  // Where row `begin` of w_qkv is among a part's; -1: nowhere.
  int64_t LocalColumn(const Part& p, int64_t begin) const {
    if (begin < keys_begin()) {
      const int64_t head = begin / d_ - p.head;
      return head >= 0 && head < p.heads ? head * d_ : -1;
    }
    const bool value = begin >= values_begin();
    const int64_t kv = (begin - (value ? values_begin() : keys_begin())) / d_;
    if (!p.Has(kv)) return -1;
    return (p.heads + (value ? p.kv_heads : 0) + kv - p.kv) * d_;
  }

  Arithmetic SharedBy(size_t sharers) const {
    if (sharers == 1) return a_.local;
    const int others = static_cast<int>(sharers) - 1;
    Arithmetic a = a_.shared;
    a.wire_roundings = std::min(a_.shared.WireRoundings(), others);
    a.depth = std::min(a_.shared.Depth(), others);
    a.partials = others + 1;
    return a;
  }

  const AttentionInputs& in_;
  const AttentionArithmetic& a_;
  int64_t d_;
  int64_t per_kv_;
  int64_t tokens_;
  std::vector<int64_t> positions_;
  std::vector<Part> parts_;
  Matrix o_;
  std::vector<Matrix> d_qkv_;
};

}  // namespace

AttentionArithmetic AttentionArithmetic::For(DType dtype, int tensor_parallel) {
  const Arithmetic summed = Arithmetic::For(dtype, tensor_parallel);
  return {.local = Arithmetic::For(dtype),
          .core = CoreArithmetic::For(dtype),
          .out = summed,
          .dx = summed,
          .shared = summed};
}

AttentionResult AttentionReference(const AttentionInputs& inputs,
                                   const AttentionArithmetic& a,
                                   const AttentionSamples& samples) {
  return Attention(inputs, a).Run(samples);
}

}  // namespace shardproof
