#include "reference/product.h"

#include <algorithm>
#include <cmath>
#include <numeric>

#include "reference/clones.h"

namespace shardproof::internal {
namespace {

constexpr int64_t kDepth = 128;  // rows of B held at a time

// acc[n] += sum_k a[k] b[k][n]. The columns are a compile-time constant, so
// that the sums stay in registers.
SHARDPROOF_CLONES void Accumulate(const double* __restrict a,
                                  const double* __restrict b, int64_t terms,
                                  double* __restrict acc) {
  double sum[kColumns];
  for (int n = 0; n < kColumns; ++n) sum[n] = acc[n];
  for (int64_t k = 0; k < terms; ++k) {
    const double x = a[k];
    for (int n = 0; n < kColumns; ++n) sum[n] += x * b[k * kColumns + n];
  }
  for (int n = 0; n < kColumns; ++n) acc[n] = sum[n];
}

// The same, with what the additions and products lost collected in `lost`.
SHARDPROOF_CLONES void AccumulateTwice(const double* __restrict a,
                                       const double* __restrict b,
                                       int64_t terms, double* __restrict acc,
                                       double* __restrict lost) {
  for (int64_t k = 0; k < terms; ++k) {
    const double x = a[k];
    for (int n = 0; n < kColumns; ++n) {
      const double y = b[k * kColumns + n];
      const double p = x * y;
      const double e = __builtin_fma(x, y, -p);
      const double s = acc[n] + p;
      const double back = s - acc[n];
      lost[n] += ((acc[n] - (s - back)) + (p - back)) + e;
      acc[n] = s;
    }
  }
}

// Sums of one row of A with one block of columns of B, over one part of K.
struct PartSums {
  double value[kColumns];
  double lost[kColumns];
  double size[kColumns];
  double worst[kColumns];
  double square[kColumns];
};

class Multiplier {
 public:
  Multiplier(const Operand& a, const Source& b, const Arithmetic& arithmetic)
      : a_(a),
        b_(b),
        arithmetic_(arithmetic),
        twice_(arithmetic.UAccumulate() <= kSlack),
        parts_(static_cast<size_t>(a.rows())),
        plain_(kDepth * kColumns),
        absolute_(kDepth * kColumns),
        squared_(kDepth * kColumns) {}

  Matrix Run() {
    Matrix c;
    c.rows = AllRows(a_.rows());
    c.cols = b_.columns;
    c.values.resize(static_cast<size_t>(a_.rows() * b_.columns));
    for (int64_t n = 0; n < b_.columns; n += kColumns) Columns(n, c);
    return c;
  }

 private:
  void Columns(int64_t n, Matrix& c) {
    const int64_t width = std::min(kColumns, b_.columns - n);
    const int t = std::max(1, arithmetic_.partials);
    std::vector<Bounded> total(static_cast<size_t>(a_.rows() * kColumns));
    std::vector<double> low(total.size());
    std::vector<double> sent(total.size());  // sum_r |s_r|
    int64_t begin = 0;
    for (int r = 0; r < t; ++r) {
      const int64_t terms = a_.terms() / t + (r < a_.terms() % t ? 1 : 0);
      Part(begin, begin + terms, n);
      for (int64_t i = 0; i < a_.rows(); ++i) {
        for (int64_t j = 0; j < width; ++j) {
          const size_t at = static_cast<size_t>(i * kColumns + j);
          Add(parts_[static_cast<size_t>(i)], j, terms, total[at], low[at],
              sent[at]);
        }
      }
      begin += terms;
    }
    for (int64_t i = 0; i < a_.rows(); ++i) {
      for (int64_t j = 0; j < width; ++j) {
        const size_t at = static_cast<size_t>(i * kColumns + j);
        Bounded y = total[at];
        y.value += low[at];
        y = Accumulated(y, sent[at], arithmetic_.Depth(),
                        arithmetic_.UReduce() + kSlack);
        // The reference's own last rounding.
        y.worst += kSlack * std::abs(y.value);
        y.likely += kSlack * std::abs(y.value);
        c.at(i, n + j) = Rounded(y, arithmetic_.store);
      }
    }
  }

