#include "collectives/kernels/copy.h"

#include <algorithm>
#include <cstdint>
#include <cstring>

#include "collectives/kernels/targets.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "collectives/kernels/copy.cc"
#include "hwy/cache_control.h"
#include "hwy/foreach_target.h"
#include "hwy/highway.h"

// After highway.h, once per instruction set.
#include "collectives/kernels/copy-inl.h"

HWY_BEFORE_NAMESPACE();
namespace shardproof::kernels::HWY_NAMESPACE {

void CopyToAllStreaming(std::span<void* const> destinations, const void* source,
                        size_t bytes, size_t piece) {
  for (size_t i = 0; i < bytes; i += piece) {
    const uint8_t* const from = static_cast<const uint8_t*>(source) + i;
    for (void* destination : destinations) {
      uint8_t* const to = static_cast<uint8_t*>(destination) + i;
      if (to != from) CopyStreaming(to, from, std::min(piece, bytes - i));
    }
  }
  hwy::FlushStream();
}

}  // namespace shardproof::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shardproof::kernels {

HWY_EXPORT(CopyToAllStreaming);

void Copy(void* destination, const void* source, size_t bytes, bool streaming) {
  if (bytes == 0 || destination == source) return;
  if (!streaming) {
    std::memcpy(destination, source, bytes);
    return;
  }
  HWY_DYNAMIC_DISPATCH(CopyToAllStreaming)
  ({&destination, 1}, source, bytes, /*piece=*/bytes);
}

void CopyToAll(std::span<void* const> destinations, const void* source,
               size_t bytes, bool streaming) {
  // A piece stays in the first-level cache while it is stored to one destination
  // after the other.
  constexpr size_t kPiece = size_t{16} << 10;
  if (destinations.size() == 1) {
    return Copy(destinations[0], source, bytes, streaming);
  }
  if (streaming) {
    HWY_DYNAMIC_DISPATCH(CopyToAllStreaming)
    (destinations, source, bytes, kPiece);
    return;
  }
  for (size_t i = 0; i < bytes; i += kPiece) {
    const size_t n = std::min(kPiece, bytes - i);
    for (void* destination : destinations) {
      Copy(static_cast<std::byte*>(destination) + i,
           static_cast<const std::byte*>(source) + i, n);
    }
  }
}

}  // namespace shardproof::kernels
#endif  // HWY_ONCE
