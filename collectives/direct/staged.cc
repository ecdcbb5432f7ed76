#include "collectives/direct/staged.h"

#include <algorithm>
#include <cstring>

#include "collectives/direct/slices.h"
#include "collectives/kernels/copy.h"

namespace shardproof::direct {
namespace {

// One side's blocks, in memory and in staging.
class Side {
 public:
  Side(const Blocks& blocks, DType dtype, const Cut& cut)
      : blocks_(blocks),
        dtype_(dtype),
        cut_(cut),
        counts_(static_cast<size_t>(blocks.parts())),
        offsets_(counts_.size()) {}

  // Of staging memory, for all places.
  size_t bytes() const {
    return Bytes(cut_.places * blocks_.parts() * cut_.elements);
  }

  // Where chunk `c` lies in staging memory. Valid until the next call.
  Blocks Staged(int64_t c) {
    for (int i = 0; i < blocks_.parts(); ++i) {
      const auto at = static_cast<size_t>(i);
      counts_[at] = cut_.CountIn(c, blocks_.Count(i));
      offsets_[at] = (c % cut_.places * blocks_.parts() + i) * cut_.elements;
    }
    return Blocks::Listed(counts_, offsets_);
  }

  void CopyIn(int64_t c, const void* from, std::byte* staging) {
    const Blocks staged = Staged(c);
    for (int i = 0; i < blocks_.parts(); ++i) {
      kernels::Copy(At(staging, dtype_, staged.Begin(i)),
                    At(from, dtype_, blocks_.Begin(i) + c * cut_.elements),
                    Bytes(staged.Count(i)));
    }
  }
  void CopyOut(int64_t c, const std::byte* staging, void* to) {
    const Blocks staged = Staged(c);
    for (int i = 0; i < blocks_.parts(); ++i) {
      kernels::Copy(At(to, dtype_, blocks_.Begin(i) + c * cut_.elements),
                    At(staging, dtype_, staged.Begin(i)),
                    Bytes(staged.Count(i)));
    }
  }

 private:
  size_t Bytes(int64_t count) const {
    return static_cast<size_t>(count) * static_cast<size_t>(SizeOf(dtype_));
  }

  Blocks blocks_;
  DType dtype_;
  Cut cut_;
  std::vector<int64_t> counts_, offsets_;
};

// The longest block of any rank: how often all must go round.
StatusOr<int64_t> LongestBlock(const Communicator& comm, const Ends& ends) {
  int64_t longest =
      std::max(ends.send_blocks.Largest(), ends.recv_blocks.Largest());
  SP_ASSIGN_OR_RETURN(const Peers peers,
                      comm.MeetEager(&longest, sizeof(longest)));
  for (int r = 0; r < peers.size(); ++r) {
    int64_t theirs;
    std::memcpy(&theirs, peers.Read(r, 0, 0), sizeof(theirs));
    longest = std::max(longest, theirs);
  }
  return longest;
}

}  // namespace

Status RunStaged(const Communicator& comm, const Ends& ends,
                 const std::function<Core>& core, ChunkSize chunk_size) {
  SP_ASSIGN_OR_RETURN(const int64_t longest, LongestBlock(comm, ends));
  const Cut cut =
      Cut::Of(std::max(ends.send_blocks.parts(), ends.recv_blocks.parts()),
              longest, ends.dtype, chunk_size);
  Side send(ends.send_blocks, ends.dtype, cut);
  Side recv(ends.recv_blocks, ends.dtype, cut);
  SP_ASSIGN_OR_RETURN(const std::span<std::byte> staging,
                      comm.Staging(send.bytes() + recv.bytes()));
  std::byte* const staged_send = staging.data();
  std::byte* const staged_recv = staged_send + send.bytes();
  SP_ASSIGN_OR_RETURN(
      const Peers peers,
      comm.Meet({staged_send, send.bytes(), staged_recv, recv.bytes()}));

  const auto copy_in = [&](int64_t c) {
    if (ends.send != nullptr && c < cut.chunks) {
      send.CopyIn(c, ends.send, staged_send);
    }
  };
  copy_in(0);
  SP_RETURN_IF_ERROR(comm.Sync());
  Status done;
  for (int64_t c = 0; c < cut.chunks; ++c) {
    const Blocks out = send.Staged(c), in = recv.Staged(c);
    // Whose core fails still keeps the others company.
    if (done.ok()) done = core(peers, out, in);
    copy_in(c + 1);
    if (Status met = comm.Sync(); !met.ok()) return done.ok() ? met : done;
    if (ends.recv != nullptr) recv.CopyOut(c, staged_recv, ends.recv);
  }
  return DepartAfter(done, comm, peers);
}

void CopyOwnHalf(const Ends& ends, const OwnBlock& own, bool second,
                 const kernels::Walk& walk) {
  const size_t bytes = ByteCount(ends.send_blocks.Count(own.sent), ends.dtype);
  const size_t middle = bytes / 2 / kLineBytes * kLineBytes;
  const size_t begin = second != walk.backward ? middle : 0;
  const size_t end = second != walk.backward ? bytes : middle;
  if (begin == end) return;
  kernels::Copy(
      At(ends.recv, ends.dtype, ends.recv_blocks.Begin(own.received)) + begin,
      At(ends.send, ends.dtype, ends.send_blocks.Begin(own.sent)) + begin,
      end - begin, walk);
}

}  // namespace shardproof::direct