  // Terms [k0, k1) into parts_.
  void Part(int64_t k0, int64_t k1, int64_t n) {
    std::fill(parts_.begin(), parts_.end(), PartSums{});
    for (int64_t k = k0; k < k1; k += kDepth) {
      const int64_t depth = std::min(kDepth, k1 - k);
      b_.block(k, k + depth, n, plain_.data());
      for (int64_t i = 0; i < depth * kColumns; ++i) {
        absolute_[i] = std::abs(plain_[i]);
        squared_[i] = plain_[i] * plain_[i];
      }
      for (int64_t i = 0; i < a_.rows(); ++i) {
        PartSums& p = parts_[static_cast<size_t>(i)];
        if (twice_) {
          AccumulateTwice(a_.value(i) + k, plain_.data(), depth, p.value,
                          p.lost);
        } else {
          Accumulate(a_.value(i) + k, plain_.data(), depth, p.value);
        }
        Accumulate(a_.size(i) + k, absolute_.data(), depth, p.size);
        if (a_.exact()) continue;
        Accumulate(a_.worst(i) + k, absolute_.data(), depth, p.worst);
        Accumulate(a_.square(i) + k, squared_.data(), depth, p.square);
      }
    }
  }

  // One partial sum s_r: its own roundings, then those of the wire.
  void Add(const PartSums& p, int64_t j, int64_t terms, Bounded& total,
           double& low, double& sent) const {
    // Where values are plain doubles, the reference rounds as often as the
    // implementation, with its own unit roundoff.
    const double u = arithmetic_.UAccumulate() + (twice_ ? 0 : kSlack);
    Bounded s = Accumulated({p.value[j], p.worst[j], 0, p.square[j]}, p.size[j],
                            terms, u);
    const int q = arithmetic_.WireRoundings();
    const double u_wire = arithmetic_.UWire();
    for (int i = 0; i < q; ++i) {
      s = Rounded(s, u_wire, SmallestSubnormal(arithmetic_.wire));
    }
    const double sum = total.value + s.value;
    const double back = sum - total.value;
    low += (total.value - (sum - back)) + (s.value - back) + p.lost[j];
    total.value = sum;
    total.worst += s.worst;
    total.likely2 += s.likely2;
    if (int64_t{arithmetic_.partials} * std::max(q, 1) <= kFewRoundings) {
      total.likely += s.likely;
    } else {
      total.likely2 += s.likely * s.likely;
    }
    sent += std::abs(s.value) + s.worst;
  }

