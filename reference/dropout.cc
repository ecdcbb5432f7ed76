#include "reference/dropout.h"

#include <algorithm>
#include <cmath>

namespace shardproof {
namespace {

uint32_t Low(uint64_t x) { return static_cast<uint32_t>(x); }
uint32_t High(uint64_t x) { return static_cast<uint32_t>(x >> 32); }

}  // namespace

PhiloxCounter Philox4x32(PhiloxCounter c, PhiloxKey k) {
  for (int round = 0; round < 10; ++round) {
    const uint64_t a = uint64_t{0xD2511F53} * c[0];
    const uint64_t b = uint64_t{0xCD9E8D57} * c[2];
    c = {High(b) ^ c[1] ^ k[0], Low(b), High(a) ^ c[3] ^ k[1], Low(a)};
    k[0] += 0x9E3779B9;
    k[1] += 0xBB67AE85;
  }
  return c;
}

uint32_t DropoutThreshold(double probability) {
  return static_cast<uint32_t>(
      std::min(std::nearbyint(probability * 0x1p32), 0x1p32 - 1));
}

bool DropoutMask::Keeps(uint64_t index) const {
  const uint64_t block = index / 4;
  const PhiloxCounter words =
      Philox4x32({Low(block), High(block), Low(call_), High(call_)},
                 {Low(seed_), High(seed_)});
  return words[index % 4] >= threshold_;
}

Bounded DropoutMask::Apply(const Bounded& x, uint64_t index,
                           const Arithmetic& a) const {
  if (!Keeps(index)) return {};
  const double u = a.UAccumulate();
  // A power of two is exact in every type.
  int exponent = 0;
  if (std::frexp(scale_, &exponent) == 0.5) {
    const double s = scale_;
    return Rounded({s * x.value, s * x.worst, s * x.likely, s * s * x.likely2},
                   a.store);
  }
  const Bounded scale = Rounded({scale_, kSlack * scale_, kSlack * scale_}, u);
  return Rounded(Rounded(x * scale, u), a.store);
}

}  // namespace shardproof
