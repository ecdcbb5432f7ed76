// For the tests of the kernels: random operands, elements as doubles, and every
// instruction set that this machine has.
#ifndef SHARDPROOF_LAYERS_KERNELS_KERNEL_TESTING_H_
#define SHARDPROOF_LAYERS_KERNELS_KERNEL_TESTING_H_

#include <gtest/gtest.h>

#include <cstdint>
#include <string_view>
#include <vector>

#include "collectives/kernels/targets.h"
#include "hwy/targets.h"
#include "reference/dtype.h"
#include "reference/random.h"
#include "reference/tensor.h"

namespace shardproof {

inline Tensor Filled(const Distribution& distribution, const Shape& shape,
                     std::string_view name) {
  Tensor tensor(distribution.dtype, shape);
  Fill(distribution, {.seed = 7, .tensor = TensorId(name)}, 0,
       tensor.num_elements(), tensor.raw());
  return tensor;
}

inline std::vector<double> Doubles(const Tensor& tensor) {
  std::vector<double> out;
  Visit(tensor.dtype(), [&]<typename T>(TypeTag<T>) {
    for (int64_t i = 0; i < tensor.num_elements(); ++i) {
      out.push_back(static_cast<double>(tensor.data<T>()[i]));
    }
  });
  return out;
}

// Restricts Highway to one instruction set for as long as it lives.
class OnlyTarget {
 public:
  explicit OnlyTarget(int64_t target) { Set(target); }
  ~OnlyTarget() { Set(0); }
  OnlyTarget(const OnlyTarget&) = delete;
  OnlyTarget& operator=(const OnlyTarget&) = delete;

 private:
  static void Set(int64_t target) {
    hwy::SetSupportedTargetsForTest(target);
    hwy::GetChosenTarget().Update(hwy::SupportedTargets());
  }
};

inline std::vector<int64_t> UsableTargets() {
  std::vector<int64_t> targets;
  const int64_t usable = hwy::SupportedTargets() & HWY_TARGETS;
  for (int bit = 0; bit < 63; ++bit) {
    if (usable & (int64_t{1} << bit)) targets.push_back(int64_t{1} << bit);
  }
  return targets;
}

}  // namespace shardproof

#endif  // SHARDPROOF_LAYERS_KERNELS_KERNEL_TESTING_H_
