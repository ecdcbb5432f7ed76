#include "reference/collectives.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>

#include "reference/clones.h"

namespace shardproof {
namespace {

SHARDPROOF_CLONES void AddTerm(const double* __restrict term, int64_t n,
                               double* __restrict value,
                               double* __restrict lost,
                               double* __restrict magnitude) {
  for (int64_t i = 0; i < n; ++i) {
    const double s = value[i] + term[i];
    const double back = s - value[i];
    lost[i] += (value[i] - (s - back)) + (term[i] - back);
    value[i] = s;
    magnitude[i] += std::abs(term[i]);
  }
}

// The sums over ranks that values and bounds are made of, element by element.
struct Sums {
  std::vector<double> value;      // high part of the sum
  std::vector<double> lost;       // low part: exact to twice a double's width
  std::vector<double> magnitude;  // sum of absolute values

  explicit Sums(size_t n) : value(n), lost(n), magnitude(n) {}

  void Add(const std::vector<double>& term) {
    AddTerm(term.data(), static_cast<int64_t>(term.size()), value.data(),
            lost.data(), magnitude.data());
  }
};

// Modulo 2^width, as the integers of the type wrap.
double Wrap(DType dtype, int64_t value) {
  return Visit(dtype, [&]<typename T>(TypeTag<T>) -> double {
    if constexpr (std::is_integral_v<T>) {
      return static_cast<double>(static_cast<T>(value));
    } else {
      return static_cast<double>(value);
    }
  });
}

double FactorOf(const Reduction& r, int rank) {
  return r.op == ReduceOp::kPremulSum ? r.factors[rank] : 1.0;
}

void IntegerReduce(const Reduction& r, const InputFn& input, int64_t begin,
                   std::span<Bounded> out) {
  std::vector<double> x(out.size());
  // Unsigned, since wrapping is what is meant.
  std::vector<uint64_t> total(out.size(), r.op == ReduceOp::kProd ? 1 : 0);
  for (int rank = 0; rank < r.ranks; ++rank) {
    input(rank, begin, x);
    const auto factor =
        static_cast<uint64_t>(static_cast<int64_t>(FactorOf(r, rank)));
    for (size_t i = 0; i < out.size(); ++i) {
      const auto v = static_cast<uint64_t>(static_cast<int64_t>(x[i]));
      total[i] = r.op == ReduceOp::kProd ? total[i] * v : total[i] + factor * v;
    }
  }
  for (size_t i = 0; i < out.size(); ++i) {
    double v = Wrap(r.dtype, static_cast<int64_t>(total[i]));
    if (r.op == ReduceOp::kAvg) v = std::trunc(v / r.ranks);
    out[i] = {v};
  }
}

void MinMax(const Reduction& r, const InputFn& input, int64_t begin,
            std::span<Bounded> out) {
  std::vector<double> x(out.size());
  for (int rank = 0; rank < r.ranks; ++rank) {
    input(rank, begin, x);
    for (size_t i = 0; i < out.size(); ++i) {
      if (rank == 0) {
        out[i] = {x[i]};
        continue;
      }
      double& best = out[i].value;
      const bool better = r.op == ReduceOp::kMin ? x[i] < best : x[i] > best;
      if (better || std::isnan(x[i])) best = std::isnan(best) ? best : x[i];
    }
  }
}

void FloatSum(const Reduction& r, const InputFn& input, int64_t begin,
              std::span<Bounded> out) {
  std::vector<double> x(out.size());
  Sums sums(out.size());
  for (int rank = 0; rank < r.ranks; ++rank) {
    input(rank, begin, x);
    const double factor = FactorOf(r, rank);
    if (factor != 1) {
      for (double& v : x) v *= factor;
    }
    sums.Add(x);
  }
  const bool average = r.op == ReduceOp::kAvg;
  const int extra = average ? 2 : r.op == ReduceOp::kPremulSum ? 1 : 0;
  const double scale = average ? 1.0 / r.ranks : 1.0;
  const int q =
      r.arithmetic.wire_roundings > 0 ? r.arithmetic.wire_roundings : 1;
  const int n = r.ranks - 1 + extra;
  const double u_a = r.arithmetic.UAccumulate();
  const double u_t = UnitRoundoff(r.dtype);
  const double factor = std::expm1(n * std::log1p(u_a) + q * std::log1p(u_t));
  const double underflow = 0.5 * (q <= 1 ? q : std::max(1, n)) *
                           SmallestSubnormal(r.dtype) * (1 + factor);
  const bool few = n + q <= kFewRoundings;
  const double squares = n * u_a * u_a + q * u_t * u_t;
  for (size_t i = 0; i < out.size(); ++i) {
    const double high = sums.value[i];
    // Infinities and NaN make nonsense of the low part.
    const double v =
        std::isfinite(high)
            ? (average ? (high + sums.lost[i]) / r.ranks : high + sums.lost[i])
            : high;
    const double magnitude = sums.magnitude[i] * scale;
    const double fixed = underflow + 2 * kSlack * std::abs(v);
    const double worst = factor * magnitude + fixed;
    out[i] = {v, worst, few ? worst : fixed,
              few ? 0 : squares * magnitude * magnitude};
  }
}

void FloatProduct(const Reduction& r, const InputFn& input, int64_t begin,
                  std::span<Bounded> out) {
  std::vector<double> x(out.size());
  std::vector<long double> product(out.size(), 1);
  // What an underflowing partial product is still multiplied by, at most.
  std::vector<double> growth(out.size(), 1);
  for (int rank = 0; rank < r.ranks; ++rank) {
    input(rank, begin, x);
    for (size_t i = 0; i < out.size(); ++i) {
      product[i] *= x[i];
      growth[i] *= std::max(1.0, std::abs(x[i]));
    }
  }
  const int q =
      r.arithmetic.wire_roundings > 0 ? r.arithmetic.wire_roundings : 1;
  const int n = r.ranks - 1;
  const double factor = std::expm1(n * std::log1p(r.arithmetic.UAccumulate()) +
                                   q * std::log1p(UnitRoundoff(r.dtype)));
  const double underflow =
      0.5 * (q + n) * SmallestSubnormal(r.dtype) * (1 + factor);
  for (size_t i = 0; i < out.size(); ++i) {
    const double v = static_cast<double>(product[i]);
    const double worst = (factor + 2 * kSlack) * std::abs(v) +
                         (r.ranks > 1 ? underflow * growth[i] : 0);
    out[i] = {v, worst, worst, 0};
  }
}

void Reduce(const Reduction& r, const InputFn& input, int64_t begin,
            std::span<Bounded> out) {
  if (r.op == ReduceOp::kMin || r.op == ReduceOp::kMax) {
    MinMax(r, input, begin, out);
  } else if (IsInteger(r.dtype)) {
    IntegerReduce(r, input, begin, out);
  } else if (r.op == ReduceOp::kProd) {
    FloatProduct(r, input, begin, out);
  } else {
    FloatSum(r, input, begin, out);
  }
}

// out[i] = x_from[begin + i]
void Copy(const InputFn& input, int from, int64_t begin,
          std::span<Bounded> out) {
  if (out.empty()) return;
  std::vector<double> x(out.size());
  input(from, begin, x);
  for (size_t i = 0; i < out.size(); ++i) out[i] = {x[i]};
}

// Calls copy(rank, offset in the block, part of `out`) for each block of
// `layout` that overlaps [begin, begin + out.size()).
template <typename F>
void ForEachBlock(const Layout& layout, int64_t begin, std::span<Bounded> out,
                  F copy) {
  const int64_t end = begin + static_cast<int64_t>(out.size());
  for (int r = 0; r < layout.ranks(); ++r) {
    const int64_t first = std::max(begin, layout.displacements[r]);
    const int64_t last =
        std::min(end, layout.displacements[r] + layout.counts[r]);
    if (first >= last) continue;
    copy(r, first - layout.displacements[r],
         out.subspan(static_cast<size_t>(first - begin),
                     static_cast<size_t>(last - first)));
  }
}

}  // namespace

void AllReduceExpected(const Reduction& reduction, const InputFn& input,
                       int /*rank*/, int64_t begin, std::span<Bounded> out) {
  Reduce(reduction, input, begin, out);
}

void ReduceExpected(const Reduction& reduction, int root, const InputFn& input,
                    int rank, int64_t begin, std::span<Bounded> out) {
  if (rank == root) Reduce(reduction, input, begin, out);
}

void ReduceScatterExpected(const Reduction& reduction, const Layout& layout,
                           const InputFn& input, int rank, int64_t begin,
                           std::span<Bounded> out) {
  Reduce(reduction, input, layout.displacements[rank] + begin, out);
}

void AllGatherExpected(const Layout& layout, const InputFn& input, int /*rank*/,
                       int64_t begin, std::span<Bounded> out) {
  ForEachBlock(layout, begin, out,
               [&](int from, int64_t offset, std::span<Bounded> part) {
                 Copy(input, from, offset, part);
               });
}

void GatherExpected(const Layout& layout, int root, const InputFn& input,
                    int rank, int64_t begin, std::span<Bounded> out) {
  if (rank == root) AllGatherExpected(layout, input, rank, begin, out);
}

void ScatterExpected(const Layout& layout, int root, const InputFn& input,
                     int rank, int64_t begin, std::span<Bounded> out) {
  Copy(input, root, layout.displacements[rank] + begin, out);
}

void BroadcastExpected(int root, const InputFn& input, int /*rank*/,
                       int64_t begin, std::span<Bounded> out) {
  Copy(input, root, begin, out);
}

void AllToAllExpected(const AllToAllLayout& layout, const InputFn& input,
                      int rank, int64_t begin, std::span<Bounded> out) {
  ForEachBlock(layout.recv[rank], begin, out,
               [&](int from, int64_t offset, std::span<Bounded> part) {
                 Copy(input, from,
                      layout.send[from].displacements[rank] + offset, part);
               });
}

void AllToAllExpected(int64_t count, const InputFn& input, int rank,
                      int64_t begin, std::span<Bounded> out) {
  while (!out.empty()) {
    const int64_t offset = begin % count;
    const auto length =
        std::min(static_cast<size_t>(count - offset), out.size());
    Copy(input, static_cast<int>(begin / count), rank * count + offset,
         out.first(length));
    begin += static_cast<int64_t>(length);
    out = out.subspan(length);
  }
}

void SendRecvExpected(int ranks, int shift, const InputFn& input, int rank,
                      int64_t begin, std::span<Bounded> out) {
  Copy(input, ((rank - shift) % ranks + ranks) % ranks, begin, out);
}

void ReductionTerm(const Reduction& reduction, const InputFn& input, int from,
                   int64_t begin, std::span<double> out) {
  input(from, begin, out);
  const double factor = reduction.op == ReduceOp::kAvg
                            ? 1.0 / reduction.ranks
                            : FactorOf(reduction, from);
  for (double& v : out) v *= factor;
}

int64_t Layout::extent() const {
  int64_t end = 0;
  for (int r = 0; r < ranks(); ++r) {
    end = std::max(end, displacements[r] + counts[r]);
  }
  return end;
}

Layout Layout::Even(int ranks, int64_t count) {
  return Packed(std::vector<int64_t>(ranks, count));
}

Layout Layout::Split(int ranks, int64_t total) {
  std::vector<int64_t> counts(ranks, total / ranks);
  for (int64_t r = 0; r < total % ranks; ++r) ++counts[r];
  return Packed(std::move(counts));
}

Layout Layout::Packed(std::vector<int64_t> counts) {
  Layout layout;
  layout.displacements.resize(counts.size());
  std::exclusive_scan(counts.begin(), counts.end(),
                      layout.displacements.begin(), int64_t{0});
  layout.counts = std::move(counts);
  return layout;
}

Status Layout::Validate() const {
  if (counts.size() != displacements.size()) {
    return InvalidArgument("a layout of {} counts and {} displacements",
                           counts.size(), displacements.size());
  }
  std::vector<int> order(counts.size());
  std::iota(order.begin(), order.end(), 0);
  std::sort(order.begin(), order.end(),
            [&](int a, int b) { return displacements[a] < displacements[b]; });
  int64_t end = 0;
  for (int r : order) {
    if (counts[r] < 0 || displacements[r] < 0) {
      return InvalidArgument("rank {}: count {}, displacement {}", r, counts[r],
                             displacements[r]);
    }
    if (counts[r] == 0) continue;
    if (displacements[r] < end) {
      return InvalidArgument(
          "the block of rank {} at {} overlaps the one that ends at {}", r,
          displacements[r], end);
    }
    end = displacements[r] + counts[r];
  }
  return OkStatus();
}

AllToAllLayout AllToAllLayout::Even(int ranks, int64_t count) {
  const std::vector<Layout> all(ranks, Layout::Even(ranks, count));
  return {all, all};
}

AllToAllLayout AllToAllLayout::FromCounts(
    const std::vector<std::vector<int64_t>>& counts) {
  AllToAllLayout result;
  for (size_t s = 0; s < counts.size(); ++s) {
    result.send.push_back(Layout::Packed(counts[s]));
    std::vector<int64_t> received;
    received.reserve(counts.size());
    for (const std::vector<int64_t>& row : counts) received.push_back(row[s]);
    result.recv.push_back(Layout::Packed(std::move(received)));
  }
  return result;
}

Status AllToAllLayout::Validate() const {
  if (send.size() != recv.size()) {
    return InvalidArgument("{} senders and {} receivers", send.size(),
                           recv.size());
  }
  for (size_t s = 0; s < send.size(); ++s) {
    SP_RETURN_IF_ERROR(
        send[s].Validate().WithContext(fmt::format("send {}", s)));
    SP_RETURN_IF_ERROR(
        recv[s].Validate().WithContext(fmt::format("recv {}", s)));
    if (send[s].counts.size() != send.size() ||
        recv[s].counts.size() != send.size()) {
      return InvalidArgument("rank {} does not have {} blocks", s, send.size());
    }
    for (size_t d = 0; d < send.size(); ++d) {
      if (send[s].counts[d] != recv[d].counts[s]) {
        return InvalidArgument("rank {} sends {} to rank {}, which expects {}",
                               s, send[s].counts[d], d, recv[d].counts[s]);
      }
    }
  }
  return OkStatus();
}

}  // namespace shardproof
