// barrier: no rank returns before every rank has entered.
//
//     enter_s happens before return_r        for all ranks r, s
//
//     Barrier(comm);
//
// Communicator::Barrier does the same for set-up code and is not measured;
// these are operations like any other, counted and seen by interceptors.
#ifndef SHARDPROOF_COLLECTIVES_BARRIER_BARRIER_H_
#define SHARDPROOF_COLLECTIVES_BARRIER_BARRIER_H_

#include "collectives/communicator.h"
#include "collectives/device.h"
#include "collectives/traffic.h"

namespace shardproof {

// The variant that is fastest here, on `stream`.
Status Barrier(const Communicator& comm,
               const Stream& stream = Stream::Inline());

// In round k rank r sends one byte to rank r + 2^k and waits for one from rank
// r - 2^k (Hensgen, Finkel and Manber, IJPP 17(1), 1988). Synchronous.
Status BarrierDissemination(const Communicator& comm);

// MPI_Barrier: the library under test.
Status BarrierNative(const Communicator& comm);

// One flag round over shared memory, synchronous; comm.SharesMemory().
Status BarrierDirect(const Communicator& comm);

Cost BarrierDisseminationCost(int ranks);
Cost BarrierDirectCost(int ranks);

}  // namespace shardproof

#endif  // SHARDPROOF_COLLECTIVES_BARRIER_BARRIER_H_
