// Would the checks of a case see a mistake at all? Asked once per case, before
// its first run: a case that is blind is refused.
#ifndef SHARDPROOF_TOOLS_HARNESS_POWER_H_
#define SHARDPROOF_TOOLS_HARNESS_POWER_H_

#include <cstdint>

#include "tools/harness/check.h"

namespace shardproof {

// Below this many output elements a fault may hide by chance (a sum that is
// zero), and nothing is concluded.
inline constexpr int64_t kPowerMinElements = 24;
// Above this many, only the first ones of each output are looked at.
inline constexpr int64_t kPowerMaxElements = 4096;

// Compares what `check`'s tier would say to faulty results: all zeros; and
// without the contribution of each rank in turn, where that changes anything
// in exact arithmetic. kInvalidArgument, starting with "blind:", names the
// fault that would pass, or the input that could hide one. `expected` has been
// prepared. Local: no communication.
Status CheckPower(const Expectation& expected, const Inputs& inputs,
                  const Tensors& tensors, int ranks, Tier tier,
                  bool drop_ranks);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_HARNESS_POWER_H_
