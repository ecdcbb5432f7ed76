#include "collectives/backend/nccl/process/staging.h"

#include <algorithm>
#include <cstring>
#include <functional>
#include <span>

#include "reference/dtype.h"

namespace shardproof {
namespace {

// Between two parts, and before and after them. Also what the addresses of the
// rank's buffers are kept modulo, since libraries go by alignment.
constexpr size_t kRoom = 512;

using Spans = std::span<const int64_t>;

// The elements from the beginning to the end of the last block; none where the
// blocks cannot be.
int64_t Extent(Spans counts, Spans offsets, size_t ranks) {
  if (counts.size() != ranks || (!offsets.empty() && offsets.size() != ranks)) {
    return 0;
  }
  int64_t extent = 0;
  int64_t packed = 0;
  for (size_t r = 0; r < ranks; ++r) {
    if (counts[r] < 0) return 0;
    if (counts[r] > 0) {
      extent =
          std::max(extent, (offsets.empty() ? packed : offsets[r]) + counts[r]);
    }
    packed += counts[r];
  }
  return extent;
}

// The rank's own block.
int64_t Own(Spans counts, size_t rank, size_t ranks) {
  return counts.size() == ranks ? std::max<int64_t>(0, counts[rank]) : 0;
}

struct Elements {
  int64_t send = 0, recv = 0;
};

Elements ElementsOf(const NativeRequest& request, int rank, int ranks) {
  const std::string_view name = request.primitive;
  const int64_t n = request.count;
  if (n < 0 || request.root < 0 || request.root >= ranks) return {};
  const auto r = static_cast<size_t>(rank);
  const auto p = static_cast<size_t>(ranks);
  const bool at_root = rank == request.root;
  if (name == "all_reduce") return {n, n};
  if (name == "reduce") return {n, at_root ? n : 0};
  if (name == "broadcast") return {at_root ? n : 0, n};
  if (name == "reduce_scatter") return {n * ranks, n};
  if (name == "reduce_scatter_v") {
    return {Extent(request.recv_counts, {}, p), Own(request.recv_counts, r, p)};
  }
  if (name == "all_gather") return {n, n * ranks};
  if (name == "gather") return {n, at_root ? n * ranks : 0};
  if (name == "all_gather_v" || name == "gather_v") {
    const bool gets = at_root || name == "all_gather_v";
    return {Own(request.recv_counts, r, p),
            gets ? Extent(request.recv_counts, request.recv_offsets, p) : 0};
  }
  if (name == "scatter") return {at_root ? n * ranks : 0, n};
  if (name == "scatter_v") {
    return {at_root ? Extent(request.send_counts, request.send_offsets, p) : 0,
            Own(request.send_counts, r, p)};
  }
  if (name == "all_to_all") return {n * ranks, n * ranks};
  if (name == "all_to_all_v") {
    return {Extent(request.send_counts, request.send_offsets, p),
            Extent(request.recv_counts, request.recv_offsets, p)};
  }
  if (name == "send_recv") {
    return {request.destination < 0 ? 0 : n, request.source < 0 ? 0 : n};
  }
  return {};
}

struct Range {
  std::byte* begin = nullptr;
  size_t bytes = 0;
  std::byte* end() const { return begin + bytes; }
};

// Whether both have a byte in common, or one is empty and lies in the other. What
// the request says of in_place is not asked: it is about all ranks.
bool Joined(const Range& a, const Range& b) {
  const std::less_equal<> le;
  const std::less<> lt;
  if (a.begin == nullptr || b.begin == nullptr) return false;
  if (a.bytes == 0) return le(b.begin, a.begin) && le(a.begin, b.end());
  if (b.bytes == 0) return le(a.begin, b.begin) && le(b.begin, a.end());
  return lt(a.begin, b.end()) && lt(b.begin, a.end());
}

}  // namespace

RequestBytes BytesOf(const NativeRequest& request, int rank, int ranks) {
  const Elements elements = ElementsOf(request, rank, ranks);
  const int64_t size = SizeOf(request.dtype);
  return {static_cast<size_t>(elements.send * size),
          static_cast<size_t>(elements.recv * size)};
}

bool Staging::RestIsEqual(const std::byte* one, const std::byte* other) const {
  const size_t after = returned_at + returned_bytes;
  return std::memcmp(one, other, returned_at) == 0 &&
         std::memcmp(one + after, other + after, bytes - after) == 0;
}

StagedRequest Stage(const NativeRequest& request, int rank, int ranks) {
  const RequestBytes touched = BytesOf(request, rank, ranks);
  const Range send{
      const_cast<std::byte*>(static_cast<const std::byte*>(request.send)),
      request.send == nullptr ? 0 : touched.send};
  const Range recv{static_cast<std::byte*>(request.recv),
                   request.recv == nullptr ? 0 : touched.recv};
  StagedRequest staged;
  Staging& staging = staged.staging;
  size_t end = kRoom;
  const auto place = [&](StagedRequest::Part& part, const Range& range,
                         bool returned) {
    const size_t at = end + reinterpret_cast<uintptr_t>(range.begin) % kRoom;
    part = {range.begin, at, range.bytes, returned};
    end = (at + range.bytes + kRoom - 1) / kRoom * kRoom + kRoom;
    if (returned) {
      staging.returned_at = at;
      staging.returned_bytes = range.bytes;
    }
    return static_cast<int64_t>(at);
  };
  if (Joined(send, recv)) {
    std::byte* const begin = std::min(send.begin, recv.begin, std::less<>());
    std::byte* const last = std::max(send.end(), recv.end(), std::less<>());
    const Range both{begin, static_cast<size_t>(last - begin)};
    const int64_t at = place(staged.parts[0], both, true);
    staging.send_at = at + (send.begin - begin);
    staging.recv_at = at + (recv.begin - begin);
  } else {
    if (send.begin != nullptr) {
      staging.send_at = place(staged.parts[0], send, false);
    }
    if (recv.begin != nullptr) {
      staging.recv_at = place(staged.parts[1], recv, true);
    }
  }
  staging.bytes = end;
  return staged;
}

void StagedRequest::CopyIn(std::byte* base) const {
  for (const Part& part : parts) {
    if (part.bytes > 0) std::memcpy(base + part.at, part.data, part.bytes);
  }
}

void StagedRequest::CopyOut(const std::byte* base) const {
  for (const Part& part : parts) {
    if (part.returned && part.bytes > 0) {
      std::memcpy(part.data, base + part.at, part.bytes);
    }
  }
}

}  // namespace shardproof
