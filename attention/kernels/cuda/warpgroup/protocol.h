// The lines of the kernel that the tests break one at a time, and must then find (faults_test.cc).
#ifndef SHARDPROOF_ATTENTION_KERNELS_CUDA_WARPGROUP_PROTOCOL_H_
#define SHARDPROOF_ATTENTION_KERNELS_CUDA_WARPGROUP_PROTOCOL_H_

#include <cstdint>

#include "attention/kernels/cuda/protocol.h"
#include "attention/kernels/cuda/warpgroup/wgmma.h"

namespace shardproof::cuda {

struct StandardWarpgroupProtocol : StandardFlashProtocol {
  static constexpr bool kAwaitsKeys = true, kAwaitsValues = true;
  static constexpr bool kAwaitsRoom = true;        // The producer, for stages.
  static constexpr bool kFences = true;            // Before products.
  static constexpr bool kAwaitsScores = true;      // Before S is read,
  static constexpr bool kAwaitsResults = true;     // and before O is rescaled.
  static constexpr bool kReleasesEarly = false;    // Before the products' end.
  static constexpr bool kReleases = true;          // Stages, at all.
  static constexpr uint32_t kParityShift = 0;      // Of what consumers await.
  static constexpr uint32_t kMissingBytes = 0;     // Of those expected.
  static constexpr Swizzle kRead = Swizzle::k128;  // In descriptors.
  static constexpr uint32_t kValuesStride = kAtomBytes;  // In those of V.
};

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_ATTENTION_KERNELS_CUDA_WARPGROUP_PROTOCOL_H_
