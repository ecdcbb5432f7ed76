// send_recv: every rank sends one block to a rank and receives one from
// another.
//
//     recv_r[i] = send_(source_r)[i]     for every rank r with a source,
//                                        i in 0..count-1
//
// where destination_s = r exactly if source_r = s: a ring shift, an exchange of
// partners, or a hop down a pipeline, whose ends have no source or destination.
//
//     // A shift by one: everybody gets the block of the rank before.
//     SendRecv(comm, {.send = x, .recv = y, .count = n, .dtype = DType::kF32,
//                     .destination = (r + 1) % p, .source = (r + p - 1) % p});
#ifndef SHARDPROOF_COLLECTIVES_SEND_RECV_SEND_RECV_H_
#define SHARDPROOF_COLLECTIVES_SEND_RECV_SEND_RECV_H_

#include <cstdint>

#include "collectives/communicator.h"
#include "collectives/device.h"
#include "collectives/traffic.h"
#include "reference/dtype.h"

namespace shardproof {

// Every rank of the communicator takes part. -1 stands for nobody; a rank may
// be its own partner. In place: send == recv. count and dtype are equal on all
// ranks.
struct SendRecvArgs {
  const void* send = nullptr;
  void* recv = nullptr;
  int64_t count = 0;
  DType dtype = DType::kF32;
  int destination = -1;
  int source = -1;
};

// The variant that is fastest here for this size, on `stream`.
Status SendRecv(const Communicator& comm, const SendRecvArgs& args,
                const Stream& stream = Stream::Inline());

// One message each way, synchronous.
Status SendRecvMessage(const Communicator& comm, const SendRecvArgs& args);

// MPI_Sendrecv, ncclSend with ncclRecv: the library under test.
Status SendRecvNative(const Communicator& comm, const SendRecvArgs& args);

// Over shared memory, synchronous; comm.SharesMemory().
Status SendRecvDirect(const Communicator& comm, const SendRecvArgs& args);

// The cost of a shift by `distance` (0: every rank keeps its own) of `count`
// elements of `dtype` by each of `ranks` ranks.
Cost SendRecvMessageCost(int ranks, int64_t count, DType dtype, int distance);
Cost SendRecvDirectCost(int ranks, int64_t count, DType dtype, int distance,
                        Memory memory = Memory::kShared);

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_SEND_RECV_SEND_RECV_H_
