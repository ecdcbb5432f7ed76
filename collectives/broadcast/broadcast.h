// broadcast: every rank gets what the root has.
//
//     recv_r[i] = send_root[i]     for every rank r, i in 0..count-1
//
//     Broadcast(comm, {.send = x, .recv = y, .count = n, .dtype = DType::kF32,
//                      .root = 0});
#ifndef SHARDPROOF_COLLECTIVES_BROADCAST_BROADCAST_H_
#define SHARDPROOF_COLLECTIVES_BROADCAST_BROADCAST_H_

#include <cstdint>

#include "collectives/communicator.h"
#include "collectives/device.h"
#include "collectives/traffic.h"
#include "reference/dtype.h"

namespace shardproof {

// `send` is read at the root only; `recv` is written on every rank, the root
// too. In place: send == recv. count, dtype and root are equal on all ranks.
struct BroadcastArgs {
  const void* send = nullptr;
  void* recv = nullptr;
  int64_t count = 0;
  DType dtype = DType::kF32;
  int root = 0;
};

// The variant that is fastest here for this size, on `stream`.
Status Broadcast(const Communicator& comm, const BroadcastArgs& args,
                 const Stream& stream = Stream::Inline());

// --- Variants over messages, synchronous -------------------------------------

// A binomial tree: ceil(lg p) steps of all bytes.
Status BroadcastBinomial(const Communicator& comm, const BroadcastArgs& args);

// Binomial scatter of p chunks, then ring all_gather (van de Geijn; Barnett et
// al., JPDC 22(2), 1994): twice the bytes of the message instead of lg p times.
Status BroadcastScatterAllGather(const Communicator& comm,
                                 const BroadcastArgs& args);

// A chain root, root + 1, ... through which k segments flow one behind the
// other; k = BroadcastChainSegments(bytes).
Status BroadcastChain(const Communicator& comm, const BroadcastArgs& args);
int64_t BroadcastChainSegments(int64_t bytes);

// MPI_Bcast, ncclBroadcast: the library under test.
Status BroadcastNative(const Communicator& comm, const BroadcastArgs& args);

// --- Variants over shared memory, synchronous; comm.SharesMemory() -----------

Status BroadcastDirect(const Communicator& comm, const BroadcastArgs& args);

// --- Costs -------------------------------------------------------------------
// For `count` elements of `dtype` to `ranks` ranks; the root does not matter.

Cost BroadcastBinomialCost(int ranks, int64_t count, DType dtype);
Cost BroadcastScatterAllGatherCost(int ranks, int64_t count, DType dtype);
Cost BroadcastChainCost(int ranks, int64_t count, DType dtype);
Cost BroadcastDirectCost(int ranks, int64_t count, DType dtype,
                         Memory memory = Memory::kShared);

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_BROADCAST_BROADCAST_H_
