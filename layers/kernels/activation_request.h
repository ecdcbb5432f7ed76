// What the dispatched loops of activation.cc are asked to do.
#ifndef SHARDPROOF_LAYERS_KERNELS_ACTIVATION_REQUEST_H_
#define SHARDPROOF_LAYERS_KERNELS_ACTIVATION_REQUEST_H_

#include <array>
#include <cstdint>

namespace shardproof::kernels {

enum class ActivationKernel {
  kGelu,
  kGeluBackward,
  kSwiGlu,
  kSwiGluBackward,
  kColumnSum,
  kAddBias,
};

struct ActivationRequest {
  ActivationKernel kernel = ActivationKernel::kGelu;
  int64_t n = 0;  // Elements; columns where there are rows.
  std::array<const void*, 3> in = {};
  std::array<void*, 2> out = {};
  int64_t rows = 0;
};

}  // namespace shardproof::kernels

#endif  // SHARDPROOF_LAYERS_KERNELS_ACTIVATION_REQUEST_H_
