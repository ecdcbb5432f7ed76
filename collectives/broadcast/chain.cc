#include <algorithm>

#include "collectives/broadcast/message.h"
#include "collectives/chunks.h"
#include "collectives/patterns/requests.h"

namespace shardproof {
namespace {

// A segment large enough that its transfer outweighs its start-up, small enough
// to stay in a core's cache until it has been handed on.
constexpr int64_t kChainSegmentBytes = 128 << 10;

// Virtual rank v receives segment s from v - 1 and hands it on to v + 1 while
// it receives segment s + 1. The last segment leaves the root after k starts
// and makes p - 2 more hops: p + k - 2 steps.
Status Chain(const Communicator& comm, const BroadcastArgs& args,
             const Rooted& rooted, int v) {
  const int64_t bytes = args.count * SizeOf(args.dtype);
  const int64_t segments = BroadcastChainSegments(bytes);
  const std::byte* data =
      static_cast<const std::byte*>(v == 0 ? args.send : args.recv);
  Requests sends(comm);
  for (int64_t s = 0; s < segments; ++s) {
    const Chunk segment = BalancedChunk(bytes, segments, s);
    const auto size = static_cast<size_t>(segment.count);
    if (v > 0) {
      SP_RETURN_IF_ERROR(
          comm.Recv(static_cast<std::byte*>(args.recv) + segment.begin, size,
                    rooted.Real(v - 1)));
    }
    if (v + 1 < comm.size()) {
      SP_RETURN_IF_ERROR(sends.Add(
          comm.Isend(data + segment.begin, size, rooted.Real(v + 1))));
    }
  }
  CopyAtRoot(args, v);
  return sends.WaitAll();
}

}  // namespace

int64_t BroadcastChainSegments(int64_t bytes) {
  return std::max<int64_t>(
      1, (bytes + kChainSegmentBytes - 1) / kChainSegmentBytes);
}

Status BroadcastChain(const Communicator& comm, const BroadcastArgs& args) {
  return RunBroadcast(comm, args, "broadcast/chain", Chain);
}

}  // namespace shardproof
