// send_recv over shared memory: every rank loads from its source. Small blocks
// travel with the flags.
#include "collectives/checks.h"
#include "collectives/direct/eager.h"
#include "collectives/direct/move.h"
#include "collectives/direct/slices.h"
#include "collectives/direct/staged.h"
#include "collectives/direct/walk.h"
#include "collectives/kernels/copy.h"
#include "collectives/send_recv/send_recv.h"

namespace shardproof {
namespace {

using direct::ByteCount;

Status Eager(const Communicator& comm, const SendRecvArgs& args) {
  const size_t bytes = ByteCount(args.count, args.dtype);
  SP_ASSIGN_OR_RETURN(
      const Peers peers,
      comm.MeetEager(args.send, args.destination >= 0 ? bytes : 0));
  if (args.source < 0 || bytes == 0) return OkStatus();
  SP_RETURN_IF_ERROR(direct::CheckOffered(peers, args.source, bytes, 0));
  kernels::Copy(args.recv, peers.Read(args.source, 0, bytes), bytes);
  return OkStatus();
}

}  // namespace

Status SendRecvDirect(const Communicator& comm, const SendRecvArgs& args) {
  SP_RETURN_IF_ERROR(CheckCount(args.count));
  SP_RETURN_IF_ERROR(CheckOwnPeer(comm, args.destination, "destination"));
  SP_RETURN_IF_ERROR(CheckOwnPeer(comm, args.source, "source"));
  const OpScope op(
      comm,
      {.label = "send_recv/direct", .dtype = args.dtype, .count = args.count});
  SP_RETURN_IF_ERROR(op.status());
  if (ByteCount(args.count, args.dtype) <= direct::kEagerLimit) {
    return Eager(comm, args);
  }
  const Blocks whole = Blocks::Even(args.count, 1);
  const direct::Ends ends = {args.destination >= 0 ? args.send : nullptr, whole,
                             args.source >= 0 ? args.recv : nullptr, whole,
                             args.dtype};
  const auto core = [&](const Peers& peers, const Blocks& in,
                        const Blocks& out) {
    if (args.source < 0) return OkStatus();
    const int64_t count = in.Count(0);
    SP_RETURN_IF_ERROR(direct::CheckOffered(
        peers, args.source, ByteCount(in.Begin(0) + count, args.dtype), 0));
    const int64_t touched = 2 * count * peers.size();
    direct::MoveOne(peers, args.dtype, count, args.source, in.Begin(0),
                    comm.rank(), out.Begin(0),
                    direct::WalkOf(peers, touched, args.dtype));
    return OkStatus();
  };
  SP_ASSIGN_OR_RETURN(const Peers peers, comm.Meet(ends.offer()));
  // A rank that receives where it sends would overwrite what its destination has
  // yet to load. Every rank sees that of every other, so all agree.
  if (!peers.AllShared() || direct::AnyInPlace(peers)) {
    SP_RETURN_IF_ERROR(comm.Depart(peers));
    return direct::RunStaged(comm, ends, core);
  }
  return direct::DepartAfter(core(peers, whole, whole), comm, peers);
}

}  // namespace shardproof
