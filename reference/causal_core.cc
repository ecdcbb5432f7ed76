#include "reference/causal_core.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "reference/probe.h"
#include "reference/random.h"

namespace shardproof {
namespace {

// A sum of products, and that of their sizes.
template <class Wide>
struct Products {
  Wide sum = 0;
  double size = 0;

  void Add(double a, double b) {
    sum += static_cast<Wide>(a) * b;
    size += std::abs(a * b);
  }
};

}  // namespace

CausalCore::CausalCore(const CausalCoreShape& shape, const CoreArithmetic& a)
    : shape_(shape),
      a_(a),
      u_(a.local.UAccumulate()),
      u_sum_(u_ + (u_ <= kSlack ? 0 : kSlack)),
      scale_(1 / std::sqrt(static_cast<double>(shape.head_dim))) {}

int64_t CausalCore::Query(int64_t sequence, int64_t token, int64_t head) const {
  return ((sequence * length_ + token) * shape_.heads + head) * shape_.head_dim;
}

int64_t CausalCore::Key(int64_t sequence, int64_t token,
                        int64_t kv_head) const {
  return ((sequence * length_ + token) * shape_.kv_heads + kv_head) *
         shape_.head_dim;
}

double* CausalCore::Probabilities(int64_t sequence, int64_t head) {
  return p_.data() + (sequence * shape_.heads + head) * length_ * length_;
}

const double* CausalCore::Probabilities(int64_t sequence, int64_t head) const {
  return p_.data() + (sequence * shape_.heads + head) * length_ * length_;
}

double CausalCore::Summed(double value, double size, int64_t n) const {
  if (!probed_) return value;
  return Accumulated({value}, size, n, u_sum_).value;
}

double CausalCore::Rounded(double value, double u) const {
  if (!probed_) return value;
  return shardproof::Rounded({value}, u).value;
}

double CausalCore::Stored(double value) const {
  if (!probed_) return value;
  return shardproof::Rounded({value}, a_.local.store).value;
}

// As SoftmaxRow has it, and rounded to the type of the probabilities.
template <class Wide>
void CausalCore::Softmax(double* row, int64_t n) const {
  const double top = *std::max_element(row, row + n);
  const double u = u_ + kSlack, ulps = a_.local.function_ulps;
  const uint64_t id = TensorId("softmax");
  Wide sum = 0;
  for (int64_t j = 0; j < n; ++j) {
    double t = row[j] - top;
    if (probed_) {
      t += u * std::abs(t) * internal::ProbedRounding(t, u) +
           ulps * u * internal::ProbedFunction(t, u, id);
    }
    const Wide e = std::exp(static_cast<Wide>(t));
    row[j] = static_cast<double>(e);
    sum += e;
  }
  auto total = static_cast<double>(sum);
  if (probed_) total = Accumulated({total}, total, n, u).value;
  for (int64_t j = 0; j < n; ++j) {
    row[j] = Rounded(Rounded(row[j] / total, u), u);
    if (probed_) {
      row[j] = shardproof::Rounded({row[j]}, a_.probabilities).value;
    }
  }
}

template <class Wide>
void CausalCore::ForwardHead(int64_t sequence, int64_t head, Values& o) {
  const int64_t d = shape_.head_dim;
  const int64_t kv = head / (shape_.heads / shape_.kv_heads);
  for (int64_t i = 0; i < length_; ++i) {
    double* const p = Probabilities(sequence, head) + i * length_;
    const double* const q = q_.data() + Query(sequence, i, head);
    for (int64_t j = 0; j <= i; ++j) {
      const double* const k = k_.data() + Key(sequence, j, kv);
      Products<Wide> score;
      for (int64_t c = 0; c < d; ++c) score.Add(q[c], k[c]);
      const double s =
          Rounded(Summed(static_cast<double>(score.sum), score.size, d), u_);
      p[j] = Rounded(scale_ * s, u_ + kSlack);
    }
    Softmax<Wide>(p, i + 1);
    double* const to = o.data() + Query(sequence, i, head);
    for (int64_t c = 0; c < d; ++c) {
      Products<Wide> sum;
      for (int64_t j = 0; j <= i; ++j) {
        sum.Add(p[j], v_[static_cast<size_t>(Key(sequence, j, kv) + c)]);
      }
      to[c] = Stored(Summed(static_cast<double>(sum.sum), sum.size, length_));
    }
  }
}

CausalCore::Values CausalCore::Forward(Values q, Values k, Values v) {
  probed_ = Probe::Active();
  q_ = std::move(q);
  k_ = std::move(k);
  v_ = std::move(v);
  const auto width = shape_.sequences * shape_.heads * shape_.head_dim;
  length_ = width == 0 ? 0 : static_cast<int64_t>(q_.size()) / width;
  p_.assign(
      static_cast<size_t>(shape_.sequences * shape_.heads * length_ * length_),
      0);
  Values o(q_.size());
  for (int64_t s = 0; s < shape_.sequences; ++s) {
    for (int64_t h = 0; h < shape_.heads; ++h) {
      if (u_ <= kSlack) {
        ForwardHead<long double>(s, h, o);
      } else {
        ForwardHead<double>(s, h, o);
      }
    }
  }
  return o;
}

// ds, and dq of it.
template <class Wide>
void CausalCore::BackwardHead(int64_t sequence, int64_t head, const Values& d_o,
                              Values& ds, Values& dq) const {
  const int64_t d = shape_.head_dim;
  const int64_t kv = head / (shape_.heads / shape_.kv_heads);
  for (int64_t i = 0; i < length_; ++i) {
    const double* const p = Probabilities(sequence, head) + i * length_;
    const double* const from = d_o.data() + Query(sequence, i, head);
    double* const row = ds.data() + i * length_;
    Products<Wide> mean;
    for (int64_t j = 0; j <= i; ++j) {
      const double* const v = v_.data() + Key(sequence, j, kv);
      Products<Wide> dp;
      for (int64_t c = 0; c < d; ++c) dp.Add(from[c], v[c]);
      row[j] = Rounded(Summed(static_cast<double>(dp.sum), dp.size, d), u_);
      mean.Add(p[j], row[j]);
    }
    const double m = Summed(static_cast<double>(mean.sum), mean.size, i + 1);
    for (int64_t j = 0; j <= i; ++j) {
      const double centred = Rounded(row[j] - m, u_);
      row[j] = Rounded(scale_ * Rounded(p[j] * centred, u_), u_);
    }
    double* const to = dq.data() + Query(sequence, i, head);
    for (int64_t c = 0; c < d; ++c) {
      Products<Wide> sum;
      for (int64_t j = 0; j <= i; ++j) {
        sum.Add(row[j], k_[static_cast<size_t>(Key(sequence, j, kv) + c)]);
      }
      to[c] = Stored(Summed(static_cast<double>(sum.sum), sum.size, length_));
    }
  }
}

// The heads that share a KV head, whose terms of dk and dv are added one after
// the other.
template <class Wide>
void CausalCore::BackwardGroup(int64_t sequence, int64_t kv_head,
                               const Values& d_o, Gradients& d) const {
  const int64_t n = length_, heads = shape_.heads / shape_.kv_heads;
  // left^T right, a term of one head: `right` has the layout of q.
  const auto column = [&](const double* left, const Values& right, int64_t head,
                          int64_t j, int64_t c) {
    Products<Wide> sum;
    for (int64_t i = j; i < n; ++i) {
      sum.Add(left[i * n + j],
              right[static_cast<size_t>(Query(sequence, i, head) + c)]);
    }
    const double s = Summed(static_cast<double>(sum.sum), sum.size, n);
    return heads > 1 ? Rounded(s, u_) : s;
  };
  std::vector<Values> ds(static_cast<size_t>(heads),
                         Values(static_cast<size_t>(n * n)));
  const int64_t first = kv_head * heads;
  for (int64_t h = 0; h < heads; ++h) {
    BackwardHead<Wide>(sequence, first + h, d_o, ds[static_cast<size_t>(h)],
                       d.dq);
  }
  for (int64_t j = 0; j < n; ++j) {
    for (int64_t c = 0; c < shape_.head_dim; ++c) {
      double dk = 0, dv = 0, dk_size = 0, dv_size = 0;
      for (int64_t h = 0; h < heads; ++h) {
        const double k =
            column(ds[static_cast<size_t>(h)].data(), q_, first + h, j, c);
        const double v =
            column(Probabilities(sequence, first + h), d_o, first + h, j, c);
        dk += k;
        dv += v;
        dk_size += std::abs(k);
        dv_size += std::abs(v);
      }
      const auto to = static_cast<size_t>(Key(sequence, j, kv_head) + c);
      d.dk[to] = Stored(Summed(dk, dk_size, heads - 1));
      d.dv[to] = Stored(Summed(dv, dv_size, heads - 1));
    }
  }
}

CausalCore::Gradients CausalCore::Backward(const Values& d_o) const {
  Gradients d{Values(q_.size()), Values(k_.size()), Values(v_.size())};
  for (int64_t s = 0; s < shape_.sequences; ++s) {
    for (int64_t g = 0; g < shape_.kv_heads; ++g) {
      if (u_ <= kSlack) {
        BackwardGroup<long double>(s, g, d_o, d);
      } else {
        BackwardGroup<double>(s, g, d_o, d);
      }
    }
  }
  return d;
}

}  // namespace shardproof
