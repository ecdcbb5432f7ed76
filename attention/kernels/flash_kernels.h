// The kernels of attention on something else than the host. A rank whose context has one (collectives/rank_context.h)
// computes with it: FlashAttention::Create asks it first, and schemes do not know.
//
//     class FlashKernelsOnGpu : public FlashKernels { ... };
//     context->Put<FlashKernels>(std::make_shared<FlashKernelsOnGpu>(gpus, gpu));
#ifndef SHARDPROOF_ATTENTION_KERNELS_FLASH_KERNELS_H_
#define SHARDPROOF_ATTENTION_KERNELS_FLASH_KERNELS_H_

#include <memory>

#include "attention/kernels/flash.h"
#include "reference/status.h"

namespace shardproof {

class FlashKernels {
 public:
  FlashKernels() = default;
  FlashKernels(const FlashKernels&) = delete;
  FlashKernels& operator=(const FlashKernels&) = delete;
  virtual ~FlashKernels() = default;

  // One with the contract of FlashAttention, whose results the host can read once its functions have returned (on a
  // stream: once that is synchronized); null for a shape that is left to the host. `shape` has been checked. Called by
  // several threads at once.
  virtual StatusOr<std::unique_ptr<FlashAttention>> Create(
      const FlashShape& shape) = 0;
};

}  // namespace shardproof

#endif  // SHARDPROOF_ATTENTION_KERNELS_FLASH_KERNELS_H_
