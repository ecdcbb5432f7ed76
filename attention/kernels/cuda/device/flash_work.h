// A call of ../../flash.h as the kernels are given it.
#ifndef SHARDPROOF_ATTENTION_KERNELS_CUDA_DEVICE_FLASH_WORK_H_
#define SHARDPROOF_ATTENTION_KERNELS_CUDA_DEVICE_FLASH_WORK_H_

#include <optional>

#include "attention/kernels/cuda/arguments.h"
#include "attention/kernels/flash.h"

namespace shardproof::cuda {

// Causal or not, windows, offsets and strides of positions. None for what is left to the host: documents (a kernel knows
// of positions alone), positions and blocks from 2^31 on, and all that the host refuses and says why.
std::optional<FlashWork> FlashWorkOf(const FlashShape& shape,
                                     const FlashBlock& block);

}  // namespace shardproof::cuda

#endif  // SHARDPROOF_ATTENTION_KERNELS_CUDA_DEVICE_FLASH_WORK_H_
