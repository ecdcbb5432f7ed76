// Would the checks of a case see a mistake at all? Asked once per case, before
// its first run: a case that is blind is refused.
#ifndef SHARDPROOF_TOOLS_HARNESS_POWER_H_
#define SHARDPROOF_TOOLS_HARNESS_POWER_H_

#include <cstdint>
#include <span>

#include "tools/harness/check.h"

namespace shardproof {

// Below this many output elements (for faults on one rank: changed ones, of
// those that it compares) a fault may hide by chance (a sum that is zero), and
// nothing is concluded.
inline constexpr int64_t kPowerMinElements = 24;
// Above this many, only some of each output on each rank are looked at; of
// replicas, of which each rank compares a part, of all parts together.
inline constexpr int64_t kPowerMaxElements = 4096;
// Those are the first ones of each of so many equal parts, since the first rows
// may all be ones that say nothing: an ignored token's gradient is 0.
inline constexpr int kPowerStretches = 16;

// Make the comparisons that the ranks would make, in this tier, of faulty
// results. CheckPower: on all ranks zeros, and values divided by the number of
// ranks; on one rank, which must find it alone, zeros; divided values; and one
// of as many chunks as there are ranks left zero. CheckDrops: on all ranks, what
// comes without the contribution of each of `dropped`, where that changes
// anything in exact arithmetic. kInvalidArgument, starting with "blind:", names
// the fault that would pass, or the input that could hide one. `expected` has
// been prepared. Local: no communication.
Status CheckPower(const Expectation& expected, const Inputs& inputs,
                  const Tensors& tensors, int ranks, Tier tier);
Status CheckDrops(const Expectation& expected, const Inputs& inputs,
                  const Tensors& tensors, int ranks, Tier tier,
                  std::span<const int> dropped);

}  // namespace shardproof

#endif  // SHARDPROOF_TOOLS_HARNESS_POWER_H_
