// Test data as a function of (seed, tensor, rank, index): any element of any
// rank in O(1), on any rank, without communication.
//
//   bits(key, i) = mix(halfmix(i * golden + k0) ^ k1),  (k0, k1) = hash(key)
//
// Both mixes are bijections of 64 bits, so a stream never repeats; k1 enters in
// the middle, so that two streams are not shifts of one another.
//
//   Distribution d = *ExactSum(DType::kBF16, ranks);
//   StreamKey key = {.seed = 1, .tensor = TensorId("x"), .rank = 3};
//   Fill(d, key, begin, n, buffer);         // stored as d.dtype
//   FillDouble(d, key, begin, n, doubles);  // the same, for the reference
//
// Every distribution obeys the data rules: aperiodic, not constant, different
// on every rank (when the ranks' keys differ).
//
// Rejected: Philox4x32-10, whose ten rounds buy guarantees that test data do
// not need, and a sequential generator, with which a rank would have to draw
// all values before its own.

#ifndef SHARDPROOF_REFERENCE_RANDOM_H_
#define SHARDPROOF_REFERENCE_RANDOM_H_

#include <cstdint>
#include <string_view>

#include "reference/dtype.h"
#include "reference/status.h"

namespace shardproof {

struct StreamKey {
  uint64_t seed = 0;
  uint64_t tensor = 0;  // TensorId("dy")
  uint64_t rank = 0;  // 0 for a tensor that is filled whole and then sharded by
                      // global index
};

// 64-bit FNV-1a.
constexpr uint64_t TensorId(std::string_view name) {
  uint64_t h = 0xcbf29ce484222325u;
  for (char c : name) h = (h ^ static_cast<uint8_t>(c)) * 0x100000001b3u;
  return h;
}

// 64 uniform bits.
uint64_t RandomBits(const StreamKey& key, uint64_t index);

// A factor in [1/2, 2) that differs between any two ranks below 10000:
// multiplied into bounded data, so that exchanged shards show.
double ShardScale(const StreamKey& key);

// What to draw. Made by the functions below; values are always representable in
// `dtype`.
struct Distribution {
  enum class Kind : uint8_t {
    kInteger,     // +-unit * k, k uniform in 1..magnitude
    kPowerOfTwo,  // +-2^k, |k| <= magnitude (0 <= k for integer types)
    kUniform,     // uniform in [-scale, scale), rounded to dtype
    kNormal,      // sum of four uniforms in [-scale, scale], deviation 0.29
  };
  Kind kind = Kind::kUniform;
  DType dtype = DType::kF32;
  int64_t magnitude = 1;
  double unit = 1;
  double scale = 1;
  // Sparsity over ranks: at index i only those of `ranks` ranks with (rank +
  // h(i)) mod ranks < active draw; the others hold the neutral element (0; 1
  // for powers of two). In every aligned block of `ranks` indices each rank
  // draws `active` times.
  int ranks = 1;
  int active = 1;
  // Sparsity inside a matrix of rows of length `columns` (0: none): in every
  // aligned tile x tile block each row and each column has exactly one
  // non-zero. A power of two.
  int64_t columns = 0;
  int64_t tile = 1;
};

// Integers such that sum over `terms` ranks of |x| < 2^t, t the significand
// bits of `narrowest`: every partial sum in any order is exact. Where terms >=
// 2^t, values are +-1 and at most 2^t - 1 ranks draw at any index, each rank at
// some index. Unsigned types draw x > 0.
StatusOr<Distribution> ExactSum(DType narrowest, int terms);
// The same with multiples of `ranks`, so that the average is an integer as
// well. Fails when no multiple fits (e5m2, 11 ranks). Exact for "sum, then
// divide". An implementation that multiplies by a rounded 1/p first is exact
// for powers of two p only.
StatusOr<Distribution> ExactAverage(DType narrowest, int ranks);
// Signed powers of two: no partial product of any subset of the ranks overflows
// or becomes subnormal.
StatusOr<Distribution> ExactProduct(DType dtype, int ranks);

// Operands for a linear layer with exact sums in both passes:
//   y = x w^T + b, dx = dy w, dw = dy^T x, db = sum dy, all below 2^t.
// `stored` is the operands' type, `narrowest` the narrowest type that a partial
// sum passes through. Sparse where 2^t is less than the number of terms.
struct ExactLinearInputs {
  Distribution x;   // [tokens, in]
  Distribution w;   // [out, in]
  Distribution b;   // [out]
  Distribution dy;  // [tokens, out]
};
StatusOr<ExactLinearInputs> ExactLinear(DType stored, DType narrowest,
                                        int64_t tokens, int64_t in,
                                        int64_t out);

// Random data with cancellation. Integer types: uniform integers in [-scale,
// scale].
Distribution Uniform(DType dtype, double scale = 1.0);
Distribution Normal(DType dtype, double scale = 1.0);

// Elements [begin, begin + n) of the stream, as doubles that are representable
// in d.dtype.
void FillDouble(const Distribution& d, const StreamKey& key, int64_t begin,
                int64_t n, double* dst);
// The same, stored as d.dtype.
void Fill(const Distribution& d, const StreamKey& key, int64_t begin, int64_t n,
          void* dst);

}  // namespace shardproof

#endif  // SHARDPROOF_REFERENCE_RANDOM_H_
