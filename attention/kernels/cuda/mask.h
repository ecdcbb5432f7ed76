// Scores of columns that a row does not see become -inf.
#ifndef SHARDPROOF_ATTENTION_KERNELS_CUDA_MASK_H_
#define SHARDPROOF_ATTENTION_KERNELS_CUDA_MASK_H_

#include <cmath>

#include "attention/kernels/cuda/fragment.h"
#include "attention/kernels/cuda/products.h"
#include "attention/kernels/cuda/protocol.h"
#include "attention/kernels/cuda/sight.h"

namespace shardproof::cuda {

// Of a warp's results, whose columns begin with number `first`. seen_by(number of a row of the lane) is asked here, for
// the tiles at the edge of what is seen, and kept in no register while the others go by.
template <class Protocol, class SeenBy, int kRowTiles, int kOperands>
SHARDPROOF_DEVICE void HideUnseen(int lane, int first,
                                  float (&s)[kRowTiles][kOperands][4],
                                  const SeenBy& seen_by) {
  SHARDPROOF_UNROLLED
  for (int number = 0; number < 2 * kRowTiles; ++number) {
    const Seen seen = seen_by(number);
    SHARDPROOF_UNROLLED
    for (int n = 0; n < kOperands; ++n) {
      SHARDPROOF_UNROLLED
      for (int i = 0; i < 2; ++i) {
        const int column = first + n * kMmaColumns + PlaceInC(lane, i).column +
                           Protocol::kMaskShift;
        if (column < seen.first || column >= seen.last) {
          s[number / 2][n][number % 2 * 2 + i] = -INFINITY;
        }
      }
    }
  }
}

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_ATTENTION_KERNELS_CUDA_MASK_H_
