#include "collectives/all_to_all/all_to_all.h"
#include "collectives/checks.h"
#include "collectives/chunks.h"
#include "collectives/kernels/copy.h"
#include "collectives/patterns/input.h"

namespace shardproof {
namespace {

Status Pairwise(const Communicator& comm, DType dtype, const void* send,
                const Blocks& out, void* recv, const Blocks& in) {
  const int p = comm.size(), r = comm.rank();
  SP_ASSIGN_OR_RETURN(
      const std::byte* input,
      SavedInput(comm, send, out.Extent(), dtype, send == recv));
  kernels::Copy(At(recv, dtype, in.Begin(r)), At(input, dtype, out.Begin(r)),
                static_cast<size_t>(out.Count(r) * SizeOf(dtype)));
  for (int k = 1; k < p; ++k) {
    const int to = (r + k) % p, from = (r + p - k) % p;
    SP_RETURN_IF_ERROR(comm.SendRecv(
        At(input, dtype, out.Begin(to)),
        static_cast<size_t>(out.Count(to) * SizeOf(dtype)), to,
        At(recv, dtype, in.Begin(from)),
        static_cast<size_t>(in.Count(from) * SizeOf(dtype)), from));
  }
  return OkStatus();
}

}  // namespace

Status AllToAllPairwise(const Communicator& comm, const AllToAllArgs& args) {
  SP_RETURN_IF_ERROR(CheckCount(args.count));
  const OpScope op(comm, {.label = "all_to_all/pairwise",
                          .dtype = args.dtype,
                          .count = args.count});
  SP_RETURN_IF_ERROR(op.status());
  const Blocks blocks = Blocks::Even(args.count, comm.size());
  return Pairwise(comm, args.dtype, args.send, blocks, args.recv, blocks);
}

Status AllToAllVPairwise(const Communicator& comm, const AllToAllVArgs& args) {
  SP_RETURN_IF_ERROR(CheckOwnCounts(comm, args.send_counts, args.send_offsets));
  SP_RETURN_IF_ERROR(CheckOwnCounts(comm, args.recv_counts, args.recv_offsets));
  const Blocks out = Blocks::Listed(args.send_counts, args.send_offsets);
  const OpScope op(comm, {.label = "all_to_all_v/pairwise",
                          .dtype = args.dtype,
                          .count = out.Total()});
  SP_RETURN_IF_ERROR(op.status());
  return Pairwise(comm, args.dtype, args.send, out, args.recv,
                  Blocks::Listed(args.recv_counts, args.recv_offsets));
}

}  // namespace shardproof
