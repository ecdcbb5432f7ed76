// Dropout on one device, with bounds, and the generator of its masks.
//
// Contract, for element i of a tensor and a probability p of being dropped:
//
//   word(i) = Philox4x32-10(counter = (i / 4 low, i / 4 high, call low, call
//             high), key = (seed low, seed high))[i mod 4]
//   kept(i) = word(i) >= round(p 2^32)         y_i = kept(i) ? x_i / (1 - p) : 0
//
// i is the element's index in the whole tensor, however that is cut over ranks,
// and `call` numbers the uses of the mask: a function of (seed, call, i) alone
// gives the backward pass, a recomputation and every replica the same mask
// without keeping or sending it. A dropped element is +0, were it NaN before.
//
// The scale is rounded to the accumulator's type, the product there too, and
// then stored: for p = 1/2, 3/4, ... only the last can round, and integers stay
// exact. p is rounded to a multiple of 2^-32 in the mask, not in the scale.
//
//   DropoutMask mask(/*probability=*/0.1, /*seed=*/7, /*call=*/step);
//   Bounded y = mask.Apply({x}, i, Arithmetic::For(DType::kBF16));
//
// Philox and not the generator of random.h, because it is what PyTorch, JAX and
// cuRAND draw masks with, and has published test vectors. Source: Salmon,
// Moraes, Dror and Shaw, Parallel random numbers: as easy as 1, 2, 3, SC 2011.

#ifndef SHARDPROOF_REFERENCE_DROPOUT_H_
#define SHARDPROOF_REFERENCE_DROPOUT_H_

#include <array>
#include <cstdint>

#include "reference/bounded.h"

namespace shardproof {

using PhiloxCounter = std::array<uint32_t, 4>;
using PhiloxKey = std::array<uint32_t, 2>;

// Ten rounds.
PhiloxCounter Philox4x32(PhiloxCounter counter, PhiloxKey key);

// round(p 2^32), at most 2^32 - 1: words below are dropped. 0 <= p < 1.
uint32_t DropoutThreshold(double probability);

class DropoutMask {
 public:
  DropoutMask(double probability, uint64_t seed, uint64_t call)
      : scale_(1 / (1 - probability)),
        threshold_(DropoutThreshold(probability)),
        seed_(seed),
        call_(call) {}

  bool Keeps(uint64_t index) const;
  // What becomes of x at `index`.
  Bounded Apply(const Bounded& x, uint64_t index, const Arithmetic& a) const;

 private:
  double scale_;
  uint32_t threshold_;
  uint64_t seed_, call_;
};

}  // namespace shardproof

#endif  // SHARDPROOF_REFERENCE_DROPOUT_H_
