#include "reference/product.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <memory>
#include <numeric>
#include <optional>
#include <span>
#include <thread>
#include <vector>

#include "reference/affinity.h"
#include "reference/clones.h"
#include "reference/probe.h"

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

  // What an earlier term may have added to; all of it was zero at first.
  void Clear(bool exact) {
    for (double* sums : {value, lost, size}) std::fill_n(sums, kColumns, 0.0);
    if (!exact) std::fill_n(worst, kColumns, 0.0);
    if (!exact) std::fill_n(square, kColumns, 0.0);
  }
};

// Multiplications from which on threads pay for themselves.
constexpr double kWorthThreads = 2e7;
constexpr unsigned kMostThreads = 8;

class Multiplier {
 public:
  // By blocks of columns, which several threads take turns at.
  static Matrix Run(std::span<const Term> terms, const Arithmetic& arithmetic) {
    Matrix c;
    c.rows = AllRows(terms[0].a->rows());
    c.cols = terms[0].b->columns;
    c.values.resize(c.rows.size() * static_cast<size_t>(c.cols));
    double work = 0;
    for (const Term& term : terms) {
      work += static_cast<double>((term.k1 - term.k0) * c.cols) *
              static_cast<double>(c.rows.size());
    }
    std::atomic<int64_t> next = 0;
    const auto take = [&, seed = Probe::Current()] {
      std::optional<Probe> probe;
      if (seed.has_value()) probe.emplace(*seed);
      Multiplier own(terms, arithmetic);
      for (int64_t n = 0; (n = next.fetch_add(kColumns)) < c.cols;) {
        own.Columns(n, c);
      }
    };
    std::vector<std::jthread> others;
    if (work > kWorthThreads) {
      const unsigned threads =
          std::min(kMostThreads, std::thread::hardware_concurrency());
      for (unsigned t = 1; t < threads; ++t) {
        others.emplace_back([&take] {
          UseEveryCore();
          take();
        });
      }
    }
    take();
    others.clear();  // Joined before c goes anywhere.
    return c;
  }

 private:
  Multiplier(std::span<const Term> terms, const Arithmetic& arithmetic)
      : terms_(terms),
        arithmetic_(arithmetic),
        rows_(terms[0].a->rows()),
        columns_(terms[0].b->columns),
        twice_(arithmetic.UAccumulate() <= kSlack),
        exact_(std::all_of(
            terms.begin(), terms.end(),
            [](const Term& t) { return t.a->exact() && !t.b->worst; })),
        parts_(static_cast<size_t>(rows_)) {}

