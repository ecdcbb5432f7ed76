#include "reference/random.h"

#include <algorithm>
#include <bit>
#include <cmath>

#include "reference/clones.h"

namespace shardproof {
namespace {

constexpr uint64_t kGolden = 0x9e3779b97f4a7c15u;
constexpr int64_t kBlock = 2048;  // doubles that stay in the first-level cache

// Stafford's variant 13 of the MurmurHash3 finaliser: a bijection.
[[gnu::always_inline]] inline uint64_t Mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

// One multiplication less: it is always followed or preceded by Mix.
[[gnu::always_inline]] inline uint64_t HalfMix(uint64_t z) {
  z = (z ^ (z >> 32)) * 0xd6e8feb86659fd93u;
  return z ^ (z >> 32);
}

struct Stream {
  uint64_t k0;
  uint64_t k1;
};

Stream MakeStream(const StreamKey& key) {
  uint64_t h = Mix(key.seed + kGolden);
  h = Mix(h ^ Mix(key.tensor + 2 * kGolden));
  h = Mix(h ^ Mix(key.rank + 3 * kGolden));
  return {h, Mix(h + 4 * kGolden)};
}

[[gnu::always_inline]] inline uint64_t Bits(const Stream& s, uint64_t index) {
  return Mix(HalfMix(index * kGolden + s.k0) ^ s.k1);
}

[[gnu::always_inline]] inline double WithSign(double magnitude,
                                              uint64_t sign_bit63) {
  return std::bit_cast<double>(std::bit_cast<uint64_t>(magnitude) |
                               (sign_bit63 & 0x8000000000000000u));
}

// An integer below 2^52 as a double, without a conversion instruction, which
// AVX2 lacks: set it as the mantissa of 2^52 and subtract 2^52.
[[gnu::always_inline]] inline double SmallToDouble(uint64_t k) {
  return std::bit_cast<double>(k | 0x4330000000000000u) - 0x1p52;
}

// +-unit * k, k in 1..m, m <= 2^31, by multiply-high of 32 bits.
SHARDPROOF_CLONES void Integers(Stream s, uint64_t begin, int64_t n, uint64_t m,
                                double unit, uint64_t sign_mask, double* dst) {
  for (int64_t i = 0; i < n; ++i) {
    const uint64_t bits = Bits(s, begin + i);
    const uint64_t k = 1 + (((bits & 0xffffffffu) * m) >> 32);
    dst[i] = WithSign(unit * SmallToDouble(k), bits & sign_mask);
  }
}

// The same for larger m: k in 1..2^width.
SHARDPROOF_CLONES void WideIntegers(Stream s, uint64_t begin, int64_t n,
                                    int width, double unit, uint64_t sign_mask,
                                    double* dst) {
  const uint64_t mask = (uint64_t{1} << width) - 1;
  for (int64_t i = 0; i < n; ++i) {
    const uint64_t bits = Bits(s, begin + i);
    dst[i] =
        WithSign(unit * (SmallToDouble(bits & mask) + 1), bits & sign_mask);
  }
}

SHARDPROOF_CLONES void PowersOfTwo(Stream s, uint64_t begin, int64_t n,
                                   int64_t lowest, uint64_t count,
                                   uint64_t sign_mask, double* dst) {
  for (int64_t i = 0; i < n; ++i) {
    const uint64_t bits = Bits(s, begin + i);
    const uint64_t k = ((bits & 0xffffffffu) * count) >> 32;
    const uint64_t exponent = 1023 + static_cast<uint64_t>(lowest) + k;
    dst[i] = WithSign(std::bit_cast<double>(exponent << 52), bits & sign_mask);
  }
}

SHARDPROOF_CLONES void Uniforms(Stream s, uint64_t begin, int64_t n,
                                double scale, double* dst) {
  for (int64_t i = 0; i < n; ++i) {
    const uint64_t bits = Bits(s, begin + i);
    const double in_2_4 =
        std::bit_cast<double>((bits >> 12) | 0x4000000000000000u);
    dst[i] = (in_2_4 - 3.0) * scale;
  }
}

// Four 16-bit uniforms: exact, unlike a Box-Muller through libm.
SHARDPROOF_CLONES void Normals(Stream s, uint64_t begin, int64_t n,
                               double scale, double* dst) {
  for (int64_t i = 0; i < n; ++i) {
    const uint64_t bits = Bits(s, begin + i);
    const uint64_t pairs =
        (bits & 0x0000ffff0000ffffu) + ((bits >> 16) & 0x0000ffff0000ffffu);
    const uint64_t sum = (pairs & 0xffffffffu) + (pairs >> 32);
    dst[i] = (SmallToDouble(2 * sum) - 262140.0) * (0x1p-18 * scale);
  }
}

// At each index `active` of `ranks` ranks draw. h(i) = i + shift(i / ranks)
// walks through all residues in a block, so each rank gets its turns; the
// random shift keeps the pattern from repeating.
void MaskRanks(const Distribution& d, const StreamKey& key, int64_t begin,
               int64_t n, double neutral, double* dst) {
  const Stream s =
      MakeStream({key.seed, key.tensor ^ TensorId("rank sparsity"), 0});
  const int64_t p = d.ranks;
  for (int64_t i = 0; i < n;) {
    const int64_t block = (begin + i) / p;
    const int64_t shift =
        static_cast<int64_t>(Bits(s, static_cast<uint64_t>(block)) %
                             static_cast<uint64_t>(p)) +
        static_cast<int64_t>(key.rank);
    const int64_t end = std::min(n, (block + 1) * p - begin);
    int64_t turn = (begin + i + shift) % p;
    for (; i < end; ++i) {
      dst[i] = turn < d.active ? dst[i] : neutral;
      turn = turn + 1 == p ? 0 : turn + 1;
    }
  }
}

// In tile (I, J) of tile x tile elements, row i keeps column a i + b modulo the
// tile, a odd: a permutation, so that each column is kept by one row.
void MaskTiles(const Distribution& d, const StreamKey& key, int64_t begin,
               int64_t n, double* dst) {
  const Stream s =
      MakeStream({key.seed, key.tensor ^ TensorId("tile sparsity"), key.rank});
  const int64_t g = d.tile;
  for (int64_t at = 0; at < n;) {
    const int64_t row = (begin + at) / d.columns;
    const int64_t col = (begin + at) % d.columns;
    const int64_t tile_end = std::min((col / g + 1) * g, d.columns);
    const int64_t take = std::min(tile_end - col, n - at);
    const uint64_t bits = Bits(s, (static_cast<uint64_t>(row / g) << 32) +
                                      static_cast<uint64_t>(col / g));
    const int64_t a = static_cast<int64_t>((bits >> 32) | 1);
    const int64_t keep =
        (a * (row % g) + static_cast<int64_t>(bits & 0xffffffffu)) & (g - 1);
    for (int64_t j = 0; j < take; ++j) {
      if (((col + j) & (g - 1)) != keep) dst[at + j] = 0;
    }
    at += take;
  }
}

uint64_t SignMask(DType dtype) {
  return dtype == DType::kU8 ? 0 : 0x8000000000000000u;
}

// 2^t as a bound of exact integers, capped where doubles end.
int64_t ExactLimit(DType dtype) {
  return (int64_t{1} << std::min(SignificandBits(dtype), 53)) - 1;
}

}  // namespace

uint64_t RandomBits(const StreamKey& key, uint64_t index) {
  return Bits(MakeStream(key), index);
}

double ShardScale(const StreamKey& key) {
  const double offset =
      static_cast<double>(Mix(key.seed ^ Mix(key.tensor)) >> 40) * 0x1p-24;
  const double turn =
      offset + static_cast<double>(key.rank) * 0.6180339887498949;
  return 0.5 + 1.5 * (turn - std::floor(turn));
}

StatusOr<Distribution> ExactSum(DType narrowest, int terms) {
  if (terms < 1) return InvalidArgument("a sum of {} terms", terms);
  Distribution d{.kind = Distribution::Kind::kInteger, .dtype = narrowest};
  const int64_t limit = ExactLimit(narrowest);
  d.magnitude = limit / terms;
  if (d.magnitude == 0) {
    d.magnitude = 1;
    d.ranks = terms;
    d.active = static_cast<int>(limit);
  }
  return d;
}

StatusOr<Distribution> ExactAverage(DType narrowest, int ranks) {
  if (ranks < 1) return InvalidArgument("an average of {} ranks", ranks);
  Distribution d{.kind = Distribution::Kind::kInteger, .dtype = narrowest};
  d.unit = ranks;
  // A power of two in p costs no significand in a floating-point type.
  int64_t odd = ranks;
  while (IsFloat(narrowest) && odd % 2 == 0) odd /= 2;
  const int64_t limit = ExactLimit(narrowest) / odd;
  if (limit == 0) {
    return Unsupported("no multiple of {} is exact in {}", ranks,
                       Name(narrowest));
  }
  d.magnitude = limit / ranks;
  if (d.magnitude == 0) {
    d.magnitude = 1;
    d.ranks = ranks;
    d.active = static_cast<int>(limit);
  }
  return d;
}

StatusOr<Distribution> ExactProduct(DType dtype, int ranks) {
  if (ranks < 1) return InvalidArgument("a product of {} ranks", ranks);
  Distribution d{.kind = Distribution::Kind::kPowerOfTwo, .dtype = dtype};
  // The product of any subset lies in 2^-limit..2^limit, all normal numbers.
  int64_t limit = SignificandBits(dtype) - 1;
  if (IsFloat(dtype)) {
    const int smallest_normal =
        std::ilogb(SmallestSubnormal(dtype)) + SignificandBits(dtype) - 1;
    limit = std::min(-smallest_normal, std::ilogb(MaxFinite(dtype)));
  } else {
    limit = std::min<int64_t>(limit, 52);
  }
  d.magnitude = std::min<int64_t>(limit / ranks, 60);
  if (d.magnitude == 0) {
    d.magnitude = 1;
    d.ranks = ranks;
    d.active = static_cast<int>(limit);
  }
  return d;
}

StatusOr<ExactLinearInputs> ExactLinear(DType stored, DType narrowest,
                                        int64_t tokens, int64_t in,
                                        int64_t out) {
  if (tokens < 0 || in < 0 || out < 0) {
    return InvalidArgument("a linear layer of {} tokens, {} in, {} out", tokens,
                           in, out);
  }
  if (IsInteger(stored) || IsInteger(narrowest)) {
    return Unsupported("exact linear layers are for floating-point types");
  }
  // One term is set aside for the bias. Operands are products of two factors.
  const int64_t limit =
      std::min(ExactLimit(narrowest), ExactLimit(DType::kF64) >> 1) - 1;
  const auto tile_for = [&](int64_t terms) {
    int64_t tile = 1;
    while ((terms + tile - 1) / tile > limit) tile *= 2;
    return tile;
  };
  // A tile in w bounds the sums over `in` (rows) and `out` (columns); one in dy
  // bounds the sums over tokens.
  const int64_t w_tile = tile_for(std::max(in, out));
  const int64_t dy_tile = tile_for(tokens);
  const int64_t terms =
      std::max({(in + w_tile - 1) / w_tile, (out + w_tile - 1) / w_tile,
                (tokens + dy_tile - 1) / dy_tile, int64_t{1}});
  const int64_t m = std::max<int64_t>(
      1, std::min<int64_t>(static_cast<int64_t>(std::sqrt(limit / terms)),
                           ExactLimit(stored)));
  Distribution d{
      .kind = Distribution::Kind::kInteger, .dtype = stored, .magnitude = m};
  ExactLinearInputs result{d, d, d, d};
  result.b.magnitude = 1;
  if (w_tile > 1) {
    result.w.columns = in;
    result.w.tile = w_tile;
  }
  if (dy_tile > 1) {
    result.dy.columns = out;
    result.dy.tile = dy_tile;
  }
  return result;
}

Distribution Uniform(DType dtype, double scale) {
  if (IsInteger(dtype)) {
    const double most = std::min(MaxFinite(dtype), 0x1p31);
    return {.kind = Distribution::Kind::kInteger,
            .dtype = dtype,
            .magnitude =
                static_cast<int64_t>(std::clamp(std::floor(scale), 1.0, most))};
  }
  return {.kind = Distribution::Kind::kUniform, .dtype = dtype, .scale = scale};
}

Distribution Normal(DType dtype, double scale) {
  Distribution d = Uniform(dtype, scale);
  if (IsFloat(dtype)) d.kind = Distribution::Kind::kNormal;
  return d;
}

void FillDouble(const Distribution& d, const StreamKey& key, int64_t begin,
                int64_t n, double* dst) {
  const Stream s = MakeStream(key);
  const uint64_t first = static_cast<uint64_t>(begin);
  const uint64_t sign = SignMask(d.dtype);
  switch (d.kind) {
    case Distribution::Kind::kInteger:
      if (d.magnitude <= int64_t{1} << 31) {
        Integers(s, first, n, static_cast<uint64_t>(d.magnitude), d.unit, sign,
                 dst);
      } else {
        WideIntegers(s, first, n,
                     std::bit_width(static_cast<uint64_t>(d.magnitude)) - 1,
                     d.unit, sign, dst);
      }
      break;
    case Distribution::Kind::kPowerOfTwo: {
      const int64_t lowest = IsInteger(d.dtype) ? 0 : -d.magnitude;
      PowersOfTwo(s, first, n, lowest,
                  static_cast<uint64_t>(d.magnitude - lowest + 1), sign, dst);
      break;
    }
    case Distribution::Kind::kUniform:
      Uniforms(s, first, n, d.scale, dst);
      RoundAll(d.dtype, dst, n);
      break;
    case Distribution::Kind::kNormal:
      Normals(s, first, n, d.scale, dst);
      RoundAll(d.dtype, dst, n);
      break;
  }
  if (d.active < d.ranks) {
    const double neutral = d.kind == Distribution::Kind::kPowerOfTwo ? 1 : 0;
    MaskRanks(d, key, begin, n, neutral, dst);
  }
  if (d.tile > 1) MaskTiles(d, key, begin, n, dst);
}

void Fill(const Distribution& d, const StreamKey& key, int64_t begin, int64_t n,
          void* dst) {
  alignas(64) double block[kBlock];
  char* out = static_cast<char*>(dst);
  for (int64_t i = 0; i < n; i += kBlock) {
    const int64_t take = std::min(kBlock, n - i);
    FillDouble(d, key, begin + i, take, block);
    FromDouble(d.dtype, block, take, out + i * SizeOf(d.dtype));
  }
}

}  // namespace shardproof
