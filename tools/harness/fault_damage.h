// What the faults do to payload: bytes in, wrong bytes out. Internal to
// faults.h.
#ifndef SHARDPROOF_TOOLS_HARNESS_FAULT_DAMAGE_H_
#define SHARDPROOF_TOOLS_HARNESS_FAULT_DAMAGE_H_

#include <cstddef>
#include <cstdint>
#include <span>

#include "reference/dtype.h"
#include "tools/harness/faults.h"

namespace shardproof::internal {

// What there is to work with besides the payload. Empty where it is not known.
struct DamageContext {
  DType dtype = DType::kU8;  // Of the payload.
  int ranks = 1;
  uint64_t seed = 0;                 // Says which line or row.
  std::span<const std::byte> last;   // What came here the last time.
  std::span<const std::byte> other;  // What some other rank gave.
};

// True if the values of `payload` are now different. False: as it was.
bool Damage(Fault fault, std::span<std::byte> payload,
            const DamageContext& context);

}  // namespace shardproof::internal

#endif  // SHARDPROOF_TOOLS_HARNESS_FAULT_DAMAGE_H_
