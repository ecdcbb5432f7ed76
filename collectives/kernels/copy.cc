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

// `piece` at a time to one destination after the other, where not all can or
// should be stored to at once.
void CopyToAllStreaming(std::span<void* const> destinations, const void* source,
                        size_t bytes, size_t piece, bool side_by_side) {
  const hn::ScalableTag<uint8_t> d;
  const auto* const from = static_cast<const uint8_t*>(source);
  const bool alike = std::ranges::all_of(destinations, [&](const void* p) {
    return BytesToAlignment(d, p) == BytesToAlignment(d, destinations.front());
  });
  if (destinations.size() == 1 || (alike && !side_by_side)) {
    StreamToAll(destinations, from, bytes, side_by_side);
  } else {
    for (size_t i = 0; i < bytes; i += piece) {
      for (void* destination : destinations) {
        void* const to = static_cast<uint8_t*>(destination) + i;
        if (to == from + i) continue;
        StreamToAll({&to, 1}, from + i, std::min(piece, bytes - i),
                    side_by_side);
      }
    }
  }
  hwy::FlushStream();
}

}  // namespace shardproof::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace shardproof::kernels {

HWY_EXPORT(CopyToAllStreaming);

namespace {

// Small enough to stay in a first-level cache while it is stored to one
// destination after the other.
constexpr size_t kPiece = size_t{16} << 10;

// visit(offset, size) for every piece of `bytes`.
template <class Visit>
void VisitPieces(size_t bytes, bool backward, const Visit& visit) {
  const size_t pieces = (bytes + kPiece - 1) / kPiece;
  for (size_t i = 0; i < pieces; ++i) {
    const size_t at = kPiece * (backward ? pieces - 1 - i : i);
    visit(at, std::min(kPiece, bytes - at));
  }
}

}  // namespace

void Copy(void* destination, const void* source, size_t bytes,
          const Walk& walk) {
  if (bytes == 0 || destination == source) return;
  if (walk.streaming) {
    HWY_DYNAMIC_DISPATCH(CopyToAllStreaming)
    ({&destination, 1}, source, bytes, /*piece=*/bytes, walk.side_by_side);
  } else if (walk.backward) {
    VisitPieces(bytes, /*backward=*/true, [&](size_t at, size_t size) {
      std::memcpy(static_cast<std::byte*>(destination) + at,
                  static_cast<const std::byte*>(source) + at, size);
    });
  } else {
    std::memcpy(destination, source, bytes);
  }
}

void CopyToAll(std::span<void* const> destinations, const void* source,
               size_t bytes, const Walk& walk) {
  if (destinations.empty()) return;
  if (destinations.size() == 1) {
    return Copy(destinations[0], source, bytes, walk);
  }
  if (walk.streaming) {
    HWY_DYNAMIC_DISPATCH(CopyToAllStreaming)
    (destinations, source, bytes, kPiece, walk.side_by_side);
    return;
  }
  VisitPieces(bytes, walk.backward, [&](size_t at, size_t size) {
    for (void* destination : destinations) {
      Copy(static_cast<std::byte*>(destination) + at,
           static_cast<const std::byte*>(source) + at, size);
    }
  });
}

}  // namespace shardproof::kernels
#endif  // HWY_ONCE
