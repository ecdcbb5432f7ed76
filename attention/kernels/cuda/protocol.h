// The lines of the kernels that the tests break one at a time, and must then find (faults_test.cc).
#ifndef SHARDPROOF_ATTENTION_KERNELS_CUDA_PROTOCOL_H_
#define SHARDPROOF_ATTENTION_KERNELS_CUDA_PROTOCOL_H_

#include "collectives/backend/cuda/kernels/world.h"

namespace shardproof::cuda {

struct StandardFlashProtocol {
  static constexpr bool kWaits = true;  // For copies, before their barrier.
  static constexpr bool kSyncs = true;  // Before what was copied is read.
  static constexpr bool kSyncsAgain = true;  // Before V is read (forward only).
  static constexpr bool kSwizzles = true;    // Where columns are read.
  static constexpr int kMaskShift = 0;       // Of what a row sees.
  static constexpr bool kRescales = true;    // O, when the maximum moves.
  static constexpr bool kMaxInLse = true;
  static constexpr bool kAddsDelta = true;    // In dS.
  static constexpr bool kTurnsStages = true;  // Two steps, two places.
};

template <class Protocol, class Context>
SHARDPROOF_DEVICE void AwaitCopies(Context& context) {
  if constexpr (Protocol::kWaits) context.template WaitForCopies<0>();
  if constexpr (Protocol::kSyncs) context.Sync();
}

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_ATTENTION_KERNELS_CUDA_PROTOCOL_H_