  const Operand& a_;
  const Source& b_;
  const Arithmetic& arithmetic_;
  bool twice_;
  std::vector<PartSums> parts_;
  std::vector<double> plain_, absolute_, squared_;
};

// A pointer to element `index` of a tensor.
const void* At(const ConstTensorView& v, int64_t index) {
  return static_cast<const char*>(v.data) + index * SizeOf(v.dtype);
}

}  // namespace

Rows AllRows(int64_t n) {
  Rows rows(static_cast<size_t>(n));
  std::iota(rows.begin(), rows.end(), int64_t{0});
  return rows;
}

void Operand::Resize(int64_t rows, int64_t terms, bool exact) {
  rows_ = rows;
  terms_ = terms;
  const auto n = static_cast<size_t>(rows * terms);
  value_.resize(n);
  size_.resize(n);
  if (!exact) {
    worst_.resize(n);
    square_.resize(n);
  }
}

Operand Operand::RowsOf(ConstTensorView matrix, const Rows& rows) {
  const Rows chosen = rows.empty() ? AllRows(matrix.shape[0]) : rows;
  const int64_t terms = matrix.shape[1];
  Operand a;
  a.Resize(static_cast<int64_t>(chosen.size()), terms, true);
  for (int64_t i = 0; i < a.rows_; ++i) {
    ToDouble(matrix.dtype, At(matrix, chosen[static_cast<size_t>(i)] * terms),
             terms, a.value_.data() + i * terms);
  }
  for (size_t i = 0; i < a.value_.size(); ++i) {
    a.size_[i] = std::abs(a.value_[i]);
  }
  return a;
}

Operand Operand::ColumnsOf(ConstTensorView matrix, const Rows& columns) {
  const Rows chosen = columns.empty() ? AllRows(matrix.shape[1]) : columns;
  const int64_t terms = matrix.shape[0];
  Operand a;
  a.Resize(static_cast<int64_t>(chosen.size()), terms, true);
  std::vector<double> row(static_cast<size_t>(matrix.shape[1]));
  for (int64_t k = 0; k < terms; ++k) {
    ToDouble(matrix.dtype, At(matrix, k * matrix.shape[1]), matrix.shape[1],
             row.data());
    for (int64_t i = 0; i < a.rows_; ++i) {
      const double v = row[static_cast<size_t>(chosen[static_cast<size_t>(i)])];
      a.value_[static_cast<size_t>(i * terms + k)] = v;
      a.size_[static_cast<size_t>(i * terms + k)] = std::abs(v);
    }
  }
  return a;
}

Operand Operand::Of(const Matrix& matrix) {
  Operand a;
  a.Resize(static_cast<int64_t>(matrix.rows.size()), matrix.cols, false);
  for (size_t i = 0; i < matrix.values.size(); ++i) {
    const Bounded& x = matrix.values[i];
    a.value_[i] = x.value;
    a.size_[i] = std::abs(x.value) + x.worst;
    a.worst_[i] = x.worst;
    a.square_[i] = x.likely * x.likely + x.likely2;
  }
  return a;
}

Source Source::Of(ConstTensorView matrix) {
  const int64_t columns = matrix.shape[1];
  return {matrix.shape[0], columns,
          [=](int64_t k0, int64_t k1, int64_t n, double* out) {
            const int64_t width = std::min(kColumns, columns - n);
            for (int64_t k = k0; k < k1; ++k, out += kColumns) {
              ToDouble(matrix.dtype, At(matrix, k * columns + n), width, out);
              std::fill(out + width, out + kColumns, 0.0);
            }
          }};
}

Source Source::TransposeOf(ConstTensorView matrix) {
  const int64_t columns = matrix.shape[0];
  const int64_t terms = matrix.shape[1];
  return {terms, columns, [=](int64_t k0, int64_t k1, int64_t n, double* out) {
            const int64_t width = std::min(kColumns, columns - n);
            double row[kDepth];
            std::fill(out, out + (k1 - k0) * kColumns, 0.0);
            for (int64_t j = 0; j < width; ++j) {
              ToDouble(matrix.dtype, At(matrix, (n + j) * terms + k0), k1 - k0,
                       row);
              for (int64_t k = 0; k < k1 - k0; ++k) {
                out[k * kColumns + j] = row[k];
              }
            }
          }};
}

Source Source::Ones(int64_t terms) {
  return {terms, 1, [](int64_t k0, int64_t k1, int64_t /*n*/, double* out) {
            std::fill(out, out + (k1 - k0) * kColumns, 0.0);
            for (int64_t k = 0; k < k1 - k0; ++k) out[k * kColumns] = 1;
          }};
}

Matrix Product(const Operand& a, const Source& b,
               const Arithmetic& arithmetic) {
  if (a.terms() != b.terms) {
    shardproof::internal::DieOnBadValue(InvalidArgument(
        "a product of {} columns with {} rows", a.terms(), b.terms));
  }
  return Multiplier(a, b, arithmetic).Run();
}

void AddBias(Matrix& y, ConstTensorView bias, const Rows& columns,
             const Arithmetic& arithmetic) {
  std::vector<double> b(static_cast<size_t>(bias.num_elements()));
  ToDouble(bias.dtype, bias.data, bias.num_elements(), b.data());
  for (size_t i = 0; i < y.rows.size(); ++i) {
    for (int64_t j = 0; j < y.cols; ++j) {
      const int64_t c = columns.empty() ? j : columns[static_cast<size_t>(j)];
      Bounded& v = y.at(static_cast<int64_t>(i), j);
      v = Rounded(v + Bounded{b[static_cast<size_t>(c)]}, arithmetic.store);
    }
  }
}

}  // namespace shardproof::internal