  void Columns(int64_t n, Matrix& c) {
    const int64_t width = std::min(kColumns, columns_ - n);
    std::vector<Bounded> total(static_cast<size_t>(rows_ * kColumns));
    std::vector<double> low(total.size());
    std::vector<double> sent(total.size());  // sum_r |s_r|
    for (const Term& term : terms_) {
      Part(term, n);
      for (int64_t i = 0; i < rows_; ++i) {
        for (int64_t j = 0; j < width; ++j) {
          const size_t at = static_cast<size_t>(i * kColumns + j);
          Add(parts_[static_cast<size_t>(i)], j, term.k1 - term.k0, total[at],
              low[at], sent[at]);
        }
      }
    }
    for (int64_t i = 0; i < rows_; ++i) {
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

  // One term into parts_.
  void Part(const Term& term, int64_t n) {
    const bool exact = !term.b->worst;
    for (PartSums& p : parts_) p.Clear(exact_);
    for (int64_t k = term.k0; k < term.k1; k += kDepth) {
      const int64_t depth = std::min(kDepth, term.k1 - k);
      term.b->block(k, k + depth, n, plain_.get());
      if (!exact) {
        term.b->worst(k, k + depth, n, worst_.get());
        term.b->square(k, k + depth, n, square_.get());
      }
      for (int64_t i = 0; i < depth * kColumns; ++i) {
        absolute_[i] = std::abs(plain_[i]);
        if (term.a->exact()) continue;
        squared_[i] = plain_[i] * plain_[i];
        if (!exact) squared_[i] += square_[i];
      }
      for (int64_t i = 0; i < rows_; ++i) {
        Row(*term.a, i, k, depth, exact, parts_[static_cast<size_t>(i)]);
      }
    }
  }

  void Row(const Operand& a, int64_t i, int64_t k, int64_t depth, bool exact,
           PartSums& p) const {
    if (twice_) {
      AccumulateTwice(a.value(i) + k, plain_.get(), depth, p.value, p.lost);
    } else {
      Accumulate(a.value(i) + k, plain_.get(), depth, p.value);
    }
    Accumulate(a.size(i) + k, absolute_.get(), depth, p.size);
    if (!a.exact()) {
      Accumulate(a.worst(i) + k, absolute_.get(), depth, p.worst);
      Accumulate(a.square(i) + k, squared_.get(), depth, p.square);
    }
    if (exact) return;
    // (|A| + worst(A)) worst(B) is also what worst(B) adds to the magnitude.
    double more[kColumns] = {};
    Accumulate(a.size(i) + k, worst_.get(), depth, more);
    for (int64_t j = 0; j < kColumns; ++j) {
      p.worst[j] += more[j];
      p.size[j] += more[j];
    }
    double squares[kDepth];
    for (int64_t t = 0; t < depth; ++t) {
      const double v = a.value(i)[k + t];
      squares[t] = v * v;
    }
    Accumulate(squares, square_.get(), depth, p.square);
  }

  // One partial sum s_r: its own roundings, then those of the wire.
  void Add(const PartSums& p, int64_t j, int64_t terms, Bounded& total,
           double& low, double& sent) const {
    // Where values are plain doubles, the reference rounds as often as the
    // implementation, with its own unit roundoff.
    const double u = arithmetic_.UAccumulate() + (twice_ ? 0 : kSlack);
    Bounded s =
        Accumulated(WithoutNaN({p.value[j], p.worst[j], 0, p.square[j]}),
                    WithoutNaN(p.size[j]), terms, u);
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

  std::span<const Term> terms_;
  const Arithmetic& arithmetic_;
  int64_t rows_;
  int64_t columns_;
  bool twice_;
  bool exact_;  // Nothing has a bound.
  std::vector<PartSums> parts_;
  // Blocks of B: B, |B|, B^2 + v(B), worst(B), v(B). Not zero at first: that
  // would take longer than a small product.
  using Plane = std::unique_ptr<double[]>;
  static Plane NewPlane() {
    return std::make_unique_for_overwrite<double[]>(kDepth * kColumns);
  }
  Plane plain_ = NewPlane(), absolute_ = NewPlane(), squared_ = NewPlane(),
        worst_ = NewPlane(), square_ = NewPlane();
};

// Of a plane of a matrix of Bounded, or of its transpose.
template <class Value>
Source::Block BlockOf(const Matrix& matrix, bool transposed, Value value) {
  const int64_t columns =
      transposed ? static_cast<int64_t>(matrix.rows.size()) : matrix.cols;
  return [&matrix, transposed, value, columns](int64_t k0, int64_t k1,
                                               int64_t n, double* out) {
    const int64_t width = std::min(kColumns, columns - n);
    for (int64_t k = k0; k < k1; ++k, out += kColumns) {
      for (int64_t j = 0; j < width; ++j) {
        out[j] = value(transposed ? matrix.at(n + j, k) : matrix.at(k, n + j));
      }
      std::fill(out + width, out + kColumns, 0.0);
    }
  };
}

double Value(const Bounded& x) { return x.value; }
double Worst(const Bounded& x) { return x.worst; }
double Square(const Bounded& x) { return x.likely * x.likely + x.likely2; }

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

void Operand::Set(int64_t at, const Bounded& x) {
  const auto i = static_cast<size_t>(at);
  value_[i] = x.value;
  size_[i] = std::abs(x.value) + x.worst;
  if (exact()) return;
  worst_[i] = x.worst;
  square_[i] = Square(x);
}

Operand Operand::Of(const Matrix& matrix) { return RowsOf(matrix, {}); }

Operand Operand::RowsOf(const Matrix& matrix, const Rows& rows) {
  const auto total = static_cast<int64_t>(matrix.rows.size());
  const Rows chosen = rows.empty() ? AllRows(total) : rows;
  Operand a;
  a.Resize(static_cast<int64_t>(chosen.size()), matrix.cols, Probe::Active());
  for (int64_t i = 0; i < a.rows_; ++i) {
    for (int64_t k = 0; k < a.terms_; ++k) {
      a.Set(i * a.terms_ + k, matrix.at(chosen[static_cast<size_t>(i)], k));
    }
  }
  return a;
}

Operand Operand::ColumnsOf(const Matrix& matrix, const Rows& columns) {
  const Rows chosen = columns.empty() ? AllRows(matrix.cols) : columns;
  Operand a;
  a.Resize(static_cast<int64_t>(chosen.size()),
           static_cast<int64_t>(matrix.rows.size()), Probe::Active());
  for (int64_t i = 0; i < a.rows_; ++i) {
    for (int64_t k = 0; k < a.terms_; ++k) {
      a.Set(i * a.terms_ + k, matrix.at(k, chosen[static_cast<size_t>(i)]));
    }
  }
  return a;
}

Operand Operand::RowsOf(const BoundedView& matrix, const Rows& rows) {
  return matrix.bounded() != nullptr ? RowsOf(*matrix.bounded(), rows)
                                     : RowsOf(matrix.exact(), rows);
}

Operand Operand::ColumnsOf(const BoundedView& matrix, const Rows& columns) {
  return matrix.bounded() != nullptr ? ColumnsOf(*matrix.bounded(), columns)
                                     : ColumnsOf(matrix.exact(), columns);
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

Source Source::RowsOf(ConstTensorView matrix, const Rows& rows) {
  const int64_t columns = matrix.shape[1];
  return {static_cast<int64_t>(rows.size()), columns,
          [=](int64_t k0, int64_t k1, int64_t n, double* out) {
            const int64_t width = std::min(kColumns, columns - n);
            for (int64_t k = k0; k < k1; ++k, out += kColumns) {
              const int64_t row = rows[static_cast<size_t>(k)];
              ToDouble(matrix.dtype, At(matrix, row * columns + n), width, out);
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

namespace {

Source OfBounded(const Matrix& matrix, bool transposed) {
  Source b{static_cast<int64_t>(matrix.rows.size()), matrix.cols,
           BlockOf(matrix, transposed, Value)};
  if (transposed) std::swap(b.terms, b.columns);
  // What a probe made is exact in it.
  if (Probe::Active()) return b;
  b.worst = BlockOf(matrix, transposed, Worst);
  b.square = BlockOf(matrix, transposed, Square);
  return b;
}

}  // namespace

Source Source::Of(const Matrix& matrix) { return OfBounded(matrix, false); }

Source Source::TransposeOf(const Matrix& matrix) {
  return OfBounded(matrix, true);
}

Source Source::Of(const BoundedView& matrix) {
  return matrix.bounded() != nullptr ? Of(*matrix.bounded())
                                     : Of(matrix.exact());
}

Source Source::TransposeOf(const BoundedView& matrix) {
  return matrix.bounded() != nullptr ? TransposeOf(*matrix.bounded())
                                     : TransposeOf(matrix.exact());
}

Source Source::Ones(int64_t terms) {
  return {terms, 1, [](int64_t k0, int64_t k1, int64_t /*n*/, double* out) {
            std::fill(out, out + (k1 - k0) * kColumns, 0.0);
            for (int64_t k = 0; k < k1 - k0; ++k) out[k * kColumns] = 1;
          }};
}

Matrix SumOfProducts(std::span<const Term> terms,
                     const Arithmetic& arithmetic) {
  bool fits = !terms.empty();
  for (const Term& t : terms) {
    fits = fits && t.a->terms() == t.b->terms &&
           t.a->rows() == terms[0].a->rows() &&
           t.b->columns == terms[0].b->columns;
  }
  if (!fits ||
      static_cast<int>(terms.size()) != std::max(1, arithmetic.partials)) {
    shardproof::internal::DieOnBadValue(InvalidArgument(
        "a sum of {} products that do not fit, or not one for each of {} ranks",
        terms.size(), arithmetic.partials));
  }
  return Multiplier::Run(terms, arithmetic);
}

Matrix Product(const Operand& a, const Source& b,
               const Arithmetic& arithmetic) {
  const int t = std::max(1, arithmetic.partials);
  std::vector<Term> terms;
  int64_t begin = 0;
  for (int r = 0; r < t; ++r) {
    const int64_t end = begin + a.terms() / t + (r < a.terms() % t ? 1 : 0);
    terms.push_back({&a, &b, begin, end});
    begin = end;
  }
  return SumOfProducts(terms, arithmetic);
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
