#include "collectives/checks.h"
#include "collectives/kernels/copy.h"
#include "collectives/patterns/input.h"
#include "collectives/patterns/reducing_exchange.h"
#include "collectives/patterns/requests.h"
#include "collectives/send_recv/send_recv.h"

namespace shardproof {

Status SendRecvMessage(const Communicator& comm, const SendRecvArgs& args) {
  SP_RETURN_IF_ERROR(CheckCount(args.count));
  SP_RETURN_IF_ERROR(CheckOwnPeer(comm, args.destination, "destination"));
  SP_RETURN_IF_ERROR(CheckOwnPeer(comm, args.source, "source"));
  const OpScope op(
      comm,
      {.label = "send_recv/message", .dtype = args.dtype, .count = args.count});
  SP_RETURN_IF_ERROR(op.status());
  const auto bytes = static_cast<size_t>(args.count * SizeOf(args.dtype));
  if (args.destination == comm.rank()) {  // And so is the source.
    kernels::Copy(args.recv, args.send, bytes);
    return OkStatus();
  }
  const bool overwritten =
      args.send == args.recv && args.destination >= 0 && args.source >= 0;
  SP_ASSIGN_OR_RETURN(
      const std::byte* input,
      SavedInput(comm, args.send, args.count, args.dtype, overwritten));
  Requests requests(comm);
  if (args.source >= 0) {
    SP_RETURN_IF_ERROR(requests.Add(comm.Irecv(args.recv, bytes, args.source)));
  }
  if (args.destination >= 0) {
    SP_RETURN_IF_ERROR(
        requests.Add(comm.Isend(input, bytes, args.destination)));
  }
  return requests.WaitAll();
}

Cost SendRecvMessageCost(int ranks, int64_t count, DType dtype, int distance) {
  if (distance % ranks == 0) return {};
  const Traffic block = InOneMessage(count, dtype);
  Cost cost;
  cost.alpha_count = static_cast<double>(block.messages);
  cost.beta_bytes = static_cast<double>(block.bytes);
  cost.total = {ranks * block.bytes, ranks * block.messages};
  return cost;
}

}  // namespace shardproof
