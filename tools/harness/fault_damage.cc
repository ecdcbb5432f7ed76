#include "tools/harness/fault_damage.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

namespace shardproof::internal {
namespace {

constexpr size_t kLine = 64;
constexpr int64_t kRow = 16;

using Bytes = std::span<std::byte>;

// Applies f to the values of elements [begin, end).
template <class F>
void Transform(Bytes payload, DType dtype, int64_t begin, int64_t end, F f) {
  if (begin >= end) return;
  const auto n = static_cast<size_t>(end - begin);
  std::byte* const at = payload.data() + begin * SizeOf(dtype);
  std::vector<double> values(n);
  ToDouble(dtype, at, end - begin, values.data());
  for (double& v : values) v = f(v);
  FromDouble(dtype, values.data(), end - begin, at);
}

void CopyFront(Bytes to, std::span<const std::byte> from) {
  std::copy_n(from.begin(), std::min(to.size(), from.size()), to.begin());
}

// Whole elements only: a line that is cut inside an element is torn there.
void Tear(Bytes payload, const DamageContext& c) {
  if (c.last.size() < payload.size()) return;
  const size_t lines = (payload.size() + kLine - 1) / kLine;
  const size_t begin = c.seed % lines * kLine;
  const Bytes line =
      payload.subspan(begin, std::min(kLine, payload.size() - begin));
  CopyFront(line.subspan(line.size() / 2),
            c.last.subspan(begin + line.size() / 2));
}

bool SameValues(DType dtype, std::span<const std::byte> a,
                std::span<const std::byte> b) {
  if (std::memcmp(a.data(), b.data(), a.size()) == 0) return true;
  if (IsInteger(dtype)) return false;
  // A zero with another sign is not another value.
  const int64_t n = static_cast<int64_t>(a.size()) / SizeOf(dtype);
  std::vector<double> x(static_cast<size_t>(n)), y(static_cast<size_t>(n));
  ToDouble(dtype, a.data(), n, x.data());
  ToDouble(dtype, b.data(), n, y.data());
  for (size_t i = 0; i < x.size(); ++i) {
    if (x[i] != y[i] && !(std::isnan(x[i]) && std::isnan(y[i]))) return false;
  }
  return true;
}

}  // namespace

bool Damage(Fault fault, Bytes payload, const DamageContext& c) {
  const int64_t n = static_cast<int64_t>(payload.size()) / SizeOf(c.dtype);
  if (n == 0) return false;
  const std::vector<std::byte> before(payload.begin(), payload.end());
  const double ranks = c.ranks;
  switch (fault) {
    case Fault::kDropContribution:
      std::fill(payload.begin(), payload.end(), std::byte{0});
      break;
    case Fault::kCountTwice:
      Transform(payload, c.dtype, 0, n, [](double v) { return 2 * v; });
      break;
    case Fault::kSwapChunks: {
      const auto half = static_cast<size_t>(n / 2 * SizeOf(c.dtype));
      std::swap_ranges(payload.begin(), payload.begin() + half,
                       payload.begin() + half);
      break;
    }
    case Fault::kStaleBuffer:
      CopyFront(payload, c.last);
      break;
    case Fault::kLoseTail: {
      const auto tail = static_cast<size_t>(
          ((n - 1) % kRow + 1) * static_cast<int64_t>(SizeOf(c.dtype)));
      std::fill(payload.end() - tail, payload.end(), std::byte{0});
      break;
    }
    case Fault::kTearCacheLine:
      Tear(payload, c);
      break;
    case Fault::kWrongGroup:
      CopyFront(payload, c.other);
      break;
    case Fault::kWrongScale:
      Transform(payload, c.dtype, 0, n, [&](double v) {
        return IsFloat(c.dtype) ? v / ranks : v * ranks;
      });
      break;
    case Fault::kCorruptRow: {
      const int64_t rows = (n + kRow - 1) / kRow;
      const int64_t begin = static_cast<int64_t>(c.seed) % rows * kRow;
      Transform(payload, c.dtype, begin, std::min(n, begin + kRow),
                [](double v) { return 1 - v; });
      break;
    }
    case Fault::kWrongRoot:
    case Fault::kDelayRank:
    case Fault::kNeverArrive:
      return false;
  }
  if (!SameValues(c.dtype, before, payload)) return true;
  std::copy(before.begin(), before.end(), payload.begin());
  return false;
}

}  // namespace shardproof::internal
