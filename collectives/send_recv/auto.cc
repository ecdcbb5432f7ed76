#include "collectives/direct/queue.h"
#include "collectives/send_recv/send_recv.h"

namespace shardproof {
namespace {

Status Choose(const Communicator& comm, const SendRecvArgs& args) {
  return comm.SharesMemory() ? SendRecvDirect(comm, args)
                             : SendRecvMessage(comm, args);
}

}  // namespace

Status SendRecv(const Communicator& comm, const SendRecvArgs& args,
                const Stream& stream) {
  return direct::Enqueue(stream, comm, args, Choose);
}

}  // namespace shardproof
